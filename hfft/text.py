"""Text: the checkpoint's tokenizer, its limits, token ids with a count of what was cut off, and padding."""

import contextlib
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfft import origin, safety
from hfft.messages import InputError, announce, warn


@dataclass
class Lengths:
    """Token counts before truncation, collected while encoding."""

    tokens: Counter[int] = field(default_factory=Counter)  # number of tokens -> rows that have so many
    truncated: int = 0
    seen: int = 0  # tokens after truncation, without the special ones
    unknown: int = 0  # of those
    notes: Counter[str] = field(default_factory=Counter)  # what else a task tells of a split -> how often it was so

    def tell(self, split: str, max_length: int) -> None:
        """Announce the quantiles and the share of rows that were cut."""
        if not self.tokens:
            return
        sizes, rows = (np.array(column) for column in zip(*sorted(self.tokens.items()), strict=True))
        q50, q95, q100 = (int(q) for q in np.quantile(np.repeat(sizes, rows), [0.5, 0.95, 1.0]))
        share = self.truncated / rows.sum()
        line = f"{split}: {rows.sum():,} rows of {q50} tokens (median), {q95} (95 %), {q100} (longest)"
        if self.truncated:
            line += f"; {self.truncated:,} ({share:.1%}) are cut at {max_length} tokens"
        (warn if share > 0.05 else announce)(line)
        for what, count in self.notes.items():
            announce(f"{split}: {count:,} {what}")
        if self.unknown > 0.05 * self.seen:
            told = f"{self.unknown:,} of {self.seen:,} tokens ({self.unknown / self.seen:.0%})"
            warn(f"{split}: {told} are unknown to the tokenizer; is it the model's, and of the texts' language?")

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON keeps them, for the cache of encoded rows."""
        return vars(self) | {"tokens": sorted(self.tokens.items())}

    @classmethod
    def from_json(cls, counts: dict[str, Any]) -> "Lengths":
        """What `to_json` gave."""
        return cls(**counts | {"tokens": Counter(dict(counts["tokens"])), "notes": Counter(counts["notes"])})


def load_tokenizer(model):
    """The tokenizer of the recipe's model section (`.tokenizer`, else `.name`).

    Raises InputError when its files are missing: transformers would invent one of five tokens.
    """
    from transformers import AutoTokenizer

    name = model.tokenizer or model.name
    if name is None:
        raise InputError("model.tokenizer: a model made from a config needs the tokenizer of some checkpoint")
    folder = origin.tokenizer(model)
    if not _has_tokenizer_files(folder):
        raise InputError(f"model {name!r}: no tokenizer files in the folder; set model.tokenizer to a tokenizer's name")
    try:
        with safety.no_panic("the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # files of others fail in ways of their own
        raise InputError(f"model {name!r}: no tokenizer can be loaded: {origin.needs_code(error)}") from error
    tokenizer.name_or_path = name  # not where this machine keeps it
    return tokenizer


def _has_tokenizer_files(folder: Path) -> bool:
    names = {"tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "tekken.json"}
    endings = (".spm", ".bpe.model", ".model", ".tiktoken", "spiece.model")
    return any(f.name in names or f.name.endswith(endings) for f in folder.iterdir())


def check_vocabulary(tokenizer, config) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings (index out of range at the first step)."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    highest = max(len(tokenizer), 1 + max(getattr(tokenizer, "added_tokens_decoder", None) or [0]))
    if size is not None and highest > size:
        raise InputError(
            f"model.tokenizer: {tokenizer.name_or_path!r} has {highest} tokens, the model's embeddings {size}; "
            "set it to the tokenizer that the model was trained with"
        )


def max_length(tokenizer, config, wanted: int | None = None) -> int:
    """Tokens a row may have: `wanted`, never above what tokenizer and position embeddings allow."""
    config = config.get_text_config()
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    if odd := [x for x in limits if x is not None and type(x) not in (int, float)]:
        raise InputError(f"model.tokenizer: {tokenizer.name_or_path!r} names {odd[0]!r} as its longest text, no number")
    limit = int(min([x for x in limits if x and 0 < x < 1_000_000], default=wanted or 512))
    if wanted is not None and wanted > limit:
        raise InputError(f"max_length {wanted} is above the {limit} tokens of this model; write at most {limit}")
    return wanted or limit


def fit_positions(net, tokenizer, limit: int) -> int:
    """`limit`, or less where the position embeddings keep places for padding, as RoBERTa's do; the tokenizer saves it.

    Their size in the config counts those places too, and the first row that is too long would end the run.
    """
    tables = [module for name, module in net.named_modules() if name.endswith("position_embeddings")]
    kept = [table for table in tables if getattr(table, "padding_idx", None) is not None]
    most = min((table.num_embeddings - table.padding_idx - 1 for table in kept), default=limit)
    if most < limit:
        announce(f"at most {most} tokens a row: the other positions of the model are for padding")
        tokenizer.model_max_length = most
    return min(most, limit)


def set_pad_token(tokenizer, config) -> None:
    """Give decoder-only models the pad token they lack, in tokenizer and config; where both have one, it must agree."""
    text = config.get_text_config()
    known = text.pad_token_id if isinstance(text.pad_token_id, int) and text.pad_token_id >= 0 else None
    if tokenizer.pad_token is None:
        own = tokenizer.convert_ids_to_tokens(known) if known is not None and known < len(tokenizer) else None
        tokenizer.pad_token = own or tokenizer.unk_token or tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise InputError("the tokenizer has no pad, unknown or end token; add a pad token to it")
        announce(f"pad token {tokenizer.pad_token!r} (the tokenizer had none; saved with the model)")
    elif known is not None and known != tokenizer.pad_token_id:
        raise InputError(
            f"model.tokenizer: {tokenizer.name_or_path!r} pads with token {tokenizer.pad_token_id}, the model with "
            f"{known} (config.json, pad_token_id), so padding would be read; set it to the model's own tokenizer, or "
            f"model.config.pad_token_id={tokenizer.pad_token_id}"
        )
    if text.pad_token_id != tokenizer.pad_token_id:
        announce(f"model's pad_token_id {text.pad_token_id} -> {tokenizer.pad_token_id} (the tokenizer's)")
        text.pad_token_id = config.pad_token_id = tokenizer.pad_token_id


def encode(tokenizer, texts: list[str], pairs: list[str] | None, limit: int, lengths: Lengths) -> dict[str, list]:
    """Token ids of a batch, unpadded, those of `tokenizer(texts, pairs, truncation=True, max_length=limit)`.

    `token_type_ids` only where they are not all zero: `padded` makes those, and the attention mask. Counts of tokens
    before the cut go to `lengths`.
    """
    with safety.no_panic("the tokenizer"):
        encoded = _whole(tokenizer, texts, pairs)
    sizes = [len(ids) for ids in encoded["input_ids"]]
    long = [i for i, size in enumerate(sizes) if size > limit]
    if long:  # only those are encoded again, by the tokenizer's own rules of what to cut
        with _as_it_was(tokenizer):
            some = [texts[i] for i in long], [pairs[i] for i in long] if pairs else None
            cut = tokenizer(*some, truncation=True, max_length=limit, padding=False, verbose=False)
        for name, column in encoded.items():
            for i, values in zip(long, cut[name], strict=True):
                column[i] = values
    lengths.tokens.update(sizes)
    lengths.truncated += len(long)
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.pad_token_id:
        special = tokenizer.num_special_tokens_to_add(pair=bool(pairs))
        lengths.seen += sum(max(0, len(ids) - special) for ids in encoded["input_ids"])
        lengths.unknown += sum(ids.count(unknown) for ids in encoded["input_ids"])
    return encoded


def pieces(
    tokenizer, texts: list[str], lengths: Lengths, *, words: bool = False
) -> tuple[list[list[int]], list[list[int | None]] | None]:
    """(token ids of whole texts without special tokens, the word that each token is of).

    The words are None unless asked for, and where the tokenizer cannot tell them. Counts go to `lengths`.
    """
    if _is_plain(tokenizer):
        with safety.no_panic("the tokenizer"), _as_it_was(tokenizer) as backend:
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = tokenizer.split_special_tokens
            # which is quicker, and does not tell words
            encode = backend.encode_batch if words else backend.encode_batch_fast
            found = encode(texts, add_special_tokens=False)
        ids, told = [row.ids for row in found], [row.word_ids for row in found] if words else None
    else:
        batch = tokenizer(texts, add_special_tokens=False, padding=False, verbose=False)
        ids = batch["input_ids"]
        told = [batch.word_ids(i) for i in range(len(texts))] if words and batch.is_fast else None
    special = tokenizer.num_special_tokens_to_add()
    lengths.tokens.update(len(row) + special for row in ids)
    if tokenizer.unk_token_id not in (None, tokenizer.pad_token_id):
        lengths.seen += sum(map(len, ids))
        lengths.unknown += sum(row.count(tokenizer.unk_token_id) for row in ids)
    return ids, told


def _whole(tokenizer, texts: list[str], pairs: list[str] | None) -> dict[str, list]:
    """input_ids and, where they tell something, token_type_ids of whole rows, nothing cut."""
    with_types = "token_type_ids" in tokenizer.model_input_names
    if not _is_plain(tokenizer):
        batch = tokenizer(texts, pairs, padding=False, verbose=False)
        ids, types = batch["input_ids"], batch.get("token_type_ids") if with_types else None
        told = types is not None and any(map(any, types))
    else:
        with _as_it_was(tokenizer) as backend:
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = tokenizer.split_special_tokens
            # without offsets, which only the slower encode_batch gives
            found = backend.encode_batch_fast(texts if pairs is None else list(zip(texts, pairs, strict=True)))
        ids = [row.ids for row in found]
        # A template gives all tokens of a text one type: what the longest row of single texts shows holds for all.
        told = with_types and (pairs is not None or any(max(found, key=len).type_ids))
        types = [row.type_ids for row in found] if told else None
    return {"input_ids": ids, **({"token_type_ids": types} if told else {})}


def _is_plain(tokenizer) -> bool:
    """Whether a call of this tokenizer is a call of the Rust backend and nothing besides."""
    from transformers import TokenizersBackend

    kind = type(tokenizer)
    return isinstance(tokenizer, TokenizersBackend) and all(
        getattr(kind, name) is getattr(TokenizersBackend, name) for name in ("__call__", "_encode_plus")
    )


@contextlib.contextmanager
def _as_it_was(tokenizer) -> Iterator[Any]:
    """The Rust backend (None: it has none), its truncation and padding put back after the block.

    They are state that is saved with the tokenizer, and should not depend on which rows were encoded last.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield None
        return
    truncation, padding = backend.truncation, backend.padding
    try:
        yield backend
    finally:
        backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
        backend.enable_padding(**padding) if padding else backend.no_padding()


def identity(tokenizer) -> str:
    """A hash of everything in a tokenizer (or processor, or None) that decides on ids: its content, not its place."""
    names = ("special_tokens_map", "model_input_names", "truncation_side", "split_special_tokens")
    about = [type(tokenizer).__qualname__, *(getattr(tokenizer, name, None) for name in names)]
    digest = hashlib.blake2b(json.dumps(about, default=str).encode(), digest_size=16)
    if tokenizer is None:
        return digest.hexdigest()
    if _is_plain(tokenizer):
        with _as_it_was(tokenizer) as backend:
            backend.no_truncation()
            backend.no_padding()
            digest.update(backend.to_str().encode())
        return digest.hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def collate(tokenizer, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What `tokenizer.pad` makes of rows of ids: those of model_input_names that it knows, (batch, tokens) int64."""
    sizes = [len(row["input_ids"]) for row in rows]
    side, known = tokenizer.padding_side, tokenizer.model_input_names
    places = places_of(sizes, side)
    inputs = {"input_ids": padded([row["input_ids"] for row in rows], tokenizer.pad_token_id, places)}
    if "token_type_ids" in known:
        if "token_type_ids" in rows[0]:
            types = padded([row["token_type_ids"] for row in rows], tokenizer.pad_token_type_id, places)
        else:  # all zero: see `encode`
            types = torch.from_numpy(np.where(places, 0, tokenizer.pad_token_type_id))
        inputs["token_type_ids"] = types
    if "attention_mask" in known:
        inputs["attention_mask"] = torch.from_numpy(places.astype(np.int64))
    return inputs


def places_of(sizes: Sequence[int], side: str) -> np.ndarray:
    """(rows, tokens) bool: where a row has tokens, the others being padding on that side."""
    counts, width = np.array(sizes)[:, None], np.arange(max(sizes))
    return width < counts if side == "right" else width >= len(width) - counts


def padded(values: Sequence[Any], fill: int, places: np.ndarray) -> torch.Tensor:
    """Rows of numbers, each into its `places`, `fill` elsewhere: (rows, tokens) int64."""
    out = np.full(places.shape, fill, dtype=np.int64)
    out[places] = np.concatenate(values, dtype=np.int64, casting="unsafe")
    return torch.from_numpy(out)

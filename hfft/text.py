"""Text: the checkpoint's tokenizer, its limits, and token ids with a count of what was cut off."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hfft.messages import InputError, announce, warn


@dataclass
class Lengths:
    """Token counts before truncation, collected while encoding."""

    tokens: list[int] = field(default_factory=list)
    truncated: int = 0
    unknown: int = 0

    def tell(self, split: str, max_length: int) -> None:
        """Announce the quantiles and the share of rows that were cut."""
        if not self.tokens:
            return
        q50, q95, q100 = (int(q) for q in np.quantile(self.tokens, [0.5, 0.95, 1.0]))
        share = self.truncated / len(self.tokens)
        line = f"{split}: {len(self.tokens):,} rows of {q50} tokens (median), {q95} (95 %), {q100} (longest)"
        if self.truncated:
            line += f"; {self.truncated:,} ({share:.1%}) are cut at {max_length} tokens"
        (warn if share > 0.05 else announce)(line)
        if self.unknown > 0.05 * sum(self.tokens):
            warn(f"{split}: {self.unknown / sum(self.tokens):.0%} of the tokens are unknown to the tokenizer")


def load_tokenizer(model):
    """The tokenizer of the recipe's model section (`.tokenizer`, else `.name`).

    Raises InputError when its files are missing: transformers would invent one of five tokens.
    """
    from transformers import AutoTokenizer

    name = model.tokenizer or model.name
    if name is None:
        raise InputError("model.tokenizer: a model made from a config needs the tokenizer of some checkpoint")
    folder = Path(name)
    if folder.is_dir() and not _has_tokenizer_files(folder):
        raise InputError(f"model {name!r}: no tokenizer files in the folder; set model.tokenizer to a tokenizer's name")
    revision = None if model.tokenizer else model.revision
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model {name!r}: no tokenizer can be loaded: {str(error).splitlines()[0]}") from error


def _has_tokenizer_files(folder: Path) -> bool:
    names = {"tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "tekken.json"}
    endings = (".spm", ".bpe.model", ".model", ".tiktoken", "spiece.model")
    return any(f.name in names or f.name.endswith(endings) for f in folder.iterdir())


def check_vocabulary(tokenizer, config) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings (index out of range at the first step)."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    if size is not None and len(tokenizer) > size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model's embeddings {size}; "
            "set model.tokenizer to the one the model was trained with"
        )


def max_length(tokenizer, config, wanted: int | None = None) -> int:
    """Tokens a row may have: `wanted`, never above what tokenizer and position embeddings allow."""
    config = config.get_text_config()
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    limit = int(min([x for x in limits if x and 0 < x < 1_000_000], default=wanted or 512))
    if wanted is not None and wanted > limit:
        raise InputError(f"max_length {wanted} is above the {limit} tokens of this model; write at most {limit}")
    return wanted or limit


def set_pad_token(tokenizer, config) -> None:
    """Give decoder-only models the pad token they lack, in tokenizer and config, and make the two agree."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise InputError("the tokenizer has no pad, unknown or end token; add a pad token to it")
        announce(f"pad token {tokenizer.pad_token!r} (the tokenizer had none; saved with the model)")
    text = config.get_text_config()
    if text.pad_token_id != tokenizer.pad_token_id:
        announce(f"model's pad_token_id {text.pad_token_id} -> {tokenizer.pad_token_id} (the tokenizer's)")
        text.pad_token_id = config.pad_token_id = tokenizer.pad_token_id


def encode(tokenizer, texts: list[str], pairs: list[str] | None, limit: int, lengths: Lengths) -> dict[str, list]:
    """Token ids of a batch, unpadded, cut at `limit`; counts go to `lengths`."""
    batch = tokenizer(texts, pairs, truncation=True, max_length=limit, padding=False, verbose=False)
    for row in batch.encodings or []:
        cut = sum(len(part.ids) - sum(part.special_tokens_mask) for part in row.overflowing)
        lengths.tokens.append(len(row.ids) + cut)
        lengths.truncated += bool(cut)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id != tokenizer.pad_token_id:
        lengths.unknown += sum(ids.count(tokenizer.unk_token_id) for ids in batch["input_ids"])
    return dict(batch)

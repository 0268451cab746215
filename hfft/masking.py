"""Masking: which tokens of a row are hidden from a masked language model, and rows packed of several texts.

BERT's rule (https://arxiv.org/abs/1810.04805, section 3.1): of the tokens drawn most become the mask token, some a
random one, and the rest stay as they are; the model is asked for all of them. Whole words instead of single tokens:
https://github.com/google-research/bert#new-may-31st-2019-whole-word-masking-models. Packing is RoBERTa's FULL-SENTENCES
(https://arxiv.org/abs/1907.11692, section 4.2). Random numbers are those of NumPy's global generator.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hfft import models, text
from hfft.messages import InputError

IGNORED = -100  # the label of a token that is not asked for
PROBE = "a"


@dataclass(frozen=True)
class Rule:
    """What is drawn: each token or word with `probability`, of those `mask` hidden and `random` exchanged, as shares.

    `special` are ids that are never drawn and never put in, sorted; `size` is the tokenizer's number of ids.
    """

    probability: float
    mask: float
    random: float
    mask_id: int
    special: tuple[int, ...]
    size: int


def draw(ids: np.ndarray, begins: np.ndarray | None, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """(ids with some hidden, labels: the id where one is asked for, -100 elsewhere), (tokens,) int64 each.

    `begins` is 1 where a word begins; with it words are drawn whole. At least one is, where there is any to draw.
    """
    ids = ids.astype(np.int64)
    candidates = np.flatnonzero(~np.isin(ids, rule.special))
    words = np.arange(len(candidates)) if begins is None else np.cumsum(begins)[candidates]
    units, unit = np.unique(words, return_inverse=True)
    if not len(units):
        return ids, np.full_like(ids, IGNORED)
    chosen = np.random.random(len(units)) < rule.probability
    if not chosen.any():
        chosen[np.random.randint(len(units))] = True
    places = candidates[chosen[unit]]
    labels = np.full_like(ids, IGNORED)
    labels[places] = ids[places]
    fate = np.random.random(len(places))
    others = _ordinary(rule, len(places))
    hidden = ids.copy()
    hidden[places] = np.where(
        fate < rule.mask, rule.mask_id, np.where(fate < rule.mask + rule.random, others, ids[places])
    )
    return hidden, labels


def _ordinary(rule: Rule, count: int) -> np.ndarray:
    """Ids drawn evenly from those that are not special."""
    found = np.random.randint(rule.size - len(rule.special), size=count)
    for special in rule.special:  # in order: each pushes what is not below it up by one
        found += found >= special
    return found


def around(tokenizer) -> tuple[list[int], list[int]]:
    """The special ids that the tokenizer puts before and after a text. Raises InputError where it does more."""
    whole, bare = tokenizer(PROBE), tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    ids, size = whole["input_ids"], len(bare)
    start = next((i for i in range(len(ids) - size + 1) if ids[i : i + size] == bare), None)
    if start is None or any(whole.get("token_type_ids") or []):
        name = tokenizer.name_or_path
        raise InputError(f"model.tokenizer: {name!r} puts more into a text than special tokens around it; name another")
    return ids[:start], ids[start + size :]


def tells_words(tokenizer) -> bool:
    """Whether the tokenizer says of which word a token is."""
    _, words = text.pieces(tokenizer, ["one two three"], text.Lengths(), words=True)
    return words is not None and len(set(words[0])) > 2


def word_begins(words: list[int | None]) -> list[int]:
    """1 for each token that begins a word, 0 for one that goes on with it."""
    return [int(i == 0 or word is None or word != words[i - 1]) for i, word in enumerate(words)]


@dataclass
class Piece:
    """Tokens of one row (of several texts, where they are packed) and the first text's number."""

    owner: int
    ids: list[int]
    begins: list[int]


def packed(texts: Iterable[Piece], room: int, separator: list[int]) -> Iterator[Piece]:
    """The texts' tokens one after the other, with a separator between two texts, in rows of `room`; none is lost.

    The last row is what is left. A text that does not end in a row goes on in the next.
    """
    row: Piece | None = None
    for piece in texts:
        start = 0
        while start < len(piece.ids):
            if row is None:
                row = Piece(piece.owner, [], [])
            gap = separator if row.ids else []
            free = room - len(row.ids) - len(gap)
            if free > 0:
                row.ids += [*gap, *piece.ids[start : start + free]]
                row.begins += [1] * len(gap) + piece.begins[start : start + free]
                start += free
            if free <= 0 or len(row.ids) == room:
                yield row
                row = None
    if row is not None:
        yield row


# ---- the head, only where it is asked --------------------------------------------------------------------------------
@contextmanager
def only_at(net, places: torch.Tensor) -> Iterator[None]:
    """Inside the block the head of `net` sees only the tokens at `places` (rows, tokens) bool, as one row of them.

    A prompt method's virtual tokens, which stand before the text, are passed over.
    """

    def chosen(_module, _inputs, outputs):
        hidden = outputs[0]
        picked = hidden[:, hidden.shape[1] - places.shape[1] :][places].unsqueeze(0)
        if isinstance(outputs, tuple):
            return (picked, *outputs[1:])
        outputs.last_hidden_state = picked
        return outputs

    handle = net.base_model.register_forward_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


def head_is_local(model, inputs: dict[str, torch.Tensor], places: torch.Tensor) -> bool:
    """Whether the head answers for some tokens as it does for all: tried on two rows, in fp32 and evaluation mode."""
    net = inner(model)
    if net.base_model is net:
        return False
    model = getattr(model, "module", model)  # DDP would wait for the other processes
    rows, few = {name: value[:2] for name, value in inputs.items()}, places[:2]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(few.device.type, enabled=False):
            whole = at(model(**rows).logits, few)
            with only_at(net, few):
                some = model(**rows).logits[0]
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False  # a head that wants the whole text
    finally:
        for module, training in modes.items():
            module.training = training
    return some.shape == whole.shape and torch.allclose(some, whole, rtol=1e-3, atol=1e-3)


def at(logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(number of places, vocabulary) of a whole batch's logits (rows, tokens, vocabulary)."""
    return logits[:, logits.shape[1] - places.shape[1] :][places]


def hooks_fit(model) -> bool:
    """Whether `only_at` can be used: not in a compiled model, nor where one process drives several GPUs."""
    return not (hasattr(model, "_orig_mod") or isinstance(model, torch.nn.DataParallel))


def inner(model) -> Any:
    """The transformers model inside DDP and peft."""
    return models.unwrapped(model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model)

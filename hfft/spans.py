"""Spans of a context: overlapping windows of tokens, where an answer lies in them, and the likeliest spans of logits.

A question and its context that are longer than the model takes become several windows: the whole question and a part
of the context each, which shares `stride` tokens with the one before (section 3.1 of https://arxiv.org/abs/1901.08634).
"""

from typing import Any

import numpy as np
import torch

from hfft import safety, text
from hfft.messages import InputError

LINES = 20  # that an error has at most


def windows(tokenizer, questions: list[str], contexts: list[str], limit: int, stride: int) -> dict[str, list]:
    """Columns with a cell for each window, unpadded: `place` (of its row), `input_ids` (, `token_type_ids`), …

    `context` is [the first token of the context in it, the one after its last]; `offsets` (tokens, 2) are the
    characters of those, int64.
    """
    with safety.no_panic("the tokenizer"), text._as_it_was(tokenizer):
        found = tokenizer(
            questions,
            contexts,
            truncation="only_second",
            max_length=limit,
            stride=stride,
            padding=False,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
    columns = {name: found[name] for name in ("input_ids", "token_type_ids") if name in found}
    columns |= {"place": list(found["overflow_to_sample_mapping"]), "context": [], "offsets": []}
    for i, offsets in enumerate(found["offset_mapping"]):
        parts = found.sequence_ids(i)
        first = parts.index(1) if 1 in parts else len(parts)
        stop = first + parts.count(1)
        columns["context"].append([first, stop])
        columns["offsets"].append(np.array(offsets[first:stop], dtype=np.int64).reshape(-1, 2))
    return columns


def refuse_long(tokenizer, texts: tuple[list[str], list[str]], names: list, limit: int, stride: int) -> None:
    """Raise InputError with a line for each row (called `names`) whose question leaves too little of a window.

    `texts` are questions and contexts. A question is never cut, and each window but the last has to go on by a token.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    with safety.no_panic("the tokenizer"), text._as_it_was(tokenizer):
        sizes = list(map(len, tokenizer(texts[0], add_special_tokens=False, verbose=False)["input_ids"]))
        long = [i for i, size in enumerate(sizes) if limit - special - size <= stride]
        # one whose context is so short that all of it fits is no problem
        some = [[column[i] for i in long] for column in texts]
        whole = list(map(len, tokenizer(*some, verbose=False)["input_ids"])) if long else []
    wrong = [
        f"row {names[i]}, column 'question': has {sizes[i]:,} tokens; more than {limit - special - stride - 1:,} leave "
        f"no room for the context (max_length {limit}, stride {stride}); shorten it, or change one of them"
        for i, size in zip(long, whole, strict=True)
        if size > limit
    ]
    if wrong:
        raise InputError(*wrong[:LINES], *([f"… and {len(wrong) - LINES:,} more"] if len(wrong) > LINES else []))


def tokens_of(offsets: np.ndarray, start: int, stop: int) -> tuple[int, int] | None:
    """(first, last) token of the characters from `start` up to `stop`; None where they are not all in the window.

    `offsets` (tokens, 2) are those of the window's context.
    """
    if not len(offsets) or offsets[0, 0] > start or offsets[-1, 1] < stop:
        return None
    starts, stops = np.maximum.accumulate(offsets).T  # ascending also where a token has no characters
    first = int(np.searchsorted(starts, start, side="right")) - 1
    return first, max(first, int(np.searchsorted(stops, stop, side="left")))


def best(
    start: torch.Tensor, end: torch.Tensor, inside: torch.Tensor, longest: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(scores, first tokens, last tokens), each (windows, count), of the likeliest spans, the best first.

    `start` and `end` are logits (windows, tokens), the score is their sum; `inside` (windows, tokens) bool says which
    tokens may be in an answer, of `longest` tokens at most. Where there are fewer spans, scores are -inf.
    """
    width, tokens = min(longest, start.shape[1]), start.shape[1]
    nowhere = float("-inf")
    first = start.float().masked_fill(~inside, nowhere)
    last = torch.nn.functional.pad(end.float().masked_fill(~inside, nowhere), (0, width - 1), value=nowhere)
    sums = (first[:, :, None] + last.unfold(1, width, 1)).flatten(1)  # span i * width + j: from i, of j more tokens
    scores, spans = sums.topk(min(count, tokens * width), dim=1)
    firsts = spans // width
    return scores, firsts, firsts + spans % width


def characters(offsets: np.ndarray, first: int, last: int, context: str) -> tuple[int, int]:
    """(start, stop) of the tokens from `first` up to and with `last`, without blanks around, which some tokens have."""
    start, stop = int(offsets[first, 0]), int(offsets[last, 1])
    text = context[start:stop]
    return start + len(text) - len(text.lstrip()), stop - len(text) + len(text.rstrip())


def merged(found: list[tuple[float, int, int]], count: int) -> list[tuple[float, int, int]]:
    """The `count` best (score, start, stop), each span once: windows overlap."""
    known: dict[tuple[int, int], float] = {}
    for score, start, stop in found:
        known[start, stop] = max(score, known.get((start, stop), score))
    ordered = sorted(((score, *span) for span, score in known.items()), key=lambda each: -each[0])
    return ordered[:count]


def probabilities(scores: list[float]) -> list[float]:
    """Softmax."""
    values: Any = np.exp(np.array(scores) - max(scores))
    return (values / values.sum()).tolist()

"""Windows of words: rows longer than the model takes are read in several, each word judged once; none is cut.

Which window judges a word is decided as in BERT's run_squad.py ("max context"): the one that shows most around it.
"""

import bisect
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

from hfft import text

Span = tuple[int, int]


def pieces(tokenizer: Any, rows: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of each word of each row, as `tokenizer(words, is_split_into_words=True)` gives them.

    Byte-level tokenizers get the blank before a word that they were trained with (`add_prefix_space`). Each different
    word is encoded once.
    """
    places = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(rows)))}
    lead = leading(tokenizer)
    ids = _ids(tokenizer, [lead + word for word in places]) if places else []
    return [[ids[places[word]] for word in row] for row in rows]


def leading(tokenizer: Any) -> str:
    """What stands before a word in the middle of a text, as far as the tokenizer keeps it: a blank, or nothing."""
    bare, after, both = _ids(tokenizer, ["a", " a", "a a"])
    return " " if both != bare + bare and both == bare + after else ""


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return text.pieces(tokenizer, texts, text.Lengths())[0]


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a single text."""
    bare, whole = _ids(tokenizer, ["a"])[0], text.encode(tokenizer, ["a"], None, 512, text.Lengths())["input_ids"][0]
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return list(whole[:at]), list(whole[at + len(bare) :])


def windows(sizes: Sequence[int], room: int, stride: int) -> list[tuple[Span, Span]]:
    """(words in a window, those of them that it judges) for each window of at most `room` tokens.

    `sizes` are the tokens of each word, none above `room`. They share at least `stride` tokens as far as words allow.
    A word that stands in several is judged where the shorter of its two sides is longest: every word exactly once.
    """
    ends = [0, *accumulate(sizes)]
    count = len(sizes)
    if ends[-1] <= room:
        return [((0, count), (0, count))]
    spans = [(0, bisect.bisect_right(ends, room) - 1)]
    while (end := spans[-1][1]) < count:
        least = bisect.bisect_left(ends, ends[end + 1] - room)  # from here on the next word has room too
        wanted = bisect.bisect_right(ends, ends[end] - stride) - 1
        start = min(max(least, wanted, spans[-1][0] + 1), end)
        last = min(bisect.bisect_right(ends, ends[start] + room) - 1, count)
        if last == count:  # the last window reaches back as far as it can: more to read costs nothing
            start = min(start, bisect.bisect_left(ends, ends[count] - room))
        spans.append((start, last))
    cuts = [0, *(_cut(ends, spans[i + 1][0], spans[i][1]) for i in range(len(spans) - 1)), count]
    return list(zip(spans, pairwise(cuts), strict=True))


def _cut(ends: list[int], start: int, end: int) -> int:
    """The first word of those from `start` to `end`, in both windows, that the second judges: half of what they share.

    Left of a word the second window shows what is after `start`, right of it the first what is before `end`.
    """
    return next((w for w in range(start, end) if ends[w] - ends[start] > ends[end] - ends[w + 1]), end)

"""Words of a text: where each begins and ends, for tasks that answer by word."""

import unicodedata
from functools import lru_cache

# Scripts that are written without blanks between words: each letter is a word of its own, so that a span can end there.
ALONE = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)  # fmt: skip
BLANK, LETTER, SINGLE, MARK = range(4)
JOINER = "\u200d"  # between the parts of one emoji, or of letters


@lru_cache(maxsize=65536)
def _kind(character: str) -> int:
    if character.isspace():
        return BLANK
    if unicodedata.category(character)[0] == "M" or unicodedata.category(character) == "Cf":
        return MARK  # an accent, or what joins two emoji: it goes on with what is before it
    if any(low <= ord(character) <= high for low, high in ALONE):
        return SINGLE
    return LETTER if character.isalnum() or character == "_" else SINGLE


def bounds(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word: a run of letters and digits, or any other visible character by itself.

    As BERT's tokenizer parts a text before it looks for pieces, so that a word never holds a letter and a full stop.
    """
    found: list[list[int]] = []
    before = BLANK
    for i, character in enumerate(text):
        kind = _kind(character)
        if kind == BLANK:
            before = BLANK
        elif before != BLANK and (kind == MARK or text[i - 1] == JOINER or (kind == LETTER and before == LETTER)):
            found[-1][1] = i + 1
        else:
            found.append([i, i + 1])
            before = SINGLE if kind == MARK else kind
    return [(start, end) for start, end in found]

"""Word lists: a cell of the column "tokens" is a list of words."""

from typing import Any

from hfft.reading.source import Problem, Source, shown

SKIP = "or set data.on_bad_row: skip"


def check(source: Source, column: str) -> list[Problem]:
    """Each cell a list of words that are not blank; the column gets its final form."""
    values = [list(cell) if isinstance(cell, tuple) else cell for cell in source.values(column)]
    problems = []
    for i, cell in enumerate(values):
        if found := fault(cell):
            problems.append(Problem(i, column, cell, *found))
            values[i] = None
    source.columns[column] = values
    return problems


def fault(cell: Any) -> tuple[str, str] | None:
    """(what is wrong with a cell, what to do)."""
    if cell is None:
        return "is empty", f"write a list of tokens, {SKIP}"
    if isinstance(cell, str):
        return f"is the text {shown(cell)}, though other rows are lists of tokens", "write all rows in one form"
    if not isinstance(cell, list):
        return f"is {shown(cell)}, no list of tokens", f"write a list of texts, {SKIP}"
    if not cell:
        return "has no tokens", f"write a list of tokens, {SKIP}"
    for i, word in enumerate(cell):
        if not isinstance(word, str):
            return f"word {i} is {shown(word)}, no text", f"write it as a string, {SKIP}"
        if not word.strip():
            return f"word {i} is {'empty' if not word else 'blank'}", f"write a token, {SKIP}"
        if not is_unicode(word):
            return f"word {i} holds half a surrogate pair, which is no character", f"repair it, {SKIP}"
    return None


def is_unicode(word: str) -> bool:
    """Whether a word can be written as UTF-8."""
    return word.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in word)

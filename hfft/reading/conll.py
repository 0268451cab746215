"""CoNLL files: a token a line with its tags in columns, a blank line after each sentence; read without csv quoting.

The columns are "tokens" (the first), "tags" (the last), and each by its number from 0. Format of the CoNLL-2003 task:
https://www.clips.uantwerpen.be/conll2003/ner/
"""

import re
from collections import Counter
from collections.abc import Iterator

from hfft.messages import InputError, announce
from hfft.reading.source import Source, cut, one_file, plural
from hfft.reading.textfile import opened

ENDINGS = (".conll", ".bio", ".iob", ".iob2")
OPTIONS = ("encoding", "format")
START = "-DOCSTART-"
BLANKS = re.compile("[ \t]+")
Line = tuple[int, list[str]]


def read_conll(path: str, name: str, load: dict) -> Source:
    """The sentences of one file, numbered by their first lines. Raises InputError with each line that does not fit."""
    with opened(path, name, load.get("encoding"))() as file:  # lines end at \n, \r\n or \r, and nowhere else
        lines = [line.rstrip("\r\n") for line in file]
    text = [line for line in lines if line.strip(" \t")]
    tabs = bool(text) and all("\t" in line for line in text if not line.startswith(("#", START)))
    width = width_of(text, tabs)
    sentences: list[list[Line]] = []
    told: Counter[str] = Counter()
    bad: list[str] = []
    for block in blocks(lines):
        words: list[Line] = []
        for number, line in block:
            cells = cells_of(line, tabs)
            if cells[0] == START:
                told["documents"] += 1
                sentences += [words] if words else []
                words = []
            elif line.startswith("#") and len(cells) != width:
                told["comments"] += 1
            elif fault := fault_of(cells, width):
                bad.append(f"{name} line {number}: {fault}")
            else:
                words.append((number, cells))
        sentences += [words] if words else []
    if bad:
        raise InputError(*cut(bad))
    if not sentences:
        raise InputError(f"{name}: there are no sentences in it; give a file with a token a line")
    tell(name, told, sentences, width, tabs)
    return to_source(name, sentences, width)


def blocks(lines: list[str]) -> Iterator[list[tuple[int, str]]]:
    """(number, line) of the lines between blank ones."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip(" \t"):
            block.append((number, line))
        elif block:
            yield block
            block = []


def cells_of(line: str, tabs: bool) -> list[str]:
    """The columns of a line; between tabs a token may hold blanks."""
    return [cell.strip(" ") for cell in line.split("\t")] if tabs else BLANKS.split(line.strip(" \t"))


def width_of(text: list[str], tabs: bool) -> int:
    """How many columns most lines have."""
    plain = [line for line in text if not line.startswith(("#", START))] or text
    counts = Counter(len(cells_of(line, tabs)) for line in plain)
    return counts.most_common(1)[0][0] if counts else 0


def fault_of(cells: list[str], width: int) -> str:
    """What is wrong with a line, and what to write."""
    if len(cells) != width:
        return (
            f"has {plural(len(cells), 'column')} ({cells[0][:30]!r} …), where other lines have {width}; write {width}"
        )
    empty = next((i for i, cell in enumerate(cells) if not cell), None)
    return "" if empty is None else f"column {empty} is empty; write a token and its tag, O for none"


def tell(name: str, told: Counter[str], sentences: list[list[Line]], width: int, tabs: bool) -> None:
    """What was found in the file, and what in it is no token."""
    more = [f"{told['documents']:,} {START} lines"] if told["documents"] else []
    more += [plural(told["comments"], "comment")] if told["comments"] else []
    found = f"{plural(len(sentences), 'sentence')} of {sum(map(len, sentences)):,} tokens, {plural(width, 'column')}"
    rest = f"; not read: {', '.join(more)}" if more else ""
    announce(f"{name}: {found} parted by {'tabs' if tabs else 'blanks'}{rest}")


def to_source(name: str, sentences: list[list[Line]], width: int) -> Source:
    """A list a sentence for each column, which has two names where it is the first or the last."""
    columns = {str(i): [[cells[i] for _, cells in words] for words in sentences] for i in range(width)}
    named = {"tokens": columns["0"]}
    if width > 1:  # else the tokens' other name would be a candidate for the tags
        named |= {"tags": columns[str(width - 1)], **columns}
    source = one_file(named, name, [words[0][0] for words in sentences], "line")
    source.hint = (
        " Of a CoNLL file the first column is the tokens and the last the tags, unless data.columns says else."
    )
    return source

"""csv and tsv files: strict, by line, and every cell stays the text it is ("NA", "01", "1.0"); an empty cell is empty.

Python's csv module reads them, not pandas or `datasets`, because those turn "NA" into null and "01" into 1, and cannot
name the line of a mistake.
"""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from hfft.messages import InputError, announce
from hfft.reading.source import Growing, Source, as_list, cut, one_file, plural
from hfft.reading.textfile import BLOCK, opened

OPTIONS = ("sep", "encoding", "quotechar", "quoting", "header", "column_names", "skiprows")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SNIFFED = 1 << 20  # characters that are looked at to find the separator
FIELD_LIMIT = 1 << 30  # csv's own limit of 131,072 characters is less than a long document
ROWS = 10_000  # that are held as Python's lists at a time
Opener = Callable[[], TextIO]


@dataclass
class Style:
    """How the characters of a file are cut into cells."""

    sep: str
    quotechar: str
    quoting: int

    def reader(self, text: str | Iterable[str], strict: bool = True):
        """csv's reader over a whole text or lines; `strict` refuses what lenient parsers guess at."""
        csv.field_size_limit(FIELD_LIMIT)
        options = {"delimiter": self.sep, "quoting": self.quoting, "strict": strict}
        lines = io.StringIO(text, newline="") if isinstance(text, str) else text
        return csv.reader(lines, quotechar=self.quotechar, **options)  # type: ignore[arg-type]


def read_delimited(path: str, name: str, load: dict) -> Source:
    """A csv or tsv file -> its rows, each with the line it begins at."""
    text = opened(path, name, load.get("encoding"))
    head, skipped = skip_lines(head_of(text), load.get("skiprows", 0))
    style = style_of(path, load)
    if not load.get("sep"):
        style.sep = sniff(head, style, name)
    grid = (cut_tabs if style.sep == "\t" else cut_rows)(text, name, style, skipped)
    tell_blanks(grid.last - grid.filled, name)
    return source_of(grid, name, load, style)


def head_of(text: Opener) -> str:
    """As much of the text as tells the separator, up to a line's end."""
    with text() as file:
        head = file.read(SNIFFED)
        return head if "\n" in head else head + file.read()


def style_of(path: str, load: dict) -> Style:
    """The style as the options say, else as the file's ending does."""
    default = "\t" if path.lower().endswith(".tsv") else ","
    quoting = quoting_of(load.get("quoting", "minimal"))
    quotechar = load.get("quotechar", '"')
    if not isinstance(quotechar, str) or len(quotechar) != 1 or quotechar in "\r\n":
        raise InputError(f"data.load.quotechar: {quotechar!r} is not one character; write '\"' or \"'\"")
    sep = separator(load.get("sep") or default)
    if sep == quotechar:
        raise InputError(f"data.load.quotechar: {quotechar!r} is the separator too; write another")
    return Style(sep, quotechar, quoting)


def skip_lines(text: str, count: Any) -> tuple[str, int]:
    """The text after its first `count` lines."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InputError(f"data.load.skiprows: {count!r} is not a number of lines; write 0, 1, 2 …")
    return "".join(itertools.islice(io.StringIO(text, newline=""), count, None)) if count else text, count


def quoting_of(value: Any) -> int:
    """csv's constant for the recipe's word (pandas' numbers are understood)."""
    known = {"minimal": csv.QUOTE_MINIMAL, 0: csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE, 3: csv.QUOTE_NONE}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    if value in known and not isinstance(value, bool):
        return known[value]
    raise InputError(f"data.load.quoting: {value!r} is not known; write 'minimal' (quotes are quotes) or 'none'")


def separator(value: Any) -> str:
    """One character; "\\t" written out and "tab" are the tab."""
    sep = {"\\t": "\t", "tab": "\t"}.get(value, value) if isinstance(value, str) else value
    if not isinstance(sep, str) or len(sep) != 1 or sep in '\r\n"':
        raise InputError(f"data.load.sep: {value!r} is not one character; write ',', ';', '|' or tab")
    return sep


def sniff(text: str, style: Style, name: str) -> str:
    """The separator: the ending's own when the first rows agree on it, else the one that they agree on, announced."""
    default, widths = style.sep, {}
    head = text[: text.rfind("\n", 0, SNIFFED) + 1 or None]
    for sep in (default, *SEPARATORS):
        reader = Style(sep, style.quotechar, style.quoting).reader(head, strict=False)
        widths[sep] = [len(row) for row in itertools.islice(reader, 100) if row]
    even = [sep for sep in widths if widths[sep] and widths[sep][0] > 1 and len(set(widths[sep])) == 1]
    in_header = [sep for sep in widths if widths[sep] and widths[sep][0] > 1]
    for candidates in (even, in_header):
        if default in candidates:
            return default
        if candidates:
            best = max(candidates, key=lambda sep: widths[sep][0])
            announce(f"{name}: separated by {SEPARATORS[best]} (the first line says so; set data.load.sep)")
            return best
    return default


@dataclass
class Grid:
    """Rows gathered a block at a time into columns; a row of another width than the first's is only remembered."""

    first: list[str] = field(default_factory=list)
    columns: list[Growing] = field(default_factory=list)
    lines: list[np.ndarray] = field(default_factory=list)  # at which the rows in `columns` begin
    ragged: list[tuple[int, int]] = field(default_factory=list)  # (line, cells)
    count: int = 0  # rows, blank ones too
    filled: int = 0  # rows that are not blank
    last: int = 0  # rows up to the last that is not blank

    def add(self, rows: list[list[str]], lines: list[int]) -> None:
        """The next rows and the lines at which they begin."""
        widths = np.fromiter(map(len, rows), np.int64, len(rows))
        full = np.flatnonzero(widths)
        if len(full) and not self.first:
            self.first = rows[full[0]]
            self.columns = [Growing() for _ in self.first]
        self.last = self.count + int(full[-1]) + 1 if len(full) else self.last
        self.filled, self.count = self.filled + len(full), self.count + len(rows)
        even = widths == len(self.first)
        self.ragged += [(lines[i], len(rows[i])) for i in full[~even[full]].tolist()]
        kept = rows if even.all() else [rows[i] for i in np.flatnonzero(even).tolist()]
        for column, cells in zip(self.columns, zip(*kept, strict=True), strict=False):
            column.add(cells)
        self.lines.append(np.array(lines, dtype=np.int64)[even])


def pieces(
    text: Callable[[], AbstractContextManager[Iterable[str]]], name: str, style: Style, skipped: int, size: int = ROWS
) -> Iterator[tuple[list[list[str]], list[int]]]:
    """The rows and the line at which each begins, `size` at a time."""
    with text() as file:
        reader, start = style.reader(itertools.islice(file, skipped, None)), skipped + 1
        while True:
            rows, lines = [], []
            try:
                for row in itertools.islice(reader, size):
                    rows.append(row)
                    lines.append(start)
                    start = reader.line_num + skipped + 1
            except csv.Error as error:
                raise quote_error(name, start, reader.line_num + skipped, error) from None
            if not rows:
                return
            yield rows, lines


def cut_rows(text: Opener, name: str, style: Style, skipped: int) -> Grid:
    """All rows."""
    grid = Grid()
    for rows, lines in pieces(text, name, style, skipped):
        grid.add(rows, lines)
    return grid


def quote_error(name: str, start: int, end: int, error: csv.Error) -> InputError:
    """The one line for a row that csv could not cut."""
    remedy = "close it, write quotes inside a field twice, or set data.load.quoting: none"
    if "end of data" in str(error) or end > start:
        return InputError(
            f"{name} line {start}: a quote is opened here and not closed rightly (read up to line {end}); {remedy}"
        )
    return InputError(f"{name} line {start}: text follows a closing quote; {remedy}")


def cut_tabs(text: Opener, name: str, style: Style, skipped: int) -> Grid:
    """Tab files are often written without quoting: read so where only that gives rows of equal width, announced."""
    if style.quoting == csv.QUOTE_NONE or not occurs(style.quotechar, text):
        return cut_rows(text, name, style, skipped)
    plain = Style(style.sep, style.quotechar, csv.QUOTE_NONE)
    count, widths = 0, set[int]()
    for rows, _ in pieces(text, name, plain, skipped):
        count, widths = count + len(rows), widths | {len(row) for row in rows if row}
    try:
        quoted = cut_rows(text, name, style, skipped)
    except InputError:
        if len(widths) != 1:
            raise
        quoted = Grid()
    if len(widths) == 1 and quoted.count != count:
        announce(f"{name}: read without quoting, its quotes are text (they do not pair; set data.load.quoting)")
        return cut_rows(text, name, plain, skipped)
    return quoted


def occurs(character: str, text: Opener) -> bool:
    """Whether a character is anywhere in the text."""
    with text() as file:
        return any(character in block for block in iter(lambda: file.read(BLOCK), ""))


def without_blanks(rows: list, lines: list[int], name: str) -> tuple[list[list[str]], list[int]]:
    """Blank lines are not rows; said when they stand between rows."""
    if all(rows):
        return rows, lines
    kept = [i for i, row in enumerate(rows) if row]
    tell_blanks((kept[-1] + 1 - len(kept)) if kept else 0, name)
    return [rows[i] for i in kept], [lines[i] for i in kept]


def tell_blanks(inside: int, name: str) -> None:
    """Say how many blank lines stand between rows."""
    if inside:
        announce(f"{name}: {plural(inside, 'blank line')} between the rows not read as rows")


def to_source(rows: list[list[str]], lines: list[int], name: str, load: dict, style: Style) -> Source:
    """Header and rows -> columns; rows of another width are refused."""
    grid = Grid()
    grid.add(rows, lines)
    return source_of(grid, name, load, style)


def source_of(grid: Grid, name: str, load: dict, style: Style) -> Source:
    """Header and rows -> columns; rows of another width are refused."""
    names, from_file = header([grid.first] if grid.first else [], name, load)
    if grid.filled == from_file:
        raise InputError(f"{name}: there are no rows below the header; give a file with rows")
    if grid.ragged:
        raise ragged(grid.ragged, name, len(names), style)
    columns = {name: column.column()[from_file:] for name, column in zip(names, grid.columns, strict=True)}
    source = one_file(columns, name, np.concatenate(grid.lines)[from_file:], "line")
    if from_file and looks_like_a_row(names, columns):
        example = ", ".join(f"name{i + 1}" for i in range(len(names)))
        instead = f"load: {{header: null, column_names: [{example}]}}"
        source.hint = f" The first line looks like a row: without a header, write {instead}"
    return source


def header(rows: list[list[str]], name: str, load: dict) -> tuple[list[str], bool]:
    """The columns' names and whether the file's first line gave them."""
    given = load.get("column_names")
    mode = load.get("header", None if given else 0)
    if mode is not None and mode is not False and mode != 0 and mode is not True and mode != "infer":
        raise InputError(
            f"data.load.header: {mode!r} is not known; write null (no header) or 0, and skiprows to skip lines"
        )
    from_file = mode is not None and mode is not False
    if not rows:
        raise InputError(f"{name}: the file has no lines; give a file with rows")
    if not from_file and not given:
        raise InputError("data.load.header: null needs the names; add column_names: [text, label]")
    if given and len(given) != len(rows[0]):
        there = plural(len(rows[0]), "column")
        raise InputError(
            f"data.load.column_names: {plural(len(given), 'name')} for {there} in {name}; name every column"
        )
    if given and not from_file and list(given) == rows[0]:
        raise InputError(
            f"{name} line 1: is the header, not a row; take column_names out of data.load, or add header: 0"
        )
    return named(list(given or rows[0]), name), from_file


def named(names: list[str], name: str) -> list[str]:
    """The names, all different; an index column without a name (pandas writes one) gets one."""
    filled = [column or f"unnamed_{i + 1}" for i, column in enumerate(names)]
    if filled != names:
        announce(
            f"{name}: {plural(names.count(''), 'column')} without a name called " + ", ".join(set(filled) - set(names))
        )
    for column, times in Counter(filled).items():
        if times > 1:
            raise InputError(f"{name}: the header has '{column}' {times} times; give every column its own name")
    return filled


def refuse_ragged(rows: list[list[str]], lines: list[int], name: str, width: int, style: Style) -> None:
    """Stop when a row has more or fewer cells than the header, naming each."""
    if set(map(len, rows)) != {width}:
        bad = [(line, len(row)) for row, line in zip(rows, lines, strict=True) if len(row) != width]
        raise ragged(bad, name, width, style)


def ragged(bad: list[tuple[int, int]], name: str, width: int, style: Style) -> InputError:
    """A line for each row of another width than the header's, given as (line, cells)."""
    sep = SEPARATORS.get(style.sep, repr(style.sep))
    return InputError(
        *cut(
            [
                f"{name} line {line}: {plural(cells, 'cell')} where the header has {width}; "
                + (f"quote cells that hold a {sep}" if cells > width else "complete the line or remove it")
                for line, cells in bad
            ]
        )
    )


def looks_like_a_row(names: list[str], columns: dict[str, Any]) -> bool:
    """Whether the first line's cells occur again below it, or are numbers: then it is hardly a header."""
    return any(
        column in as_list(cells[:1000]) or column.lstrip("-").replace(".", "", 1).isdigit()
        for column, cells in columns.items()
    )

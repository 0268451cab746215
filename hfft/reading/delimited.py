"""csv and tsv files: strict, by line, and every cell stays the text it is ("NA", "01", "1.0"); an empty cell is empty.

Python's csv module reads them, not pandas or `datasets`, because those turn "NA" into null and "01" into 1, and cannot
name the line of a mistake.
"""

import csv
import io
import itertools
from dataclasses import dataclass
from typing import Any

from hfft.messages import InputError, announce
from hfft.reading.source import Source, cut, one_file, plural
from hfft.reading.textfile import read_text

OPTIONS = ("sep", "encoding", "quotechar", "quoting", "header", "column_names", "skiprows")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SNIFFED = 1 << 20  # characters that are looked at to find the separator
FIELD_LIMIT = 1 << 30  # csv's own limit of 131,072 characters is less than a long document


@dataclass
class Style:
    """How the characters of a file are cut into cells."""

    sep: str
    quotechar: str
    quoting: int

    def reader(self, text: str, strict: bool = True):
        """csv's reader over a whole text; `strict` refuses what lenient parsers guess at."""
        options = {"delimiter": self.sep, "quoting": self.quoting, "strict": strict}
        return csv.reader(io.StringIO(text, newline=""), quotechar=self.quotechar, **options)  # type: ignore[arg-type]


def read_delimited(path: str, name: str, load: dict) -> Source:
    """A csv or tsv file -> its rows, each with the line it begins at."""
    text = read_text(path, name, load.get("encoding"))
    text, skipped = skip_lines(text, load.get("skiprows", 0))
    default = "\t" if path.lower().endswith(".tsv") else ","
    quoting = quoting_of(load.get("quoting", "minimal"))
    style = Style(separator(load.get("sep") or default), load.get("quotechar", '"'), quoting)
    csv.field_size_limit(FIELD_LIMIT)
    if not load.get("sep"):
        style.sep = sniff(text, style, name)
    rows, lines = parse_tabs(text, name, style) if style.sep == "\t" else parse(text, name, style)
    rows, lines = without_blanks(rows, [line + skipped for line in lines], name)
    return to_source(rows, lines, name, load, style)


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


def parse(text: str, name: str, style: Style) -> tuple[list[list[str]], list[int]]:
    """All rows and the line at which each begins."""
    reader, rows, lines, start = style.reader(text), [], [], 1
    try:
        for row in reader:
            rows.append(row)
            lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise quote_error(name, start, reader.line_num, error) from None
    return rows, lines


def quote_error(name: str, start: int, end: int, error: csv.Error) -> InputError:
    """The one line for a row that csv could not cut."""
    remedy = "close it, write quotes inside a field twice, or set data.load.quoting: none"
    if "end of data" in str(error) or end > start:
        return InputError(
            f"{name} line {start}: a quote is opened here and not closed rightly (read up to line {end}); {remedy}"
        )
    return InputError(f"{name} line {start}: text follows a closing quote; {remedy}")


def parse_tabs(text: str, name: str, style: Style) -> tuple[list[list[str]], list[int]]:
    """Tab files are often written without quoting: read so where only that gives rows of equal width, announced."""
    if style.quoting == csv.QUOTE_NONE:
        return parse(text, name, style)
    plain = parse(text, name, Style(style.sep, style.quotechar, csv.QUOTE_NONE))
    plain_is_even = len({len(row) for row in plain[0] if row}) == 1
    try:
        quoted = parse(text, name, style)
    except InputError:
        if not plain_is_even:
            raise
        quoted = ([], [])
    if plain_is_even and len(quoted[0]) != len(plain[0]):
        announce(f"{name}: read without quoting, its quotes are text (they do not pair; set data.load.quoting)")
        return plain
    return quoted


def without_blanks(rows: list, lines: list[int], name: str) -> tuple[list[list[str]], list[int]]:
    """Blank lines are not rows; said when they stand between rows."""
    if all(rows):
        return rows, lines
    kept = [i for i, row in enumerate(rows) if row]
    inside = (kept[-1] + 1 - len(kept)) if kept else 0
    if inside:
        announce(f"{name}: {plural(inside, 'blank line')} between the rows not read as rows")
    return [rows[i] for i in kept], [lines[i] for i in kept]


def to_source(rows: list[list[str]], lines: list[int], name: str, load: dict, style: Style) -> Source:
    """Header and rows -> columns; rows of another width are refused."""
    names, from_file = header(rows, name, load)
    if from_file:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise InputError(f"{name}: there are no rows below the header; give a file with rows")
    refuse_ragged(rows, lines, name, len(names), style)
    columns = {column: list(cells) for column, cells in zip(names, zip(*rows, strict=True), strict=True)}
    source = one_file(columns, name, lines, "line")
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
    double = sorted({column for column in filled if filled.count(column) > 1})
    if double:
        times = filled.count(double[0])
        raise InputError(f"{name}: the header has '{double[0]}' {times} times; give every column its own name")
    return filled


def refuse_ragged(rows: list[list[str]], lines: list[int], name: str, width: int, style: Style) -> None:
    """Stop when a row has more or fewer cells than the header, naming each."""
    if set(map(len, rows)) == {width}:
        return
    sep = SEPARATORS.get(style.sep, repr(style.sep))
    bad = [(line, len(row)) for row, line in zip(rows, lines, strict=True) if len(row) != width]
    raise InputError(
        *cut(
            [
                f"{name} line {line}: {plural(cells, 'cell')} where the header has {width}; "
                + (f"quote cells that hold a {sep}" if cells > width else "complete the line or remove it")
                for line, cells in bad
            ]
        )
    )


def looks_like_a_row(names: list[str], columns: dict[str, list[str]]) -> bool:
    """Whether the first line's cells occur again below it, or are numbers: then it is hardly a header."""
    return any(
        column in cells[:1000] or column.lstrip("-").replace(".", "", 1).isdigit() for column, cells in columns.items()
    )

"""A file of rows read in blocks: from its beginning as often as needed, never held whole.

What a file's first rows decide (encoding, separator, header) is found once, by `open_table`; reading it again guesses
and tells nothing.
"""

import csv
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from hfft.messages import InputError, announce, first_line
from hfft.reading import delimited, jsonrows, textfile
from hfft.reading.delimited import Style
from hfft.reading.source import File, Source, cut, one_file
from hfft.reading.tables import Place, checked_ending, features_of, from_table

ROWS = 1000  # in a block
HEAD = 1 << 20  # bytes that are looked at to find encoding and separator


@dataclass(frozen=True)
class Table:
    """One file of rows, and all that has to be known to read it."""

    path: str
    name: str
    read: Callable[["Table", Sequence[str] | None], Iterator[Source]]
    encoding: str = "utf-8"
    style: Style | None = None
    skipped: int = 0  # lines before the header
    header: bool = True
    columns: tuple[str, ...] = ()
    features: dict[str, Any] = field(default_factory=dict)
    hint: str = ""

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[Source]:
        """The rows in order, at most ROWS at a time, numbered from 0; `columns` are those that will be looked at."""
        start = 0
        for block in self.read(self, columns):
            block.files = [File(self.name, block.files[0].unit, os.path.dirname(os.path.abspath(self.path)))]
            block.index = block.index + start
            block.features, block.hint = self.features, self.hint
            start += len(block)
            yield block
        if not start:
            raise InputError(f"{self.name}: there are no rows in it; give a file with rows")


def open_table(place: Place) -> Table:
    """A file as `read_table` takes it, its first block read to know its columns. Raises InputError."""
    path, name, load = place
    ending = checked_ending(path, name, load)
    if ending not in READERS or load.get("format"):
        raise InputError(f"{name}: CoNLL files are not streamed; take out data.load.streaming, or write jsonl")
    open_one = READERS[ending]
    table = open_one(path, name, load)
    first = next(table.blocks())
    return replace(table, columns=tuple(first.columns), hint=first.hint)


# ---- text -----------------------------------------------------------------------------------------------------------
def head_of(path: str, name: str, encoding: str | None) -> tuple[str, str]:
    """(encoding, the text of the first bytes)."""
    with open(path, "rb") as file:
        data = file.read(HEAD)
        whole = not file.read(1)
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes); give a file with rows, or take it out of data.path")
    if not whole:  # up to a line's end, so that no character is cut
        data = data[: data.rfind(b"\n") + 1] or data
    encoding = encoding or textfile.detect(data, name)
    return encoding, textfile.decode(data, name, encoding)


def lines_of(table: Table, newline: str = "") -> Generator[str]:
    """The lines of a text file with their ends."""
    with open(table.path, encoding=table.encoding, newline=newline) as file:
        number, lines = 0, iter(file)
        while True:
            try:
                line = next(lines, None)
            except UnicodeDecodeError as error:
                raise undecodable(table, number, error) from None
            if line is None:
                return
            if not number:
                line = line.removeprefix("\ufeff")
            number += 1
            if "\0" in line:
                raise textfile.nul(table.name, number)
            yield line


def undecodable(table: Table, after: int, error: UnicodeDecodeError) -> InputError:
    """The line for bytes that are not of the encoding; their own line is looked for where lines are found in bytes."""
    place, byte = f"after line {after}", error.object[error.start]
    with open(table.path, "rb") as file:
        for number, line in enumerate(file if not table.encoding.startswith(("utf-16", "utf-32")) else (), 1):
            try:
                line.decode(table.encoding)
            except UnicodeDecodeError as found:
                place, byte = f"line {number}", line[found.start]
                break
    known = f"byte 0x{byte:02x} is not {table.encoding}"
    return InputError(f"{table.name} {place}: {known}; repair the file, or set data.load.encoding to the file's own")


def open_delimited(path: str, name: str, load: dict) -> Table:
    """A csv or tsv file."""
    encoding, head = head_of(path, name, load.get("encoding"))
    head, skipped = delimited.skip_lines(head, load.get("skiprows", 0))
    style = delimited.style_of(path, load)
    if not load.get("sep"):
        style.sep = delimited.sniff(head, style, name)
    if style.sep == "\t" and style.quoting != csv.QUOTE_NONE and without_quotes(head, style):
        announce(f"{name}: read without quoting, its quotes are text (they do not pair; set data.load.quoting)")
        style.quoting = csv.QUOTE_NONE
    table = Table(path, name, delimited_blocks, encoding, style, skipped)
    rows, lines = delimited.without_blanks(*next(records(table), ([], [])), name)
    first = delimited.to_source(rows, lines, name, load, style)
    return replace(table, header=len(first) < len(rows), columns=tuple(first.columns), hint=first.hint)


def without_quotes(head: str, style: Style) -> bool:
    """Whether only without quoting the first rows of a tab file are of equal width, each on a line of its own."""
    plain = list(itertools.islice(Style(style.sep, style.quotechar, csv.QUOTE_NONE).reader(head), ROWS))
    reader, count = style.reader(head), 0
    try:
        count = sum(1 for _ in itertools.islice(reader, ROWS))
    except csv.Error:
        count = -1
    return len({len(row) for row in plain if row}) == 1 and count != reader.line_num


def records(table: Table) -> Iterator[tuple[list[list[str]], list[int]]]:
    """The rows of a csv or tsv file and the line at which each begins, a block at a time; the header is a row."""
    assert table.style is not None
    return delimited.pieces(lambda: closing(lines_of(table)), table.name, table.style, table.skipped, ROWS)


def delimited_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """The rows of a csv or tsv file."""
    assert table.style is not None
    header = table.header
    for rows, lines in records(table):
        kept = [i for i, row in enumerate(rows) if row][header:]
        header = False
        if not kept:
            continue
        rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
        delimited.refuse_ragged(rows, lines, table.name, len(table.columns), table.style)
        cells = zip(*rows, strict=True)
        yield one_file(
            {name: list(values) for name, values in zip(table.columns, cells, strict=True)}, table.name, lines, "line"
        )


def open_lines(path: str, name: str, load: dict) -> Table:
    """A .jsonl file; a .json file too, where its lines are objects."""
    if load.get("field"):
        raise InputError(f"data.load.field: does not apply to a stream, whose lines are the rows; take it out ({name})")
    encoding, head = head_of(path, name, load.get("encoding"))
    if path.lower().endswith(".json"):
        first = head.lstrip().split("\n", 1)[0]
        try:
            whole = isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            raise InputError(
                f"{name}: is one JSON document, which is no stream; write JSON lines (.jsonl, one object a line)"
            )
        announce(f"{name}: read as JSON lines (one object a line; rename it to .jsonl)")
    return Table(path, name, line_blocks, encoding)


def line_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """The rows of a file of JSON lines; keys that none of a block's rows has are null."""
    numbered = enumerate(lines_of(table, "\n"), 1)
    while block := list(itertools.islice(numbered, ROWS)):
        rows, lines, bad = jsonrows.parsed(block, table.name)
        if bad:
            raise InputError(*cut(bad))
        if rows:
            source = jsonrows.from_rows(rows, table.name, lines)
            absent = [name for name in columns or table.columns if name not in source.columns]
            source.columns |= {name: [None] * len(rows) for name in absent}
            yield source


def open_text(path: str, name: str, load: dict) -> Table:
    """A .txt file."""
    return Table(path, name, text_blocks, head_of(path, name, load.get("encoding"))[0])


def text_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """One row a line, in the column "text"."""
    pieces = enumerate((piece for line in lines_of(table) for piece in line.splitlines()), 1)
    while block := list(itertools.islice(pieces, ROWS)):
        numbers, texts = zip(*block, strict=True)
        yield one_file({"text": list(texts)}, table.name, numbers, "line")


# ---- arrow ----------------------------------------------------------------------------------------------------------
def open_parquet(path: str, name: str, load: dict) -> Table:
    """A parquet file: its footer tells the features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(name, "parquet", error) from None
    return Table(path, name, parquet_blocks, features=features_of(schema))


def parquet_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """The rows of a parquet file, of these columns only; read through a buffer, in this thread (workers are forked)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(table.path, page_checksum_verification=True, buffer_size=HEAD) as file:
        wanted = None if columns is None else list(columns)
        yield from sources(file.iter_batches(ROWS, columns=wanted, use_threads=False), table.name, "parquet")


def open_arrow(path: str, name: str, load: dict) -> Table:
    """An arrow file of either form; feather's first version cannot be read in parts."""
    import pyarrow as pa

    with open(path, "rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith(b"FEA1"):
            raise InputError(f"{name}: is feather version 1, which is no stream; write it as parquet")
        try:
            schema = (pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream)(file).schema
        except (pa.ArrowException, OSError) as error:
            raise damaged(name, "arrow", error) from None
    return Table(path, name, file_blocks if start == b"ARROW1" else stream_blocks, features=features_of(schema))


def file_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """The rows of an arrow file with a footer (feather version 2 too)."""
    import pyarrow as pa

    with open(table.path, "rb") as file:
        reader = pa.ipc.open_file(file)
        yield from sources(map(reader.get_batch, range(reader.num_record_batches)), table.name, "arrow")


def stream_blocks(table: Table, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """The rows of an arrow file in stream form, as `datasets` writes it."""
    import pyarrow as pa

    with open(table.path, "rb") as file:
        yield from sources(pa.ipc.open_stream(file), table.name, "arrow")


def sources(batches: Any, name: str, kind: str) -> Iterator[Source]:
    """Arrow batches of any size as blocks, numbered through the file."""
    import pyarrow as pa

    start, batches = 0, iter(batches)
    while True:
        try:
            batch = next(batches, None)
            if batch is not None:
                batch.validate(
                    full=True
                )  # a flipped bit may leave text that is no UTF-8, or offsets that point outside
        except (pa.ArrowException, OSError) as error:
            raise damaged(name, kind, error) from None
        if batch is None:
            return
        for place in range(0, batch.num_rows, ROWS):
            block = from_table(pa.Table.from_batches([batch.slice(place, ROWS)]), name)
            block.numbers = block.numbers + start
            start += len(block)
            yield block


def damaged(name: str, kind: str, error: Exception) -> InputError:
    """The line for a file that arrow cannot read."""
    return InputError(f"{name}: is damaged or no {kind} file ({first_line(error)}); write it again")


READERS: dict[str, Callable[[str, str, dict], Table]] = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".json": open_lines,
    ".jsonl": open_lines,
    ".ndjson": open_lines,
    ".parquet": open_parquet,
    ".arrow": open_arrow,
    ".feather": open_arrow,
    ".txt": open_text,
}

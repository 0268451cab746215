"""Source: the rows of one split as they were read, and where each of them stands, so that a message can name it.

Two countings, used everywhere: a *line* is the 1-based line of a text file, a *row* is 0-based (as in `dataset[row]`,
in the canonical column "row" and in predictions).
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

MAX_LINES = 20  # how many problems an error lists


class File(NamedTuple):
    """Where rows came from."""

    name: str  # as messages call it
    unit: str = ""  # what `numbers` counts: "line", "row", or "" where a file is a row
    root: str | None = None  # the folder that paths in the data must stay below; None: the caller's own paths
    absolute: bool = False  # whether absolute paths below `root` are understood (the Hub's cache)


@dataclass
class Source:
    """Columns as lists or pyarrow arrays, and for each row its file and its line or row there."""

    columns: dict[str, Any]
    files: list[File]
    file_ids: np.ndarray  # (rows,) index into `files`
    numbers: np.ndarray  # (rows,) line or row inside the file
    index: np.ndarray  # (rows,) 0-based position in the split's source: the canonical column "row"
    features: dict[str, Any] = field(default_factory=dict)  # the `datasets` features that came with the data
    hint: str = ""  # appended when a column is not found
    origin: dict[str, str] = field(default_factory=dict)  # canonical column -> the data set's column(s), for messages

    def __len__(self) -> int:
        return len(self.index)

    def where(self, position: int) -> str:
        """The name of a row for people: "train.csv line 17", "train.parquet row 16", "train/cat/1.jpg"."""
        file = self.files[self.file_ids[position]]
        return f"{file.name} {file.unit} {self.numbers[position]}" if file.unit else file.name

    def brief(self, position: int) -> str:
        """`where` for a list of rows of one kind: the line or row alone, or the file's name."""
        file = self.files[self.file_ids[position]]
        return str(self.numbers[position]) if file.unit and len(self.files) == 1 else self.where(position)

    def values(self, column: str) -> list:
        """A column as a list of Python values."""
        values = self.columns[column]
        return values if isinstance(values, list) else values.to_pylist()

    def take(self, positions: Iterable[int]) -> "Source":
        """These rows only, in this order; `where` and the column "row" still name the original ones."""
        chosen = positions if isinstance(positions, np.ndarray) else np.asarray(list(positions), dtype=np.int64)
        columns = {name: taken(values, chosen) for name, values in self.columns.items()}
        return self._with(columns, chosen)

    def parted(self, mask: np.ndarray) -> "tuple[Source, Source]":
        """(the rows in a mask, the others); this source loses its columns, so that no cell is held twice."""
        pairs = {name: divided(self.columns, name, mask) for name in list(self.columns)}
        inside, outside = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
        return self._with(inside, np.flatnonzero(mask)), self._with(outside, np.flatnonzero(~mask))

    def _with(self, columns: dict[str, Any], chosen: np.ndarray) -> "Source":
        """The same source with other cells, which are those at these positions."""
        several = len(self.files) > 1
        return replace(
            self,
            columns=columns,
            file_ids=self.file_ids[chosen] if several else np.zeros(len(chosen), dtype=np.int64),
            numbers=self.numbers[chosen],
            index=self.index[chosen],
        )


@dataclass
class Problem:
    """What is wrong with one cell: its position in the source, its canonical column and what to write instead."""

    position: int
    column: str
    value: Any
    what: str
    remedy: str

    def line(self, source: Source) -> str:
        """One line: `train.csv line 17, column 'label': is empty; write a label`."""
        place, column = source.where(self.position), source.origin.get(self.column, self.column)
        by_file = not source.files[source.file_ids[self.position]].unit  # a folder's file has no column to name
        return f"{place}{'' if by_file else f', column {quoted(column)}'}: {self.what}; {self.remedy}"

    def record(self, source: Source, split: str) -> dict[str, Any]:
        """The problem as a line of dropped.jsonl; the value as text, its first 200 characters."""
        file = source.files[source.file_ids[self.position]]
        place = {"line": int(source.numbers[self.position])} if file.unit == "line" else {}
        column = source.origin.get(self.column, self.column).replace("\n", "+")
        value = None if self.value is None else str(self.value)[:200].encode("utf-8", "replace").decode()
        row = int(source.index[self.position])
        return {
            "split": split,
            "file": file.name,
            "row": row,
            **place,
            "column": column,
            "value": value,
            "reason": self.what,
        }


Found = dict[str, list[Problem]]  # split -> problems


def quoted(name: str) -> str:
    """'name', or "'a', 'b'" for several columns joined with "+"."""
    return "+".join(f"'{part}'" for part in name.split("\n"))


def one_file(columns: dict[str, Any], name: str, numbers: Iterable[int] | None = None, unit: str = "row") -> Source:
    """The source made of one file's columns; without `numbers` its rows are counted from 0."""
    size = len(next(iter(columns.values()))) if columns else 0
    if numbers is None:
        counted = np.arange(size)
    else:
        counted = numbers if isinstance(numbers, np.ndarray) else np.asarray(list(numbers), dtype=np.int64)
    return Source(columns, [File(name, unit)], np.zeros(size, dtype=np.int64), counted, np.arange(size))


def as_list(values: Any) -> list:
    """A column of any form as a list."""
    return values if isinstance(values, list) else values.to_pylist()


def taken(values: Any, chosen: np.ndarray) -> Any:
    """The cells of a column at these positions, in their order."""
    if isinstance(values, list):
        return [values[i] for i in chosen]
    if np.all(np.diff(chosen) > 0):  # many times faster than `take`, which first makes one block of all
        mask = np.zeros(len(values), dtype=bool)
        mask[chosen] = True
        return values.filter(mask)
    return values.take(chosen)


def divided(columns: dict[str, Any], name: str, mask: np.ndarray) -> tuple[Any, Any]:
    """(the cells in a mask, the others) of a column that is taken out, a block at a time."""
    import pyarrow as pa

    cells = columns.pop(name)
    if isinstance(cells, list):
        return taken(cells, np.flatnonzero(mask)), taken(cells, np.flatnonzero(~mask))
    kind, blocks, start = cells.type, cells.chunks[::-1], 0
    inside, outside = [], []
    del cells
    while blocks:
        block = blocks.pop()
        of_block = mask[start : start + len(block)]
        inside.append(block.filter(of_block))
        outside.append(block.filter(~of_block))
        start += len(block)
    return pa.chunked_array(inside, kind), pa.chunked_array(outside, kind)


@contextlib.contextmanager
def from_malloc() -> Iterator[None]:
    """Arrow's memory is malloc's inside the block, and what is free is given back after it: its own pool keeps much."""
    import pyarrow as pa

    before, pool = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(pool)
    try:
        yield
    finally:
        pool.release_unused()
        pa.set_memory_pool(before)


class Growing:
    """A column that is read a block at a time: arrow strings where every cell is one, a fraction of Python's size."""

    def __init__(self, absent: int = 0):
        self.blocks: list[Any] = [[None] * absent] if absent else []

    def add(self, cells: Sequence[Any]) -> None:
        """The cells of the next rows."""
        import pyarrow as pa

        self.blocks.append(pa.array(cells, pa.string()) if set(map(type, cells)) == {str} else list(cells))

    def column(self) -> Any:
        """All cells: a ChunkedArray, or a list where some are no strings."""
        import pyarrow as pa

        if self.blocks and all(isinstance(block, pa.Array) for block in self.blocks):
            return pa.chunked_array(self.blocks)
        return [cell for block in self.blocks for cell in as_list(block)]


def is_text(column: Any) -> bool:
    """Whether a column is arrow strings (nulls may be among them)."""
    import pyarrow as pa

    return isinstance(column, pa.ChunkedArray) and column.type in (pa.string(), pa.large_string())


def shown(value: Any, limit: int = 60) -> str:
    """A value as it stands in a message: repr, cut."""
    text = repr(value) if not isinstance(value, bytes) else f"{len(value)} bytes"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut(lines: list[str]) -> list[str]:
    """At most MAX_LINES lines and how many more there are."""
    rest = len(lines) - MAX_LINES
    return lines if rest <= 0 else [*lines[:MAX_LINES], f"… and {rest:,} more"]


def plural(count: int, word: str) -> str:
    """1 row, 2,000 rows."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"

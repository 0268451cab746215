"""Encoded rows as flat arrays: a column of lists is one array of numbers, and where each row begins in it.

A row of 12 token ids takes 32 bytes, where Python's list takes 500, and is read in less than a microsecond; the arrays
may lie in memory or in files that are mapped into it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["number", "list", "text", "object"]
SMALLEST_FIRST = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)


@dataclass
class Column:
    """`values` of all rows, one after the other; row i has those from offsets[i] to offsets[i + 1] (None: one each).

    A "list" is read as an array of numbers, a "text" is UTF-8 inside, an "object" (anything else) stays as it came.
    """

    kind: Kind
    values: Any  # an array; of objects a list
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def sizes(self) -> np.ndarray:
        """How many values each row has."""
        assert self.offsets is not None
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> list:
        """The cells of these rows."""
        if self.kind == "object":
            return [self.values[row] for row in rows.tolist()]
        if self.offsets is None:
            return self.values[rows].tolist()
        bounds = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        cells = [self.values[start:end] for start, end in bounds]
        return cells if self.kind == "list" else [cell.tobytes().decode() for cell in cells]


@dataclass
class Columns:
    """The rows of an encoded split."""

    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: Sequence[int]) -> dict[str, list]:
        """Column name -> cells of these rows, as `datasets.Dataset` gives them; lists of numbers as arrays."""
        places = np.asarray(rows, dtype=np.int64)
        return {name: column.take(places) for name, column in self.columns.items()}

    def lengths(self, name: str) -> np.ndarray | None:
        """The length of each row's list in this column; None where there is no such column of lists."""
        column = self.columns.get(name)
        return None if column is None or column.kind != "list" else column.sizes()

    def unsuited(self) -> list[str]:
        """The columns that cannot be saved, because they hold neither numbers, lists of numbers nor texts."""
        return [name for name, column in self.columns.items() if column.kind == "object" or not name.isidentifier()]


def gather(batches: Iterable[dict[str, Any]]) -> Columns:
    """Batches of encoded rows, column -> cells, one below the other. A batch may have no row.

    Raises ValueError where batches differ in their columns.
    """
    parts: dict[str, list[Column]] = {}
    for batch in batches:
        if not any(map(len, batch.values())):
            continue
        if parts and parts.keys() != batch.keys():
            raise ValueError(f"encode gave the columns {', '.join(batch)} after {', '.join(parts)}; give all the same")
        for name, cells in batch.items():
            parts.setdefault(name, []).append(packed(cells))
    return Columns({name: _joined(parts.pop(name)) for name in list(parts)})


def packed(cells: Sequence[Any]) -> Column:
    """The cells of some rows as one column."""
    kinds = set(map(type, cells))
    if kinds == {str}:
        texts = [cell.encode() for cell in cells]
        return Column("text", np.frombuffer(b"".join(texts), np.uint8), _offsets(texts))
    if kinds == {np.ndarray} and all(cell.ndim == 1 for cell in cells):
        flat = _smallest(np.concatenate(cells))
        return Column("object", list(cells)) if flat is None else Column("list", flat, _offsets(cells))
    if kinds <= {list, tuple}:
        flat = _numbers(list(chain.from_iterable(cells)))
        return Column("object", list(cells)) if flat is None else Column("list", flat, _offsets(cells))
    flat = _numbers(cells)
    return Column("object", list(cells)) if flat is None else Column("number", flat)


def _offsets(cells: Sequence[Any]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(cell) for cell in cells], dtype=np.int64)])


def _numbers(values: Sequence[Any]) -> np.ndarray | None:
    plain = all(issubclass(kind, int | float | np.number | np.bool_) for kind in set(map(type, values)))
    return _smallest(np.asarray(values)) if plain else None


def _smallest(values: np.ndarray) -> np.ndarray | None:
    """The same numbers in as few bytes as hold them exactly; None for other things."""
    if not len(values):
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        fitting = (kind for kind in SMALLEST_FIRST if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        return values.astype(next(fitting, values.dtype))
    return values if values.dtype.kind in "fb" else None


def _joined(parts: list[Column]) -> Column:
    kinds = {part.kind for part in parts}
    if len(kinds) > 1 or kinds == {"object"}:
        return Column("object", [cell for part in parts for cell in part.take(np.arange(len(part)))])
    values = np.concatenate([part.values for part in parts])  # in the type that holds all of them
    if parts[0].offsets is None:
        return Column(parts[0].kind, values)
    lengths = np.concatenate([part.sizes() for part in parts])
    return Column(parts[0].kind, values, np.concatenate([[0], np.cumsum(lengths)]))


def save(rows: Columns, folder: Path) -> dict[str, Kind]:
    """Every array into a .npy file of `folder`; returns what `read` has to know: the columns' kinds."""
    for name, column in rows.columns.items():
        np.save(folder / f"{name}.npy", column.values)
        if column.offsets is not None:
            np.save(folder / f"{name}.offsets.npy", column.offsets)
    return {name: column.kind for name, column in rows.columns.items()}


def read(folder: Path, kinds: dict[str, Kind]) -> Columns:
    """What `save` wrote, mapped into memory, not read. Raises OSError or ValueError where a file is no array."""
    return Columns(
        {
            name: Column(kind, _mapped(folder / f"{name}.npy"), _mapped(folder / f"{name}.offsets.npy"))
            if kind in ("list", "text")
            else Column(kind, _mapped(folder / f"{name}.npy"))
            for name, kind in kinds.items()
        }
    )


def _mapped(path: Path) -> np.ndarray:
    # np.memmap itself makes every slice of it slow; np.load cannot map a file without values.
    array = np.load(path, mmap_mode="r", allow_pickle=False) if path.stat().st_size > 128 else np.load(path)
    return np.asarray(array)

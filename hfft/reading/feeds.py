"""Feeds: the splits of data.path, or of data in memory, as blocks of rows that can be read again and again.

A row's number in its feed is (part << PART) + its row in that part, so it is the same in whatever order parts are read,
and for a single file the row itself.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hfft.messages import HfftError, InputError, first_line
from hfft.reading import memory, readers
from hfft.reading.blocks import ROWS, Table, line_blocks, open_table
from hfft.reading.source import File, Source
from hfft.reading.tables import Place, from_table

PART = 40  # bits of a row's number that count inside a part
OWN = ("streaming", "buffer_size")  # keys of data.load that are no reader's options


@dataclass(frozen=True)
class Held:
    """Rows that are in memory, or a list of picture files: cut into blocks, in any order."""

    source: Source

    def blocks(self, columns: Sequence[str] | None = None, order: random.Random | None = None) -> Iterator[Source]:
        """The rows, shuffled whole where an order is drawn."""
        places = list(range(len(self.source)))
        if order is not None:
            order.shuffle(places)
        for start in range(0, len(places), ROWS):
            yield self.source.take(places[start : start + ROWS])


@dataclass(frozen=True)
class Remote:
    """A `datasets.IterableDataset`, of the Hub or the caller's."""

    rows: Any
    file: File
    path: str | None = None  # the Hub's id

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[Source]:
        """The rows as they come."""
        start, tables = 0, iter(self.rows.with_format("arrow").iter(ROWS))
        while (table := self._next(tables)) is not None:
            block = from_table(table, self.file.name)
            block.files, block.features = [self.file], dict(self.rows.features or {})
            block.numbers, block.index = block.numbers + start, block.index + start
            start += len(block)
            yield block
        if not start:
            raise InputError(f"{self.file.name}: there are no rows in it; give a stream with rows")

    def _next(self, tables: Iterator[Any]) -> Any:
        try:
            return next(tables, None)
        except HfftError:
            raise
        except Exception as error:  # every layer below (requests, hub, arrow) has its own
            if self.path is not None:
                raise memory.hub_error(self.path, error) from None
            raise InputError(
                f"{self.file.name}: the stream failed ({type(error).__name__}: {first_line(error)})"
            ) from error


@dataclass(frozen=True)
class Feed:
    """One split."""

    parts: tuple[Table | Held | Remote, ...]

    @property
    def is_local(self) -> bool:
        """Whether reading it through once costs no download, and does not run a caller's code."""
        return not any(isinstance(part, Remote) for part in self.parts)

    def blocks(self, columns: Sequence[str] | None = None, order: random.Random | None = None) -> Iterator[Source]:
        """Its rows a block at a time. `order` draws the order of the parts, and of rows that are held anyway."""
        numbers = list(range(len(self.parts)))
        if order is not None:
            order.shuffle(numbers)
        for number in numbers:
            part = self.parts[number]
            blocks = part.blocks(columns, order) if isinstance(part, Held) else part.blocks(columns)
            for block in blocks:
                block.index = block.index + (number << PART)
                yield block


def find(data: Any, *, pictures: bool, in_memory: Any = None) -> dict[str, list[Place | Source | Remote]]:
    """Split -> what it consists of; nothing is read of files yet."""
    data = SimpleNamespace(**{**vars(data), "load": {key: data.load[key] for key in data.load if key not in OWN}})
    if data.split_column:
        raise InputError(
            "data.split_column: a stream is not split by a column; give a file for each split in data.path"
        )
    if in_memory is not None:
        splits = in_memory if isinstance(in_memory, dict) else {"train": in_memory}
        held = {split: rows for split, rows in splits.items() if not is_stream(rows)}
        parts: dict[str, Place | Source | Remote] = {}
        if held or not splits:
            parts |= memory.read_memory(held)
        parts |= {
            str(split): Remote(rows, File(str(split), "row")) for split, rows in splits.items() if is_stream(rows)
        }
        return {split: [part] for split, part in parts.items()}
    if isinstance(data.path, str) and readers.is_hub(data.path):
        found = memory.open_hub(data, data.path, streaming=True)
        return {split: [Remote(rows, memory.hub_file(data.path, split), data.path)] for split, rows in found.items()}
    return dict(readers.locate(data, pictures=pictures))  # type: ignore[arg-type]


def is_stream(rows: Any) -> bool:
    """Whether rows in memory are an IterableDataset."""
    return hasattr(rows, "with_format") and not hasattr(rows, "num_rows") and not isinstance(rows, dict)


def open_feed(found: Sequence[Place | Source | Remote]) -> Feed:
    """The feed of one split: the head of each file is read, and all must have the same columns."""
    parts: list[Table | Held | Remote] = []
    for part in found:
        parts.append(open_table(part) if isinstance(part, Place) else Held(part) if isinstance(part, Source) else part)
    tables = [
        part for part in parts if isinstance(part, Table) and part.read is not line_blocks
    ]  # JSON's may lack keys
    for table in tables[1:]:
        readers.refuse_unlike(
            (tables[0].name, tables[0].columns, tables[0].features), (table.name, table.columns, table.features)
        )
    return Feed(tuple(parts))

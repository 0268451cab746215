"""Shelf: encoded pictures kept in memory once they were read, for the next epoch and for every loader process.

For rows in which nothing is random: decoding and resizing give the same 8-bit pixels each time. The memory is an
anonymous mapping, which forked loader processes share (/dev/shm, which containers keep small, is not involved), and is
taken page by page as rows come.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from hfft.messages import announce

SHARE = 0.25  # of the machine's free memory that one split may take, in all its processes
OFF = "train.levers.cache=false turns it off"


Key = tuple[int, int, bool]  # (epoch, row, filler), as in batches


@dataclass
class Shelf:
    """Columns with a place for every row: tensors (rows, ...) and which rows lie there already."""

    columns: dict[str, torch.Tensor]
    held: torch.Tensor  # (rows,) bool

    def rows(self, keys: list[Key], read: Callable[[list[Key]], dict[str, list]]) -> dict[str, list]:
        """The encoded columns of these rows; `read(keys)` gives those that are not held yet."""
        places = [place for _, place, _ in keys]
        missing = [key for key in keys if not self.held[key[1]]]
        fresh = read(missing) if missing else {}
        at = {place: i for i, (_, place, _) in enumerate(missing)}
        for place, i in at.items():
            self._hold(place, {name: values[i] for name, values in fresh.items()})
        return {
            name: [fresh[name][at[place]] if place in at else _plain(column[place]) for place in places]
            for name, column in self.columns.items()
        }

    def _hold(self, place: int, row: dict[str, Any]) -> None:
        if any(torch.as_tensor(value).shape != self.columns[name].shape[1:] for name, value in row.items()):
            return  # of another size than the first: read each time
        for name, value in row.items():
            self.columns[name][place] = value
        self.held[place] = True  # last: another process may look

    def __reduce__(self):
        """A spawned process shares nothing: it reads for itself."""
        return _no_shelf, ()


def _no_shelf() -> None:
    return None


def _plain(value: torch.Tensor) -> Any:
    return value if value.ndim else value.item()


def shelf(num_rows: int, first: dict[str, Any], split: str) -> Shelf | None:
    """An empty shelf for rows like `first`; None, announced, where they are no 8-bit pictures or take too much."""
    kinds = {name: torch.as_tensor(value) for name, value in first.items()}
    if not any(kind.dtype == torch.uint8 and kind.ndim for kind in kinds.values()):
        return None
    size = num_rows * sum(kind.nbytes for kind in kinds.values())
    free = free_memory()
    if size > SHARE * free:
        announce(
            f"{split}: {num_rows:,} pictures are read anew each time: resized they take {_gb(size)}, "
            f"more than a quarter of the {_gb(free)} of free memory"
        )
        return None
    announce(f"{split}: {num_rows:,} resized pictures stay in memory once read, up to {_gb(size)} ({OFF})")
    return Shelf(
        {name: _shared(num_rows, kind) for name, kind in kinds.items()}, _shared(num_rows, torch.tensor(False))
    )


def _shared(num_rows: int, kind: torch.Tensor) -> torch.Tensor:
    memory = mmap.mmap(-1, num_rows * kind.nbytes)
    return torch.frombuffer(memory, dtype=kind.dtype, count=num_rows * kind.numel()).reshape(num_rows, *kind.shape)


def free_memory() -> int:
    """Bytes that this process may still take: its share of the machine's, or of the container's where that is less."""
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"

"""Batches: which rows each step sees, and what a row looks like when it is drawn.

The rows of optimizer step k depend on the seed and the global batch only; what is random in a row is drawn from (seed,
epoch, row index). So the result is the same for any number of workers, after any interruption, and for any split of
the global batch over accumulation and processes.
"""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

# (epoch, index, filler): a filler only keeps processes in step where a last batch does not reach; it weighs nothing.
Key = tuple[int, int, bool]


@dataclass
class EncodedRows(Dataset):
    """Map-style rows of a split, encoded once (`encode` None) or on access, augmented on access."""

    rows: datasets.Dataset
    encode: Callable[..., dict[str, list]] | None = None
    augment: tuple[Callable[..., dict[str, list]], ...] = ()
    seed: int = 0
    train: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self) -> list[int] | None:
        """Tokens of each row, where the rows are encoded already."""
        if "input_ids" not in self.rows.column_names:
            return None
        return pyarrow.compute.list_value_length(self.rows.with_format("arrow")["input_ids"][:]).to_pylist()

    def __getitems__(self, keys: list[Key]) -> list[dict[str, Any]]:
        """Encoded rows with `row`, their place in the split, and `filler`."""
        batch = self.rows[[index for _, index, _ in keys]]
        if self.augment:
            batch = self._augmented(batch, keys)
        if self.encode is not None:
            batch = self.encode(batch, train=self.train)
        columns = list(batch.items())
        return [
            {name: values[i] for name, values in columns} | {"row": index, "filler": filler}
            for i, (_, index, filler) in enumerate(keys)
        ]

    def _augmented(self, batch: dict[str, list], keys: list[Key]) -> dict[str, list]:
        out: dict[str, list] = {name: [] for name in batch}
        for i, (epoch, index, _) in enumerate(keys):
            row = {name: [values[i]] for name, values in batch.items()}
            with drawn_from(self.seed, epoch, index):
                for part in self.augment:
                    row = part(row)
            for name in out:
                out[name].extend(row[name])
        return out


@contextlib.contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Random numbers of Python, NumPy and torch come from these numbers inside the block, and from before after it."""
    state = rng_state()
    seed = int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(state)


def rng_state() -> dict[str, Any]:
    """The state of every random generator of this process."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def shuffled(num_rows: int, seed: int) -> Callable[[int], list[int]]:
    """epoch -> a permutation of the rows, from (seed, epoch) alone."""

    def order(epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(num_rows, generator=generator).tolist()

    return order


def bucketed(lengths: list[int], seed: int, global_batch: int, window: int = 50) -> Callable[[int], list[int]]:
    """epoch -> an order in which each global batch holds rows of like length.

    The shuffled rows are sorted inside windows of `window` global batches, then the batches are shuffled; a last,
    partial batch stays last. Padding is rare, and the order is still drawn from (seed, epoch) and the global batch.
    """
    plain = shuffled(len(lengths), seed)

    def order(epoch: int) -> list[int]:
        rows, size = plain(epoch), window * global_batch
        windows = [sorted(rows[i : i + size], key=lengths.__getitem__) for i in range(0, len(rows), size)]
        merged = [row for each in windows for row in each]
        batches = [merged[i : i + global_batch] for i in range(0, len(merged), global_batch)]
        last = [batches.pop()] if len(batches[-1]) < global_batch else []
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        places = torch.randperm(len(batches), generator=generator).tolist()
        return [row for batch in [*(batches[i] for i in places), *last] for row in batch]

    return order


@dataclass
class GlobalBatches(Sampler[list[Key]]):
    """This process's micro-batches of each global batch, in step with the other processes.

    A global batch is `batch_size * num_processes * accumulation` rows of `order(epoch)`; micro-batch m of process r
    takes its rows from (m * num_processes + r) * batch_size on. Where the last rows do not reach a process, it gets one
    filler row that weighs nothing.
    """

    num_rows: int
    batch_size: int
    order: Callable[[int], list[int]]
    process: int = 0
    num_processes: int = 1
    drop_last: bool = False
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """The pass over the data that the next iteration makes."""
        self.epoch = epoch

    def __len__(self) -> int:
        width = self.batch_size * self.num_processes
        return self.num_rows // width if self.drop_last else -(-self.num_rows // width)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order(self.epoch)
        width = self.batch_size * self.num_processes
        for step in range(len(self)):
            start = step * width + self.process * self.batch_size
            rows = order[start : start + self.batch_size]
            yield [(self.epoch, i, False) for i in rows] or [(self.epoch, order[step * width], True)]


class EpochLoader(DataLoader):
    """A DataLoader that hands the epoch to its batch sampler, and draws nothing from the global generators."""

    def __init__(self, rows: EncodedRows, batches: GlobalBatches, **options):
        super().__init__(rows, batch_sampler=batches, generator=torch.Generator(), **options)
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """The pass over the data that the next iteration makes."""
        self.batches.set_epoch(epoch)


def encoded(rows: datasets.Dataset, task, *, split: str, seed: int, augment=()) -> EncodedRows:
    """A split as the Trainer takes it: encoded once (text), or on access (pictures, and whatever is augmented)."""
    train = split == "train"
    if task.lazy or (train and augment):
        return EncodedRows(rows, encode=task.encode, augment=tuple(augment), seed=seed, train=train)
    # The fingerprint is ours: `datasets` names a cache entry by the function, not by its code, tokenizer or options.
    name = hashlib.blake2b(repr((rows._fingerprint, task, split)).encode(), digest_size=16).hexdigest()
    once = rows.map(
        lambda batch: task.encode(batch, train=train),
        batched=True,
        remove_columns=rows.column_names,
        new_fingerprint=name,
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    return EncodedRows(once, seed=seed, train=train)

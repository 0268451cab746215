"""Batches: which rows each step sees, and what a row looks like when it is drawn.

The rows of optimizer step k depend on the seed and the global batch only; what is random in a row is drawn from (seed,
epoch, row index). So the result is the same for any number of workers, after any interruption, and for any split of
the global batch over accumulation and processes.
"""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hfft import cache as stored
from hfft import compact, launch, shelf
from hfft.messages import InputError

WINDOW = 50  # global batches whose rows are sorted by length
BLOCK = 1000  # rows that are encoded at a time: enough for every core, little enough to be small beside the rows

# (epoch, index, filler): a filler only keeps processes in step where a last batch does not reach; it weighs nothing.
Key = tuple[int, int, bool]


@dataclass
class EncodedRows(Dataset):
    """Map-style rows of a split, encoded once (`encode` None) or on access, augmented on access."""

    rows: datasets.Dataset | compact.Columns
    encode: Callable[..., dict[str, list]] | None = None
    augment: tuple[Callable[..., dict[str, list]], ...] = ()
    seed: int = 0
    train: bool = False
    vary: Callable[[dict], dict] | None = None  # draws what is random in an encoded row
    kept: shelf.Shelf | None = None  # where encoded rows stay once they were read, if nothing in them is random

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self) -> np.ndarray | None:
        """Tokens of each row, where the rows are encoded already."""
        return self.rows.lengths("input_ids") if isinstance(self.rows, compact.Columns) else None

    def __getitems__(self, keys: list[Key]) -> list[dict[str, Any]]:
        """Encoded rows with `row`, their place in the split, and `filler`."""
        batch = self._encoded(keys) if self.kept is None else self.kept.rows(keys, self._encoded)
        columns = list(batch.items())
        rows = [{name: values[i] for name, values in columns} for i in range(len(keys))]
        if self.vary is not None:
            rows = self._varied(rows, keys)
        return [row | {"row": index, "filler": filler} for row, (_, index, filler) in zip(rows, keys, strict=True)]

    def _varied(self, rows: list[dict], keys: list[Key]) -> list[dict]:
        assert self.vary is not None
        found = []
        with undisturbed():
            for row, (epoch, index, _) in zip(rows, keys, strict=True):
                draw_from(self.seed, epoch, index)
                found.append(self.vary(row))
        return found

    def _encoded(self, keys: list[Key]) -> dict[str, list]:
        batch = self.rows[[index for _, index, _ in keys]]
        if self.augment:
            batch = self._augmented(batch, keys)
        return batch if self.encode is None else self.encode(batch, train=self.train)

    def _augmented(self, batch: dict[str, list], keys: list[Key]) -> dict[str, list]:
        out: dict[str, list] = {name: [] for name in batch}
        with undisturbed():
            for i, (epoch, index, _) in enumerate(keys):
                row = {name: [values[i]] for name, values in batch.items()}
                draw_from(self.seed, epoch, index)
                for part in self.augment:
                    row = part(row)
                for name in out:
                    out[name].extend(row[name])
        return out


def draw_from(*numbers: int) -> None:
    """Random numbers of Python, NumPy and torch's CPU generator come from these numbers from now on."""
    seed = int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """The random generators are after the block as they were before it."""
    state = rng_state()
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


def shuffled(num_rows: int, seed: int) -> Callable[[int], np.ndarray]:
    """epoch -> a permutation of the rows, from (seed, epoch) alone."""

    def order(epoch: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(num_rows, generator=generator).numpy()

    return order


def bucketed(
    lengths: Sequence[int] | np.ndarray, seed: int, global_batch: int, window: int = WINDOW
) -> Callable[[int], np.ndarray]:
    """epoch -> an order in which each global batch holds rows of like length.

    The shuffled rows are sorted inside windows of `window` global batches, then the batches are shuffled; a last,
    partial batch stays last. Padding is rare, and the order is still drawn from (seed, epoch) and the global batch.
    """
    plain, sizes, size = shuffled(len(lengths), seed), np.asarray(lengths), window * global_batch

    def order(epoch: int) -> np.ndarray:
        rows = plain(epoch)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            rows[start : start + size] = part[np.argsort(sizes[part], kind="stable")]
        whole = len(rows) // global_batch * global_batch
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        places = torch.randperm(whole // global_batch, generator=generator).numpy()
        return np.concatenate([rows[:whole].reshape(-1, global_batch)[places].ravel(), rows[whole:]])

    return order


def longest_first(rows: EncodedRows) -> np.ndarray:
    """An order in which evaluation pads least, and finds out first whether memory is enough."""
    lengths = rows.lengths()
    if lengths is None:
        return np.arange(len(rows))
    return np.argsort(-lengths, kind="stable")


def train_order(rows: EncodedRows, args, batch_size: int) -> Callable[[int], np.ndarray | range]:
    """epoch -> the order of the training rows that TrainingArguments ask for; `batch_size` is one process's."""
    lengths, strategy = rows.lengths(), args.train_sampling_strategy
    seed = args.data_seed if args.data_seed is not None else args.seed
    global_batch = batch_size * args.world_size * args.gradient_accumulation_steps
    if hasattr(rows, "arrange"):  # a stream, which orders its rows as it reads them
        return rows.arrange(seed, global_batch, args.max_steps, strategy)
    if strategy == "sequential":
        return lambda epoch: np.arange(len(rows))
    if lengths is None or strategy != "group_by_length":
        return shuffled(len(rows), seed)
    return bucketed(lengths, seed, global_batch)


def parts(lengths: Sequence[int] | np.ndarray, cost: float) -> list[np.ndarray]:
    """Places of a batch's rows, in parts of like length, the longest first, that together cost least to compute.

    A part takes rows x its longest row tokens, and `cost` tokens for itself. Cut at one of 16 places, by dynamic
    programming.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    edges = np.unique(np.linspace(0, len(order), min(len(order), 16) + 1).round().astype(int))
    longest = np.asarray(lengths)[order[edges[:-1]]]
    least, cut = [0.0], [0]
    for end in range(1, len(edges)):
        every = [least[i] + (edges[end] - edges[i]) * longest[i] + cost for i in range(end)]
        cut.append(int(np.argmin(every)))
        least.append(every[cut[-1]])
    found, end = [], len(edges) - 1
    while end:
        found.append(order[edges[cut[end]] : edges[end]])
        end = cut[end]
    return found[::-1]


def unparted(batch: Any) -> list[dict[str, Any]]:
    """The parts of a collated batch; of one that was not parted itself."""
    return batch if isinstance(batch, list) else [batch]


@dataclass
class GlobalBatches(Sampler[list[Key]]):
    """This process's micro-batches of each global batch, in step with the other processes.

    A global batch is `batch_size * num_processes * accumulation` rows of `order(epoch)`; micro-batch m of process r
    takes its rows from (m * num_processes + r) * batch_size on. Where the last rows do not reach a process, it gets one
    filler row that weighs nothing; with `drop_last` a last, partial global batch is left out.
    """

    num_rows: int
    batch_size: int
    order: Callable[[int], Sequence[int] | np.ndarray]
    process: int = 0
    num_processes: int = 1
    accumulation: int = 1
    drop_last: bool = False
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """The pass over the data that the next iteration makes."""
        self.epoch = epoch

    def __len__(self) -> int:
        width = self.batch_size * self.num_processes
        if self.drop_last:
            return self.num_rows // (width * self.accumulation) * self.accumulation
        return -(-self.num_rows // width)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order(self.epoch)
        width = self.batch_size * self.num_processes
        for step in range(len(self)):
            start = step * width + self.process * self.batch_size
            rows = order[start : start + self.batch_size]
            yield [(self.epoch, int(i), False) for i in rows] or [(self.epoch, int(order[step * width]), True)]


class EpochLoader(DataLoader):
    """A DataLoader that hands the epoch to its batch sampler, and draws nothing from the global generators."""

    def __init__(self, rows: EncodedRows, batches: GlobalBatches, **options):
        super().__init__(rows, batch_sampler=batches, generator=torch.Generator(), **options)
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """The pass over the data that the next iteration makes."""
        self.batches.set_epoch(epoch)


def encoded(rows: datasets.Dataset, task, *, split: str, seed: int, augment=(), cache: bool = False) -> EncodedRows:
    """A split as the Trainer takes it: encoded once (text), or on access (pictures, and whatever is augmented).

    What is encoded once is encoded by the machine's first process for all, and with `cache` for later starts too.
    What a task varies in its rows is the same in every evaluation.
    """
    train = split == "train"
    if task.lazy or (train and augment):
        if task.windows:
            raise InputError("data.augment: this task cuts long rows into several, once and before; take the parts out")
        read = EncodedRows(
            rows, encode=task.encode, augment=tuple(augment), seed=seed if train else 0, train=train, vary=task.vary
        )
        first = read._encoded([(0, 0, False)])  # a wrong option of an augmentation stops here, before training
        if cache and not augment:
            read.kept = shelf.shelf(len(rows), {name: values[0] for name, values in first.items()}, split)
        return read

    def encode() -> compact.Columns:
        starts = range(0, len(rows), BLOCK)
        return compact.gather(task.encode(rows[start : start + BLOCK], train=train) for start in starts)

    if not cache and launch.world_size() == 1:
        columns = encode()
    else:
        root = None if cache else launch.folder()
        with launch.main_first(f"tokens-{split}"):
            columns = stored.through(rows, task, split=split, encode=encode, root=root)
    return EncodedRows(columns, seed=seed if train else 0, train=train, vary=task.vary)

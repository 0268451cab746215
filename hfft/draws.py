"""Draws: which rows of a stream each step sees.

Every process and worker reads the same rows in the same order, shuffled by a buffer that is drawn from (seed, epoch),
and encodes only its own. So the rows of step k depend on the seed and the global batch alone, as they do for rows that
are held; none is drawn twice or lost, whatever the layout; and going on after an interruption is reading up to there.
Epochs follow each other without a gap: a batch that an epoch's last rows do not fill is filled by the next one's.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from hfft import batches
from hfft.batches import WINDOW, EncodedRows, Key, bucketed
from hfft.messages import HfftError, InputError, announce, warn
from hfft.reading import pictures
from hfft.reading.source import plural
from hfft.streams import Row, Stream

LISTED = 10_000  # dropped rows that dropped.jsonl has; all are counted


class Drawn(NamedTuple):
    """A row and the epoch that it is drawn in."""

    epoch: int
    row: Row


class Told(NamedTuple):
    """What a micro-batch tells of the stream up to its window of rows, and of itself."""

    read: int  # rows, of the first epoch
    dropped: int
    epoch: int
    size: int | None  # good rows of an epoch, once the first has ended
    cut: int  # rows of the micro-batch, by encoding
    records: list[tuple[int, dict]]  # dropped rows, numbered


@dataclass
class Columns:
    """A few rows by their number, given as `datasets` gives a batch of them: a dict of columns."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: list[int]) -> dict[str, list]:
        rows = [self.rows[number] for number in numbers]
        return {name: [row[name] for row in rows] for name in rows[0]}


class StreamRows(Dataset):
    """The training rows as the Trainer takes them: keys are places in the order in which rows are drawn."""

    def __init__(self, stream: Stream, task, *, seed: int, augment: Sequence[Callable] = ()):
        self.stream, self.task = stream, task
        self.inner = EncodedRows(
            Columns(), encode=task.encode, augment=tuple(augment), seed=seed, train=True, vary=task.vary
        )
        self.num_rows, self.global_batch, self.order_seed, self.strategy = 0, 1, seed, "random"
        self._restart()
        self.last: Told | None = None
        self.records: list[dict] = []
        self.cut = 0  # rows of this process's batches that encoding cut; a resumed run goes on counting

    # ---- the order --------------------------------------------------------------------------------------------------
    def arrange(self, seed: int, global_batch: int, steps: int, strategy: str) -> Callable[[int], range]:
        """Fix the order of the rows; the keys of all steps of the run are then one range."""
        self.num_rows, self.global_batch = steps * global_batch, global_batch
        self.order_seed, self.strategy = seed, strategy
        self._restart()
        return lambda _: range(self.num_rows)

    def __len__(self) -> int:
        return self.num_rows

    def lengths(self) -> None:
        """Not known beforehand."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "windows": None, "process": None}

    def _restart(self) -> None:
        self.process = os.getpid()  # a forked worker shares its parent's open files, so it opens its own
        self.rows: list[Drawn] = []
        self.start, self.sorted = 0, True
        self.read = self.dropped = self.epoch = 0
        self.size: int | None = None
        self.pending: list[tuple[int, dict]] = []
        self.windows = self._windows()

    def _epoch(self, epoch: int) -> Iterator[Row]:
        """The rows of one pass over the stream."""
        rng = random.Random(f"{self.order_seed} {epoch}")
        shuffle = self.strategy != "sequential"
        rows = self._counted(epoch, rng if shuffle else None)
        yield from through_buffer(rows, self.stream.buffer_size, rng) if shuffle else rows

    def _counted(self, epoch: int, order: random.Random | None) -> Iterator[Row]:
        size = 0
        for read, good, dropped in self.stream.blocks(order):
            if epoch == 0:
                self.read += read
                self.pending += [(self.dropped + i, record) for i, record in enumerate(dropped)]
                self.dropped += len(dropped)
            size += len(good)
            yield from good
        if not size:
            raise InputError(f"split '{self.stream.sieve.split}': no row of the stream is left to train on")
        self.size = size

    def _windows(self) -> Iterator[list[Drawn]]:
        """All rows in blocks of whole global batches; where rows are sorted by length, inside a block of one epoch."""
        window = self.global_batch * (WINDOW if self.strategy == "group_by_length" else 1)
        rows: list[Drawn] = []
        for self.epoch in count():
            for row in self._epoch(self.epoch):
                rows.append(Drawn(self.epoch, row))
                if len(rows) == window:
                    yield rows
                    rows = []
            whole = len(rows) // self.global_batch * self.global_batch
            if whole:
                yield rows[:whole]
                rows = rows[whole:]

    def _drawn(self, position: int) -> Drawn:
        if position < self.start or self.process != os.getpid():
            self._restart()
        while position >= self.start + len(self.rows):
            self.start += len(self.rows)
            self.rows, self.sorted = next(self.windows), False
        if not self.sorted and self.strategy == "group_by_length":
            lengths = np.array([length(drawn.row.columns) for drawn in self.rows])
            order = bucketed(lengths, self.order_seed, self.global_batch)(self.start)
            self.rows = [self.rows[i] for i in order]
        self.sorted = True
        return self.rows[position - self.start]

    # ---- what the loader asks for -----------------------------------------------------------------------------------
    def __getitems__(self, keys: list[Key]) -> list[dict[str, Any]]:
        """Encoded rows; in a worker a mistake comes as one marked row, for its traceback would hide its line."""
        try:
            return self._encoded([self._drawn(position) for _, position, _ in keys])
        except HfftError as error:
            if get_worker_info() is None:
                raise
            return [{"told": error}]

    def try_first(self, rows: Sequence[Row]) -> None:
        """Encode rows before training, so that what is wrong with all of them stops now."""
        self._encoded([Drawn(0, row) for row in rows])
        self.task.data_report(f"first rows of {self.stream.sieve.split}")

    def _encoded(self, drawn: list[Drawn]) -> list[dict[str, Any]]:
        before = self.task.cut_off()
        self.inner.rows = Columns({row.number: row.columns for _, row in drawn})
        try:
            rows = self.inner.__getitems__([(epoch, row.number, False) for epoch, row in drawn])
        except Exception as error:  # each picture decoder has its own
            raise blamed(drawn) or error from error
        cut = self.task.cut_off() - before
        told = Told(self.read, self.dropped, self.epoch, self.size, cut, self.pending)
        self.pending = []
        rows[0]["told"] = told
        return rows

    def held(self, positions: Sequence[int]) -> EncodedRows:
        """The rows drawn at these places, held, by their number."""
        rows = [self._drawn(position).row for position in positions]
        return replace(self.inner, rows=Columns({row.number: row.columns | {"row": row.number} for row in rows}))

    # ---- what is counted --------------------------------------------------------------------------------------------
    def hear(self, told: Told | HfftError) -> None:
        """Take down what a micro-batch told; raises the mistake that a worker met."""
        if isinstance(told, HfftError):
            raise told
        before = self.last
        if before is not None and told.epoch > before.epoch:
            announce(f"stream: pass {told.epoch + 1} over {plural(told.size or 0, 'row')} begins")
        if told.dropped and not (before and before.dropped):
            warn(f"{self.stream.sieve.split}: bad rows are dropped (data.on_bad_row: skip); first: {line_of(told)}")
        known = before.dropped if before else 0
        self.records += [record for number, record in told.records if number >= known][: LISTED - len(self.records)]
        self.cut += told.cut
        self.last = told

    def report(self, report: dict[str, Any], steps: int, gather: Callable[[list], list]) -> int:
        """Add to the data's report what `steps` steps have seen; the rows drawn. Every process calls it."""
        drawn, split = steps * self.global_batch, self.stream.sieve.split
        if self.last is None and drawn:  # a resumed run that had no step left: what its steps had seen is read again
            self._drawn(drawn - 1)
            self.hear(Told(self.read, self.dropped, self.epoch, self.size, 0, self.pending))
        told = self.last
        report["truncated"] = sum(gather([self.cut]))
        if report["truncated"] > 0.05 * drawn:
            share = f"{report['truncated']:,} of {plural(drawn, 'row')} ({report['truncated'] / drawn:.1%})"
            warn(f"{split}: {share} were cut at the longest length")
        if told is not None:
            report["rows_read"] = {split: told.read, **report["rows_read"]}
            report["trained"] = min(drawn, told.size or drawn)
            report["dropped"] += told.dropped
            report["epochs"] = told.epoch + 1
            announce(
                f"stream: {plural(drawn, 'row')} trained on in {plural(told.epoch + 1, 'epoch')}; {told.read:,} read, "
                f"{told.dropped:,} dropped, {report['truncated']:,} cut"
            )
        return drawn


def through_buffer(rows: Iterator[Row], size: int, rng: random.Random) -> Iterator[Row]:
    """The rows in an order that `rng` draws: each takes the place of one of the `size` that wait."""
    waiting: list[Row] = []
    for row in rows:
        if len(waiting) < size:
            waiting.append(row)
            continue
        place = int(rng.random() * size)
        yield waiting[place]
        waiting[place] = row
    rng.shuffle(waiting)
    yield from waiting


def length(columns: dict[str, Any]) -> int:
    """Characters of a row's texts, for rows that are not tokenised yet."""
    return sum(len(value) for value in columns.values() if isinstance(value, str))


def line_of(told: Told) -> str:
    """The first of the dropped rows, for a message."""
    if not told.records:
        return "of an earlier batch"
    record = told.records[0][1]
    place = f"line {record['line']}" if "line" in record else f"row {record['row']}"
    return f"{record['file']} {place}, column '{record['column']}': {record['reason']}"


def blamed(drawn: Sequence[Drawn]) -> InputError | None:
    """The line for a picture that cannot be decoded, if that is what is wrong."""
    for _, row in drawn:
        if "image" in row.columns:
            _, what, _ = pictures.look(row.columns["image"], decode=True)
            if what:
                return InputError(f"{row.where()}: {what}; {pictures.REPLACE}")
    return None


def encoded(rows: Any, task, *, split: str, seed: int, augment: Sequence[Callable] = (), cache: bool = False) -> Any:
    """`batches.encoded`, or the rows of a Stream; of its first ones all lengths, or one picture, are tried and told."""
    if not isinstance(rows, Stream):
        return batches.encoded(rows, task, split=split, seed=seed, augment=augment, cache=cache)
    found = StreamRows(rows, task, seed=seed, augment=augment)
    for _, good, _ in rows.blocks(None):
        if good:
            found.try_first(good[: 1 if task.lazy else len(good)])
            break
    return found

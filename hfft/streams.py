"""Streams: the training split read from its beginning as often as needed and never held whole (data.load.streaming).

`load_splits` is `data.load_splits` for both kinds. The evaluation split is held whole: a split of its own, or the first
rows of the stream, which are then never trained on.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from hfft import data as whole
from hfft import launch
from hfft.data import Splits, complete, to_dataset, wants
from hfft.messages import InputError, announce, silently
from hfft.reading import columns, feeds, holdout, readers, sieve, truths
from hfft.reading.feeds import PART, Feed
from hfft.reading.sieve import Pass, Sieve
from hfft.reading.source import File, Source, plural

BUFFER = 10_000  # rows that wait to be shuffled; data.load.buffer_size
PICTURES = 1_000  # the same where rows carry the bytes of a picture
HELD_OUT = 1_000  # rows, where neither a split nor their number is given
INSTEAD = "a stream is never held whole: take the part out, or data.load.streaming"


class Row(NamedTuple):
    """A good row of canonical columns, with its number in the stream and where it was read."""

    number: int
    columns: dict[str, Any]
    file: File
    line: int

    def where(self) -> str:
        """The row for people: "train.csv line 17"."""
        return f"{self.file.name} {self.file.unit} {self.line}" if self.file.unit else self.file.name


@dataclass
class Stream:
    """The training split: what tasks and parts ask of it, and its rows from the beginning."""

    feed: Feed
    sieve: Sieve
    held: int = -1  # rows up to this number are held out for evaluation
    buffer_size: int = BUFFER
    counted: Pass | None = None

    @property
    def features(self) -> dict[str, Any]:
        """That of the truth, as a Dataset's features tell it."""
        kind = self.sieve.kind
        return {} if kind is None else {kind.COLUMN: kind.column([], self.sieve.classes)[1]}

    def __len__(self) -> int:
        raise InputError("data.load.streaming: a part of this recipe asks how many training rows there are; " + INSTEAD)

    def __getitem__(self, key: Any) -> Any:
        raise InputError("data.load.streaming: a part of this recipe reads the training rows whole; " + INSTEAD)

    def label_counts(self) -> dict[str, int]:
        """Rows of each class, from one pass over local files. Raises InputError where there can be none."""
        if self.counted is None:
            if not self.feed.is_local:
                raise InputError("data.load.streaming: a part of this recipe needs the rows of each class; " + INSTEAD)
            self.counted = read_labels(self.sieve, self.feed, self.held)
        return self.counted.counts

    def blocks(self, order: random.Random | None) -> Iterator[tuple[int, list[Row], list[dict]]]:
        """(rows read, the good ones, a record for each dropped one) a block at a time; `order` draws files' order."""
        kind = self.sieve.kind
        for block in self.feed.blocks(self.sieve.columns, order):
            if (block.index <= self.held).any():
                block = block.take(np.flatnonzero(block.index > self.held))
            if not len(block):
                continue
            with silently():  # told of the first rows; what stops is raised
                checked, dropped = self.sieve.sift(block)
            for record in dropped:
                record["row"] &= (1 << PART) - 1
            source = checked.source
            cells = {name: source.values(name) for name in source.columns}
            if kind is not None:
                cells[kind.COLUMN] = kind.column(checked.truth, self.sieve.classes)[0].to_pylist()
            rows = [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]
            places = zip(source.index.tolist(), rows, source.file_ids, source.numbers.tolist(), strict=True)
            good = [Row(number, row, source.files[file], line) for number, row, file, line in places]
            yield len(block), good, dropped


def load_splits(
    data: Any,
    task: Any,
    *,
    seed: int,
    data_in_memory: Any = None,
    splits: Sequence[str] = (),
    label_names: Callable[[], list[str] | None] = lambda: None,
    **limit: Any,
) -> Splits:
    """`data.load_splits`, with a Stream as the training split where data.load.streaming says so.

    `label_names` gives the checkpoint's own, for streams that tell no classes and cannot be read before; `limit` is the
    check_limit of rows that are held. Raises InputError for bad rows of the evaluation split, and for what the first
    rows of the stream show to be wrong.
    """
    if not getattr(data, "load", {}).get("streaming"):
        return whole.load_splits(data, task, seed=seed, data_in_memory=data_in_memory, splits=splits, **limit)
    data = complete(data, task)
    refuse_filters(data)
    found = feeds.find(data, pictures=wants(task, "image"), in_memory=data_in_memory)
    train, held_out = holdout.choose_splits(data, dict.fromkeys(found, 0))
    feed = feeds.open_feed(found[train])
    head = next(feed.blocks())
    task.meet(head, data)
    if task.windows:
        raise InputError("data.load.streaming: this task cuts long rows into several, " + INSTEAD)
    rules = Sieve(data, train, columns.choose(data, task.columns, head), None)
    stream = Stream(feed, rules, buffer_size=buffer_size(data, head, rules, feed))
    parts: dict[str, Source] = {}
    if held_out is None and data.eval_size:
        held_out = whole.CARVED
        parts[held_out] = hold_out(stream, train, data)
    for name in dict.fromkeys([*([held_out] if held_out else []), *splits]):
        if name not in parts:
            name = holdout.named(name, found, "splits")
            parts[name] = readers.concatenate(list(raw(feeds.open_feed(found[name]), rules)))
    if kind := truths.of(task):
        learn_classes(stream, kind, head, label_names)
    return finished(stream, parts, held_out, splits)


def refuse_filters(data: Any) -> None:
    """Filters are functions of the whole split."""
    if data.filters:
        name = data.filters[0].name
        raise InputError(
            f"data.filters: {name} reads the training rows whole, and a stream never is; take out {name}, or streaming"
        )


def buffer_size(data: Any, head: Source, rules: Sieve, feed: Feed) -> int:
    """Rows that are shuffled among each other, announced with what the stream is."""
    asked = data.load.get("buffer_size")
    if asked is not None and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 1):
        raise InputError(f"data.load.buffer_size: {asked!r} is no number of rows; write 1000, 10000 …")
    heavy = "image" in rules.chosen and bool(head.files[head.file_ids[0]].unit)
    size = asked or (PICTURES if heavy else BUFFER)
    announce(
        f"data: {rules.split} is a stream, its rows shuffled {size:,} at a time (data.load.buffer_size); every process "
        f"and worker {'reads' if feed.is_local else 'fetches'} all of it and encodes its own rows"
    )
    return size


def raw(feed: Feed, rules: Sieve) -> Iterator[Source]:
    """The blocks of a split, of the columns that are looked at."""
    for block in feed.blocks(rules.columns):
        yield replace(block, columns={name: block.columns[name] for name in rules.columns if name in block.columns})


def hold_out(stream: Stream, train: str, data: Any) -> Source:
    """The first rows of the stream, which the stream then leaves out."""
    wanted = int(data.eval_size) if data.eval_size >= 1 else HELD_OUT
    if data.eval_size < 1 and data.eval_size != whole.DEFAULTS["eval_size"]:
        raise InputError(
            f"data.eval_size: {data.eval_size} is a share, and a stream does not tell its rows; write a number of rows"
        )
    blocks, size = [], 0
    for block in raw(stream.feed, stream.sieve):
        blocks.append(block.take(range(min(len(block), wanted - size))))
        size += len(blocks[-1])
        stream.held = int(blocks[-1].index[-1])
        if size == wanted:
            break
    if size < wanted:
        raise InputError(
            f"data.eval_size: {wanted:,} rows would be held out of '{train}', which has {size:,}; write less"
        )
    announce(
        f"eval: the first {plural(size, 'row')} of '{train}' held out (no eval split; set data.eval, or data.eval_size "
        "to a number of rows)"
    )
    return readers.concatenate(blocks)


def learn_classes(stream: Stream, kind: ModuleType, head: Source, label_names: Callable[[], list[str] | None]) -> None:
    """Put the kind of truth and its classes, if it has any, into the stream's sieve."""

    def once() -> Pass:
        stream.counted = read_labels(stream.sieve, stream.feed, stream.held)
        sieve.warn_of_runs(stream.counted, stream.buffer_size, stream.sieve.split)
        return stream.counted

    stream.sieve = replace(stream.sieve, kind=kind)
    if kind.NAMED:
        classes = sieve.classes_of(stream.sieve, head, stream.feed, once, label_names)
        stream.sieve = replace(stream.sieve, classes=classes)


def read_labels(rules: Sieve, feed: Feed, held: int) -> Pass:
    """`sieve.read_labels`, once per machine."""
    if launch.world_size() == 1:
        return sieve.read_labels(rules, feed, held)
    file = launch.folder() / "labels.json"
    with launch.main_first("labels"):
        if not file.exists():
            found = sieve.read_labels(rules, feed, held)
            file.write_text(json.dumps([found.counts, found.run]))
        return Pass(*json.loads(file.read_text()))


def finished(stream: Stream, parts: dict[str, Source], held_out: str | None, splits: Sequence[str]) -> Splits:
    """The splits with their report; what the stream counts is known after the training."""
    rules, rows, dropped, read = stream.sieve, {}, [], {}
    for name, source in parts.items():
        checked, bad = replace(rules, split=name, like=rules.split, decode=True).whole(source)
        rows[name], read[name] = to_dataset(checked, rules.kind, rules.classes), len(source)
        dropped += bad
    holdout.warn_of_one({name: len(held) for name, held in rows.items()})
    if "image" in rules.chosen and rules.data.on_bad_row == "skip":
        stream.sieve = replace(rules, decode=True)
        announce(
            "pictures are decoded once more where they are read, to skip bad ones (data.on_bad_row: error does not)"
        )
    report = {
        "columns": rules.chosen,
        "rows_read": read,
        "trained": None,  # known after the training
        "dropped": len(dropped),
        "streamed": {"buffer_size": stream.buffer_size},
        "filters": {},
    }
    others = {name: rows[holdout.named(name, rows, "splits")] for name in splits}
    return Splits(stream, rows[held_out] if held_out else None, others, report, dropped)

"""Sieve: the rules of `columns` and `labels` on a stream's rows, block by block, and the classes known beforehand."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType
from typing import Any

import numpy as np

from hfft.messages import InputError, announce, warn
from hfft.reading import checks, columns, holdout, labels, pictures, truths
from hfft.reading.checks import Checked
from hfft.reading.feeds import Feed
from hfft.reading.source import Source, plural


@dataclass(frozen=True)
class Sieve:
    """What the rows of a split must be: its columns, by the task's names, and its classes (None: no label)."""

    data: Any  # the recipe's section: labels, join, on_bad_row
    split: str
    chosen: dict[str, list[str]]
    classes: list[str] | None
    kind: ModuleType | None = None  # of the rows' truth
    like: str = ""  # the split that the columns were chosen by
    decode: bool = False  # whether every picture is decoded to see that it can be

    @property
    def columns(self) -> list[str]:
        """The data set's columns that are looked at."""
        return list(dict.fromkeys(part for parts in self.chosen.values() for part in parts))

    def sift(self, block: Source) -> tuple[Checked, list[dict]]:
        """(the good rows, a record for each dropped one). Raises InputError unless data.on_bad_row is "skip"."""
        source = columns.pick(block, self.chosen, self.split, self.like or self.split)
        problems, keys, truth = checks.check_columns(source, self.data.join), [b""] * len(source), None
        if "image" in source.columns and self.decode:
            found = pictures.check_images(source)
            problems, keys = problems + found.problems, found.digests
        if self.kind is not None:
            truth, wrong = self.kind.of_rows(self.data, source)
            known = "data.labels" if self.data.labels else self.like or self.split
            problems += wrong + self.kind.mark_unknown(source, truth, self.classes, known)
        dropped = checks.settle(self.data, {self.split: source}, {self.split: problems})
        good = np.ones(len(source), dtype=bool)
        good[[problem.position for problem in problems]] = False
        checked = Checked(source, truth, keys)
        return (checked.take(np.flatnonzero(good)) if problems else checked), dropped

    def whole(self, source: Source) -> tuple[Checked, list[dict]]:
        """`sift` of a split that is held whole: its keys tell copies, and a row must be left."""
        checked, dropped = self.sift(source)
        if not len(checked.source):
            raise InputError(f"split '{self.split}': no row is left, all {len(source):,} are bad")
        if "image" not in checked.source.columns:
            checked.keys = holdout.text_keys(checked.source, truths.columns())
        return checked, dropped


def known_classes(data: Any, kind: ModuleType, chosen: dict[str, list[str]], head: Source) -> list[str] | None:
    """The classes that data.labels (which must name all of them) or a ClassLabel gives, in their order."""
    feature = head.features.get(chosen[kind.COLUMN][0])
    feature = getattr(feature, "feature", feature)  # of a list
    if isinstance(data.labels, dict):
        return list(dict.fromkeys(str(value) for value in data.labels.values()))
    if data.labels or getattr(feature, "names", None):
        return labels.order([], getattr(feature, "names", None), data.labels)
    return None


@dataclass(frozen=True)
class Pass:
    """What reading the labels through told: rows of each class, and the most rows of one class in a row."""

    counts: dict[str, int]
    run: int = 0

    def classes(self, where: str) -> list[str]:
        """The classes in order. Raises InputError where they cannot be learnt; a rarer spelling is no class."""
        counts = Counter(self.counts)
        usual = labels.usual_spellings(counts)
        for rare in usual:
            del counts[rare]
        ordered = labels.order(list(counts), None, None)
        labels.check_classes(list(counts.elements()), ordered, where)
        return ordered


def read_labels(sieve: Sieve, feed: Feed, held: int) -> Pass:
    """One pass over the label column, announced; rows up to number `held` are not counted.

    Raises InputError at the first label that is none, or that is another spelling of a more frequent one, unless
    data.on_bad_row is "skip": then such rows are dropped when they are drawn.
    """
    chosen = {"label": sieve.chosen["label"]}
    counts: Counter[str] = Counter()
    places: dict[str, str] = {}
    start, longest, last, length = time.monotonic(), 0, None, 0
    for block in feed.blocks(chosen["label"]):
        source = columns.pick(block, chosen, sieve.split, sieve.split)
        names, problems = labels.of_rows(sieve.data, source)
        labels.refuse_numbers(source, names)
        if problems and sieve.data.on_bad_row != "skip":
            checks.settle(sieve.data, {sieve.split: source}, {sieve.split: problems})
        good = [(i, name) for i, name in enumerate(names) if name is not None and source.index[i] > held]
        counts.update(name for _, name in good)
        for i, name in good:
            places.setdefault(name, source.where(i))
        for name, group in groupby(name for _, name in good):
            length = sum(1 for _ in group) + (length if name == last else 0)
            last, longest = name, max(longest, length)
    seconds = time.monotonic() - start
    announce(
        f"classes: {sieve.split} read through once for its labels, {plural(sum(counts.values()), 'row')} in "
        f"{seconds:.1f} s (data.labels: [{', '.join(list(counts)[:2])}, …] saves it)"
    )
    refuse_spellings(sieve, counts, places)
    return Pass(dict(counts), longest)


def refuse_spellings(sieve: Sieve, counts: Counter[str], places: dict[str, str]) -> None:
    """Stop at labels that differ from a more frequent one in spelling only."""
    usual = labels.usual_spellings(counts)
    if usual and sieve.data.on_bad_row != "skip":
        raise InputError(
            *[
                f"{places[rare]}, column '{sieve.chosen['label'][0]}': "
                + "; ".join(labels.of_spelling(rare, best, counts))
                for rare, best in usual.items()
            ]
        )


def warn_of_runs(found: Pass, buffer_size: int, split: str) -> None:
    """Say where a shuffle by a buffer leaves steps of one class."""
    if found.run > buffer_size:
        warn(
            f"{split}: {found.run:,} rows of one class follow each other, more than the {buffer_size:,} of the buffer "
            "that shuffles: steps will see one class; shuffle the file, or raise data.load.buffer_size"
        )


def classes_of(
    sieve: Sieve, head: Source, feed: Feed, once: Callable[[], Pass], label_names: Callable[[], list[str] | None]
) -> list[str]:
    """The classes: from data.labels or a ClassLabel, else from one pass over local rows, else the checkpoint's own."""
    assert sieve.kind is not None
    found = known_classes(sieve.data, sieve.kind, sieve.chosen, head)
    if found is None and feed.is_local and sieve.kind is labels:
        found = once().classes(head.files[0].name if head.files[0].unit else sieve.split)
    if found is None and (found := label_names()):
        announce(f"classes: {', '.join(found)} (the checkpoint's; the stream names none, set data.labels)")
    if found is None:
        raise InputError(
            "data.labels: a stream does not tell its classes before it is read; write data.labels: [name, …] in the "
            "order of the model's outputs, or {value: name, …}"
        )
    return found

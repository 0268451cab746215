"""All rules on all rows of all splits: every bad row is found before the first training step, and none goes unsaid."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from hfft.messages import InputError, announce, warn
from hfft.reading import columns, holdout, pictures, truths
from hfft.reading.source import MAX_LINES, Found, Problem, Source, cut, plural


@dataclass
class Checked:
    """One split after the rules: good rows only, their truth, and a key for each row's inputs."""

    source: Source
    truth: list | None  # a value for each row, or None where the task has none
    keys: Any  # a list or array

    def take(self, positions: np.ndarray) -> "Checked":
        """These rows only."""
        return self._with(self.source.take(positions), positions)

    def parted(self, positions: np.ndarray) -> "tuple[Checked, Checked]":
        """(the other rows, these rows, which are in order); this split loses its cells, so that none is held twice."""
        outside = np.ones(len(self.source), dtype=bool)
        outside[positions] = False
        rest, chosen = self.source.parted(outside)
        return self._with(rest, np.flatnonzero(outside)), self._with(chosen, positions)

    def _with(self, source: Source, positions: np.ndarray) -> "Checked":
        truth = [self.truth[i] for i in positions] if self.truth is not None else None
        keys = self.keys[positions] if isinstance(self.keys, np.ndarray) else [self.keys[i] for i in positions]
        return Checked(source, truth, keys)


def check(
    data: Any, picked: dict[str, Source], limit: int | None, kind: ModuleType | None
) -> tuple[dict[str, Checked], list[str] | None, list[dict]]:
    """(split -> good rows, classes in order, dropped rows). The first split is the training one.

    `kind` is that of the rows' truth. Raises InputError with a line for each bad row, at most 20, unless
    data.on_bad_row is "skip".
    """
    found: Found = {split: [] for split in picked}
    digests: dict[str, list[bytes]] = {}
    for split, source in picked.items():
        found[split] += check_columns(source, data.join)
        if "image" in source.columns:
            digests[split] = check_pictures(picked, split, found[split], limit)
    truth, names = ({}, None) if kind is None else kind.read(data, picked, found)
    dropped = settle(data, picked, found)
    checked = {}
    for split, source in picked.items():
        keys = digests[split] if split in digests else holdout.text_keys(source, truths.columns())
        checked[split] = without(Checked(source, truth.get(split), keys), found[split], split)
    if kind is not None:
        file = next(iter(checked.values())).source.files[0]
        kind.judge(
            {name: part.truth for name, part in checked.items()}, names, file.name if file.unit else next(iter(checked))
        )
    return checked, names, dropped


def check_columns(source: Source, join: str) -> list[Problem]:
    """What is wrong in the columns that answers are made from; each gets its final form."""
    inputs = [name for name in source.columns if name not in truths.columns()]
    return [problem for name in inputs for problem in columns.RULES.get(name, columns.other)(source, name, join)]


def check_pictures(picked: dict[str, Source], split: str, found: list[Problem], limit: int | None) -> list[bytes]:
    """Decode the pictures (a sample of large sets, announced), warn of odd ones, and give the hash of each."""
    size, total = len(picked[split]), sum(map(len, picked.values()))
    share = None if limit is None or total <= limit else limit * size // total
    if share is not None:
        announce(
            f"{split}: {share:,} of {plural(size, 'picture')} decoded before training, evenly spread ({total:,} in all)"
        )
    result = pictures.check_images(picked[split], limit=share)
    found += result.problems
    result.warn(split)
    return result.digests


def settle(data: Any, picked: dict[str, Source], found: Found) -> list[dict]:
    """Stop on bad rows with a line each, or list them as dropped, as data.on_bad_row says."""
    if not any(found.values()):
        return []
    for problems in found.values():
        problems.sort(key=lambda problem: problem.position)
    if data.on_bad_row != "skip":
        raise InputError(*listed(picked, found))
    dropped: dict[tuple[str, int], dict] = {}
    for split, problems in found.items():
        for problem in problems:
            dropped.setdefault((split, problem.position), problem.record(picked[split], split))
        if problems:
            count, first = len({problem.position for problem in problems}), problems[0].line(picked[split])
            bad = f"{plural(count, 'bad row')} of {len(picked[split]):,}"
            warn(f"{split}: {bad} dropped (data.on_bad_row: skip); first: {first}")
    return list(dropped.values())


def listed(picked: dict[str, Source], found: Found) -> list[str]:
    """A line for each bad row; where those are too many, one for each kind of mistake with its first rows."""
    every = [(split, problem) for split, problems in found.items() for problem in problems]
    if len(every) <= MAX_LINES:
        return [problem.line(picked[split]) for split, problem in every]
    kinds: dict[tuple, list[Problem]] = {}
    for split, problem in every:
        kinds.setdefault((split, problem.column, problem.what, problem.remedy), []).append(problem)
    lines = []
    for (split, *_), problems in kinds.items():
        source, more = picked[split], ""
        if len(problems) > 1:
            rows = ", ".join(source.brief(problem.position) for problem in problems[:10])
            more = f" ({len(problems):,} rows so: {rows}{', …' if len(problems) > 10 else ''})"
        lines.append(problems[0].line(source) + more)
    return cut(lines)


def without(part: Checked, problems: list[Problem], split: str) -> Checked:
    """The rows that no problem names; at least one must be left."""
    if not problems:
        return part
    good = np.ones(len(part.source), dtype=bool)
    good[[problem.position for problem in problems]] = False
    if not good.any():
        raise InputError(
            f"split '{split}': no row is left, all {len(good):,} are bad; first: {problems[0].line(part.source)}"
        )
    return part.take(np.flatnonzero(good))

"""All rules on all rows of all splits: every bad row is found before the first training step, and none goes unsaid."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hfft.messages import InputError, announce, warn
from hfft.reading import columns, holdout, labels, pictures
from hfft.reading.source import MAX_LINES, Problem, Source, cut, plural

Found = dict[str, list[Problem]]  # split -> problems


@dataclass
class Checked:
    """One split after the rules: good rows only, their class names, and a key for each row's inputs."""

    source: Source
    names: list | None  # a class name for each row, or None where the task has no label
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
        names = [self.names[i] for i in positions] if self.names is not None else None
        keys = self.keys[positions] if isinstance(self.keys, np.ndarray) else [self.keys[i] for i in positions]
        return Checked(source, names, keys)


def check(
    data: Any, picked: dict[str, Source], limit: int | None
) -> tuple[dict[str, Checked], list[str] | None, list[dict]]:
    """(split -> good rows, classes in order, dropped rows). The first split is the training one.

    Raises InputError with a line for each bad row, at most 20, unless data.on_bad_row is "skip".
    """
    found: Found = {split: [] for split in picked}
    digests: dict[str, list[bytes]] = {}
    for split, source in picked.items():
        for column in [name for name in source.columns if name != "label"]:
            found[split] += columns.RULES.get(column, columns.other)(source, column, data.join)
        if "image" in source.columns:
            digests[split] = check_pictures(picked, split, found[split], limit)
    names, classes = check_labels(data, picked, found) if "label" in next(iter(picked.values())).columns else ({}, None)
    dropped = settle(data, picked, found)
    checked = {}
    for split, source in picked.items():
        keys = digests[split] if split in digests else holdout.text_keys(source)
        checked[split] = without(Checked(source, names.get(split), keys), found[split], split)
    if classes is not None:
        judge_classes(checked, classes)
    return checked, classes, dropped


def judge_classes(checked: dict[str, Checked], classes: list[str]) -> None:
    """Stop or warn where the classes of the good rows cannot be learnt or measured."""
    train, *rest = checked
    file = checked[train].source.files[0]
    labels.check_classes(checked[train].names or [], classes, file.name if file.unit else train)
    for split in rest:
        labels.warn_of_absent(checked[split].names or [], checked[train].names or [], split)


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


def check_labels(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, list], list[str]]:
    """(split -> class name of each row, None where it is bad; the classes in order)."""
    train = next(iter(picked))
    names: dict[str, list] = {}
    for split, source in picked.items():
        names[split], problems = labels.read_names(source)
        labels.refuse_numbers(source, names[split])
        found[split] += problems
    rename = labels.check_rename(data.labels, list(names.values()))
    if rename:
        names = {split: [rename.get(name, name) for name in values] for split, values in names.items()}
    class_names = getattr(picked[train].features.get("label"), "names", None)
    if not class_names and not isinstance(data.labels, list):
        labels.mark_spellings(picked, names, found)
    classes = labels.order(names[train], class_names, data.labels)
    for split, source in picked.items():
        known_from = "data.labels" if split == train and isinstance(data.labels, list) else train
        known = set(classes if split == train else names[train])
        found[split] += labels.mark_unknown(
            source, names[split], [name for name in classes if name in known], known_from
        )
    return names, classes


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

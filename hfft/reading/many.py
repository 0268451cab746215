"""Classes, any number a row: lists of names, one column of 0 and 1 for each class, or names joined in a string.

One of the kinds of truth in `truths.py`, which says what each has. A row without any class is valid.
"""

from collections import Counter
from typing import Any

from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading import labels
from hfft.reading.source import Found, Problem, Source, plural, shown

COLUMN, NAMED = "label", True
SEPARATORS = (",", ";", "|", "\t", "/", "+", " ")
YES, NO = ("1", "true"), ("0", "false", "")
Values = list[tuple[str, ...] | None]


def read(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, Values], list[str]]:
    """(split -> the class names of each row, None where it is bad; the classes in order). The first split is train."""
    train, *_ = picked
    values, rename = {}, labels.renames(data.labels)
    for split, source in picked.items():
        values[split], problems = _named(data, source)
        found[split] += problems
    labels.check_rename(data.labels, [_every(rows) for rows in values.values()])
    values = {split: _renamed(rows, rename) for split, rows in values.items()}
    every = [name for rows in values.values() for name in _every(rows)]
    known = _given(picked[train])
    if not known and not isinstance(data.labels, list):
        _mark_spellings(values, Counter(name for name in every if name is not None), found)
    names = labels.order([name for row in values[train] for name in row or ()], known, data.labels)
    for split, source in picked.items():
        where = "data.labels" if split == train and isinstance(data.labels, list) else train
        found[split] += mark_unknown(source, values[split], names, where)
    return values, names


def of_rows(data: Any, source: Source) -> tuple[Values, list[Problem]]:
    """(the class names of each row, renamed by data.labels, None where they cannot be read; the problems)."""
    values, problems = _named(data, source)
    return _renamed(values, labels.renames(data.labels)), problems


def _named(data: Any, source: Source) -> tuple[Values, list[Problem]]:
    if "\n" in source.origin.get(COLUMN, ""):
        return _one_hot(source)
    return _cells(source, data.truth_options.get("separator"))


def _every(values: Values) -> list[str | None]:
    return [name for row in values if row is not None for name in row]


def _renamed(values: Values, rename: dict[str, str]) -> Values:
    return [row if row is None else tuple(dict.fromkeys(rename.get(name, name) for name in row)) for row in values]


def _given(source: Source) -> list[str] | None:
    """The names that come with the data: those of a list of ClassLabels, or of the columns of 0 and 1."""
    if "\n" in (origin := source.origin.get(COLUMN, "")):
        return origin.split("\n")
    feature = source.features.get(COLUMN)
    return getattr(getattr(feature, "feature", None), "names", None)


def _one_hot(source: Source) -> tuple[Values, list[Problem]]:
    names, problems, values = source.origin[COLUMN].split("\n"), [], []
    rows = source.columns[COLUMN] = list(zip(*source.columns[COLUMN], strict=True))
    for i, cells in enumerate(rows):
        plain = ["" if cell is None else str(cell).strip().lower().removesuffix(".0") for cell in cells]
        wrong = next((j for j, cell in enumerate(plain) if cell not in YES + NO or cells[j] is None), None)
        if wrong is not None:
            what = f"column '{names[wrong]}' holds {shown(cells[wrong])}, where 0 or 1 says whether a row has the class"
            problems.append(Problem(i, COLUMN, cells[wrong], what, "write 0 or 1"))
        values.append(
            None if wrong is not None else tuple(n for n, cell in zip(names, plain, strict=True) if cell in YES)
        )
    return values, problems


def _cells(source: Source, separator: str | None) -> tuple[Values, list[Problem]]:
    cells, known = source.values(COLUMN), _given(source)
    joined = any(isinstance(cell, str) for cell in cells)
    if joined and separator is None:
        separator = _separator(cells, source)
    values: Values = []
    problems, twice = [], 0
    for i, cell in enumerate(cells):
        parts, what = _parts(cell, separator if joined else None)
        named = [labels.of_class(part, known) if known else labels.name_of(part) for part in parts]
        what = what or next((f"holds an entry that {why}" for name, why in named if name is None), "")
        if what:
            remedy = "write a list of classes, [] for none" if not joined else "write classes, or nothing for none"
            problems.append(Problem(i, COLUMN, cell, what, remedy))
            values.append(None)
            continue
        names = tuple(dict.fromkeys(name for name, _ in named if name is not None))
        twice += len(names) < len(named)
        values.append(names)
    if twice:
        announce(f"{source.files[0].name}: {plural(twice, 'row')} with the same class twice, counted once")
    return values, problems


def _parts(cell: Any, separator: str | None) -> tuple[list, str]:
    """(the entries of a cell, what is wrong with it)."""
    if separator is not None:
        if cell is None or cell == "":
            return [], ""
        if not isinstance(cell, str):
            return [], f"is {shown(cell)}, though other rows are texts"
        parts = [part.strip() for part in cell.split(separator)]
        return parts, "" if all(parts) else f"is {shown(cell)}, with nothing before or after a {separator!r}"
    if isinstance(cell, list | tuple):
        return list(cell), ""
    return [], "is empty" if cell is None else f"is {shown(cell)}, no list of classes"


def _separator(cells: list, source: Source) -> str:
    """The one character that parts the names, announced."""
    texts = {cell for cell in cells if isinstance(cell, str)}
    there = [mark for mark in SEPARATORS if any(mark in text.strip() for text in texts)]
    if len(there) > 1 and " " in there:
        there.remove(" ")  # beside a rarer mark it is a part of names, or stands after the mark
    where = source.where(0).rpartition(" ")[0] or source.where(0)
    if len(there) > 1:
        marks = " or ".join(map(repr, there))
        raise InputError(
            f"{where}, column '{source.origin.get(COLUMN, COLUMN)}': what parts the classes, {marks}? write task: "
            f"{{text_classification: {{problem: multi_label, separator: {there[0]!r}}}}}"
        )
    if there:
        announce(f"labels: parted at {there[0]!r} (the only mark in them; set the task's separator)")
    return there[0] if there else ","


def _mark_spellings(values: dict[str, Values], counts: Counter[str], found: Found) -> None:
    usual = labels.usual_spellings(counts)
    for split, rows in values.items() if usual else ():
        for i, row in enumerate(rows):
            if wrong := next((name for name in row or () if name in usual), None):
                found[split].append(Problem(i, COLUMN, wrong, *labels.of_spelling(wrong, usual[wrong], counts)))
                rows[i] = None


def mark_unknown(source: Source, values: Values, names: list[str], known_from: str) -> list[Problem]:
    """Rows with a class that is none of `names`."""
    classes, found = set(names), []
    for i, row in enumerate(values):
        if wrong := [name for name in row or () if name not in classes]:
            near = hint(wrong[0], names)
            what = f"{wrong[0]!r} is no class of {known_from}{f' ({near.strip()})' if near else ''}"
            found.append(Problem(i, COLUMN, wrong[0], what, labels.WRITE))
            values[i] = None
    return found


def judge(values: dict[str, list], names: list[str], where: str) -> None:
    """Stop where no row has a class; warn of classes that cannot be learnt or measured."""
    train, *others = values
    counts = Counter(name for row in values[train] for name in row)
    if not counts:
        raise InputError(f"{where}: no row has any class; name the column of labels in data.columns")
    bare = sum(not row for row in values[train])
    if bare:
        announce(f"{train}: {plural(bare, 'row')} without any class")
    if absent := [name for name in names if not counts[name]]:
        warn(f"{where}: {labels.listing('class', absent)} without rows")
    for split in others:
        there = {name for row in values[split] for name in row}
        if absent := sorted(name for name in counts if name not in there):
            warn(f"{split}: {labels.listing('class', absent)} of {train} without rows here, so not measured")


def strata(values: list[tuple[str, ...]]) -> list[str]:
    """Each row's rarest class, so that rare ones are on both sides of a held-out split."""
    counts = Counter(name for row in values for name in row)
    return [min(row, key=lambda name: (counts[name], name)) if row else "" for row in values]


def column(values: list[tuple[str, ...]], names: list[str]) -> tuple[Any, Any]:
    """(lists of indices as an arrow array, their feature)."""
    import pyarrow as pa
    from datasets import ClassLabel, List

    ids = {name: i for i, name in enumerate(names)}
    rows = [sorted(ids[name] for name in row) for row in values]
    return pa.array(rows, pa.list_(pa.int64())), List(ClassLabel(names=names))

"""Truths: what a row's right answer may be. One file a kind, each with the same names:

- `COLUMN`: the canonical column it is read from; `NAMED`: whether its values are names of classes;
- `read(data, picked, found) -> (values, names)`: the value of each row of all splits, None where it is bad, with a
  problem in `found`; the names of classes in order, or None for a kind without; the first split is train;
- `of_rows(data, source) -> (values, problems)`: the same of one source, whose names are known already;
- `mark_unknown(source, values, names, known_from) -> problems`: rows whose value has a name that is none of these,
  which become None;
- `judge(values, names, where)`: stop or warn where the good rows cannot be learnt from;
- `strata(values)`: what a held-out split gets a share of, one a row, or None;
- `column(values, names) -> (arrow array, feature)`: the column of the Dataset.
"""

import math
from types import ModuleType
from typing import Any, Literal

from hfft.messages import InputError, announce, silently
from hfft.reading import answers, labels, many, tags, targets
from hfft.reading import columns as known_columns
from hfft.reading.source import Source, plural

ProblemName = Literal["single_label", "multi_label", "regression"]
KINDS: dict[str, ModuleType] = {
    "class": labels, "classes": many, "numbers": targets, "answers": answers, "tags": tags,
    "group": labels,  # a class that rows have in common, which no model predicts
}  # fmt: skip


def of(task) -> ModuleType | None:
    """The kind of truth of this task's rows; None for a task without."""
    return None if task.truth is None else KINDS[task.truth]


def columns() -> set[str]:
    """The canonical columns that hold truth, which no answer is made from."""
    return {kind.COLUMN for kind in KINDS.values()}


def problem_of(source: Source, data: Any, wanted: tuple[str, ...]) -> ProblemName:
    """single_label, multi_label or regression, by the label column(s) of the training split; announced.

    Raises InputError where the labels can be read in two ways.
    """
    with silently():
        parts = known_columns.choose(data, wanted, source)["label"]
    columns = [source.values(part) for part in parts]
    cells = [cell for column in columns for cell in column if cell is not None]
    feature = source.features.get(parts[0])
    if len(parts) > 1:
        return _told("multi_label", "0 and 1 in several columns") if all(map(_is_flag, cells)) else _several(cells)
    if hasattr(feature, "names"):
        return "single_label"
    lists = [cell for cell in cells if isinstance(cell, list | tuple)]
    if lists and len(lists) == len(cells):
        numbers = [value for cell in lists for value in cell]
        return _several(numbers) if any(isinstance(v, float) for v in numbers) else _told("multi_label", "lists")
    if cells and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
        values = {float(cell) for cell in cells if not math.isnan(cell)}
        if len(values) > DISTINCT and any(not value.is_integer() for value in values):
            return _told("regression", f"{plural(len(values), 'different number')} with decimals")
        return "single_label"
    _refuse_joined({cell for cell in cells if isinstance(cell, str)}, source, parts[0])
    return "single_label"


DISTINCT = 20  # different numbers with decimals that leave no doubt that they are to be predicted as such


def _is_flag(cell: Any) -> bool:
    return str(cell).strip().lower().removesuffix(".0") in (*many.YES, *many.NO)


def _several(cells: list) -> ProblemName:
    if all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
        return _told("regression", "several numbers a row")
    raise InputError(
        "data.columns.label: names several columns, which are neither 0 and 1 (a class each) nor numbers to predict; "
        "name one column"
    )


def _told(problem: ProblemName, why: str) -> ProblemName:
    announce(f"problem {problem} (the labels are {why}; set the task's problem)")
    return problem


def _refuse_joined(texts: set[str], source: Source, column: str) -> None:
    """Labels such as "joy,anger" beside "joy" and "anger" may be two classes or one."""
    for mark in (",", ";", "|"):
        parts = {part.strip() for text in texts for part in text.split(mark)}
        joined = sorted(text for text in texts if mark in text)
        if joined and "" not in parts and len(parts) < len(texts):
            write = f"problem: multi_label, separator: {mark!r}"
            raise InputError(
                f"{known_columns.place(source)}, column {column!r}: is {joined[0]!r} one class or several? write task: "
                f"{{text_classification: {{{write}}}}}, or problem: single_label"
            )

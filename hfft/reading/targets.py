"""Numbers to predict, one or several a row: from one column of numbers or lists, or from several columns.

One of the kinds of truth in `truths.py`, which says what each has. A value is a tuple with a number for each target.
"""

import math
import re
from typing import Any

from hfft.messages import InputError, warn
from hfft.reading.source import Found, Problem, Source, shown

COLUMN, NAMED = "label", False
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
WITH_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
COMMA = "task: {text_classification: {problem: regression, decimal: ','}}"
Values = list[tuple[float, ...] | None]


def read(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, Values], list[str]]:
    """(split -> the numbers of each row, None where it is bad; the targets' names). The first split is train."""
    values = {}
    for split, source in picked.items():
        values[split], problems = of_rows(data, source)
        found[split] += problems
    train = next(iter(picked))
    size = next((len(row) for row in values[train] if row is not None), 1)
    names = _names(picked[train], size)
    for split, source in picked.items():
        found[split] += mark_unknown(source, values[split], names, train)
    return values, names


def _names(source: Source, size: int) -> list[str]:
    origin = source.origin.get(COLUMN, COLUMN).split("\n")
    return origin if len(origin) == size else [f"{origin[0]}_{i}" for i in range(size)]


def of_rows(data: Any, source: Source) -> tuple[Values, list[Problem]]:
    """(the numbers of each row, None where one is none; the problems)."""
    decimal = data.truth_options.get("decimal", ".")
    if "\n" in source.origin.get(COLUMN, ""):
        source.columns[COLUMN] = list(zip(*source.columns[COLUMN], strict=True))
    rows = source.values(COLUMN)
    values: Values = []
    problems = []
    for i, cell in enumerate(rows):
        cells = cell if isinstance(cell, list | tuple) else [cell]
        numbers = [_number(each, decimal) for each in cells]
        wrong = next(
            ((each, *said) for each, said in zip(cells, numbers, strict=True) if isinstance(said, tuple)), None
        )
        if not cells:
            wrong = (cell, "is an empty list", "write a number")
        if wrong is not None:
            problems.append(Problem(i, COLUMN, *wrong))
        values.append(None if wrong is not None else tuple(n for n in numbers if isinstance(n, float)))
    return values, problems


def _number(cell: Any, decimal: str) -> float | tuple[str, str]:
    """The number in a cell, or (what is wrong with it, what to write instead)."""
    write = "write a number, or set data.on_bad_row: skip"
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "is empty", write
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return f"is {shown(cell)}, no number", write
    if isinstance(cell, str):
        text = cell.strip()
        if decimal == "," and "." in text:
            return f"is {cell!r}, with a point though the task's decimal is a comma", "write 1,5"
        if decimal == "." and WITH_COMMA.fullmatch(text):
            return f"is {cell!r}; is the comma a decimal one", f"write 1.5, or {COMMA}"
        if not NUMBER.fullmatch(text.replace(",", ".") if decimal == "," else text):
            return f"is {cell!r}, no number", write
        cell = text.replace(",", ".") if decimal == "," else text
    try:
        number = float(cell)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else (f"is {shown(cell)}, not finite", write)


def mark_unknown(source: Source, values: Values, names: list[str], known_from: str) -> list[Problem]:
    """Rows with more or fewer numbers than there are targets."""
    found = []
    for i, row in enumerate(values):
        if row is not None and len(row) != len(names):
            what = f"holds {len(row)} numbers, where {known_from} has {len(names)}"
            found.append(Problem(i, COLUMN, None, what, "give every row as many"))
            values[i] = None
    return found


def judge(values: dict[str, list], names: list[str], where: str) -> None:
    """Stop where a target is the same in all rows: there is nothing to learn."""
    train, *others = values
    for i, name in enumerate(names):
        if len(values[train]) > 1 and len({row[i] for row in values[train]}) == 1:
            raise InputError(f"{where}: the target '{name}' is {values[train][0][i]:g} in every row; nothing to learn")
    for split in others:
        if len(values[split]) > 1 and any(len({row[i] for row in values[split]}) == 1 for i in range(len(names))):
            warn(f"{split}: a target is the same in all rows, so no correlation can be measured")


def strata(values: list[tuple[float, ...]]) -> None:
    """Nothing: rows are held out at random."""


def column(values: list[tuple[float, ...]], names: list[str]) -> tuple[Any, Any]:
    """({target: number} of each row as an arrow array, its feature)."""
    import pyarrow as pa
    from datasets import Value

    fields = [pa.array([row[i] for row in values], pa.float64()) for i in range(len(names))]
    return pa.StructArray.from_arrays(fields, names), {name: Value("float64") for name in names}

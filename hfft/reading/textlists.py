"""Text lists: a cell of the column "negative" is a text or a list of texts; of several columns, one text each."""

from collections.abc import Callable
from typing import Any

from hfft.reading.source import Problem, Source, shown


def check(source: Source, column: str, fault: Callable[[Any], tuple[str, str] | None]) -> list[Problem]:
    """Each cell becomes a list of texts in which `fault` finds nothing wrong, none of them the row's positive."""
    values = source.columns[column]
    if isinstance(values, list) and values and "\n" in source.origin[column]:
        cells = [list(row) for row in zip(*values, strict=True)]
    else:
        cells = [list(cell) if isinstance(cell, list | tuple) else [cell] for cell in source.values(column)]
    positives = source.values("positive") if "positive" in source.columns else [None] * len(cells)
    problems = []
    for i, (row, positive) in enumerate(zip(cells, positives, strict=True)):
        for value in row or [None]:
            found = fault(value)
            if found is None and value == positive:
                found = f"{shown(value)} is the row's positive too", "write another text, or set data.on_bad_row: skip"
            if found is not None:
                problems.append(Problem(i, column, value, *found))
                cells[i] = []
                break
    source.columns[column] = cells
    return problems

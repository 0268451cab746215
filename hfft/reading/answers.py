"""Answers to questions, each with its place in the context: any number a row, none where there is no answer.

One of the kinds of truth in `truths.py`, which says what each has. A value is a tuple of (text, start), the start in
characters. In the data: {"text": [...], "answer_start": [...]}, a list of {"text", "answer_start"}, or several columns
(`answers: [text, answer_start]`), each with a column of true and false (is_impossible) after it if there is one.
"""

import math
from typing import Any

from hfft.messages import InputError, announce
from hfft.reading.source import Found, Problem, Source, plural, shown

COLUMN, NAMED = "answers", False
WRITE = 'write {"text": […], "answer_start": […]}, empty lists where there is no answer'
SKIP = "or set data.on_bad_row: skip"
YES, NO = (True, 1, "1", "true", "True"), (False, 0, "0", "false", "False")
Value = tuple[tuple[str, int], ...]


class Wrong(Exception):
    """(what is wrong with a cell, what to write instead)."""


def read(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, list[Value | None]], None]:
    """(split -> the answers of each row, None where they are bad; no names)."""
    values = {}
    for split, source in picked.items():
        values[split], problems = of_rows(data, source)
        found[split] += problems
    return values, None


def of_rows(data: Any, source: Source) -> tuple[list[Value | None], list[Problem]]:
    """(the answers of each row, None where they are bad; the problems)."""
    if data.labels:
        raise InputError("data.labels: answers are texts, no classes; take it out")
    cells = source.columns[COLUMN] = _cells(source)
    contexts = source.values("context") if "context" in source.columns else [None] * len(cells)
    values: list[Value | None] = []
    problems = []
    for i, (cell, context) in enumerate(zip(cells, contexts, strict=True)):
        try:
            value = _value(cell)
            if isinstance(context, str):  # else the context has a problem of its own
                _look_up(value, context)
            values.append(value)
        except Wrong as wrong:
            problems.append(Problem(i, COLUMN, None if cell is None else shown(cell), *wrong.args))
            values.append(None)
    return values, problems


def _cells(source: Source) -> list:
    """A cell for each row; of several columns {"text", "answer_start"} and, where it is told, "is_impossible"."""
    if "\n" not in source.origin.get(COLUMN, ""):
        return source.values(COLUMN)
    first, second, *rest = source.columns[COLUMN]
    if any(isinstance(cell, dict | list | tuple) for cell in first):
        _refuse(rest)
        return [{"references": cell, "is_impossible": flag} for cell, flag in zip(first, second, strict=True)]
    _refuse(rest[1:])
    flags = rest[0] if rest else [None] * len(first)
    return [_of_columns(*row) for row in zip(first, second, flags, strict=True)]


def _of_columns(text: Any, start: Any, flag: Any) -> dict[str, Any]:
    """The cell of a row with one answer in columns of its own; one without an answer has nothing there."""
    if _is_empty(text) and (_is_empty(start) or start in (-1, "-1") or flag in YES):
        references: Any = []
    else:
        references = [{"text": text, "answer_start": start}]
    return {"references": references} if flag is None else {"references": references, "is_impossible": flag}


def _refuse(columns: list) -> None:
    if columns:
        write = "[answers], [answers, is_impossible], [text, answer_start] or [text, answer_start, is_impossible]"
        raise InputError(f"data.columns.answers: names too many columns; write {write}")


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _value(cell: Any) -> Value:
    """The answers in a cell. Raises Wrong."""
    if isinstance(cell, dict) and "references" in cell:
        flag = cell.get("is_impossible", NO[0])
        if flag not in (*YES, *NO):
            raise Wrong(f"has is_impossible {shown(flag)}", f"write true or false, {SKIP}")
        value = _value(cell["references"])
        if "is_impossible" in cell and (flag in YES) == bool(value):
            what = "an answer though is_impossible is true" if value else "no answer though is_impossible is false"
            raise Wrong(f"has {what}", f"change one of them, {SKIP}")
        return value
    if _is_empty(cell):
        raise Wrong("is empty", f"{WRITE}, {SKIP}")
    if isinstance(cell, list | tuple):
        if odd := [each for each in cell if not isinstance(each, dict)]:
            raise Wrong(f"holds {shown(odd[0])}, no answer with its place", f"{WRITE}, {SKIP}")
        return tuple(_answer(each.get("text"), each.get("answer_start")) for each in cell)
    if not isinstance(cell, dict):
        raise Wrong(f"is {shown(cell)}, without its place in the context", f"{WRITE}, {SKIP}")
    texts, starts = cell.get("text"), cell.get("answer_start")
    texts = texts if isinstance(texts, list | tuple) else [] if texts is None and "text" in cell else [texts]
    starts = starts if isinstance(starts, list | tuple) else [] if not texts else [starts]
    if len(texts) != len(starts):
        raise Wrong(
            f"has {plural(len(texts), 'text')} and {len(starts):,} answer_start", f"give each text its own, {SKIP}"
        )
    return tuple(_answer(text, start) for text, start in zip(texts, starts, strict=True))


def _answer(text: Any, start: Any) -> tuple[str, int]:
    if not isinstance(text, str):
        raise Wrong(f"has the text {shown(text)}" if text is not None else "has no text", f"write the answer's, {SKIP}")
    if not text.strip():
        raise Wrong("has an answer of blanks", f"write [] where there is no answer, {SKIP}")
    if start is None:
        raise Wrong(f"has no answer_start of {shown(text)}", f"write where in the context it begins, {SKIP}")
    try:
        place = int(start)
        if isinstance(start, bool) or place != float(start):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Wrong(f"has the answer_start {shown(start)}", f"write a number of characters, {SKIP}") from None
    return text, place


def _look_up(value: Value, context: str) -> None:
    """Every answer must lie at its place. Raises Wrong with what lies there, and where the text is."""
    for text, start in value:
        if start >= 0 and context.startswith(text, start):
            continue
        there = (
            f"there is {shown(context[start : start + len(text)])}" if 0 <= start < len(context) else "nothing is there"
        )
        places, first = context.count(text), context.find(text)
        if places == 1:
            remedy = f"write answer_start: {first}, where it is"
        elif places:
            remedy = f"it is at {first} and in {plural(places - 1, 'other place')}; write the right one"
        else:
            remedy = "the context does not hold it; write it as it stands there"
        raise Wrong(f"answer {shown(text)} is not at {start}, {there}", f"{remedy}, {SKIP}")


def mark_unknown(source: Source, values: list, names: None, known_from: str) -> list[Problem]:
    """Nothing: an answer is no name."""
    return []


def judge(values: dict[str, list], names: None, where: str) -> None:
    """Stop where no question has an answer; say how many have none."""
    train, *_ = values
    if not any(values[train]):
        raise InputError(
            f"{where}: no question has an answer, so there is nothing to learn; look at the answers column"
        )
    for split, rows in values.items():
        if bare := sum(not row for row in rows):
            announce(f"{split}: {bare:,} of {plural(len(rows), 'question')} without an answer in the context")


def strata(values: list) -> None:
    """Nothing: rows are held out at random."""


def column(values: list[Value], names: None) -> tuple[Any, Any]:
    """({"text", "answer_start"} of each row as an arrow array, its feature)."""
    import pyarrow as pa
    from datasets import List
    from datasets import Value as Plain

    texts = pa.array([[text for text, _ in row] for row in values], pa.list_(pa.string()))
    starts = pa.array([[start for _, start in row] for row in values], pa.list_(pa.int64()))
    feature = {"text": List(Plain("string")), "answer_start": List(Plain("int64"))}
    return pa.StructArray.from_arrays([texts, starts], ["text", "answer_start"]), feature

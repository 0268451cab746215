"""Exact duplicates out of the training rows: rows whose inputs are equal, whatever their labels.

Duplicates in training data: Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better",
https://arxiv.org/abs/2107.06499 (its exact part only).
"""

import hashlib
from typing import Any, Literal

from datasets import Dataset

from hfft.messages import announce

TRUTH = ("label", "tags", "answers")


def dedup(rows: Dataset, *, keep: Literal["first", "none"] = "first") -> Dataset:
    """The rows without their later copies; `keep: none` drops every row that has a copy, the first too.

    Equal means every input column (all but the truth and "row"); pictures are compared by the bytes of their files.
    """
    if keep not in ("first", "none"):
        raise ValueError(f"filters.dedup.keep: {keep!r} is not known; write 'first' or 'none'")
    seen: dict[Any, list[int]] = {}
    for i, key in enumerate(_keys(rows)):
        seen.setdefault(key, []).append(i)
    kept = sorted(group[0] for group in seen.values() if keep == "first" or len(group) == 1)
    torn = _conflicts(rows, [group for group in seen.values() if len(group) > 1])
    announce(
        f"dedup: {len(rows) - len(kept):,} of {len(rows):,} rows dropped as exact copies (keep: {keep})"
        + (f"; {torn:,} inputs had several labels" if torn else "")
    )
    return rows if len(kept) == len(rows) else rows.select(kept)


def _keys(rows: Dataset):
    names = [name for name in rows.column_names if name not in (*TRUTH, "row")]
    for start in range(0, len(rows), 1000):
        batch = rows[start : start + 1000]
        for values in zip(*(batch[name] for name in names), strict=True):
            yield tuple(_key(value) for value in values)


def _key(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        data = value["bytes"]
        if data is None:
            with open(value["path"], "rb") as file:
                data = file.read()
        return hashlib.sha1(data, usedforsecurity=False).digest()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _conflicts(rows: Dataset, groups: list[list[int]]) -> int:
    truth = next((name for name in TRUTH if name in rows.column_names), None)
    if truth is None:
        return 0
    labels = rows[truth][:]
    return sum(len({repr(labels[i]) for i in group}) > 1 for group in groups)

"""Fingerprints of rows: a hash of their content, equal on every machine and in every run; no time, no path in it."""

import hashlib
from typing import Any

import numpy as np

from hfft.reading.source import as_list

ROWS = 10_000  # that are held as Python's strings at a time
VERSION = b"hfft-rows-1"  # to be raised when the meaning of a canonical column changes


def of_rows(source: Any, truth: dict[str, list], keys: list, classes: list[str] | None) -> str:
    """16 hex digits for one split: inputs (pictures by the hash of their bytes), truth, class order, row numbers.

    `truth` is {its column: a value for each row}, empty where there is none.
    """
    digest = hashlib.blake2b(VERSION, digest_size=8)
    for column, values in source.columns.items():
        digest.update(column.encode())
        if column == "image":
            add(digest, [key.hex() for key in keys])
        elif column in truth:
            add(digest, truth[column])
        else:
            add(digest, values)
    add(digest, classes or [])
    digest.update(np.asarray(source.index, dtype="<i8").tobytes())
    return digest.hexdigest()


def add(digest: Any, values: Any) -> None:
    """Values of any kind into a hash, the lengths of all before them so that two columns never look alike."""
    starts = range(0, len(values), ROWS)

    def parts(start: int) -> list[bytes]:
        block = as_list(values[start : start + ROWS])
        return [value.encode() if type(value) is str else repr(value).encode() for value in block]

    for start in starts:
        digest.update(np.array([len(part) for part in parts(start)], dtype="<i8").tobytes())
    for start in starts:
        digest.update(b"".join(parts(start)))


def of_splits(rows: dict[str, Any], checked: dict[str, str]) -> str:
    """32 hex digits for a run's data: every split's own hash and the rows that the filters left."""
    digest = hashlib.blake2b(VERSION, digest_size=16)
    for split, dataset in sorted(rows.items()):
        digest.update(f"{split} {checked[split]} ".encode())
        rows = dataset.with_format("arrow", columns=["row"])[:]["row"].to_numpy()
        digest.update(np.asarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()

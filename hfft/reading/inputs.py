"""What is given to predict -> Source: texts, pictures, dicts, tables, files, folders, standard input."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hfft.messages import InputError, announce
from hfft.reading import checks, columns, folders, holdout, memory, readers, truths
from hfft.reading.jsonrows import from_lines
from hfft.reading.source import Source
from hfft.reading.tables import READERS

SKIP = ", or set data.on_bad_row: skip"  # no remedy here: every row wants an answer
CALLED = {
    "text": "a text",
    "tokens": "a text or a list of tokens",
    "image": "a picture (PIL image, path, bytes, array or tensor)",
}


def read_inputs(given: Any, wanted: Sequence[str], data: Any, need_truth: bool = False) -> Source:
    """The rows of one input, of any form; `wanted` are canonical columns, those that may be absent with a "?".

    A string is a picture's path where pictures are wanted, and a text where texts are; a file of texts is a Path.
    """
    names = [name for name in wanted if name.rstrip("?") not in truths.columns()]
    pictures = "image" in names
    if given is sys.stdin:
        return from_lines(sys.stdin.read(), "stdin")
    if isinstance(given, str) and not pictures and is_path(given):
        raise InputError(
            f"input: is {given!r} a text or a file? give [{given!r}] for the text, pathlib.Path({given!r}) for the file"
        )
    if isinstance(given, os.PathLike) or (isinstance(given, str) and pictures):
        return read_place(os.path.expanduser(os.fspath(given)), data, pictures, need_truth)
    if isinstance(given, dict) and hasattr(given, "with_format"):
        raise InputError(f"input: a DatasetDict of {', '.join(given)}; give one of its splits")
    if hasattr(given, "with_format") or hasattr(given, "iterrows"):
        return memory.one_split(given, "input")
    return memory.one_split(as_rows(given, names), "input")


def named(word: str, pictures: bool) -> Any:
    """What a word of the command line means: "-" standard input, a path where one can be meant, else a text."""
    if word == "-":
        return sys.stdin
    return Path(word) if pictures or is_path(word) else [word]


def is_empty(given: Any) -> bool:
    """Whether there is nothing to answer: an empty list, table or dict of columns. (A file without rows is wrong.)"""
    if isinstance(given, dict) and given:
        return all(is_empty(values) for values in given.values())
    sized = hasattr(given, "__len__") and not isinstance(given, str | bytes | bytearray)
    return sized and getattr(given, "ndim", 1) > 0 and not len(given)


def as_rows(given: Any, wanted: list[str]) -> list[dict[str, Any]]:
    """Rows in memory: one value, a sequence of values or dicts, one dict, or a dict of columns."""
    if isinstance(given, dict):
        cells = {name: None if is_words(name, values) else listed(values) for name, values in given.items()}
        if not given or any(values is None for values in cells.values()):
            return [as_row(0, given, wanted)]
        sizes = {name: len(values) for name, values in cells.items() if values is not None}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise InputError(f"input: columns of different lengths ({told}); give each column a cell for every row")
        return [dict(zip(sizes, row, strict=True)) for row in zip(*cells.values(), strict=True)]  # type: ignore[arg-type]
    pair = isinstance(given, tuple) and len(needed(wanted)) > 1 and all(isinstance(value, str) for value in given)
    rows = None if pair else listed(given)
    return [as_row(i, row, wanted) for i, row in enumerate([given] if rows is None else rows)]


def is_words(name: str, values: Any) -> bool:
    """Whether the cells of a dict are the tokens of one row, and not texts of several."""
    return name == "tokens" and isinstance(values, list | tuple) and all(isinstance(word, str) for word in values)


def listed(values: Any) -> list | None:
    """A sequence as a list: list, tuple, Series, column of a Dataset, array of strings or of pictures. Else None."""
    if isinstance(values, str | bytes | bytearray):
        return None
    if is_array(values):
        return list(values) if values.ndim in (1, 4) else None
    return list(values) if isinstance(values, Sequence) or hasattr(values, "iloc") else None


def as_row(i: int, value: Any, wanted: list[str]) -> dict[str, Any]:
    """A bare value as the task's first column, a tuple as its columns (a pair of texts), a dict as it is."""
    names, least = [name.rstrip("?") for name in wanted], len(needed(wanted))
    if isinstance(value, dict) and value:
        return value
    if isinstance(value, tuple) and max(2, least) <= len(value) <= len(names):
        return dict(zip(names, value, strict=False))
    if least > 1 or not is_kind(value, names[0]):
        found = f"of type {type(value).__name__}"
        raise InputError(f"input row {i}: is {found}; this run takes {forms(wanted)}")
    return {names[0]: value}


def needed(wanted: list[str]) -> list[str]:
    """The columns that every row must have."""
    return [name for name in wanted if not name.endswith("?")]


def is_kind(value: Any, column: str) -> bool:
    """Whether a bare value can stand in a column; of a column without a kind of its own, any."""
    if column == "image":
        return isinstance(value, str | bytes | bytearray | os.PathLike) or hasattr(value, "getexif") or is_array(value)
    return column != "text" or isinstance(value, str)


def is_array(value: Any) -> bool:
    """Whether a value is an array of numpy or a tensor of torch, without importing either."""
    return hasattr(value, "ndim") and hasattr(value, "dtype") and not hasattr(value, "iloc")


def forms(wanted: list[str]) -> str:
    """What can be given, for a message."""
    names = needed(wanted)
    one = f"({', '.join(names)}) as a tuple" if len(names) > 1 else CALLED.get(names[0], f"a {names[0]}")
    files = "the path of a file or folder" if "image" in names else "the pathlib.Path of a file"
    return f"{one}, a list of them, dicts with {' and '.join(names)}, a Dataset, a DataFrame, or {files}"


def is_path(given: str) -> bool:
    """Whether a string is a file or folder, by being there or by its ending; any other is a text."""
    ending = os.path.splitext(given)[1].lower()
    return "\n" not in given and 0 < len(given) < 4096 and (os.path.exists(given) or ending in READERS)


def read_place(path: str, data: Any, pictures: bool, need_truth: bool) -> Source:
    """A file of rows, one picture, or a folder."""
    if "://" in path[:12]:
        raise InputError(f"input: {path!r} is a URL, which is not fetched; download it and give the file's path")
    if not os.path.exists(path):
        raise InputError(str(readers.missing(path)).replace("data.path: ", "").replace("; a Hub id is org/name", ""))
    if os.path.isfile(path):
        if pictures and folders.is_image(path):
            return folders.pictures_source([os.path.abspath(path)], [os.path.basename(path)])
        return readers.read_table(path, os.path.basename(path), fitting(data.load, path))
    found = [file for file in folders.walk(path) if folders.is_image(file)]
    if (
        pictures
        and found
        and not need_truth
        and not any(file.lower().startswith("metadata.") for file in os.listdir(path))
    ):
        return folders.pictures_source([os.path.join(os.path.abspath(path), file) for file in found], found)
    if found and pictures:
        data.load = {}
    sources = readers.read_folder(path, data, pictures, as_one=True)
    return readers.the_only_split(sources, path)


def fitting(load: dict, path: str) -> dict:
    """The recipe's reading options as far as they apply: they were written for the training files."""
    options = READERS.get(os.path.splitext(path)[1].lower(), (None, ()))[1]
    return {key: value for key, value in load.items() if key in options}


def mapping(given: dict, wanted: list[str], source: Source) -> dict:
    """data.columns as far as this input has them: a file for predict may use the canonical names instead."""
    known = {name.rstrip("?") for name in wanted}
    used = {}
    for name, parts in given.items():
        several = [parts] if isinstance(parts, str) else parts
        if name in known and (
            all(part in source.columns for part in several) or not (name in source.columns or guess(name, source))
        ):
            used[name] = parts
        elif name in known and name not in source.columns:
            announce(f"columns: the input has no {'+'.join(several)}, so {name} is found by name")
    return used


def without_labels(source: Source, given: dict, trained: dict[str, list[str]] | None) -> None:
    """A column of labels is no candidate for what an answer is made from, unless `given` (data.columns) says so."""
    used = {part for parts in given.values() for part in ([parts] if isinstance(parts, str) else parts)}
    truth = truths.columns()
    for name in {*truth, *(part for column in truth for part in (trained or {}).get(column, []))} - used:
        if list(source.columns) == [name]:
            raise InputError(f"input: has labels only ({name!r}); give the columns that are answered")
        source.columns.pop(name, None)


def guess(name: str, source: Source) -> bool:
    """Whether the column would be found without the recipe's name."""
    try:
        columns.find([name], source, set())
    except InputError:
        return False
    return True


def check_inputs(
    data: Any, source: Source, kind: ModuleType | None, known: list[str] | None
) -> tuple[checks.Checked, list[str] | None]:
    """(the rows, the classes or None); `known` are the model's."""
    found: checks.Found = {"input": checks.check_columns(source, data.join)}
    picked = {"input": source}
    pictures = "image" in source.columns
    keys = (
        checks.check_pictures(picked, "input", found["input"], None)
        if pictures
        else holdout.text_keys(source, truths.columns())
    )
    truth, names = None, None
    if kind is not None and kind.COLUMN in source.columns:
        if known:
            truth, problems = kind.of_rows(data, source)
            names, found["input"] = known, found["input"] + problems
            found["input"] += kind.mark_unknown(source, truth, known, "the model")
        else:
            values, names = kind.read(data, picked, found)
            truth = values["input"]
    data.on_bad_row = "error"
    found["input"] = [replace(problem, remedy=problem.remedy.removesuffix(SKIP)) for problem in found["input"]]
    checks.settle(data, picked, found)
    return checks.Checked(source, truth, keys), names

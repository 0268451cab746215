"""What is given to predict -> Source: strings, pictures, dicts, files, folders, standard input."""

import os
import sys
from typing import Any

from hfft.messages import InputError, announce
from hfft.reading import checks, columns, folders, holdout, labels, memory, readers
from hfft.reading.jsonrows import from_lines
from hfft.reading.source import Source
from hfft.reading.tables import READERS


def read_inputs(given: Any, task: Any, data: Any, need_truth: bool) -> Source:
    """The rows of one input, of any form."""
    pictures = "image" in [name.rstrip("?") for name in task.columns]
    if isinstance(given, str) and given == "-":
        return from_lines(sys.stdin.read(), "stdin")
    if isinstance(given, os.PathLike) or (isinstance(given, str) and (pictures or is_path(given))):
        return read_place(os.path.expanduser(os.fspath(given)), data, pictures, need_truth)
    if hasattr(given, "with_format") or hasattr(given, "iloc"):
        return memory.one_split(given, "input")
    names = [name.rstrip("?") for name in task.columns]
    rows = given if isinstance(given, list | tuple) else [given]
    return memory.one_split([as_row(row, names) for row in rows], "input")


def as_row(value: Any, names: list[str]) -> dict[str, Any]:
    """A bare value as the task's first column, a tuple as its first columns (a pair of texts)."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple):
        return dict(zip(names, value, strict=False))
    return {names[0]: value}


def is_path(given: str) -> bool:
    """Whether a string is a file or folder, by being there or by its ending; any other is a text."""
    ending = os.path.splitext(given)[1].lower()
    return "\n" not in given and len(given) < 4096 and (os.path.exists(given) or ending in READERS)


def read_place(path: str, data: Any, pictures: bool, need_truth: bool) -> Source:
    """A file of rows, one picture, or a folder."""
    if not os.path.exists(path):
        raise InputError(str(readers.missing(path)).replace("data.path: ", "", 1))
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
        elif name in known and list(source.columns) != [name]:
            announce(f"columns: the input has no {'+'.join(several)}, so {name} is found by name")
    return used


def guess(name: str, source: Source) -> bool:
    """Whether the column would be found without the recipe's name."""
    try:
        columns.find([name], source, set())
    except InputError:
        return False
    return True


def check_inputs(data: Any, source: Source, label_names: list[str] | None) -> tuple[checks.Checked, list[str] | None]:
    """(the rows, classes or None)."""
    found: checks.Found = {"input": []}
    picked = {"input": source}
    for column in [name for name in source.columns if name != "label"]:
        found["input"] += columns.RULES.get(column, columns.other)(source, column, data.join)
    pictures = "image" in source.columns
    keys = checks.check_pictures(picked, "input", found["input"], None) if pictures else holdout.text_keys(source)
    names, classes = None, None
    if "label" in source.columns:
        names, problems = labels.read_names(source)
        if isinstance(data.labels, dict):
            rename = {str(key): str(value) for key, value in data.labels.items()}
            names = [rename.get(str(name), name) for name in names]
        class_names = getattr(source.features.get("label"), "names", None)
        classes = label_names or labels.order(names, class_names, data.labels)
        found["input"] += problems + labels.mark_unknown(source, names, classes, "the model")
    data.on_bad_row = "error"
    checks.settle(data, picked, found)
    return checks.Checked(source, names, keys), classes

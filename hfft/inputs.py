"""What is given to predict -> Source: strings, pictures, dicts, files, folders, standard input."""

import os
import sys
from typing import Any

from hfft import checks, columns, folders, holdout, labels, memory, readers
from hfft.jsonrows import from_lines
from hfft.messages import InputError, announce
from hfft.source import Problem, Source, cut
from hfft.tables import READERS


def read_inputs(given: Any, task: Any, data: Any) -> Source:
    """The rows of one input, of any form."""
    pictures = "image" in [name.rstrip("?") for name in task.columns]
    main = "image" if pictures else next(name.rstrip("?") for name in task.columns)
    if given == "-" if isinstance(given, str) else False:
        return from_lines(sys.stdin.read(), "stdin")
    if isinstance(given, os.PathLike) or (isinstance(given, str) and (pictures or is_path(given))):
        return read_place(os.path.expanduser(os.fspath(given)), data, pictures)
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple) and given and not isinstance(given[0], dict):
        given = [{main: value} for value in given]
    elif not isinstance(given, list | tuple) and not hasattr(given, "columns") and not hasattr(given, "with_format"):
        given = [given] if isinstance(given, dict) else [{main: given}]
    return memory.one_split(given, "input")


def is_path(given: str) -> bool:
    """Whether a string is a file or folder, by being there or by its ending; any other is a text."""
    ending = os.path.splitext(given)[1].lower()
    return "\n" not in given and len(given) < 4096 and (os.path.exists(given) or ending in READERS)


def read_place(path: str, data: Any, pictures: bool) -> Source:
    """A file of rows, one picture, or a folder."""
    if not os.path.exists(path):
        raise InputError(str(readers.missing(path)).replace("data.path: ", "", 1))
    if os.path.isfile(path):
        if pictures and folders.is_image(path):
            return folders.pictures_source([os.path.abspath(path)], [os.path.basename(path)])
        return readers.read_table(path, os.path.basename(path), fitting(data.load, path))
    found = [file for file in folders.walk(path) if folders.is_image(file)]
    if pictures and found and not any(file.lower().startswith("metadata.") for file in os.listdir(path)):
        return folders.pictures_source([os.path.join(os.path.abspath(path), file) for file in found], found)
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
        elif name in known:
            announce(f"columns: the input has no {'+'.join(several)}, so {name} is found by name")
    return used


def guess(name: str, source: Source) -> bool:
    """Whether the column would be found without the recipe's name."""
    try:
        columns.find(name, source, set())
    except InputError:
        return False
    return True


def check_inputs(data: Any, picked: dict[str, Source], need_truth: bool, label_names: list[str] | None):
    """(good rows, classes or None). Every bad row is named; nothing is skipped, for each row wants an answer."""
    split, source = next(iter(picked.items()))
    found: list[Problem] = []
    for column in [name for name in source.columns if name != "label"]:
        found += columns.RULES.get(column, columns.other)(source, column, data.join)
    keys = checks.check_pictures(picked, split, found, None) if "image" in source.columns else holdout.text_keys(source)
    names = None
    if need_truth and "label" in source.columns:
        names, problems = labels.read_names(source)
        rename = data.labels if isinstance(data.labels, dict) else {}
        names = (
            [{str(key): str(value) for key, value in rename.items()}.get(str(name), name) for name in names]
            if rename
            else names
        )
        found += problems
        if label_names:
            found += labels.mark_unknown(source, names, label_names, "the model")
        else:
            source.columns["label"], source.features = names, {}
    if found:
        raise InputError(
            *cut([problem.line(source) for problem in sorted(found, key=lambda problem: problem.position)])
        )
    return checks.Checked(source, names if label_names else None, keys), label_names

"""data.path -> {split: Source}: a file, several, a folder of any kind, a saved data set, or a Hub id.

`locate` finds what each split consists of, `read_splits` reads it whole; streams begin with `locate` too.
"""

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading import embedded, folders, memory
from hfft.reading.source import Source, as_list, plural, shown
from hfft.reading.tables import READERS, Place, read_table

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
GLOB = "*?["  # what makes a path a pattern


def read_splits(data: Any, *, pictures: bool) -> dict[str, Source]:
    """All splits of `data.path`; `pictures` says whether the task wants an image column."""
    path = data.path
    if isinstance(path, str) and is_hub(path):
        sources = memory.read_hub(data, path)
    else:
        sources = read(locate(data, pictures=pictures))
    return by_column(sources, data.split_column) if data.split_column else sources


def read(splits: Mapping[str, Sequence[Place | Source]]) -> dict[str, Source]:
    """What `locate` found, read whole: the parts of each split one below the other."""
    return {
        split: concatenate([part if isinstance(part, Source) else read_table(*part) for part in parts])
        for split, parts in splits.items()
    }


def locate(data: Any, *, pictures: bool) -> dict[str, list[Place | Source]]:
    """What each split of a local `data.path` consists of: files of rows, and what is in memory or lists of pictures."""
    path = data.path
    if isinstance(path, dict):
        double = [os.path.basename(item) for items in path.values() for item in several(items)]
        full_names = len(set(double)) < len(double)
        return {
            split: locate_several(several(items), data, pictures, full_names=full_names)
            for split, items in path.items()
        }
    if isinstance(path, list):
        return {"train": locate_several(path, data, pictures, full_names=False)}
    if path:
        return locate_path(str(path), data, pictures)
    raise InputError("data.path: is missing; give a file, a folder, a Hub id, or data in memory")


def several(items: str | list[str]) -> list[str]:
    """One path or a list of them, as a list."""
    return [items] if isinstance(items, str) else list(items)


def locate_path(path: str, data: Any, pictures: bool) -> dict[str, list[Place | Source]]:
    """What lies at one path."""
    if path.startswith(embedded.PREFIX):
        found = memory.read_memory(embedded.read(path, **data.load))
        return {split: [source] for split, source in found.items()}
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return locate_folder(path, data, pictures)
    if os.path.isfile(path):
        return {"train": [Place(path, os.path.basename(path), data.load)]}
    if any(sign in path for sign in GLOB):
        files = sorted(glob.glob(path, recursive=True))
        if not files:
            raise InputError(f"data.path: no file matches '{path}'; check the pattern and the working directory")
        groups = folders.by_split(files, path)
        return {split: locate_several(paths, data, pictures, full_names=False) for split, paths in groups.items()}
    raise missing(path)


def is_hub(path: str) -> bool:
    """Whether data.path is a Hub id and nothing that is here."""
    return (
        not os.path.exists(os.path.expanduser(path)) and not any(sign in path for sign in GLOB) and looks_like_hub(path)
    )


def looks_like_hub(path: str) -> bool:
    """`org/name`, where no local folder `org` is and no file's ending."""
    first, ending = path.split("/")[0], os.path.splitext(path)[1].lower()
    return (
        bool(HUB_ID.fullmatch(path))
        and first not in (".", "..")
        and not os.path.exists(first)
        and ending not in READERS
    )


def missing(path: str) -> InputError:
    """The line for a path that is not there, with the nearest name that is."""
    if "://" in path[:12]:
        what = f"data.path: {shown(path)} is a URL, which is not fetched; "
        return InputError(what + "download it and give the file's path, or a Hub id as org/name")
    parent, name = os.path.split(path.rstrip("/"))
    while parent and not os.path.isdir(parent):
        parent, name = os.path.split(parent)
    kind = "file" if os.path.splitext(path)[1] else "folder"
    near = hint(name, sorted(os.listdir(parent or "."))) if os.access(parent or ".", os.R_OK) else ""
    where = f" in '{parent}'" if parent else " in the working directory"
    return InputError(f"data.path: {kind} not found: '{path}' (no '{name}'{where}; a Hub id is org/name).{near}")


def locate_several(paths: list[str], data: Any, pictures: bool, *, full_names: bool) -> list[Place | Source]:
    """Several files or folders, one below the other, as one split."""
    if not paths:
        raise InputError("data.path: an empty list of files; name at least one")
    parts: list[Place | Source] = []
    for path in map(os.path.expanduser, paths):
        if not os.path.exists(path):
            raise missing(path)
        if os.path.isdir(path):
            parts += the_only_split(locate_folder(path, data, pictures, as_one=True), path)
        else:
            parts.append(Place(path, path if full_names else os.path.basename(path), data.load))
    return parts


def the_only_split(splits: dict[str, Any], path: str) -> Any:
    """A folder given for one split must hold one."""
    if len(splits) > 1:
        raise InputError(f"data.path: '{path}' is given for one split but holds {', '.join(splits)}; name one of them")
    return next(iter(splits.values()))


def locate_folder(path: str, data: Any, pictures: bool, as_one: bool = False) -> dict[str, list[Place | Source]]:
    """A folder: saved by `datasets`, class folders of pictures, or files of rows."""
    if os.path.exists(os.path.join(path, "dataset_dict.json")) or os.path.exists(os.path.join(path, "state.json")):
        refuse_options(data, "a save_to_disk folder")
        return {split: [source] for split, source in memory.read_saved(path, path).items()}
    files = list(folders.walk(path))
    tables = [
        file for file in files if os.path.splitext(file)[1].lower() in READERS and not file.lower().endswith(".txt")
    ]
    texts = [file for file in files if file.lower().endswith(".txt")]
    if pictures and prefers_classes(files, tables):
        refuse_options(data, "a folder of pictures")
        named = () if as_one else tuple(filter(None, (data.train if data.train != "train" else None, data.eval)))
        if as_one:
            return {"train": [folders.one_split(path, "", [file for file in files if folders.is_image(file)], path)]}
        return {split: [source] for split, source in folders.class_folders(path, files, path, named).items()}
    found = tables or ([] if pictures else texts)
    if not found:
        kinds = sorted({os.path.splitext(file)[1].lower() or "no ending" for file in files})
        inside = f"only files of other kinds ({', '.join(kinds[:8])})" if files else "nothing"
        raise InputError(
            f"{path}: {inside} in this folder; give files of rows ({', '.join(key[1:] for key in READERS)})"
        )
    groups = {"train": found} if as_one else folders.by_split(found, path)
    return {
        split: [Place(os.path.join(path, file), file, data.load) for file in group] for split, group in groups.items()
    }


def read_folder(path: str, data: Any, pictures: bool, as_one: bool = False) -> dict[str, Source]:
    """What `locate_folder` found, read whole."""
    return read(locate_folder(path, data, pictures, as_one))


def prefers_classes(files: list[str], tables: list[str]) -> bool:
    """Whether a folder with pictures is read by class folders: not when a table says what the pictures are."""
    images = [file for file in files if folders.is_image(file)]
    if not images or not tables:
        return bool(images) or not tables
    says = [file for file in tables if folders.split_word(os.path.splitext(os.path.basename(file))[0])]
    says += [file for file in tables if os.path.basename(file).lower().startswith("metadata.")]
    flat = all(os.sep not in file for file in images)
    return not says and not (flat and len(tables) == 1)


def refuse_options(data: Any, what: str) -> None:
    """Reader's options that would have no effect."""
    for key in data.load:
        raise InputError(f"data.load.{key}: does not apply to {what}; take it out")


def concatenate(parts: list[Source]) -> Source:
    """Files of one split, one below the other; their columns must be the same."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        refuse_unlike(
            (first.files[0].name, first.columns, first.features), (part.files[0].name, part.columns, part.features)
        )
    files = [file for part in parts for file in part.files]
    shifts = np.cumsum([0, *[len(part.files) for part in parts[:-1]]])
    return dataclasses.replace(
        first,
        columns={name: joined([part.columns[name] for part in parts]) for name in first.columns},
        files=files,
        file_ids=np.concatenate([part.file_ids + shift for part, shift in zip(parts, shifts, strict=True)]),
        numbers=np.concatenate([part.numbers for part in parts]),
        index=np.arange(sum(map(len, parts))),
    )


def refuse_unlike(first: tuple[str, Iterable[str], dict], part: tuple[str, Iterable[str], dict]) -> None:
    """Stop where two files of one split differ; each is given as (name, columns, features)."""
    lacking, more = [sorted(set(a[1]) - set(b[1])) for a, b in ((first, part), (part, first))]
    if lacking or more:
        which, other, names = (part, first, lacking) if lacking else (first, part, more)
        raise InputError(
            f"{which[0]}: lacks the column '{names[0]}', which {other[0]} has; give all files the same columns"
        )
    types = [{key: str(value) for key, value in each[2].items()} for each in (first, part)]
    if types[0] != types[1]:
        raise InputError(
            f"{part[0]}: its column types or class names differ from those of {first[0]}; write them alike"
        )


def joined(columns: list) -> Any:
    """Columns below each other: arrow stays arrow where the types are equal."""
    import pyarrow as pa

    if all(isinstance(column, pa.ChunkedArray) for column in columns) and len({column.type for column in columns}) == 1:
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    return [value for column in columns for value in as_list(column)]


def by_column(sources: dict[str, Source], column: str) -> dict[str, Source]:
    """One source -> splits, by the values of a column."""
    if len(sources) > 1:
        raise InputError(f"data.split_column: the data are split already ({', '.join(sources)}); take it out")
    source = next(iter(sources.values()))
    if column not in source.columns:
        names = list(source.columns)
        raise InputError(
            f"data.split_column: there is no column '{column}'.{hint(column, names)} There are {', '.join(names)}"
        )
    values = source.values(column)
    feature = source.features.get(column)
    if feature is not None and hasattr(feature, "int2str"):
        values = [None if value is None else feature.int2str(value) for value in values]
    empty = next((i for i, value in enumerate(values) if value is None or not str(value).strip()), None)
    if empty is not None:
        raise InputError(f"{source.where(empty)}, column '{column}': is empty; write the row's split")
    rows: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        rows.setdefault(str(value), []).append(i)
    announce(
        f"splits by column '{column}': " + ", ".join(f"{name} {plural(len(ids), 'row')}" for name, ids in rows.items())
    )
    if len(rows) > 20:
        warn(f"column '{column}' gives {len(rows)} splits; is it the split column?")
    return {name: source.take(ids) for name, ids in rows.items()}

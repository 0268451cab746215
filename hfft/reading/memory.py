"""Rows in memory, or that `datasets` loads -> Source: Dataset, DatasetDict, DataFrame, lists of dicts, the Hub."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from hfft import safety
from hfft.messages import HfftError, HubError, InputError, first_line
from hfft.reading.jsonrows import from_rows
from hfft.reading.source import File, Source, one_file, plural, shown
from hfft.reading.tables import from_table

FORMS = "a Dataset, a DatasetDict, a DataFrame, a list of dicts, or {split: one of these}"


def read_memory(rows: Any) -> dict[str, Source]:
    """Split -> rows; what is not split is "train"."""
    if isinstance(rows, dict):
        if not rows:
            raise InputError(f"data in memory: the dict is empty; give {FORMS}")
        if all(is_column(values) for values in rows.values()):
            raise InputError(
                "data in memory: a dict of columns; give datasets.Dataset.from_dict(…), or {'train': [{…}, …]}"
            )
        return {str(split): one_split(values, str(split)) for split, values in rows.items()}
    return {"train": one_split(rows, "train")}


def is_column(values: Any) -> bool:
    """A list of plain values: no split, whose elements are dicts."""
    return isinstance(values, list) and bool(values) and not isinstance(values[0], dict)


def one_split(rows: Any, name: str) -> Source:
    """The rows of one split, of any form in memory."""
    if isinstance(rows, list | tuple):
        if not rows:
            raise InputError(f"{name}: there are no rows in it; give at least one")
        source = from_rows([plain(row) for row in rows], name)
    elif hasattr(rows, "with_format") and hasattr(rows, "num_rows"):
        source = from_dataset(rows, name)
    elif hasattr(rows, "with_format"):
        raise InputError(
            f"{name}: an IterableDataset is a stream; write data.load: {{streaming: true}}, or give a Dataset"
        )
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):
        source = from_frame(rows, name)
    else:
        raise InputError(f"{name}: rows in a {type(rows).__name__} are not read; give {FORMS}")
    return source


def plain(row: Any) -> Any:
    """numpy scalars as Python's own."""
    import numpy as np

    if not isinstance(row, dict):
        return row
    return {str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}


def from_dataset(rows: Any, name: str) -> Source:
    """A `datasets.Dataset`, its features kept."""
    if not rows.num_rows:
        raise InputError(f"{name}: there are no rows in it; give at least one")
    source = from_table(rows.with_format("arrow")[:], name)
    source.features = dict(rows.features)
    return source


def from_frame(frame: Any, name: str) -> Source:
    """A pandas DataFrame: NaN, NaT and NA are null; a categorical column keeps its values."""
    names = [str(column) for column in frame.columns]
    if len(set(names)) < len(names):
        raise InputError(f"{name}: the DataFrame has a column twice; give every column its own name")
    if not len(frame):
        raise InputError(f"{name}: there are no rows in it; give at least one")
    columns = {}
    for position, column in enumerate(names):
        series = frame.iloc[:, position]
        missing = series.isna()
        values = series.tolist()
        columns[column] = (
            [None if gone else value for value, gone in zip(values, missing, strict=True)] if missing.any() else values
        )
    return one_file(columns, name)


def read_saved(path: str, where: str) -> dict[str, Source]:
    """A folder of `save_to_disk`."""
    from datasets import load_from_disk

    check_saved(path, where)
    try:
        loaded = load_from_disk(path)
    except Exception as error:  # whatever arrow, json or the file system say of a damaged folder
        raise InputError(f"{where}: is no complete save_to_disk folder ({first_line(error)}); save it again") from None
    sources = read_memory(loaded)
    for split, source in sources.items():
        source.files = [File(split, "row", os.path.abspath(path), absolute=True)]
    return sources


def check_saved(path: str, where: str) -> None:
    """Refuse a save_to_disk folder that names or links to files outside."""
    for folder, _, files in os.walk(path):
        for name in files:
            if safety.leads_out(os.path.join(folder, name), path):
                place = os.path.relpath(os.path.join(folder, name), path)
                raise InputError(f"{where}: {place} is a link that leads out of the folder; put the file itself there")
        for name, named in saved_names(folder):
            if os.path.basename(named) != named:
                place = os.path.relpath(os.path.join(folder, name), path)
                raise InputError(f"{where}: {place} names {shown(named)}, which leads out of the folder; save it again")


def saved_names(folder: str) -> Iterator[tuple[str, str]]:
    """(file, what it names) of the files that `load_from_disk` goes by."""
    state = safety.read_json(Path(folder, "state.json"))
    for key in ("_data_files", "_indices_data_files"):
        for entry in state.get(key) or ():
            yield "state.json", str(entry.get("filename", "") if isinstance(entry, dict) else entry)
    for split in safety.read_json(Path(folder, "dataset_dict.json")).get("splits") or ():
        yield "dataset_dict.json", str(split)


def read_hub(data: Any, path: str) -> dict[str, Source]:
    """A data set of the Hub, or of its local cache when offline. Its code is never run."""
    sources = read_memory(dict(open_hub(data, path)))
    for split, source in sources.items():
        source.files = [hub_file(path, split)]
    return sources


def hub_file(path: str, split: str) -> File:
    """How messages call the rows of a Hub split, whose paths may point into the local cache only."""
    import datasets

    return File(f"{path} {split}", "row", os.path.abspath(datasets.config.HF_CACHE_HOME), absolute=True)


def open_hub(data: Any, path: str, **options: Any) -> Any:
    """What datasets.load_dataset gives: a DatasetDict, with streaming=True an IterableDatasetDict."""
    import datasets

    for key in ("trust_remote_code", "token", "split", "streaming", "name", "revision"):
        if key in data.load:
            better = {"split": "data.train and data.eval", "name": "data.name", "revision": "data.revision"}.get(key)
            raise InputError(f"data.load.{key}: is not taken here; " + (f"write {better}" if better else "take it out"))
    from hfft import remote

    what = f"data.path: {path!r} is no file or folder here, and the Hub did not give it"
    commit, told = remote.card(what, path, data.revision)
    check_card(path, told)

    def call() -> Any:
        try:
            return datasets.load_dataset(path, name=data.name, revision=commit, **data.load, **options)
        except Exception as error:  # every layer below (requests, hub, arrow) has its own
            if remote.is_network(error):
                raise
            raise hub_error(path, error) from None

    return remote.patiently(what, call)


def check_card(path: str, told: Sequence[str]) -> None:
    """Refuse a data set whose card or settings name files that are not its own; they would be fetched or read."""
    for text in told:
        try:
            front = yaml.safe_load(text.split("---")[1] if text.startswith("---") else text)
        except (yaml.YAMLError, IndexError, ValueError, RecursionError):
            continue  # who loads it says so
        configs = front.get("configs") if isinstance(front, dict) else None
        for entry in configs if isinstance(configs, list) else ():
            for place in strings_in(entry, "data_files", "data_dir"):
                if "://" in place or "::" in place or place.startswith(("/", "~")) or ".." in place.split("/"):
                    raise InputError(
                        f"data.path: '{path}' names {shown(place)}, which is no file of its own; take another"
                    )


def strings_in(entry: Any, *keys: str) -> Iterator[str]:
    """All texts below some keys of a mapping."""
    places = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
    for _ in range(10_000):  # also of one that refers to itself
        if not places:
            return
        place = places.pop()
        if isinstance(place, str):
            yield place
        elif isinstance(place, dict | list):
            places += place.values() if isinstance(place, dict) else place


def hub_error(path: str, error: Exception) -> HfftError:
    """The user's mistake, or the Hub's absence."""
    from hfft import remote

    kind, line = type(error).__name__, first_line(error)
    if isinstance(error, HfftError):
        return error
    if remote.is_network(error):
        return HubError(f"data.path: '{path}' is no file or folder here, and {remote.why(error)}")
    if kind == "DatasetNotFoundError":
        return HubError(f"data.path: the Hub has no data set '{path}', or it is private ({line}); check the name")
    if kind in ("ConnectionError", "OfflineModeIsEnabled", "ConnectTimeout", "ReadTimeout", "LocalEntryNotFoundError"):
        return HubError(
            f"data.path: '{path}' is no file or folder here, and the Hub cannot be reached ({line}); "
            "give a local path, or go online"
        )
    return InputError(
        f"data.path: '{path}' could not be loaded from the Hub ({kind}: {line}); check data.name and data.load"
    )


def count(sources: dict[str, Source]) -> str:
    """train 2,000 rows, test 300 rows."""
    return ", ".join(f"{split} {plural(len(source), 'row')}" for split, source in sources.items())

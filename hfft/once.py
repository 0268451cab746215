"""The splits of a run, read and checked by one process of each machine and mapped into memory by the others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfft import launch
from hfft.data import Splits
from hfft.streams import load_splits


def splits_of(
    section, task, *, seed: int, data=None, label_names: Callable[[], list[str] | None], **limit: Any
) -> Splits:
    """`load_splits`, once per machine; data in memory and streams are each process's own. `limit`: its check_limit."""
    own = launch.world_size() == 1 or data is not None or (section.load or {}).get("streaming")
    if own:
        return load_splits(section, task, seed=seed, data_in_memory=data, label_names=label_names, **limit)
    folder = launch.folder() / "splits"
    with launch.main_first("splits"):
        if launch.local_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier run in the same launch
            write(load_splits(section, task, seed=seed, **limit), folder)
    return read(folder)


def write(splits: Splits, folder: Path) -> None:
    """Leave the splits in a folder of this launch, rows as arrow files."""
    folder.mkdir()
    named = {"train": splits.train, "eval": splits.eval} | {f"other-{k}": v for k, v in splits.others.items()}
    prints = {}
    for name, rows in named.items():
        if rows is not None:
            _write_rows(rows, folder / f"{name}.arrow")
            prints[name] = rows._fingerprint
    about = json.dumps([prints, splits.report, splits.dropped], default=_plain)
    (folder / "about.json").write_text(about, encoding="utf-8")


def read(folder: Path) -> Splits:
    """What `write` left; the rows stay on disk until they are used."""
    from datasets import Dataset

    prints, report, dropped = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    named = {name: Dataset.from_file(str(folder / f"{name}.arrow")) for name in prints}
    for name, rows in named.items():
        rows._fingerprint = prints[name]  # of the content, not of this launch's file
    others = {name.removeprefix("other-"): rows for name, rows in named.items() if name.startswith("other-")}
    return Splits(named["train"], named.get("eval"), others, report, dropped)


def _plain(number):
    """numpy's numbers as Python's own."""
    return number.item()


def _write_rows(rows, path: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.data.schema) as out:
        for table in rows.with_format("arrow").iter(1000):
            out.write_table(table.cast(rows.data.schema))

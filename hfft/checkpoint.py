"""Checkpoints that are whole or not there: written aside, flushed to disk, listed in a manifest, then renamed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfft.messages import CheckpointError, warn

MANIFEST = "MANIFEST.json"
ASIDE, AWAY = ".tmp-", ".trash-"


def path_of(folder: str | Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(folder) / f"checkpoint-{step}"


def rows_per_step(args) -> int:
    """The global batch of TrainingArguments."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


@contextmanager
def written(place: Path, *, main: bool, together: Callable[[], None], about: dict[str, Any]) -> Iterator[Path]:
    """A folder to write into, which becomes `place` when the block ends well; every process enters it.

    `main` makes and renames it, `together` waits for all processes. A crash at any moment leaves the folder aside,
    which `clean` removes, or completes where all had been written.
    """
    aside = place.with_name(ASIDE + place.name)
    if main:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    together()
    yield aside
    together()
    if main:
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        sizes = {str(path.relative_to(aside)): path.stat().st_size for path in files}
        for path in files:
            _flush(path)
        (aside / MANIFEST).write_text(json.dumps({**about, "files": sizes}, indent=2), encoding="utf-8")
        _flush(aside / MANIFEST)
        _flush(aside)
        _rename(aside, place)
    together()


def _flush(path: Path) -> None:
    """What was written is on the disk, not only in the system's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(aside: Path, place: Path) -> None:
    if place.exists():
        remove(place)
    aside.rename(place)
    _flush(place.parent)


def remove(place: Path) -> None:
    """Delete a folder; it has lost its name before the first file is gone."""
    away = place.with_name(AWAY + place.name)
    shutil.rmtree(away, ignore_errors=True)
    place.rename(away)
    shutil.rmtree(away)


def clean(folder: str | Path) -> None:
    """Finish or remove what an interrupted save or deletion has left."""
    for path in Path(folder).glob(f"{AWAY}*"):
        shutil.rmtree(path)
    for path in Path(folder).glob(f"{ASIDE}checkpoint-*"):
        place = path.with_name(path.name.removeprefix(ASIDE))
        if trouble(path) or place.exists():
            shutil.rmtree(path)
        else:
            path.rename(place)


def trouble(place: Path) -> str | None:
    """Why a folder is no whole checkpoint, or None."""
    if not (place / MANIFEST).is_file():
        return f"it has no {MANIFEST}, so its saving did not end"
    known = about(place)
    if not known["resumable"]:
        return "it holds the model alone (train.save_only_model)"
    for name, size in known["files"].items():
        path = place / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} " + (f"has {path.stat().st_size:,} of {size:,} bytes" if path.is_file() else "is missing")
    return None


def about(place: Path) -> dict[str, Any]:
    """What was known of the run when the checkpoint was written. Raises CheckpointError for a damaged manifest."""
    try:
        return json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{place / MANIFEST}: {error}; remove this checkpoint") from error


def steps(folder: str | Path) -> list[int]:
    """The steps of which there is a checkpoint, oldest first."""
    names = [path.name.removeprefix("checkpoint-") for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def newest(folder: str | Path) -> Path | None:
    """The newest whole checkpoint; a newer one that is not whole is told, with what it lacks."""
    for step in reversed(steps(folder)):
        place = path_of(folder, step)
        lacks = trouble(place)
        if lacks is None:
            return place
        warn(f"{place} cannot be resumed: {lacks}")
    return None


def rotate(folder: str | Path, keep: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints but `keep`, never the newest nor the best."""
    places = [path_of(folder, step) for step in steps(folder)]
    held = {places[-1], *([Path(best)] if best else [])}
    too_many = len(places) - max(keep, len(held)) if keep else 0
    for place in [place for place in places if place not in held][: max(too_many, 0)]:
        remove(place)

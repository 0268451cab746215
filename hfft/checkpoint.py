"""Checkpoints that are whole or not there: written aside, hashed, flushed, listed in a manifest, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfft import faults
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
    which `clean` removes, or completes where all had been written; an error, such as a full disk, leaves nothing.
    """
    aside = place.with_name(ASIDE + place.name)
    if main:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    together()
    try:
        yield aside
        together()
        if main:
            faults.point("save.manifest")
            seal(aside, about)
            faults.point("save.rename")
            _rename(aside, place)
    except Exception:
        if main:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    together()


def seal(folder: Path, about: dict[str, Any], *, names: Sequence[str] | None = None) -> None:
    """Write the manifest of these or all files below `folder`: size and SHA-256 of each, and of the manifest itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    files = files if names is None else [folder / name for name in names]
    with ThreadPoolExecutor(max_workers=4) as disk:  # which writes while the files are hashed
        flushed = [disk.submit(_flush, path) for path in files]
        hashes = [digest(path) for path in files]
        for each in flushed:
            each.result()
    sizes = [path.stat().st_size for path in files]
    known = {
        str(path.relative_to(folder)): {"bytes": size, "sha256": found}
        for path, size, found in zip(files, sizes, hashes, strict=True)
    }
    (folder / MANIFEST).write_text(text_of({**about, "files": known}), encoding="utf-8")
    for path in (folder / MANIFEST, *{path.parent for path in files}, folder):
        _flush(path)


def text_of(content: dict[str, Any]) -> str:
    """A manifest as it is written, with its own hash."""
    return json.dumps({**content, "sha256": _of(content)}, indent=2, ensure_ascii=False)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    faults.point("rotate")
    shutil.rmtree(away)


def clean(folder: str | Path) -> None:
    """Finish or remove what an interrupted save or deletion has left."""
    for path in Path(folder).glob(f"{AWAY}*"):
        shutil.rmtree(path)
    for path in Path(folder).glob(f"{ASIDE}checkpoint-*"):
        place = path.with_name(path.name.removeprefix(ASIDE))
        if trouble(path):
            shutil.rmtree(path)
        else:
            _rename(path, place)


def trouble(place: Path) -> str | None:
    """Why a folder is not what its manifest says, or None; every file is read and hashed."""
    if not (place / MANIFEST).is_file():
        return f"it has no {MANIFEST}, so its saving did not end"
    try:
        known = about(place)
    except CheckpointError as error:
        return str(error)
    for name, file in known["files"].items():
        path = place / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != file["bytes"]:
            return f"{name} has {path.stat().st_size:,} of {file['bytes']:,} bytes"
        if digest(path) != file["sha256"]:
            return f"the content of {name} has changed since (SHA-256)"
    return None


def about(place: Path) -> dict[str, Any]:
    """What was known of the run when the checkpoint was written. Raises CheckpointError for a damaged manifest."""
    try:
        known = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        sound = known.pop("sha256") == _of(known)
        sound &= all({"bytes", "sha256"} <= file.keys() for file in known["files"].values())
        sound &= not any(Path(name).is_absolute() or ".." in Path(name).parts for name in known["files"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointError(f"{MANIFEST} is damaged")
    return known


def steps(folder: str | Path) -> list[int]:
    """The steps of which there is a checkpoint, oldest first."""
    names = [path.name.removeprefix("checkpoint-") for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def newest(folder: str | Path, *, best: bool = False) -> Path | None:
    """The newest whole checkpoint; a newer one that is not whole is told, with what it lacks.

    With `best` the one that was best until then must be whole too. Raises CheckpointError where there are checkpoints
    and none is whole, with what each lacks.
    """
    lacking: list[str] = []
    for step in reversed(steps(folder)):
        place = path_of(folder, step)
        lacks = trouble(place) or _unfit(place, step, best)
        if lacks is None:
            for line in lacking:
                warn(line)
            return place
        lacking.append(f"{place} cannot be resumed: {lacks}")
    if lacking:
        raise CheckpointError(*lacking, "no checkpoint is whole; --overwrite starts anew")
    return None


def _unfit(place: Path, step: int, best: bool) -> str | None:
    """Why a whole folder is nothing to go on from."""
    known = about(place)
    if known.get("step") != step:
        return f"it is that of step {known.get('step')} under another name"
    if not known.get("resumable"):
        return "it holds the model alone (train.save_only_model)"
    other = place.with_name(known.get("best") or place.name)
    if best and other != place and (lacks := trouble(other)):
        return f"{other.name}, the best until then, is not whole: {lacks}"
    return None


def rotate(folder: str | Path, keep: int | None, best: str | None, newest: int) -> None:
    """Remove the oldest checkpoints but `keep`, never that of step `newest` nor the best, nor one of another tool's.

    What is of a later step was not whole when this run went on from an older one; it goes first.
    """
    places = {step: path_of(folder, step) for step in steps(folder)}
    ours = [step for step in places if (places[step] / MANIFEST).is_file()]
    for step in [step for step in ours if step > newest]:
        remove(places[step])
    ours = [step for step in ours if step <= newest]
    held = {places[newest], *([Path(best)] if best else [])}
    too_many = len(ours) - max(keep, len(held)) if keep else 0
    for step in [step for step in ours if places[step] not in held][: max(too_many, 0)]:
        remove(places[step])

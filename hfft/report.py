"""What a run leaves for people and programs: recipe.yaml, run.lock.json, metrics.json, dropped.jsonl and the card."""

import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from hfft import __version__, card, checkpoint, launch, lock, origin, safety, seal
from hfft.messages import CheckpointError, InputError, announce, is_main_process, redacted
from hfft.recipe import Recipe

LOCK, EXPORTED = "run.lock.json", "exports/.done.json"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "timm", "evaluate")


@dataclass
class Start:
    """How a run begins: anew, `overwrite` an old one, from a `checkpoint`, or not at all, for it has `finished`."""

    checkpoint: Path | None = None
    finished: bool = False
    overwrite: bool = False
    commit: str | None = None  # of the Hub's model that the run began with


def start(args, recipe, *, resume: bool, overwrite: bool) -> Start:
    """Whether and from where `train.output_dir` may be written; nothing is changed yet but orphans of a crash.

    Where a launcher has started the processes again, the run goes on by itself. Raises InputError for a
    folder that holds something, unless asked to go on or to start anew, and CheckpointError when there is nothing to
    go on from.
    """
    if resume and overwrite:
        raise InputError("command line: --resume goes on with the run that --overwrite would remove; write one of them")
    folder = Path(args.output_dir)
    for what, place in (("train.output_dir", folder), ("the cache", safety.cache_folder())):
        safety.warn_if_open(what, place)
    if launch.attempt() and read(folder / LOCK).get("launch") == launch.identity():
        checkpoint.clean(folder)
        resume = bool(checkpoint.steps(folder)) or _finished(args, folder)
        overwrite = not resume
        how = "goes on" if resume else "begins anew, for there is no checkpoint yet"
        announce(f"started again by the launcher (attempt {launch.attempt() + 1}): the run {how}")
    if resume:
        return _resumed(args, folder, recipe.export)
    if not any(path.name != lock.NAME for path in folder.iterdir()):
        return Start()
    if not overwrite:
        raise InputError(
            f"train.output_dir: {args.output_dir!r} is not empty; write --resume, --overwrite or another folder"
        )
    if not any((folder / name).exists() for name in ("recipe.yaml", LOCK)) and not checkpoint.steps(folder):
        raise InputError(f"train.output_dir: {args.output_dir!r} holds something else than a run; empty it yourself")
    return Start(overwrite=True)


def _resumed(args, folder: Path, exports: Sequence[Any]) -> Start:
    if _finished(args, folder):
        left = ", ".join(part.name for part in exports if not exported(folder, part))
        todo = f"only to export is left ({left})" if left else "nothing to do"
        steps = read(folder / "metrics.json")["train"]["steps"]
        announce(f"{todo}: this run finished at step {steps}; --overwrite starts anew ({folder})")
        return Start(finished=True)
    checkpoint.clean(folder)
    found = checkpoint.newest(folder, best=args.load_best_model_at_end)
    if found is None and (folder / LOCK).is_file() and not (folder / "metrics.json").exists():
        announce(f"{folder}: this run was ended before its first checkpoint; it begins anew")
        return Start(overwrite=True)
    if found is None:
        raise CheckpointError(f"train.output_dir: {args.output_dir!r} holds no checkpoint; start without --resume")
    known = checkpoint.about(found)
    if known["rows_per_step"] != checkpoint.rows_per_step(args):
        raise InputError(
            f"train: a step of this run has {known['rows_per_step']} rows, here {checkpoint.rows_per_step(args)} = "
            f"{args.train_batch_size} (per_device_train_batch_size) x {args.gradient_accumulation_steps} "
            f"(gradient_accumulation_steps) x {args.world_size} processes; change one of them, or --overwrite"
        )
    if 0 < args.max_steps < known["step"]:
        raise InputError(f"train.max_steps: {args.max_steps}, but {found} is further; write {known['step']} or more")
    if known["processes"] != args.world_size:
        announce(
            f"resumed by {args.world_size} processes instead of {known['processes']}: the same rows in each step, but "
            "other random numbers in dropout"
        )
    announce(f"resumed from {found}")
    return Start(found, commit=read(folder / LOCK).get("model", {}).get("commit"))


def _finished(args, folder: Path) -> bool:
    """Whether metrics.json, which is written last, is there and no more steps are asked for than at that time."""
    asked = read(folder / LOCK).get("train", {})
    same = all(asked.get(name) == getattr(args, name) for name in ("num_train_epochs", "max_steps"))
    return same and bool(read(folder / "metrics.json"))


def exported(folder: str | Path, part) -> bool:
    """Whether this export of a finished run has been done."""
    return _label(part) in read(Path(folder) / EXPORTED).get("done", [])


def note_export(folder: str | Path, part) -> None:
    """Remember it, so that a run that is stopped between two exports does not repeat the first."""
    path = Path(folder) / EXPORTED
    path.parent.mkdir(exist_ok=True)
    write(path, {"done": [*read(path).get("done", []), _label(part)]})


def _label(part) -> str:
    return f"{part.name} {json.dumps(part.options, sort_keys=True, default=str)}"


def empty_folder(folder: str, *, overwrite: bool) -> None:
    """Remove the run that `--overwrite` replaces, once everything that can be checked of the new one has been."""
    for path in Path(folder).iterdir() if overwrite and is_main_process() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != lock.NAME:
            path.unlink()


def pinned(recipe: Recipe, start: Start) -> Recipe:
    """The recipe, for a run that goes on with the commit of the Hub's model that it began with."""
    assert recipe.model is not None
    if start.commit is None or not origin.is_of_hub(recipe.model) or origin.is_commit(recipe.model.revision):
        return recipe
    announce(f"model {recipe.model.name}: commit {start.commit}, with which this run began")
    return replace(recipe, model=replace(recipe.model, revision=start.commit))


def write_lock(recipe, splits, args, *, overwrite: bool) -> None:
    """recipe.yaml with what the run resolved, run.lock.json with versions, fingerprints and sizes, dropped.jsonl."""
    if not is_main_process():
        return
    empty_folder(args.output_dir, overwrite=overwrite)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", EXPORTED, checkpoint.MANIFEST, seal.SIGNATURE):  # of a run that was finished
        (folder / name).unlink(missing_ok=True)
    more = {
        "machine": {"processor": platform.machine(), "device": str(args.device)},
        "world_size": args.world_size,
        "seed": args.seed,
        "train": {name: value for name, value in args.to_dict().items() if not name.startswith(("hub", "push"))},
    }
    write_facts(folder, recipe, splits, more)


def write_facts(folder: Path, recipe, splits, more: dict[str, Any]) -> None:
    """recipe.yaml, run.lock.json with `more` in it, dropped.jsonl."""
    recipe.save(folder / "recipe.yaml")
    lock = {
        "hfft": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "launch": launch.identity(),
        "data": splits.report,
        "model": {"name": recipe.model.name, "commit": origin.commit(recipe.model)},
        **more,
    }
    write(folder / LOCK, lock)
    _write_dropped(folder, splits.dropped)


def _write_dropped(folder: Path, dropped: list[dict]) -> None:
    if dropped:
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in dropped)
        (folder / "dropped.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_metrics(result, found: dict[str, Any], splits, trainer) -> dict[str, Any]:
    """metrics.json and the card; returns what metrics.json holds."""
    log: dict[str, Any] = next((entry for entry in reversed(trainer.state.log_history) if "train_runtime" in entry), {})
    seconds = log["train_runtime"] + trainer.seconds_before if log else None
    rows = _streamed(result, splits, trainer) if "streamed" in splits.report else len(splits.train)
    metrics = {
        "eval": found,
        "train": {
            "seconds": seconds,
            "samples_per_second": seconds and log["train_samples_per_second"] * log["train_runtime"] / seconds,
            "steps": trainer.state.global_step,
            "rows": rows,
        },
        "data": splits.report,
        "integrity": _integrity(splits.report, trainer),
    }
    if tuned := getattr(result.task, "tuned", None):
        metrics["tuned"] = tuned
    if is_main_process():
        write(result.folder / "metrics.json", metrics)
        (result.folder / "README.md").write_text(redacted(card.text(result, metrics)), encoding="utf-8")
        seal.seal(result.folder)
        tell(metrics)
    return metrics


def _integrity(rows: dict[str, Any], trainer) -> dict[str, Any]:
    """What became of the rows, and of the run: from where it went on, what it left out, whose weights it keeps."""
    args, state = trainer.args, trainer.state
    best = state.best_model_checkpoint if args.load_best_model_at_end else None
    return {
        "rows": {name: rows.get(name) for name in ("rows_read", "trained", "dropped", "truncated")},
        **trainer.integrity,
        "weights_of": Path(best).name if best else f"step {state.global_step}",
        "processes": args.world_size,
    }


def _streamed(result, splits, trainer) -> int:
    """The rows that a stream gave, with all that it counted put into the report."""
    from accelerate.utils import gather_object

    rows = trainer.train_dataset
    drawn = rows.report(splits.report, trainer.state.global_step, gather_object)
    if is_main_process():
        _write_dropped(result.folder, splits.dropped + rows.records)
    return drawn


def tell(metrics: dict[str, Any]) -> None:
    """The result in one line."""
    shown = {name: value for name, value in metrics["eval"].items() if isinstance(value, int | float)}
    announce("result: " + ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()))


def write(path: Path, content: dict[str, Any]) -> None:
    """A JSON file, whole or not at all: what is there decides whether a run has finished."""
    aside = path.with_name(checkpoint.ASIDE + path.name)
    aside.write_text(redacted(json.dumps(content, indent=2, ensure_ascii=False, default=str)) + "\n", encoding="utf-8")
    os.replace(aside, path)


def read(path: Path) -> dict[str, Any]:
    """What `write` left; nothing where there is no such file, or a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""What a run leaves for people and programs: recipe.yaml, run.lock.json, metrics.json, dropped.jsonl and the card."""

import json
import platform
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hfft import __version__, card, checkpoint
from hfft.messages import CheckpointError, InputError, announce, is_main_process

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "timm", "evaluate")


@dataclass
class Start:
    """How a run begins: anew, from a `checkpoint`, or not at all, for it has `finished`."""

    checkpoint: Path | None = None
    finished: bool = False


def start(args, *, resume: bool, overwrite: bool) -> Start:
    """Whether and from where `train.output_dir` may be written; nothing is changed yet but orphans of a crash.

    Raises InputError for a folder that holds something, unless asked to go on or to start anew, and CheckpointError
    when there is nothing to go on from.
    """
    if resume and overwrite:
        raise InputError("command line: --resume goes on with the run that --overwrite would remove; write one of them")
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"train.output_dir: {args.output_dir!r} is a file; name a folder")
    if resume:
        return _resumed(args, folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return Start()
    if not overwrite:
        raise InputError(
            f"train.output_dir: {args.output_dir!r} is not empty; write --resume, --overwrite or another folder"
        )
    if not any((folder / name).exists() for name in ("recipe.yaml", "run.lock.json")) and not checkpoint.steps(folder):
        raise InputError(f"train.output_dir: {args.output_dir!r} holds something else than a run; empty it yourself")
    return Start()


def _resumed(args, folder: Path) -> Start:
    if _finished(args, folder):
        steps = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["train"]["steps"]
        announce(f"nothing to do: this run finished at step {steps}; --overwrite starts anew ({folder})")
        return Start(finished=True)
    checkpoint.clean(folder)
    found = checkpoint.newest(folder)
    if found is None:
        raise CheckpointError(f"train.output_dir: {args.output_dir!r} holds no checkpoint; start without --resume")
    known = checkpoint.about(found)
    if known["rows_per_step"] != checkpoint.rows_per_step(args):
        raise InputError(
            f"train: a step of this run has {known['rows_per_step']} rows, here {checkpoint.rows_per_step(args)} = "
            f"{args.train_batch_size} (per_device_train_batch_size) x {args.gradient_accumulation_steps} "
            f"(gradient_accumulation_steps) x {args.world_size} processes; change one of them, or --overwrite"
        )
    if known["processes"] != args.world_size:
        announce(
            f"resumed by {args.world_size} processes instead of {known['processes']}: the same rows in each step, but "
            "other random numbers in dropout"
        )
    announce(f"resumed from {found}")
    return Start(found)


def _finished(args, folder: Path) -> bool:
    """Whether metrics.json, which is written last, is there and no more steps are asked for than at that time."""
    if not all((folder / name).is_file() for name in ("metrics.json", "run.lock.json")):
        return False
    asked = json.loads((folder / "run.lock.json").read_text(encoding="utf-8"))["train"]
    return all(asked[name] == getattr(args, name) for name in ("num_train_epochs", "max_steps"))


def empty_folder(folder: str, *, overwrite: bool) -> None:
    """Remove the run that `--overwrite` replaces, once everything that can be checked of the new one has been."""
    if overwrite and is_main_process() and Path(folder).is_dir():
        shutil.rmtree(folder)


def write_lock(recipe, splits, args, model) -> None:
    """recipe.yaml with what the run resolved, run.lock.json with versions, fingerprints and sizes, dropped.jsonl."""
    if not is_main_process():
        return
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)  # of a run that now goes on: it is no longer finished
    recipe.save(folder / "recipe.yaml")
    lock = {
        "hfft": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"processor": platform.machine(), "device": str(args.device)},
        "world_size": args.world_size,
        "seed": args.seed,
        "data": splits.report,
        "model": {"name": recipe.model.name, "commit": getattr(model.config, "_commit_hash", None)},
        "train": {name: value for name, value in args.to_dict().items() if not name.startswith(("hub", "push"))},
    }
    _write(folder / "run.lock.json", lock)
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
    }
    if is_main_process():
        _write(result.folder / "metrics.json", metrics)
        (result.folder / "README.md").write_text(card.text(result, metrics), encoding="utf-8")
        tell(metrics)
    return metrics


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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")

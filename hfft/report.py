"""What a run leaves for people and programs: recipe.yaml, run.lock.json, metrics.json, dropped.jsonl and the card."""

import json
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from hfft import __version__, card
from hfft.messages import CheckpointError, InputError, announce, is_main_process

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "timm", "evaluate")


def claim_folder(folder: str, *, resume: bool, overwrite: bool) -> None:
    """Refuse to write into a folder that already holds something, unless asked to go on or to start anew."""
    if resume and overwrite:
        raise InputError("command line: --resume goes on with the run that --overwrite would remove; write one of them")
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"train.output_dir: {folder!r} is a file; name a folder")
    if not path.is_dir() or not any(path.iterdir()) or resume or not is_main_process():
        return
    if not overwrite:
        raise InputError(f"train.output_dir: {folder!r} is not empty; write --resume, --overwrite or another folder")
    if not any((path / name).exists() for name in ("recipe.yaml", "run.lock.json")) and not any(
        path.glob("checkpoint-*")
    ):
        raise InputError(f"train.output_dir: {folder!r} holds something else than a run; empty it yourself")


def empty_folder(folder: str, *, overwrite: bool) -> None:
    """Remove the run that `--overwrite` replaces, once everything that can be checked of the new one has been."""
    if overwrite and is_main_process():
        shutil.rmtree(folder)


def resume_point(folder: str, *, resume: bool) -> str | None:
    """The newest checkpoint to go on from. Raises CheckpointError when there is none."""
    if not resume:
        return None
    from transformers.trainer_utils import get_last_checkpoint

    found = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    if found is None:
        raise CheckpointError(f"train.output_dir: {folder!r} holds no checkpoint; start without --resume")
    return found


def write_lock(recipe, splits, args, model) -> None:
    """recipe.yaml with what the run resolved, run.lock.json with versions, fingerprints and sizes, dropped.jsonl."""
    if not is_main_process():
        return
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
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
    if splits.dropped:
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in splits.dropped)
        (folder / "dropped.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_metrics(result, found: dict[str, Any], splits, trainer) -> dict[str, Any]:
    """metrics.json and the card; returns what metrics.json holds."""
    log: dict[str, Any] = next((entry for entry in reversed(trainer.state.log_history) if "train_runtime" in entry), {})
    metrics = {
        "eval": found,
        "train": {
            "seconds": log.get("train_runtime"),
            "samples_per_second": log.get("train_samples_per_second"),
            "steps": trainer.state.global_step,
            "rows": len(splits.train),
        },
        "data": splits.report,
    }
    if is_main_process():
        _write(result.folder / "metrics.json", metrics)
        (result.folder / "README.md").write_text(card.text(result, metrics), encoding="utf-8")
        tell(metrics)
    return metrics


def tell(metrics: dict[str, Any]) -> None:
    """The result in one line."""
    shown = {name: value for name, value in metrics["eval"].items() if isinstance(value, int | float)}
    announce("result: " + ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")

"""Metrics of a finished run: measured on the weights as they were read back, in plain arithmetic, each row once."""

import tempfile
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import patch_environment
from transformers import Seq2SeqTrainingArguments

from hfft import batches, metrics
from hfft.callbacks import SPEED, Progress
from hfft.data import read_rows
from hfft.messages import InputError, announce
from hfft.predict import load
from hfft.reading import inputs
from hfft.reading.feeds import OWN
from hfft.recipe import DataSection
from hfft.streams import load_splits
from hfft.trainer import Trainer

# What was trained in shares was read back whole, into every process.
WHOLE = {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_USE_DEEPSPEED": "false"}


def evaluate(result, rows, *, batch_size: int = 64, trust_code: bool = False, watched_by=None) -> dict[str, Any]:
    """{metric: value, "loss", "rows", "per_class": ...} of `result.model` on canonical rows with truth.

    In a run of several processes all of them call it, each takes a share of the rows. `watched_by` is a Guard.
    """
    result.task.accept(rows)
    encoded = batches.encoded(rows, result.task, split="eval", seed=0)
    on_cpu = bool((result.recipe.train or {}).get("use_cpu")) or not torch.accelerator.is_available()
    with tempfile.TemporaryDirectory() as folder, patch_environment(**WHOLE):
        args = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=batch_size,
            report_to="none",
            disable_tqdm=True,
            use_cpu=on_cpu,
        )
        trainer = Trainer(result.model, args, task=result.task, loss=result.task.loss, eval=encoded)
        trainer.remove_callback(Progress)
        if watched_by is not None:
            trainer.add_callback(watched_by)
        found = trainer.evaluate()
    kept = [name for name in found if name.startswith("eval_") and not name.endswith(SPEED)]
    values = {name.removeprefix("eval_"): found[name] for name in kept}
    if result.recipe.metrics and not trust_code:
        announce(f"left out without --trust-code, because they run code: {', '.join(result.recipe.metrics)}")
    names = result.recipe.metrics if trust_code else []
    named = metrics.named(names, trainer.columns)
    return {**values, **named, "rows": len(rows), **trainer.details}


def of_run(
    folder: str, *, data: str | None = None, split: str | None = None, trust_code: bool = False
) -> dict[str, Any]:
    """Metrics of the run in `folder` on its evaluation split, on another `split`, or on other `data` with truth."""
    result = load(folder, trust_code=trust_code)
    if not result.task.trains:
        raise InputError(f"{folder}: {result.recipe.task.name} has no right answers, and so no metrics")
    section = result.recipe.data or DataSection()
    if data and not split:
        given = inputs.named(data, "image" in result.task.columns)
        names = getattr(result.task, "names", None)
        rows = read_rows(given, result.task, section, need_truth=True, label_names=names, trained=result.columns)
        return evaluate(result, rows, trust_code=trust_code)
    if data and split:
        options = {key: value for key, value in section.load.items() if key not in OWN}
        alone = replace(section, path=data, load=options, train=split, eval=None, eval_size=0, filters=[])
        return evaluate(result, load_splits(alone, result.task, seed=_seed(result)).train, trust_code=trust_code)
    if section.path is None:
        raise InputError(f"{folder}: this run's data was in memory; name other data with --data")
    if section.load.get("streaming"):  # whose classes are known by now: it need not be read for them
        section = replace(section, labels=section.labels or getattr(result.task, "names", None))
    splits = load_splits(section, result.task, seed=_seed(result), splits=[split] if split else [])
    return evaluate(result, splits.others[split] if split else splits.eval, trust_code=trust_code)


def _seed(result) -> int:
    return (result.recipe.train or {}).get("seed", 42)

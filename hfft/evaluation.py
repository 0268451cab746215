"""Metrics of a finished run: measured on the weights as they were read back, in plain arithmetic, each row once."""

import tempfile
from dataclasses import replace
from typing import Any

from transformers import Seq2SeqTrainingArguments

from hfft import metrics
from hfft.batches import EncodedRows
from hfft.data import load_splits, read_rows
from hfft.messages import InputError
from hfft.predict import load
from hfft.recipe import DataSection
from hfft.trainer import SPEED, Progress, Trainer


def evaluate(result, rows, *, batch_size: int = 64) -> dict[str, Any]:
    """{metric: value, "loss", "rows", "per_class": ...} of `result.model` on canonical rows with truth."""
    result.task.accept(rows)
    encoded = EncodedRows(rows, encode=result.task.encode)
    with tempfile.TemporaryDirectory() as folder:
        args = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_eval_batch_size=batch_size, report_to="none", disable_tqdm=True
        )
        trainer = Trainer(result.model, args, task=result.task, loss=result.task.loss, eval=encoded)
        trainer.remove_callback(Progress)
        found = trainer.evaluate()
    names = [name for name in found if name.startswith("eval_") and not name.endswith(SPEED)]
    values = {name.removeprefix("eval_"): found[name] for name in names}
    named = metrics.named(result.recipe.metrics, trainer.columns["prediction"], trainer.columns["label"])
    return {**values, **named, "rows": len(rows), **trainer.details}


def of_run(folder: str, *, data: str | None = None, split: str | None = None) -> dict[str, Any]:
    """Metrics of the run in `folder` on its evaluation split, on another `split`, or on other `data` with truth."""
    result = load(folder)
    section = result.recipe.data or DataSection()
    if data and not split:
        names = result.task.names
        return evaluate(result, read_rows(data, result.task, section, need_truth=True, label_names=names))
    if data and split:
        alone = replace(section, path=data, train=split, eval=None, eval_size=0, filters=[])
        return evaluate(result, load_splits(alone, result.task, seed=_seed(result)).train)
    if section.path is None:
        raise InputError(f"{folder}: this run's data was in memory; name other data with --data")
    splits = load_splits(section, result.task, seed=_seed(result), splits=[split] if split else [])
    return evaluate(result, splits.others[split] if split else splits.eval)


def _seed(result) -> int:
    return (result.recipe.train or {}).get("seed", 42)

"""TrainingArguments from the recipe's `train`: hfft's defaults first, then the part's, then what the recipe says."""

import os
from importlib.util import find_spec
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from hfft import launch, lookup
from hfft.messages import InputError, MachineError, announce, first_line
from hfft.metrics import LOWER_IS_BETTER

# Ours, because they decide what a person gets; each can be set in `train`.
DEFAULTS: dict[str, Any] = {
    "logging_steps": 50, "save_total_limit": 2, "report_to": "none", "disable_tqdm": True, "ddp_timeout": 600,
}  # fmt: skip
# Not the recipe's to set: the one Trainer relies on them.
FIXED: dict[str, Any] = {"remove_unused_columns": False, "logging_nan_inf_filter": False, "push_to_hub": False}
OURS = ("early_stopping_patience", "early_stopping_threshold", "levers")


def training_arguments(recipe, task) -> Seq2SeqTrainingArguments:
    """The arguments of this run. Raises InputError with TrainingArguments' own words for what it refuses."""
    if recipe.train is None:
        raise InputError(f"{recipe.where('train')}: null: {recipe.task.name} has to be trained; write its options")
    asked = {key: value for key, value in (recipe.train or {}).items() if key not in OURS}
    streamed = recipe.data is not None and bool(recipe.data.load.get("streaming"))
    chosen = {**DEFAULTS, **_rhythm(asked, streamed), **_by_parts(recipe, asked), **task.trainer_args}
    chosen |= _best(recipe, task)
    only_cpu = {} if torch.accelerator.is_available() else {"use_cpu": True}
    _need_deepspeed(asked)
    _need_trackers(recipe, asked)
    told = {key: value for key, value in chosen.items() if key not in asked and key not in task.trainer_args}
    announce("train: " + ", ".join(f"{key} {value}" for key, value in told.items()) + " (defaults; set them in train)")
    every = {**chosen, **asked, **FIXED, **only_cpu}
    refused = (ValueError, TypeError, RuntimeError, ImportError, KeyError, AttributeError, OSError)
    with launch.meeting(every["ddp_timeout"], every.get("use_cpu", False), every.get("ddp_backend")):
        try:
            args = Seq2SeqTrainingArguments(**every)
        except torch.distributed.DistError:
            raise
        except refused as error:
            raise InputError(f"{recipe.where('train')}: {first_line(error)}") from error
    if args.world_size != launch.world_size():
        raise MachineError(
            f"launch: {launch.world_size()} processes were started, but each would train alone on {args.device}; start "
            "them with torchrun, or write train.use_cpu=true"
        )
    return args


def settle(args: Seq2SeqTrainingArguments, recipe, task) -> None:
    """Judge checkpoints by the task's own metric, now that the data have told what the task is."""
    for key, value in _best(recipe, task).items():
        setattr(args, key, value)


def _best(recipe, task) -> dict[str, Any]:
    """What "better" means. Raises InputError where the recipe names a metric that the task does not have."""
    best = str((recipe.train or {}).get("metric_for_best_model", task.best_metric)).removeprefix("eval_")
    names = (*task.metric_names, "loss")
    if best not in names:
        raise InputError(
            f"{recipe.where('train', 'metric_for_best_model')}: {best!r} is none of {', '.join(names)}."
            + lookup.hint(best, names)
        )
    return {"metric_for_best_model": best, "greater_is_better": best not in LOWER_IS_BETTER}


def _need_deepspeed(asked: dict[str, Any]) -> None:
    wanted = asked.get("deepspeed") or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if wanted and find_spec("deepspeed") is None:
        raise MachineError("launch: DeepSpeed is asked for and not installed; pip install 'hfft[deepspeed]'")


def _need_trackers(recipe, asked: dict[str, Any]) -> None:
    """Raises InputError for a name in report_to that is none, MachineError for one that is not installed."""
    from transformers.integrations import integration_utils as known

    given = asked.get("report_to") or "none"
    for name in [given] if isinstance(given, str) else given:
        if name in ("none", "all"):
            continue
        if name not in known.INTEGRATION_TO_CALLBACK:
            what = f"{name!r} is none of none, all, {', '.join(known.INTEGRATION_TO_CALLBACK)}"
            near = lookup.hint(name, known.INTEGRATION_TO_CALLBACK)
            raise InputError(f"{recipe.where('train', 'report_to')}: {what}.{near}")
        if name not in known.get_available_reporting_integrations():
            raise MachineError(f"{recipe.where('train', 'report_to')}: {name} is not installed; pip install {name}")


def early_stopping(recipe) -> dict[str, Any] | None:
    """What EarlyStoppingCallback takes, or None."""
    train = recipe.train or {}
    found = {key: value for key, value in train.items() if key.startswith("early_stopping_")}
    return found if "early_stopping_patience" in found else None


def _by_parts(recipe, asked: dict[str, Any]) -> dict[str, Any]:
    """The last tuning part's own defaults: a learning rate that suits the method."""
    found: dict[str, Any] = {}
    for part in recipe.tuning:
        if defaults := lookup.beside("tuning", part.name, "train_defaults"):
            found |= defaults(**part.options)
            method = part.options.get("peft_type", part.name)
            for key in found.keys() - asked.keys():
                announce(f"{key} {found[key]} (default for {method}; set train.{key})")
    if not recipe.tuning and "learning_rate" not in asked:
        announce("learning_rate 5e-5 (default for full fine-tuning; set train.learning_rate)")
    return found


def _rhythm(asked: dict[str, Any], streamed: bool) -> dict[str, Any]:
    """Evaluate and save at the same beat, and keep the best, unless the recipe says otherwise.

    A stream does not tell its epochs: five times in the run.
    """
    usual = "steps" if streamed else "epoch"
    beat = asked.get("eval_strategy", asked.get("save_strategy", usual))
    beat = usual if beat in ("no", "best") else beat
    rhythm: dict[str, Any] = {"eval_strategy": beat, "save_strategy": beat}
    steps = asked.get("eval_steps", asked.get("save_steps", -(-asked["max_steps"] // 5) if streamed else None))
    if beat == "steps" and steps is not None:
        rhythm |= {"eval_steps": steps, "save_steps": steps}
    merged = {**rhythm, **asked}
    same = merged["eval_strategy"] == merged["save_strategy"] or merged["save_strategy"] == "best"
    rhythm["load_best_model_at_end"] = bool(same and merged["eval_strategy"] != "no")
    return rhythm

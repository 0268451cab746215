"""What a run and its resumption must have in common: recipe, data and the weights at the start.

A checkpoint remembers them. A change that would alter what is trained is refused with a table, one line a key, unless
it is allowed by name; anything else (paths, logging, how a step's rows are split over processes) may change.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hfft import adapters, checkpoint
from hfft.messages import CheckpointError, InputError, announce

HARMLESS = {  # of TrainingArguments: they say where, how fast and how loudly, not what is trained
    "accelerator_config", "ddp_backend", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_static_graph",
    "ddp_timeout", "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "debug", "deepspeed", "disable_tqdm", "eval_accumulation_steps", "fsdp",
    "fsdp_config", "full_determinism", "gradient_accumulation_steps", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "output_dir", "per_device_eval_batch_size", "per_device_train_batch_size",
    "project", "report_to", "run_name", "save_total_limit", "skip_memory_metrics", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "use_cpu",
}  # fmt: skip
HARMLESS_STARTS = ("hub_", "include_", "log_", "logging_", "push_", "trackio_", "torch_empty_")


def of(recipe, args, splits, model) -> dict[str, Any]:
    """{key: value} of all that decides what is trained, by the recipe's own names. `args` are None where nothing is."""
    known = recipe.to_dict()
    model_keys = {key: value for key, value in known.get("model", {}).items() if key not in ("name", "revision")}
    data_keys = {key: value for key, value in known.get("data", {}).items() if key not in ("path", "name", "revision")}
    train = {} if args is None else {key: value for key, value in args.to_dict().items() if key not in HARMLESS}
    train = {key: value for key, value in train.items() if not key.startswith(HARMLESS_STARTS)}
    ours = ("early_stopping_patience", "early_stopping_threshold", "levers")  # of hfft, not of TrainingArguments
    stopping = {key: value for key, value in (recipe.train or {}).items() if key in ours}
    found = {
        "task": known["task"],
        **{f"model.{key}": value for key, value in model_keys.items()},
        "model.weights": adapters.print_of(model.state_dict()),
        **{f"data.{key}": value for key, value in data_keys.items()},
        "data.fingerprint": splits.report.get("fingerprint"),
        **{kind: known.get(kind, []) for kind in ("tuning", "objectives")},
        **{f"train.{key}": value for key, value in {**train, **stopping}.items()},
    }
    return json.loads(json.dumps(found, default=str))


def kept(place: Path, now: dict[str, Any], allowed: Sequence[str]) -> set[str]:
    """The keys that have changed since the checkpoint and may. Raises InputError for those that may not."""
    before = checkpoint.about(place).get("contract")
    if before is None:
        raise CheckpointError(f"{place}: {checkpoint.MANIFEST} does not tell of the run; --overwrite starts anew")
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    refused = [key for key in changed if not _named(key, allowed)]
    if refused:
        lines = [f"{key}: {_shown(before.get(key))} in {place.name}, {_shown(now.get(key))} now" for key in refused]
        raise InputError(
            *lines,
            "resuming would train something else than the run that began: undo the changes above, admit each with "
            "--allow-change KEY, or start anew with --overwrite",
        )
    for key in changed:
        announce(f"{key}: {_shown(before.get(key))} in {place.name}, {_shown(now.get(key))} from here on, as allowed")
    return set(changed)


def _named(key: str, allowed: Iterable[str]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in allowed)


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

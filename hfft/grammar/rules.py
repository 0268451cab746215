"""Rules: what to say of a key that a section of a recipe does not take — renamed, refused, elsewhere, or misspelt."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hfft.grammar.positions import MAX_LINES, SECRET, Path_, Source, dotted
from hfft.lookup import Option, closest, distance, hint

GONE = "is gone from TrainingArguments; "
RENAMED = {  # keys of older TrainingArguments, and common short names -> what to write now
    "warmup_ratio": GONE + "write warmup_steps: 0.1 (below 1 it is a ratio of all steps)",
    "overwrite_output_dir": GONE + "give --overwrite on the command line",
    "logging_dir": GONE + "set TENSORBOARD_LOGGING_DIR in the environment",
    "group_by_length": GONE + "write train_sampling_strategy: group_by_length",
    "evaluation_strategy": GONE + "write eval_strategy",
    "no_cuda": GONE + "write use_cpu: true",
    "use_mps_device": GONE + "it is used where there is one; delete the line",
    "per_gpu_train_batch_size": GONE + "write per_device_train_batch_size",
    "per_gpu_eval_batch_size": GONE + "write per_device_eval_batch_size",
    "fp16_opt_level": GONE + "write fp16: true",
    "fp16_backend": GONE + "write fp16: true",
    "half_precision_backend": GONE + "write bf16: true or fp16: true",
    "save_safetensors": GONE + "weights are always saved as safetensors; delete the line",
    "tokenizer": "belongs under model: (model.tokenizer)",
    "adafactor": GONE + "write optim: adafactor",
    "include_inputs_for_metrics": GONE + "delete the line",
    "push_to_hub_token": GONE + "set HF_TOKEN in the environment or run `hf auth login`",
    "push_to_hub_model_id": GONE + "write export: [{hub: {repo: user/name}}]",
    "push_to_hub_organization": GONE + "write export: [{hub: {repo: user/name}}]",
    "torchdynamo": GONE + "write torch_compile: true",
    "jit_mode_eval": GONE + "write torch_compile: true",
    "use_ipex": GONE + "delete the line",
    "past_index": GONE + "delete the line",
    "ray_scope": GONE + "delete the line",
    "tpu_num_cores": GONE + "say it to `accelerate launch`",
    "tpu_metrics_debug": GONE + "write debug: [tpu_metrics_debug]",
    "mp_parameters": GONE + "delete the line",
    "split_batches": GONE + "write accelerator_config: {split_batches: …}",
    "dispatch_batches": GONE + "write accelerator_config: {dispatch_batches: …}",
    "fsdp_min_num_params": GONE + "write fsdp_config: {min_num_params: …}",
    "fsdp_transformer_layer_cls_to_wrap": GONE + "write fsdp_config: {transformer_layer_cls_to_wrap: …}",
    "sharded_ddp": GONE + "launch with accelerate_configs/fsdp2.yaml",
    "lr": "is called learning_rate",
    "epochs": "is called num_train_epochs",
    "num_epochs": "is called num_train_epochs",
    "batch_size": "is called per_device_train_batch_size",
    "train_batch_size": "is called per_device_train_batch_size",
    "eval_batch_size": "is called per_device_eval_batch_size",
    "optimizer": "is called optim",
    "scheduler": "is called lr_scheduler_type",
    "max_length": "is an option of the task: task: {text_classification: {max_length: …}}",
    "freeze": "is no training argument; write tuning: frozen",
}
HUB = "is not for a recipe's train section; write export: [{hub: {repo: user/name}}], "
HUB += "with HF_TOKEN in the environment or `hf auth login`"
OWN = "is set by hfft; delete the line"
REFUSED = {  # keys of TrainingArguments that a recipe may not set
    "push_to_hub": HUB,
    **{f"hub_{name}": HUB for name in ("token", "private_repo", "model_id", "strategy", "always_push", "revision")},
    "label_names": "is set by the task; delete the line",
    "remove_unused_columns": "is set by hfft (columns are chosen in data.columns); delete the line",
    "label_smoothing_factor": "would change the model's own loss; write objectives: [{label_smoothing: {alpha: 0.1}}]",
    "resume_from_checkpoint": "is not for a recipe; give --resume on the command line",
    "do_train": "is not read; `hfft train` trains (train: null does not)",
    "do_eval": "is not read; `hfft train` evaluates where there is an eval split, `hfft eval` on its own",
    "do_predict": "is not read; use `hfft predict`",
    "batch_eval_metrics": "would change what metrics see; " + OWN,
    "include_for_metrics": "would change what metrics see; " + OWN,
    "eval_do_concat_batches": "is set by the task; delete the line",
    "average_tokens_across_devices": "would scale the loss twice, hfft's is exact over all processes; delete the line",
    "enable_jit_checkpoint": "would end with exit code 0 when interrupted; hfft saves on SIGTERM; delete the line",
    "logging_nan_inf_filter": "would show a loss of NaN as 0; " + OWN,
    "prediction_loss_only": "would leave no metrics; delete the line",
    "local_rank": "is set by the launcher; delete the line",
    "auto_find_batch_size": "would start again with another batch where memory ends, and the learning rate as it was; "
    "write a smaller per_device_train_batch_size and a larger gradient_accumulation_steps",
    "parallelism_config": "is an object; launch with a file of accelerate_configs/",
}
TRUST = "is not for a recipe; code from the Hub runs only with --trust-code on the command line"
SECRETS = "is not for a recipe (recipes are shared and saved); set HF_TOKEN in the environment or run `hf auth login`"
KERNELS = "would run code from the Hub; delete the line"
SAFE = "is not for a recipe: weights are read as safetensors (others with --trust-code); delete the line"
REFUSED_MODEL = {
    **dict.fromkeys(("allow_all_kernels", "use_kernels", "kernel_config"), KERNELS),
    **dict.fromkeys(("use_safetensors", "weights_only"), SAFE),
    "adapter_kwargs": "would load an adapter from elsewhere; delete the line",
    "torch_dtype": "is called dtype",
    "num_labels": "comes from the data's labels; delete the line",
    "id2label": "comes from the data's labels; delete the line",
    "label2id": "comes from the data's labels; delete the line",
}
REFUSED_LOAD = {
    "trust_remote_code": TRUST,
    "path": "belongs under data: (data.path)",
    "name": "belongs under data: (data.name)",
    "revision": "belongs under data: (data.revision)",
    "split": "is given by data.train and data.eval",
    "data_files": "is given by data.path: {train: a.csv, eval: b.csv}",
    "features": "is an object; name the columns in data.columns and the labels in data.labels",
}
REFUSED_PEFT = {
    "base_model_name_or_path": "is model.name; delete the line",
    "revision": "is model.revision; delete the line",
    "inference_mode": "would train nothing; delete the line",
    "auto_mapping": "is set by peft; delete the line",
    "megatron_core": "imports a module by its name; delete the line",
    "tokenizer_kwargs": "could load code; delete the line",
    "peft_version": "is set by peft; delete the line",
}
LEVERS = ("allocator", "bf16", "buckets", "cache", "channels_last", "dropout", "features", "uint8")  # of hfft/levers.py
EXTRA_TRAIN = {  # hfft's own keys in `train`
    "levers": Option('Literal["all", "none"] | dict[str, bool]', "all"),
    "early_stopping_patience": Option("int"),
    "early_stopping_threshold": Option("float", 0.0),
}
COMMIT = re.compile("[0-9a-f]{40}")
STEP = 1_000_000  # rows of a stream that are held for one step
Homes = Callable[[], Mapping[str, Iterable[str]]]


def code(source: Source, given: Mapping[str, Any], trust_code: bool) -> None:
    """Note what in `model` would run code of others: a repository's own, or an attention kernel of the Hub."""
    what, pinned = "", COMMIT.fullmatch(str(given.get("revision"))) or os.path.isdir(str(given.get("name")))
    if given.get("trust_remote_code") is True and not trust_code:
        what = "runs Python code of the model's repository; give --trust-code on the command line to allow it"
    elif given.get("trust_remote_code") is True and not pinned:
        what = "needs revision: the 40 hex digits of the commit whose code you have read"
    if what:
        source.add(("model", "trust_remote_code"), f"'trust_remote_code' {what}", key=True, where=("model",))
    for key in ("attn_implementation", "experts_implementation"):
        named = given.get(key)
        for name in named.values() if isinstance(named, dict) else [named]:
            if name is not None and not re.fullmatch("[a-z0-9_]+", str(name)):
                source.add(("model", key), f"{str(name)[:60]!r} is fetched from the Hub as code; write eager, sdpa, …")


def secrets(source: Source, data: object, path: Path_ = ()) -> None:
    """Refuse every key that looks like a token or password, at any depth, without its value."""
    if path in (("data", "labels"), ("data", "columns")):  # names of classes, and of a task's columns such as "tokens"
        return
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        if isinstance(key, str) and SECRET.fullmatch(key):
            source.add((*path, key), f"{key!r} {SECRETS}", key=True, where=path)
        else:
            secrets(source, value, (*path, key))


def stream(source: Source) -> None:
    """Note what a recipe that streams its data lacks, and what would have no effect in it."""
    load, train = value_at(source.data, ("data", "load")), value_at(source.data, ("train",))
    load, train = load if isinstance(load, dict) else {}, train if isinstance(train, dict) else None
    if load.get("streaming") is not True:
        if "buffer_size" in load and not has_typo_of("streaming", load):
            what = "has no effect without streaming: true; delete the line"
            source.add(("data", "load", "buffer_size"), what, key=True)
        return
    if train is None:
        return
    if train.get("max_steps") in (None, -1) and not has_typo_of("max_steps", train):
        what = "needs max_steps, for a stream does not tell how many rows an epoch has; write max_steps: N"
        source.add(("train", "max_steps"), what, where=("train",))
    sizes = [train.get("per_device_train_batch_size", 8), train.get("gradient_accumulation_steps", 1)]
    if all(type(size) is int for size in sizes) and sizes[0] * sizes[1] > STEP:
        what = (
            f"with per_device_train_batch_size makes steps of {sizes[0] * sizes[1]:,} rows, all held; at most {STEP:,}"
        )
        source.add(("train", "gradient_accumulation_steps"), what)
    for key in ("num_train_epochs", "dataloader_drop_last"):
        if train.get(key):
            what = "has no effect on a stream, whose epochs follow each other until max_steps; delete the line"
            source.add(("train", key), what, key=True)
    for key in ("eval_strategy", "save_strategy", "logging_strategy"):
        if train.get(key) == "epoch":
            what = f"a stream does not tell when an epoch ends; write {key}: steps"
            source.add(("train", key), what)


def has_typo_of(name: str, keys: Iterable[str]) -> bool:
    """Whether one of the keys is nearly, but not quite, this name."""
    return any(distance(key, name) in (1, 2) for key in keys)


def unknown_keys(source: Source, path: Path_, known: Iterable[str], told: Mapping[str, str], homes: Homes) -> None:
    """Note every key of the mapping at `path` that is not `known`, with what to write instead."""
    strange = [key for key in value_at(source.data, path) if key not in known]
    for number, key in enumerate(strange):
        reason = told.get(key)
        what = f"{key!r} {reason}" if reason else f"unknown key {key!r}"
        if not reason and number < MAX_LINES:  # the nearest name takes time, and more are not told
            what = misspelt(key, list(known), path, homes)
        source.add((*path, key), what, key=True, where=path)


def misspelt(key: str, known: list[str], path: Path_, homes: Homes) -> str:
    """What to say of a key that is neither known nor known to be gone: nearest here, at home elsewhere, or neither."""
    near = closest(key, known)
    if not near or distance(key, near[0]) > 1:
        here = re.sub(r"\.[0-9]+", "", dotted(path))
        every = [home for home, keys in homes().items() if home != here and key in keys]
        elsewhere = [home for home in every if "." not in home] or every
        if elsewhere:
            return (
                f"{key!r} belongs {' or '.join(f'under {home}:' if home else 'at the top level' for home in elsewhere)}"
            )
        where = [(home, other) for home, keys in homes().items() if home != here for other in closest(key, keys)]
        if not near and where and len(key) > 2 and distance(key, where[0][1]) <= 1:
            return f"unknown key {key!r}. Did you mean {where[0][1]!r} under {where[0][0] or 'the top level'}?"
    few = f"; there are: {', '.join(known)}" if len(known) <= 14 else ""
    return f"unknown key {key!r}" + (f".{hint(key, known)}" if near else few)


def missing(source: Source, path: Path_, key: str, known: Iterable[str], what: str) -> None:
    """Note that a needed key is absent, unless a key that is there is a misspelling of it."""
    given = value_at(source.data, path) or {}
    if key not in given and not any(key in closest(other, known) for other in given if other not in known):
        source.add((*path, key), what, where=path)


def value_at(data: Any, path: Path_) -> Any:
    """The value at a path of mappings and lists, or None."""
    for step in path:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return None
    return data

"""Configs: what a checkpoint says of itself before its weights are read, and the class names in it.

The labels a checkpoint already has keep their meaning, by name.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from hfft import lookup, origin, safety
from hfft.messages import InputError, announce, first_line

TIMM_ARGS = ("num_classes", "in_chans", "global_pool")  # timm writes them into model_args; AutoModel refuses them


OURS = ("num_labels", "id2label", "label2id", "label_names", "problem_type")  # come from the data and the task
MOST, COUNTED = 10_000, re.compile("layers|depths?$|blocks|stages|experts")  # of a model


def load_config(model, auto_model: str | None = None) -> PreTrainedConfig:
    """The config of the recipe's model section (`.name`, `.revision`, `.config`), with its changes applied.

    Raises InputError for one that cannot be used, also where `auto_model` does not know this type of model.
    """
    changes = model.config if isinstance(model.config, dict) else {}
    for key in [key for key in changes if key in OURS]:
        raise InputError(f"model.config.{key}: comes from the data's labels; delete the line")
    if model.name is None:
        config = _fresh_config(model)
    else:
        config = _saved_config(model)
        for key, value in changes.items():
            _change(config, key, value)
        _mend_timm(config)
    _check_counts(config.to_dict(), "model.config" if model.name is None else f"model {model.name!r}")
    if auto_model is not None:
        _check_kind(config, auto_model, model.name)
    return config


def _saved_config(model) -> PreTrainedConfig:
    _folder_exists(model.name)
    place, below = origin.folder(model), subfolder(model)
    _check_file(place / below.get("subfolder", "") / "config.json")
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=model.trust_remote_code, **below)
    except Exception as error:  # each kind of config checks its values in its own way
        raise InputError(f"model {model.name!r}: config.json cannot be used: {_reason(error)}") from error
    safety.own_attention(config)
    config._name_or_path = origin.called(model)
    return config


def _reason(error: Exception) -> str:
    """What a library says; the second line too where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines and lines[0].endswith(":") else origin.needs_code(error)[:300]


def _check_file(path: Path) -> None:
    """What transformers tells at a length, or not by its place. Raises InputError."""
    if not path.is_file():
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        what = f"is not JSON ({error.msg}, column {error.colno})"
        raise InputError(f"{path} line {error.lineno}: {what}; get the model again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({first_line(error)}); get the model again") from error
    if not isinstance(known, dict):
        raise InputError(f"{path}: is no JSON object of a model's settings; get the model again")
    kind = known.get("model_type")
    if kind is None and "architecture" not in known:  # which timm's have
        raise InputError(f"{path}: has no model_type, so it is no config of transformers or timm; name another model")
    if kind is not None and str(kind) not in CONFIG_MAPPING and "auto_map" not in known:
        newer = f"transformers {transformers.__version__} does not know it; a newer one may"
        raise InputError(f"{path}: model_type {kind!r}: {newer}." + lookup.hint(str(kind), CONFIG_MAPPING.keys()))


def _change(config: PreTrainedConfig, key: str, value: Any) -> None:
    if not hasattr(config, key):
        raise InputError(f"model.config: {type(config).__name__} has no {key!r}." + lookup.hint(key, config.to_dict()))
    try:
        setattr(config, key, value)
    except Exception as error:  # as above
        raise InputError(f"model.config.{key}: {value!r} cannot be used: {_reason(error)}") from error


def _check_counts(settings: dict[str, Any], where: str) -> None:
    """Refuse numbers of layers and experts that only a damaged file has: building them would never end."""
    for key, value in settings.items():
        if isinstance(value, dict):
            _check_counts(value, where)
        numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
        if COUNTED.search(str(key)) and numbers and max(numbers) > MOST:
            raise InputError(f"{where}: {key} is {value}, more than {MOST:,}; its config is damaged")


def _check_kind(config: PreTrainedConfig, auto_model: str, name: str | None) -> None:
    known = getattr(transformers, auto_model)._model_mapping
    if type(config) in known or auto_model in (getattr(config, "auto_map", None) or {}):
        return
    what = "model.config" if name is None else f"model {name!r}"
    raise InputError(f"{what} is a {config.model_type}, of which there is no {auto_model}; name a model for this task")


def _mend_timm(config: PreTrainedConfig) -> None:
    if config.model_type == "timm_wrapper":  # a dict even when empty: timm reads it back without asking
        config.model_args = {k: v for k, v in (config.model_args or {}).items() if k not in TIMM_ARGS}
        safety.check_config(config.to_dict(), "model.config")


def _fresh_config(model) -> PreTrainedConfig:
    place = origin.folder(replace(model, name=model.config)) if isinstance(model.config, str) else None
    try:
        fresh = AutoConfig.for_model(**model.config) if place is None else _of(place)
    except Exception as error:  # as above
        raise InputError(f"model.config cannot be used: {_reason(error)}") from error
    safety.own_attention(fresh)
    _mend_timm(fresh)
    return fresh


def _of(place: Path) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(place, trust_remote_code=False)


def subfolder(model) -> dict[str, Any]:
    """Where in a repository the model lies, as from_pretrained takes it."""
    return {"subfolder": model.options["subfolder"]} if "subfolder" in model.options else {}


def _folder_exists(name: str) -> None:
    path = Path(name)
    if path.exists() or (name.count("/") == 1 and not name.startswith((".", "/", "~"))) or "/" not in name:
        if path.is_dir() and not (path / "config.json").exists():
            if (path / "adapter_config.json").exists():
                raise InputError(f"model.name: the folder {name!r} holds an adapter without its base; name the base")
            if not any(path.rglob("config.json")):
                raise InputError(f"model.name: the folder {name!r} holds no config.json; it is no saved model")
        if path.is_file():
            raise InputError(f"model.name: {name!r} is a file; name the folder of a saved model, or a Hub id")
        return
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"model.name: folder {name!r} not found." + lookup.hint(name, siblings))


def label_names(config: PreTrainedConfig) -> list[str] | None:
    """The checkpoint's own class names in index order; None when it only has LABEL_0, LABEL_1, ..."""
    names = getattr(config, "label_names", None)
    if not names:
        id2label = config.id2label or {}
        names = [str(id2label[i]) for i in sorted(id2label)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else list(names)


def known_labels(model) -> list[str] | None:
    """The class names of the recipe's model section, before anything else of it is loaded."""
    return label_names(load_config(model))


def match_labels(config: PreTrainedConfig, train, column: str = "label") -> tuple[list[str], list[int], bool]:
    """(class names in the model's order, the model's index of each class of `train`, whether the head is kept).

    A checkpoint that already knows exactly these classes keeps its order and its head, whatever the data's order.
    """
    known = label_names(config)
    if train is None:
        names = known or [str(config.id2label[i]) for i in sorted(config.id2label)]
        return names, list(range(len(names))), True
    names = classes_of(train.features[column])
    if known is not None and sorted(known) == sorted(names):
        announce(f"the checkpoint already has these {len(names)} classes: its head and their order are kept")
        return known, [known.index(name) for name in names], True
    return names, list(range(len(names))), False


def places(names: list[str], rows, column: str = "label") -> list[int]:
    """The model's index of each class of `rows`. Raises InputError for a class that the model does not have."""
    if column not in rows.features:
        return list(range(len(names)))
    given = classes_of(rows.features[column])
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"label {unknown[0]!r} is none of the model's classes." + lookup.hint(unknown[0], names))
    return [names.index(name) for name in given]


def classes_of(feature: Any) -> list[str]:
    """The names in a label's feature: of a ClassLabel, of a list of them, or of {target: number}."""
    feature = getattr(feature, "feature", feature)
    return list(feature if isinstance(feature, dict) else feature.names)


def set_labels(config: PreTrainedConfig, names: list[str], problem: str | None = None) -> None:
    """Write the class names, and the kind of problem, where transformers and timm look for them."""
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    if config.model_type == "timm_wrapper":
        config.label_names = list(names)
    config.problem_type = problem

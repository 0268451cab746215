"""Sections: a whole recipe checked, section by section, against what will read it."""

import json
from pathlib import Path
from typing import Any, Literal

from hfft import lookup
from hfft.grammar import rules, schema, values
from hfft.grammar.known import (
    DATA,
    MODEL,
    SPLITS,
    TOP,
    VERSION,
    DataSection,
    ModelSection,
    check_keys,
    homes,
    load_known,
    model_known,
    train_known,
)
from hfft.grammar.parts import part, parts
from hfft.grammar.positions import Path_, Source
from hfft.lookup import Part
from hfft.messages import InputError

START = "write name: a Hub id or folder, or config: {model_type: …} for random weights"


def check_all(source: Source, *, trust_code: bool) -> dict[str, Any]:
    """Check a whole recipe; the sections as objects. Raises InputError with all mistakes, one line each."""
    top = source.data
    rules.secrets(source, top)
    rules.unknown_keys(source, (), TOP, {}, homes)
    check_version(source)
    rules.missing(source, (), "task", TOP, "the recipe has no task; write task: NAME, one of " + _all("tasks"))
    task = part(source, ("task",), "tasks", trust_code) if "task" in top else None
    found = {
        "task": task,
        "model": model(source, trust_code) if "model" in top else None,
        "data": data(source, task, trust_code) if "data" in top else None,
        "tuning": parts(source, ("tuning",), "tuning", trust_code),
        "objectives": parts(source, ("objectives",), "objectives", trust_code),
        "metrics": metrics(source, trust_code),
        "train": train(source),
        "export": parts(source, ("export",), "export", trust_code),
    }
    rules.stream(source)
    if source.problems:
        raise InputError(*source.lines())
    return found


def _all(kind: str) -> str:
    return ", ".join(lookup.names(kind))


def check_version(source: Source) -> None:
    """`version: 1` may be left out; a later one is for a later hfft."""
    given = source.data.get("version", VERSION)
    if isinstance(given, int) and not isinstance(given, bool) and given > VERSION:
        what = (
            f"this recipe is of version {given}, this hfft reads version {VERSION}; upgrade hfft (pip install -U hfft)"
        )
        source.add(("version",), what)
    else:
        values.check(source, ("version",), given, Literal[VERSION])


def model(source: Source, trust_code: bool) -> ModelSection:
    """The section `model`."""
    given = check_keys(source, ("model",), model_known(), rules.REFUSED_MODEL)
    misspelt = {lookup.nearest(key, MODEL) for key in given if key not in MODEL}
    absent = given.get("name") is None and given.get("config") is None
    if absent and not {"name", "config"} & misspelt and isinstance(source.data["model"], dict):
        source.add(("model",), "has neither name nor config; " + START)
    if isinstance(given.get("config"), dict):
        config(source, given)
    elif given.get("config") is not None and given.get("name") is not None:
        source.add(("model", "config"), "with model.name it must be a mapping of the attributes to change")
    rules.code(source, given, trust_code)
    own = {key: value for key, value in given.items() if key in MODEL}
    more = {key: value for key, value in given.items() if key not in MODEL}
    return ModelSection(**own, trusted=trust_code, options=more)


def config(source: Source, given: dict) -> None:
    """`model.config`, against the config class of its model_type where that is known without downloading."""
    path: Path_ = ("model", "config")
    types, name = schema.model_types(), given.get("name")
    model_type = given["config"].get("model_type", local_model_type(name) if isinstance(name, str) else None)
    if model_type in types:
        known = {key: schema.to_type(option.annotation) for key, option in schema.config_fields(model_type).items()}
        told = {} if name is None else rules.REFUSED_MODEL
        check_keys(source, path, known if known else dict.fromkeys(given["config"]), told)
    elif "model_type" in given["config"]:
        what = f"unknown model_type {model_type!r}.{lookup.hint(str(model_type), types)}"
        source.add((*path, "model_type"), what, where=path)
    elif name is None:
        for key in [key for key in given["config"] if lookup.closest(key, ["model_type"])]:
            source.add((*path, key), f"unknown key {key!r}. Did you mean 'model_type'?", key=True, where=path)
            return
        source.add(path, "without model.name it needs a model_type, such as model_type: vit")


def local_model_type(name: str) -> str | None:
    """The model_type of a checkpoint folder, None for anything else."""
    file = Path(name) / "config.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("model_type") if file.is_file() else None
    except (ValueError, AttributeError, OSError):
        return None  # the model loader says what is wrong with the file


def data(source: Source, task: Part | None, trust_code: bool) -> DataSection:
    """The section `data`."""
    nested = dict.fromkeys(("columns", "load", "filters", "augment"))
    given = check_keys(source, ("data",), DATA | nested)
    if isinstance(given.get("path"), dict):
        split_names(source, given)
    if "columns" in given:
        known = column_names(task)
        as_given = list(given["columns"]) if isinstance(given["columns"], dict) else []
        wanted = as_given if known is None else known
        check_keys(source, ("data", "columns"), dict.fromkeys(wanted, str | int | list[str]))
        if isinstance(given["columns"], dict):  # a number is a column's place in a file without a header
            places = {name: str(part) for name, part in given["columns"].items() if type(part) is int}
            given["columns"] = given["columns"] | places
    if "load" in given:
        path = given.get("path")
        known_load = load_known(embedded=isinstance(path, str) and path.startswith("sklearn:"))
        either = load_known(embedded=True) | load_known()
        check_keys(source, ("data", "load"), known_load if path else either, rules.REFUSED_LOAD)
    found = {kind: parts(source, ("data", kind), kind, trust_code) for kind in ("filters", "augment")}
    return DataSection(**{key: value for key, value in given.items() if key in DATA} | found)


def column_names(task: Part | None) -> list[str] | None:
    """The columns that a task reads, None where they cannot be known."""
    found = lookup.columns(task.name) if task else None
    if task is None or found is None:
        return None
    named = [task.options.get(name[1:]) or [] if name.startswith("*") else [name.rstrip("?")] for name in found]
    return [str(each) for names in named for each in (names if isinstance(names, list) else [names])]


def split_names(source: Source, given: dict) -> None:
    """`data.path: {train: a.csv, …}`: a name one letter off from a split's name is a typo; data.train must be there."""
    path: Path_ = ("data", "path")
    asked = [name for name in (given.get("train", "train"), given.get("eval")) if isinstance(name, str)]
    known = [*dict.fromkeys([*asked, *SPLITS])]
    for key in given["path"]:
        if key not in known and (near := lookup.closest(key, known)) and lookup.distance(key, near[0]) <= 1:
            what = f"unknown split {key!r}.{lookup.hint(key, known)}"
            source.add((*path, key), what, key=True, where=path)
    for name in [name for name in asked if name not in given["path"]]:
        likely = [key for key in given["path"] if key not in asked and lookup.distance(key, name) <= 1]
        if likely:  # 'val' for 'eval': another split's usual name, but this one is asked for
            what = f"unknown split {likely[0]!r}. Did you mean {name!r}?"
            source.add((*path, likely[0]), what, key=True, where=path)
            continue
        option = "train" if name == given.get("train", "train") else "eval"
        source.add(path, f"has no split {name!r}, which data.{option} names; it has {', '.join(given['path'])}")


def train(source: Source) -> dict | None:
    """The section `train`; None only when it says null."""
    given = source.data.get("train", {})
    if given is None:
        return None
    if "train" in source.data:
        known = train_known()
        told = {key: what for key, what in rules.RENAMED.items() if key not in known} | rules.REFUSED
        given = check_keys(source, ("train",), known, told)
    if isinstance(given.get("levers"), dict):
        check_keys(source, ("train", "levers"), dict.fromkeys(rules.LEVERS, bool))
    needed = "needs output_dir: the folder that the run leaves"
    if "train" not in source.data:
        rules.missing(source, (), "train", TOP, f"the recipe has no train section; it {needed}")
    elif isinstance(source.data["train"], dict):
        rules.missing(source, ("train",), "output_dir", train_known(), needed)
    if "output_dir" in given and (given["output_dir"] is None or given["output_dir"] == ""):
        source.add(("train", "output_dir"), "is empty; write the folder that the run leaves")
    return dict(given)


def metrics(source: Source, trust_code: bool) -> list[str]:
    """The names of further metrics; `evaluate:NAME` runs code of the Hub."""
    given = source.data.get("metrics", [])
    found = [given] if isinstance(given, str) else given
    values.check(source, ("metrics",), found, list[str])
    for index, name in enumerate(found if isinstance(found, list) else []):
        if isinstance(name, str) and name.startswith("evaluate:") and not trust_code:
            path: Path_ = ("metrics", index) if isinstance(given, list) else ("metrics",)
            what = f"{name!r} loads code from the Hub; give --trust-code on the command line to allow it"
            source.add(path, what, where=("metrics",))
    return list(found) if isinstance(found, list) else []

"""Known: the sections of a recipe, the keys that each takes with their types, and the check of a mapping by them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Lt

from hfft import lookup
from hfft.grammar import rules, schema, values
from hfft.grammar.positions import Path_, Source, dotted, kind_of
from hfft.lookup import Part

VERSION = 1
TOP = ("version", "task", "model", "data", "tuning", "objectives", "metrics", "train", "export")
SPLITS = ("train", "eval", "validation", "valid", "val", "dev", "test")  # usual names; one letter off is a typo


@dataclass(kw_only=True)
class ModelSection:
    """What to start from: `name` (a Hub id or folder, `config` changes attributes), or only `config` (random weights).

    `options` are from_pretrained's own keys, written beside the others in a recipe. `trust_remote_code` is for code of
    the model's repository, and only together with --trust-code.
    """

    name: str | None = None
    config: dict[str, Any] | str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    image_size: Annotated[int, Ge(1)] | None = None
    trust_remote_code: bool = False
    trusted: bool = field(default=False, compare=False)  # --trust-code was given
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class DataSection:
    """Where the rows are and what their columns are called. `eval_size` below 1 is a share, else a number of rows."""

    path: str | dict[str, str | list[str]] | list[str] | None = None
    name: str | None = None
    revision: str | None = None
    load: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str | int | list[str]] = field(default_factory=dict)
    train: str = "train"
    eval: str | None = None
    eval_size: Annotated[float, Gt(0), Lt(1)] | Annotated[int, Ge(1)] = 0.1
    split_column: str | None = None
    labels: dict[str, str] | list[str] | None = None
    join: str = " "
    on_bad_row: Literal["error", "skip"] = "error"
    filters: list[Part] = field(default_factory=list)
    augment: list[Part] = field(default_factory=list)


MODEL = get_type_hints(ModelSection, include_extras=True)
DATA = get_type_hints(DataSection, include_extras=True)
del MODEL["options"], MODEL["trusted"]


@cache
def model_known() -> dict[str, Any]:
    """Key -> type of everything that `model` takes."""
    return {name: schema.to_type(option.annotation) for name, option in schema.model_keys().items()} | MODEL


@cache
def train_known() -> dict[str, Any]:
    """Key -> type of everything that `train` takes."""
    fields = {name: option for name, option in schema.train_fields().items() if name not in rules.REFUSED}
    return {name: values.train_type(name, option) for name, option in {**fields, **rules.EXTRA_TRAIN}.items()}


@cache
def peft_known(peft_type: str) -> dict[str, Any]:
    """Key -> type of everything that the PeftConfig of a peft_type takes from a recipe."""
    fields = {name: option for name, option in schema.peft_fields(peft_type).items() if name not in rules.REFUSED_PEFT}
    return {name: values.peft_type(name, option) for name, option in fields.items()}


@cache
def load_known(embedded: bool = False) -> dict[str, Any]:
    """Key -> type of everything that `data.load` takes: of the libraries' readers, or of hfft's own for `sklearn:`."""
    source = lookup.PACKAGE / "reading" / "embedded.py"
    found = lookup.arguments(lookup.function(source, "read")) if embedded else schema.load_keys()
    return {name: schema.to_type(option.annotation) for name, option in found.items()}


def homes() -> dict[str, list[str]]:
    """Section -> its keys, to say where a misplaced key belongs."""
    found: dict[str, list[str]] = {
        "": list(TOP),
        "data": list(DATA),
        "train": list(train_known()),
        "model": list(MODEL),
    }
    found["model"] += list(schema.model_keys())
    found["tuning.peft"] = list(peft_known("LORA"))
    return {**found, "data.load": list(load_known())}


def check_keys(source: Source, path: Path_, known: Mapping[str, Any], told: Mapping[str, str] | None = None) -> dict:
    """The mapping at `path`; notes its unknown keys and the values that do not fit. {} if it is no mapping."""
    given = rules.value_at(source.data, path)
    if not isinstance(given, dict):
        first = {"model": "name", "data": "path"}.get(dotted(path)) if isinstance(given, str) else None
        remedy = f"; write {dotted(path)}: {{{first}: {given}}}" if first else ""
        source.add(path, f"expected a mapping (key: value), got {kind_of(given)}{remedy}")
        return {}
    rules.unknown_keys(source, path, known, told or {}, homes)
    for key, value in given.items():
        if key in known and known[key] is not None:
            values.check(source, (*path, key), value, known[key])
    return given

"""The JSON Schema of a recipe (draft 2020-12, for editors), made from the same signatures and fields that check it."""

from typing import Any

from hfft import lookup
from hfft.grammar import known, parts, rules, schema, values
from hfft.lookup import Option

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe: every section, every part with its options, every key of the libraries."""
    kinds = {name: kind for name, kind in known.DATA.items() if name not in ("load", "filters", "augment")}
    data = {name: values.schema_of(kind) for name, kind in kinds.items()}
    data |= {"filters": part_list("filters"), "augment": part_list("augment")}
    data["load"] = mapping(known.load_known(embedded=True) | known.load_known())
    model = mapping(known.model_known())
    train = mapping(known.train_known())
    one_by_one = mapping(dict.fromkeys(rules.LEVERS, bool))
    train["properties"]["levers"] = {"anyOf": [{"enum": ["all", "none"]}, one_by_one]}
    properties: dict[str, Any] = {
        "version": {"const": known.VERSION},
        "task": one_part("tasks"),
        "model": model | {"anyOf": [{"required": ["name"]}, {"required": ["config"]}]},
        "data": closed(data),
        "tuning": part_list("tuning"),
        "objectives": part_list("objectives"),
        "metrics": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "train": {"anyOf": [train | {"required": ["output_dir"]}, {"type": "null"}]},
        "export": part_list("export"),
    }
    return {"$schema": DRAFT, "title": "hfft recipe", **closed(properties), "required": ["task", "train"]}


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def mapping(kinds: dict[str, Any]) -> dict[str, Any]:
    """An object whose keys have these types."""
    return closed({name: values.schema_of(kind) for name, kind in kinds.items()})


def part_list(kind: str) -> dict[str, Any]:
    """One part or a list of parts."""
    one = one_part(kind)
    return {"anyOf": [one, {"type": "array", "items": one}]}


def one_part(kind: str) -> dict[str, Any]:
    """A part by name, with options, or with the value of its first option; or a user's own file."""
    every = {name: lookup.options(kind, name) for name in lookup.names(kind)}
    bare = [name for name, options in every.items() if not any(option.required for option in options.values())]
    found: list[dict] = [{"enum": bare}, {"type": "string", "pattern": r"\.py$"}]
    found += [
        closed({name: with_options(kind, name, options)}) | {"required": [name]} for name, options in every.items()
    ]
    own = {"type": "object", "patternProperties": {r"\.py$": {}}, "additionalProperties": False, "minProperties": 1}
    return {"anyOf": [*found, own]}


def with_options(kind: str, name: str, options: dict[str, Option]) -> dict[str, Any]:
    """The options of one part, described by its first sentence."""
    if "peft_type" in options:
        found: list[dict] = [peft_form(method) for method in schema.peft_classes()]
        found.append(values.schema_of(parts.peft_types()))
    else:
        required = [key for key, option in options.items() if option.required]
        full = {
            key: values.schema_of(schema.to_type(option.annotation)) | default(option)
            for key, option in options.items()
        }
        found = [closed(full) | ({"required": required} if required else {})]
        found += list(full.values())[:1] if set(required) <= set(list(full)[:1]) else []
    return {"description": lookup.summary(kind, name), "anyOf": found}


def default(option: Option) -> dict[str, Any]:
    """The default of an option where it is a plain value."""
    return {} if option.default is None else {"default": option.default}


def peft_form(method: str) -> dict[str, Any]:
    """The options of one of peft's methods."""
    names = {"peft_type": {"enum": [method, method.lower()]}}
    form = mapping({key: kind for key, kind in known.peft_known(method).items() if key != "peft_type"})
    return closed(form["properties"] | names) | {"title": method, "required": ["peft_type"]}

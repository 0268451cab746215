"""Parts: the entries of task, tuning, objectives, export, filters and augment, checked against the parts' source."""

from typing import Any, Literal

from hfft import lookup
from hfft.grammar import rules, schema, values
from hfft.grammar.known import check_keys, peft_known
from hfft.grammar.positions import Path_, Source, kind_of
from hfft.lookup import Part
from hfft.messages import InputError


def parts(source: Source, path: Path_, kind: str, trust_code: bool) -> list[Part]:
    """One part or a list of parts."""
    given = rules.value_at(source.data, path)
    if not isinstance(given, list):
        holder = rules.value_at(source.data, path[:-1])
        present = isinstance(holder, dict) and path[-1] in holder
        found = [part(source, path, kind, trust_code)] if present else []
    else:
        found = [part(source, (*path, index), kind, trust_code) for index in range(len(given))]
    return [item for item in found if item is not None]


def part(source: Source, path: Path_, kind: str, trust_code: bool) -> Part | None:
    """One part: `name`, `name: {options}`, or `name: value` for its first option. None if its name is no part's."""
    given = rules.value_at(source.data, path)
    if isinstance(given, dict) and len(given) == 1:
        (name, options), at = next(iter(given.items())), (*path, next(iter(given)))
    elif isinstance(given, str) and given:
        name, options, at = given, {}, path
    else:
        many = isinstance(given, dict) and given
        what = (
            f"one entry names one part, got {', '.join(given)}; write a list (- a, - b) or indent the options"
            if many
            else ""
        )
        source.add(path, what or f"expected the name of a part, or name: {{options}}, got {kind_of(given)}")
        return None
    if not part_exists(source, at, path, kind, name, trust_code):
        return None
    return Part(name, part_options(source, at, kind, name, options))


def part_exists(source: Source, at: Path_, path: Path_, kind: str, name: str, trust_code: bool) -> bool:
    """Whether there is such a part; notes why not, with the nearest name."""
    known, what = lookup.names(kind), ""
    if name.endswith(".py"):
        if not trust_code:
            what = f"{name!r} is Python code; give --trust-code on the command line to run it"
        else:
            try:
                lookup.options(kind, name)
            except InputError as error:
                what = str(error)
    elif name not in known:
        others = [other for other in lookup.KINDS if other != kind and name in lookup.names(other)]
        place = {"tasks": "task", "filters": "data.filters", "augment": "data.augment"}
        what = f"unknown name {name!r}.{lookup.hint(name, known) or lookup.list_of(known)}"
        if others and not lookup.closest(name, known):
            what = f"{name!r} belongs under {place.get(others[0], others[0])}:"
    if what:
        source.add(at, what, key=at != path, where=path)
    return not what


def part_options(source: Source, at: Path_, kind: str, name: str, given: Any) -> dict[str, Any]:
    """The options of a part, checked against its signature (and peft's against the PeftConfig of its peft_type)."""
    own = lookup.options(kind, name)
    known = {key: schema.to_type(option.annotation) for key, option in own.items()}
    if not isinstance(given, dict):
        if given is None or not own:
            remedy = "no value" if given is None else f"{kind_of(given)}, but {name} has no options"
            source.add(at, f"got {remedy}; write only {name}")
            return {}
        first = next(iter(own))
        values.check(source, at, given, peft_types() if first == "peft_type" else known[first])
        given = {first: given}
        rest = known
    else:
        rest = peft_options(known, given) if "peft_type" in own else known
        if lookup.takes_more(kind, name) and "peft_type" not in own:
            rest = dict.fromkeys(given) | rest
        if given:
            check_keys(source, at, rest, rules.REFUSED_PEFT if "peft_type" in own else {})
    for key in [key for key, option in own.items() if option.required and key not in given]:
        what = f"needs {key} ({values.describe(rest.get(key, Any))})"
        if isinstance(rules.value_at(source.data, at), dict):
            rules.missing(source, at, key, rest, what)
        else:
            source.add(at, f"{name} {what}; write {name}: {{{key}: …}}")
    return dict(given)


def peft_types() -> Any:
    """The type of peft_type: the names of peft's methods, in capitals or not."""
    names = tuple(schema.peft_classes())
    return Literal[names + tuple(name.lower() for name in names)]


def peft_options(own: dict[str, Any], given: dict) -> dict[str, Any]:
    """Key -> type for `peft`; while its peft_type is wrong, the other keys are taken as they are."""
    method = given.get("peft_type")
    names = schema.peft_classes()
    if isinstance(method, str) and method.upper() in names:
        return peft_known(method.upper()) | own | {"peft_type": peft_types()}
    if "peft_type" in given:
        return dict.fromkeys(given) | {"peft_type": peft_types()}
    others = [key for key in given if not lookup.closest(key, ["peft_type"])]
    return dict.fromkeys(others) | {"peft_type": peft_types()}

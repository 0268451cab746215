"""Overrides: `key.path=value` of the command line, written into a recipe's data before it is checked."""

from collections.abc import Sequence
from typing import Any

from hfft.grammar import positions
from hfft.grammar.positions import SECRET, Path_, Source, Spot, dotted, kind_of, parse, scalar
from hfft.messages import InputError

FIRST = 10**9  # overrides are told after the mistakes of the file, in their order
LISTS: list[Path_] = [("tuning",), ("objectives",), ("export",), ("metrics",), ("data", "filters"), ("data", "augment")]


def apply(source: Source, overrides: Sequence[str], base: Path_ = ()) -> None:
    """Write overrides into `source`, below `base`; their spot is the command line. Raises InputError."""
    problems = []
    for number, text in enumerate(overrides):
        try:
            override(source, text, number, base)
        except InputError as error:
            problems += error.lines
    if problems:
        raise InputError(*problems)


def override(source: Source, text: str, number: int, base: Path_) -> None:
    """Write one override. Raises InputError, one line, if it is no `key.path=value` or the path cannot be."""
    name, equals, value = text.partition("=")
    steps = name.strip().split(".")
    path: Path_ = base + tuple(int(step) if step.isascii() and step.isdigit() else step for step in steps)
    hidden = any(isinstance(step, str) and SECRET.fullmatch(step) for step in path)
    shown = name + "=…" if hidden or positions.TOKEN.search(text) else text
    spot = Spot(FIRST, number, f"command line: {shown}")
    if not equals or not name.strip():
        raise InputError(f"{spot.text}: an override is key.path=value, such as train.learning_rate=5e-4")
    if "" in path or steps[0].isdigit():
        raise InputError(f"{spot.text}: {name!r} is no path of keys, such as train.learning_rate")
    given = valued(source, value, path, spot)
    reach(source, path, spot)[path[-1]] = given.data
    forget(source, path)
    source.keys[path] = spot
    source.values |= given.values
    source.keys |= given.keys
    source.problems += given.problems


def valued(source: Source, value: str, path: Path_, spot: Spot) -> Source:
    """The value of an override, with its path and spot: a list, mapping or quoted text as YAML, else a plain scalar."""
    given = Source(None, source.file)
    if value[:1] in ("[", "{", "'", '"'):
        return parse(value, source.file, spot, path)
    given.values[path] = spot
    given.data = positions.checked_text(scalar(value), given, path)
    if not value:
        given.add(path, "has no value; write one, or null")
    return given


def reach(source: Source, path: Path_, spot: Spot) -> Any:
    """The mapping or list that holds the last step of `path`; makes the mappings that are missing on the way."""
    holder: Any = source.data
    for depth, step in enumerate(path):
        if isinstance(step, int) and not isinstance(holder, list):
            holder = as_list(source, path[:depth], holder)
        elif isinstance(step, str) and not isinstance(holder, dict):
            holder = as_mapping(source, path[:depth], holder, step)
        if holder is None:
            found = kind_of(at(source.data, path[:depth]))
            remedy = f"; write {dotted(path[:depth])}.0.{step}" if found == "a list" else ""
            raise InputError(f"{spot.text}: {dotted(path[:depth])} is {found}, it has no {step!r}{remedy}")
        if isinstance(holder, list):
            room(holder, path[: depth + 1], spot, last=depth == len(path) - 1)
        if holder is not None and depth < len(path) - 1:
            if isinstance(holder, dict) and step not in holder:
                source.keys[path[: depth + 1]] = spot
            holder = holder.setdefault(step, None) if isinstance(holder, dict) else holder[step]
    return holder


def room(holder: list, path: Path_, spot: Spot, *, last: bool) -> None:
    """Let an index be the next new element of a list, and no further."""
    index = path[-1]
    assert isinstance(index, int)
    if index > len(holder):
        raise InputError(f"{spot.text}: {dotted(path[:-1])} has {len(holder)} entries; the next index is {len(holder)}")
    if index == len(holder):
        holder.append(None)


def at(data: Any, path: Path_) -> Any:
    """The value at a path that exists."""
    for step in path:
        data = data[step]
    return data


def put(source: Source, path: Path_, value: Any) -> Any:
    """Set the value at a path whose holder exists."""
    at(source.data, path[:-1])[path[-1]] = value
    return value


def as_list(source: Source, path: Path_, value: Any) -> list | None:
    """A single part as the list of one that an index asks for; its spots move along. None if it cannot be one."""
    if path not in LISTS:
        return None
    for table in (source.keys, source.values):
        for old in [old for old in table if old[: len(path)] == path and len(old) > len(path)]:
            table[(*path, 0, *old[len(path) :])] = table.pop(old)
    if path in source.values:
        source.values[(*path, 0)] = source.values[path]
    return put(source, path, [] if value is None else [value])


def as_mapping(source: Source, path: Path_, value: Any, step: str) -> dict | None:
    """What is missing, or a part's bare name, as the mapping that a key asks for. None for any other value."""
    if value is None:
        return put(source, path, {})
    return put(source, path, {step: None}) if value == step else None


def forget(source: Source, path: Path_) -> None:
    """Drop the spots and mistakes of what an override replaces."""
    for table in (source.keys, source.values):
        for old in [old for old in table if old[: len(path)] == path]:
            del table[old]
    source.problems = [problem for problem in source.problems if problem[0][: len(path)] != path]

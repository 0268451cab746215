"""Recipe: one YAML file that says what to fine-tune, on what and how; read strictly, saved so that it reads back equal.

A recipe needs neither torch nor transformers to be checked; all its mistakes are told at once, each with its position.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import yaml

from hfft.grammar import overrides as overriding
from hfft.grammar import positions, rules
from hfft.grammar.jsonform import json_schema
from hfft.grammar.known import DATA, MODEL, TOP, VERSION, DataSection, ModelSection, train_known
from hfft.grammar.parts import part
from hfft.grammar.positions import Path_, Source, dotted
from hfft.grammar.sections import check_all
from hfft.lookup import Part
from hfft.messages import InputError, redacted

__all__ = ["DataSection", "ModelSection", "Part", "Recipe", "export_part", "json_schema"]

NEEDED = {
    "model": "model: {name: a Hub id or folder}",
    "data": "data: {path: a Hub id, file or folder}",
    "train": "train: {output_dir: the folder that the run leaves}",
}


@dataclass(kw_only=True)
class Recipe:
    """A checked recipe. `train` is None only where the recipe says `train: null`: nothing is trained."""

    task: Part
    model: ModelSection | None = None
    data: DataSection | None = None
    tuning: list[Part] = field(default_factory=list)
    objectives: list[Part] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    train: dict[str, Any] | None = field(default_factory=dict)
    export: list[Part] = field(default_factory=list)
    source: Source = field(default_factory=lambda: Source({}), repr=False, compare=False)

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = (), trust_code: bool = False) -> Self:
        """Read a recipe file, with `key.path=value` overrides. Raises InputError with one line for each mistake."""
        source = positions.read(path)
        overriding.apply(source, overrides)
        return cls(**check_all(source, trust_code=trust_code), source=source)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], overrides: Sequence[str] = (), trust_code: bool = False) -> Self:
        """A recipe from plain data, checked as a file is. Raises InputError with one line for each mistake."""
        if not isinstance(data, Mapping):
            raise InputError(f"a recipe is a mapping (task: …, model: …), got {positions.kind_of(data)}")
        source = Source(plain(data))
        positions.check_texts(source, source.data)
        overriding.apply(source, overrides)
        return cls(**check_all(source, trust_code=trust_code), source=source)

    @classmethod
    def of(cls, given: "Recipe | Mapping[str, Any] | str | Path") -> "Recipe":
        """What a Python caller has at hand: a Recipe as it is, plain data, or the path of a recipe file."""
        if isinstance(given, Recipe):
            return given
        return cls.read(given) if isinstance(given, str | Path) else cls.from_dict(given)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back equal; what has its default is left out."""
        data: dict[str, Any] = {"version": VERSION, "task": entry(self.task)}
        if self.model is not None:
            given = section(self.model)
            data["model"] = given | given.pop("options", {})
        if self.data is not None:
            data["data"] = section(self.data)
        for kind in ("tuning", "objectives", "metrics", "export"):
            if found := getattr(self, kind):
                data[kind] = [entry(item) for item in found]
        data["train"] = self.train
        return plain(data)

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML that `read` reads back equal."""
        Path(path).write_text(redacted(written(self.to_dict()), home=False), encoding="utf-8")

    def require(self, *sections: str) -> None:
        """Raises InputError for each of these sections that the recipe leaves out."""
        file = f"{self.source.file}: " if self.source.file else ""
        absent = [name for name in sections if getattr(self, name) is None]
        if absent:
            raise InputError(*[f"{file}the recipe has no {name} section; write {NEEDED[name]}" for name in absent])

    def where(self, *path: str | int) -> str:
        """Where the recipe says `path`: "recipes/x.yaml:7:3: data.columns"; for what it leaves out, the section."""
        spot = self.source.spot(path, key=True).text
        return f"{spot}: {dotted(path)}" if spot else dotted(path)

    def located(self, line: str) -> str:
        """A message about one of the recipe's keys, with the place of that key before it."""
        path = about(line)
        spot = self.source.spot(path, key=True).text if path else ""
        return f"{spot}: {line}" if spot else line


def about(line: str) -> Path_ | None:
    """The key of a recipe that a message begins with ("data.columns.text: …"), as a path; not a file "train.csv"."""
    steps = re.split("[: ]", line, maxsplit=1)[0].split(".")
    path = tuple(int(step) if step.isdigit() else step for step in steps)
    own = {"data": DATA, "model": MODEL, "train": train_known()}
    if len(path) > 1 and path[0] in own:
        return path if path[1] in own[path[0]] else None
    return path if path[0] in TOP and path[0] not in ("data", "train") else None  # which splits are called, too


def export_part(name: str, options: Sequence[str], trust_code: bool = False) -> Part:
    """A part of export/ with `key=value` options from the command line, checked as in a recipe."""
    source = Source({"export": {name: {}}})
    overriding.apply(source, options, ("export", name))
    rules.secrets(source, source.data)
    found = part(source, ("export",), "export", trust_code)
    if source.problems or found is None:
        raise InputError(*source.lines())
    return found


def entry(item: Part | str) -> Any:
    """A part as a recipe writes it."""
    return item if isinstance(item, str) else {item.name: item.options} if item.options else item.name


def section(item: ModelSection | DataSection) -> dict[str, Any]:
    """A section's fields without those that have their default; parts as a recipe writes them."""
    default = type(item)()
    given = {each.name: getattr(item, each.name) for each in fields(item) if each.compare}
    given = {name: value for name, value in given.items() if value != getattr(default, name)}
    return given | {name: [entry(each) for each in given[name]] for name in ("filters", "augment") if name in given}


def plain(data: Any) -> Any:
    """A copy of mappings, lists and scalars in which keys are text, tuples lists, paths and text subclasses text."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return str(data) if isinstance(data, Path | str) else data


def written(data: dict[str, Any]) -> str:
    """A recipe's plain data as the YAML that `Recipe.read` reads back equal."""
    return yaml.dump(data, Dumper=Writer, sort_keys=False, allow_unicode=True, width=110)


class Writer(yaml.SafeDumper):
    """Writes text in quotes wherever the strict reader would take it for something else, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True


def _text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(positions.scalar(text), str) else "'"
    if any(letter in text for letter in "\x85\u2028\u2029"):  # line ends to YAML: only escapes keep them
        style = '"'
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Writer.add_representer(str, _text)

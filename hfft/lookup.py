"""Lookup: a name in a recipe -> the file of that name -> its function, and what its source says unimported.

The folder listing is the registry: `tuning: frozen` is the function `frozen` in `tuning/frozen.py`, and the task
`image_classification` is the class `ImageClassification`. Options come from the syntax tree, so that a wrong recipe is
answered before torch is imported.
"""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hfft.messages import InputError

PACKAGE = Path(__file__).parent
KINDS = ("tasks", "tuning", "objectives", "filters", "augment", "export")
FILLED = ("task", "train", "model", "recipe")  # keyword-only arguments that the pipeline gives, not the recipe


@dataclass
class Part:
    """One entry of a recipe: the name of a part and its options."""

    name: str
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """What the source says of one argument or field: its annotation's text and its default (None if no literal)."""

    annotation: str
    default: Any = None
    required: bool = False


def distance(a: str, b: str, limit: int = 99) -> int:
    """Letters to delete, insert, replace or swap with the neighbour (Damerau-Levenshtein); above `limit` not exact."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], last[j - 2] + 1)
        if min(row) > limit and min(before) > limit:
            return limit + 1
    return row[-1]


def closest(word: str, candidates: Iterable[str]) -> list[str]:
    """All candidates at the smallest distance (capitals count half a letter); none if over a third differs."""
    every = list(dict.fromkeys(candidates))
    for limit in (1, max(1, len(word) // 3)):  # one letter first: the usual case, and quickly decided
        found: dict[str, float] = {name: distance(word, name, limit) for name in every}
        for name in every:
            if word != word.lower() or name != name.lower():
                found[name] = min(found[name], distance(word.lower(), name.lower(), limit) + 0.5)
        best = min(found.values(), default=limit + 1)
        if best <= limit:
            return [name for name, steps in found.items() if steps == best]
    return []


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `word`, or None if none is like it."""
    return next(iter(closest(word, candidates)), None)


def hint(word: str, candidates: Iterable[str]) -> str:
    """The text " Did you mean 'x'?" with every candidate as near as the nearest ('f16': bf16 or fp16), or nothing."""
    near = closest(word, candidates)
    return " Did you mean " + " or ".join(repr(name) for name in near[:4]) + "?" if near else ""


def names(kind: str) -> list[str]:
    """The parts of one kind: the files of its folder, without base.py and private ones."""
    files = (PACKAGE / kind).glob("*.py")
    return sorted(f.stem for f in files if f.stem != "base" and not f.stem.startswith("_"))


def file_of(kind: str, name: str) -> Path:
    """The source file of a part. Raises InputError with the nearest name for one that is not there."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"{kind}: no file {name!r}")
        return Path(name)
    if name not in names(kind):
        raise InputError(f"{kind}: unknown name {name!r}.{hint(name, names(kind)) or list_of(names(kind))}")
    return PACKAGE / kind / f"{name}.py"


def list_of(candidates: Sequence[str]) -> str:
    """What there is, for a message that has no nearest name: " There are: a, b", or " There are none"."""
    return " There are: " + ", ".join(candidates) if candidates else " There are none"


@cache
def _tree(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def tree(path: Path) -> ast.Module:
    """The syntax tree of a source file, read once."""
    return _tree(path, path.stat().st_mtime_ns)


def symbol(kind: str, name: str) -> str:
    """The name that a part's file must define: its own, in capitals for the class of a task."""
    stem = Path(name).stem
    return "".join(word.capitalize() for word in stem.split("_")) if kind == "tasks" else stem


def definition(kind: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    """The syntax tree of the part's function or class. Raises InputError if its file does not define it."""
    path = file_of(kind, name)
    try:
        body = tree(path).body
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from error
    wanted: type = ast.ClassDef if kind == "tasks" else ast.FunctionDef
    for node in body:
        if isinstance(node, wanted) and node.name == symbol(kind, name):  # type: ignore[attr-defined]
            return node  # type: ignore[return-value]
    raise InputError(f"{path}: defines no {'class' if kind == 'tasks' else 'function'} {symbol(kind, name)!r}")


def literal(node: ast.expr | None) -> Any:
    """The value of a literal in the source, None for anything else."""
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def function(path: Path, name: str) -> ast.FunctionDef:
    """The syntax tree of a function of one of hfft's own files."""
    return next(node for node in tree(path).body if isinstance(node, ast.FunctionDef) and node.name == name)


def arguments(node: ast.FunctionDef, *, keyword_only: bool = True) -> dict[str, Option]:
    """The options of a function: its keyword-only arguments, or all of them."""
    given = list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    if not keyword_only:
        plain = node.args.posonlyargs + node.args.args
        padded = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
        given = [*zip(plain, padded, strict=True), *given]
    return {
        arg.arg: Option(ast.unparse(arg.annotation) if arg.annotation else "Any", literal(default), default is None)
        for arg, default in given
    }


def class_fields(node: ast.ClassDef) -> dict[str, Option]:
    """The fields of a dataclass-like class: its annotated names, without ClassVars, private ones and `init=False`."""
    fields = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        text, name, value = ast.unparse(item.annotation), item.target.id, item.value
        required = value is None
        if isinstance(value, ast.Call) and getattr(value.func, "id", getattr(value.func, "attr", "")) == "field":
            given = {keyword.arg: keyword.value for keyword in value.keywords}
            if literal(given.get("init")) is False:
                continue
            required = not {"default", "default_factory"} & set(given)
            value = given.get("default")
        if "ClassVar" not in text and not name.startswith("_"):
            fields[name] = Option(text, literal(value), required)
    return fields


def options(kind: str, name: str) -> dict[str, Option]:
    """The options of a part, from its source: keyword-only arguments, or a task's dataclass fields."""
    node = definition(kind, name)
    if isinstance(node, ast.ClassDef):
        return class_fields(node)
    return {key: option for key, option in arguments(node).items() if not (option.required and key in FILLED)}


def takes_more(kind: str, name: str) -> bool:
    """Whether the part's function ends in `**more`: it takes keys beyond those of `options`."""
    node = definition(kind, name)
    return isinstance(node, ast.FunctionDef) and node.args.kwarg is not None


def columns(name: str) -> list[str] | None:
    """The canonical columns of a task, from its source (a trailing "?" marks an optional one), None if not literal.

    Where they depend on options, `known_columns` lists all; "*ids" in it stands for those that the option `ids` names.
    """
    for item in definition("tasks", name).body:
        targets = getattr(item, "targets", [getattr(item, "target", None)])
        if any(isinstance(target, ast.Name) and target.id in ("columns", "known_columns") for target in targets):
            found = literal(getattr(item, "value", None))
            return list(found) if found else None
    return None


def summary(kind: str, name: str) -> str:
    """The first sentence of the part's docstring, of its function or else of its file."""
    text = ast.get_docstring(definition(kind, name)) or ast.get_docstring(tree(file_of(kind, name))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".") + "." if paragraph else ""


def find(kind: str, name: str) -> Callable:
    """The function of a part (the class of a task), imported. Raises InputError with the nearest name."""
    definition(kind, name)
    if not name.endswith(".py"):
        return getattr(importlib.import_module(f"hfft.{kind}.{name}"), symbol(kind, name))
    path = Path(name).resolve()
    module_name = f"hfft_user_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that what the file defines can be pickled for loader processes
    spec.loader.exec_module(module)
    return getattr(module, symbol(kind, name))


def beside(kind: str, name: str, function: str) -> Callable | None:
    """Another function of the part's file, such as `ready` of an export; None where it defines none."""
    return getattr(sys.modules[find(kind, name).__module__], function, None)


def call(kind: str, part: Part, *args: Any, **available: Any) -> Any:
    """Call a part with its options and with those of `available` that its signature asks for by keyword."""
    function = find(kind, part.name)
    asked = {
        name: available[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name in available
    }
    return function(*args, **{**asked, **part.options})

"""Values: whether what a recipe gives fits the type and the range of its key, and what to write instead.

pydantic checks in strict mode (no coercion: "false" is no bool, 3.7 and true are no int; an int is fine where a float
is meant), lists and mappings element by element so that each mistake has its own position.
"""

import math
import re
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hfft.grammar.positions import BOOL, INT, Path_, Source, kind_of, scalar
from hfft.grammar.schema import to_type, union
from hfft.lookup import Option, hint

STEPS = Annotated[int, Ge(1)] | Annotated[float, Gt(0), Lt(1)]
WHOLE: dict[str, Any] = {  # train keys whose range is not one interval
    "max_steps": Literal[-1] | Annotated[int, Ge(1)],
    "warmup_steps": Annotated[int, Ge(0)] | Annotated[float, Ge(0), Lt(1)],
    "logging_steps": STEPS,
    "eval_steps": STEPS | None,
    "save_steps": STEPS,
}
TRAIN_BOUNDS: list[tuple[str, tuple]] = [
    ("per_device_*_batch_size", (Ge(1),)),
    ("gradient_accumulation_steps", (Ge(1),)),
    ("num_train_epochs", (Gt(0),)),
    ("learning_rate", (Gt(0),)),
    ("weight_decay", (Ge(0),)),
    ("max_grad_norm", (Ge(0),)),
    ("adam_beta*", (Ge(0), Lt(1))),
    ("adam_epsilon", (Gt(0),)),
    ("eval_delay", (Ge(0),)),
    ("*seed", (Ge(0), Lt(2**32))),
    ("save_total_limit", (Ge(1),)),
    ("eval_accumulation_steps", (Ge(1),)),
    ("torch_empty_cache_steps", (Ge(1),)),
    ("dataloader_num_workers", (Ge(0), Le(256))),
    ("dataloader_prefetch_factor", (Ge(1),)),
    ("neftune_noise_alpha", (Gt(0),)),
    ("ddp_timeout", (Ge(1),)),
    ("ddp_bucket_cap_mb", (Ge(1),)),
    ("early_stopping_patience", (Ge(1),)),
    ("early_stopping_threshold", (Ge(0),)),
    ("generation_*", (Ge(1),)),
]
PEFT_BOUNDS: list[tuple[str, tuple]] = [
    ("r", (Ge(1),)),
    ("*_r", (Ge(1),)),
    ("rank", (Ge(1),)),
    ("*alpha", (Gt(0),)),
    ("*dropout", (Ge(0), Lt(1))),
    ("num_virtual_tokens", (Ge(1),)),
]
LARGEST = 2**32  # whole number: beyond it products of batches and steps leave 64 bits
ROWS = 1_000_000  # of a batch
BYTES = 2**53  # deeper in a recipe, where it may be bytes of memory
CONFIG = ConfigDict(strict=True, allow_inf_nan=False)
SIGNS = {Ge: "≥ ", Gt: "> ", Le: "≤ ", Lt: "< "}


def bounded(name: str, option: Option, bounds: list[tuple[str, tuple]]) -> Any:
    """The type of an option with the range that its name has; a default outside the range lifts it (OFT's r: 0)."""
    kind = to_type(option.annotation)
    limits = next((limits for pattern, limits in bounds if fnmatchcase(name, pattern)), ())
    number = isinstance(option.default, int | float) and not isinstance(option.default, bool)
    if not limits or (number and not fits(option.default, Annotated[float, *limits])):
        return kind
    members = get_args(kind) if get_origin(kind) is Union else (kind,)
    return union([Annotated[member, *limits] if member in (int, float) else member for member in members])


def train_type(name: str, option: Option) -> Any:
    """The type and range of a key of `train`."""
    return WHOLE.get(name) or bounded(name, option, TRAIN_BOUNDS)


def peft_type(name: str, option: Option) -> Any:
    """The type and range of a field of a PeftConfig."""
    return bounded(name, option, PEFT_BOUNDS)


def adapter(kind: Any) -> TypeAdapter:
    """pydantic's strict checker for a type."""
    try:
        return _adapter(kind)
    except TypeError:  # unhashable metadata
        return TypeAdapter(kind, config=CONFIG)


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=CONFIG)


def fits(value: Any, kind: Any) -> bool:
    """Whether the value is of the type, strictly."""
    try:
        adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def members(kind: Any) -> list[Any]:
    """The types of a union, or the type alone."""
    found = list(get_args(kind)) if get_origin(kind) in (Union, type(int | str)) else [kind]
    return [inner for item in found for inner in (members(item) if item is not kind else [item])]


def check(source: Source, path: Path_, value: Any, kind: Any) -> None:
    """Note in `source` what does not fit the type, at the deepest position that is known."""
    if isinstance(value, float) and not math.isfinite(value):
        source.add(path, f"must be a finite number, got {value}")
    elif isinstance(value, int) and abs(value) > (most := largest(path)):
        source.add(path, f"is too large a number, got {kind_of(value)}; write at most {most}")
    elif inner := element(value, kind):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for step, item in pairs:
            check(source, (*path, step), item, inner[0])
    elif not fits(value, kind):
        given = " (text)" if isinstance(value, str) and scalar(value) != value else ""
        what = f"expected {describe(kind)}, got {kind_of(value)}{given}"
        source.add(path, what + remedy(value, kind))


def largest(path: Path_) -> int:
    """The largest whole number that can be meant at a place of a recipe."""
    if str(path[-1]).endswith(("batch_size", "accumulation_steps")):
        return ROWS
    return LARGEST if len(path) == 2 else BYTES


def element(value: Any, kind: Any) -> list[Any]:
    """[the type of the elements] if the value is a list or mapping and one member of the type is too, else []."""
    wanted = list if isinstance(value, list) else dict if isinstance(value, dict) else None
    if wanted is None:
        return []
    if kind is Any:
        return [Any]
    found = [member for member in members(kind) if get_origin(member) is wanted]
    return [get_args(found[0])[-1]] if len(found) == 1 else []


def describe(kind: Any) -> str:
    """A type in words: "a whole number ≥ 1 or null"."""
    words = list(dict.fromkeys(word for member in members(kind) for word in _words(member)))
    if len(words) > 13:
        words = [*words[:12], "…"]
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]


def _words(kind: Any) -> list[str]:
    simple = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in simple:
        return [simple[kind]]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [_shown(value) for value in inner]
    if origin is Annotated:
        limits = [f"{SIGNS[type(item)]}{_limit(item)}" for item in inner[1:] if type(item) in SIGNS]
        if shown := [item for item in inner[1:] if isinstance(item, str)]:
            return [repr(shown[0])]
        words, length = _words(inner[0])[0], [item.min_length for item in inner[1:] if isinstance(item, Len)]
        words = words.replace("a list of", f"a list of {length[0]}") if length else words
        return [words + (" " + " and ".join(limits) if limits else "")]
    if origin is list:
        return ["a list" if inner[0] is Any else f"a list of {_plural(inner[0])}"]
    return ["a mapping" if origin is dict or kind is dict else "a value"]


def _limit(item: Any) -> Any:
    return next(getattr(item, name) for name in ("ge", "gt", "le", "lt") if hasattr(item, name))


def _plural(kind: Any) -> str:
    many = {int: "whole numbers", float: "numbers", str: "texts", bool: "true/false"}
    return many.get(kind) or " or ".join(many.get(member, "values") for member in members(kind))


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def remedy(value: Any, kind: Any) -> str:
    """The text "; write …" where it is clear what was meant, else nothing."""
    wanted = members(kind)
    literals = [str(item) for member in wanted if get_origin(member) is Literal for item in get_args(member)]
    if isinstance(value, str):
        return _meant(value, kind, wanted) or _similar(value, literals)
    if isinstance(value, bool | int | float) and fits(str(value), kind):
        return f"; write it in quotes: {str(value).lower() if isinstance(value, bool) else str(value)!r}"
    if isinstance(value, float) and value.is_integer() and fits(int(value), kind):
        return f"; write {int(value)}"
    return ""


def _similar(value: str, literals: list[str]) -> str:
    longer = [item for item in literals if value and item.startswith(value)]
    found = hint(value, literals) or hint(longer[0] if longer else "", longer[:1])
    return "." + found if found else ""


def _meant(value: str, kind: Any, wanted: list[Any]) -> str:
    """What a text was meant to be, where a number or a bool is needed."""
    word = value.strip().lower()
    truth = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False, **BOOL}
    if bool in wanted:
        return f"; write {_shown(truth[word])}" if word in truth else _similar(word, ["true", "false"])
    candidates = [word, re.sub("[_' ]", "", word), word.replace(",", "."), word.lstrip("0")]
    if percent := re.fullmatch(r"([0-9.]+) ?%", word):
        candidates.append(format(float(percent[1]) / 100, "g"))
    for text in candidates:
        number = scalar(text)
        if isinstance(number, int | float) and not isinstance(number, bool) and fits(number, kind):
            quoted = text == word and not (word.startswith("0") and INT.fullmatch(word) is None and "." not in word)
            return f"; write {text} without quotes" if quoted else f"; write {text}"
    return ""


def schema_of(kind: Any) -> dict:
    """The JSON Schema of a type."""
    return adapter(kind).json_schema()

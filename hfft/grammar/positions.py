"""A YAML file as plain data that remembers where every key and value stood: the strict reader below a recipe.

Scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `5e-4` is a number, `no`, `on`,
`01`, `12:30` and `1_000` are text. What makes a file mean something else than it says is refused with its line and
column: duplicate keys, aliases, merge keys, tags, several documents, control characters, `${...}`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hfft.messages import TOKEN, InputError, first_line

Path_ = tuple[str | int, ...]  # ("tuning", 0, "peft", "r")
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 1_000_000, 32, 50_000
MAX_PROBLEMS, MAX_LINES = 1000, 20  # that are noted, that are told
NO_CHARACTER = re.compile("[\0\ud800-\udfff]")  # what quotes with \\0 or \\ud800 in them may hold
PLACES = [(key,) for key in ("name", "revision", "tokenizer", "subfolder", "variant", "output_dir")]
LONG_NAME = re.compile("[^/]{251}")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NULL = ("null", "Null", "NULL", "~")
BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INF = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
SECRET = re.compile(
    r"token|((hub|hf|use_auth|auth|access|api|wandb|bearer)_?token)|.*passw(or)?d|.*secret|.*(api|access)_?key", re.I
)


@dataclass(frozen=True, order=True)
class Spot:
    """Where something stood: sorted by line and column, shown as `text` ("recipes/x.yaml:14:3")."""

    line: int
    column: int
    text: str


@dataclass
class Source:
    """Data with the spot of every key and value in it, and the mistakes found so far."""

    data: Any
    file: str = ""
    keys: dict[Path_, Spot] = field(default_factory=dict)
    values: dict[Path_, Spot] = field(default_factory=dict)
    problems: list[tuple[Path_, Spot, str]] = field(default_factory=list)

    def spot(self, path: Path_, *, key: bool = False) -> Spot:
        """Where `path` stood, or the nearest thing above it that the file has."""
        table = {**self.values, **self.keys} if key else {**self.keys, **self.values}
        while path and path not in table:
            path = path[:-1]
        return table.get(path, Spot(0, 0, self.file))

    def add(self, path: Path_, what: str, *, key: bool = False, where: Path_ | None = None) -> None:
        """Note a mistake at the value (or the key) of `path`; the line names `where`, else the path. One each."""
        if len(self.problems) >= MAX_PROBLEMS or any(path == seen for seen, _, _ in self.problems):
            return
        name = dotted(path if where is None else where)
        self.problems.append((path, self.spot(path, key=key), f"{name}: {what}" if name else what))

    def lines(self) -> list[str]:
        """The first mistakes, one line each, in the order of the file, and how many more there are."""
        ordered = sorted(self.problems, key=lambda problem: problem[1])
        told = [f"{spot.text}: {what}" if spot.text else what for _, spot, what in ordered[:MAX_LINES]]
        rest = len(ordered) - len(told)
        return [*told, f"… and {rest:,} more"] if rest else told


def dotted(path: Path_) -> str:
    """("tuning", 0, "peft") -> "tuning.0.peft"."""
    return ".".join(str(step) for step in path)


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if text in NULL:
        return None
    if text in BOOL:
        return BOOL[text]
    if INT.fullmatch(text) and len(text) < 400:  # Python refuses to read integers of thousands of digits
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    if INF.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def read(path: str | Path) -> Source:
    """Read a recipe file. Raises InputError if it cannot be read as one YAML mapping at all."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: larger than 1 MB; a recipe is a page of YAML")
    source = parse(decode(content, str(path)), str(path))
    if source.data is None and not source.problems:
        raise InputError(f"{path}:1:1: the file is empty; a recipe needs at least `task` and `train`")
    if not isinstance(source.data, dict):
        what = f"the top level must be a mapping (task: …, model: …), got {kind_of(source.data)}"
        raise InputError(f"{source.spot(()).text}: {what}")
    return source


def decode(content: bytes, file: str) -> str:
    """UTF-8 (with or without byte order mark) -> text. Raises InputError with the line and column of a bad byte."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = place(content[: error.start].decode("utf-8"))
        raise InputError(f"{file}:{line}:{column}: not UTF-8; save the file as UTF-8") from error
    if found := UNPRINTABLE.search(text):
        line, column = place(text[: found.start()])
        raise InputError(f"{file}:{line}:{column}: control character U+{ord(found[0]):04X}; delete it")
    return text


def place(before: str) -> tuple[int, int]:
    """Line and column, both from 1, of what follows the text `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def parse(text: str, file: str, at: Spot | None = None, path: Path_ = ()) -> Source:
    """YAML text -> Source; of an override `at` is every position and `path` its path. Raises InputError."""
    source = Source(None, file)
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        next(events)  # stream start
        if isinstance(next(events), yaml.DocumentStartEvent):
            source.data = build(next(events), events, source, path, at)
            next(events)  # document end
            if isinstance(event := next(events), yaml.DocumentStartEvent):
                raise refusal(event, source, at, "a second document; a recipe is one document")
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{at.text if at else marked(error, file)}: not valid YAML: {explained(error)}") from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape beyond Unicode, a version of 5,000 digits
        raise InputError(f"{at.text if at else file}: not valid YAML: {first_line(error)}") from error
    return source


def marked(error: yaml.MarkedYAMLError, file: str) -> str:
    """file:line:col of a YAML error."""
    mark = error.problem_mark or error.context_mark
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file


def explained(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's problem in one line, with what to do where that is known."""
    what = " ".join(part for part in (error.context, error.problem) if part)
    if "mapping values are not allowed" in what:
        what += "; put quotes around text that contains ': '"
    elif "'\\t'" in what:
        what += "; indent with spaces, not tabs"
    elif "node content, but found ':'" in what:
        what += "; a key is missing before ':'"
    elif "quoted scalar" in what:
        what += "; a quote is not closed"
    return " ".join(what.split())


def spot_of(event: yaml.Event, source: Source, at: Spot | None) -> Spot:
    """The spot of a YAML event."""
    if at:
        return at
    assert event.start_mark is not None
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    return Spot(line, column, f"{source.file}:{line}:{column}")


def refusal(event: yaml.Event, source: Source, at: Spot | None, what: str) -> InputError:
    """An InputError at a YAML event."""
    return InputError(f"{spot_of(event, source, at).text}: {what}")


def build(event: yaml.Event, events: Iterator, source: Source, path: Path_, at: Spot | None) -> Any:
    """One node of the event stream as plain data; notes its spot in `source`."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise refusal(event, source, at, "anchors (&) and aliases (*) are not allowed; write the value out")
    if tag := getattr(event, "tag", None):
        raise refusal(event, source, at, f"tags ({tag}) are not allowed; delete it")
    if len(path) > MAX_DEPTH:
        raise refusal(event, source, at, f"nested deeper than {MAX_DEPTH} levels")
    if len(source.values) >= MAX_VALUES:
        raise refusal(event, source, at, f"more than {MAX_VALUES:,} values; a recipe is a page of YAML")
    source.values[path] = spot_of(event, source, at)
    if isinstance(event, yaml.ScalarEvent):
        return leaf(event, source, path)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(build(event, events, source, (*path, len(items)), at))
        return items
    return mapping(events, source, path, at)


def leaf(event: yaml.ScalarEvent, source: Source, path: Path_) -> Any:
    """The value of a scalar event; notes a missing value, text with `${` and a leading `~/`."""
    plain = event.implicit[0]
    if plain and not event.value and path:
        source.add(path, "has no value; write one, or null, or delete the line")
    return checked_text(scalar(event.value) if plain else event.value, source, path)


def checked_text(value: Any, source: Source, path: Path_) -> Any:
    """The value itself; notes what hfft does not expand."""
    is_place = path[:2] == ("data", "path") or path[-1:] in PLACES
    if isinstance(value, str) and NO_CHARACTER.search(value):
        source.add(path, "holds a NUL character or half a surrogate pair; delete it")
    elif isinstance(value, str) and is_place and LONG_NAME.search(value):
        source.add(path, "holds a name of more than 250 characters, which no file has; write a path or a Hub id")
    elif isinstance(value, str) and "${" in value:
        source.add(path, "'${' is not expanded in a recipe; write the value, or give key=value on the command line")
    elif isinstance(value, str) and (value.startswith("~/") or (is_place and value == "~")):
        source.add(path, "'~' is not expanded in a recipe; write the whole path")
    elif isinstance(value, str) and TOKEN.search(value):
        source.add(path, "looks like a Hub token; keep it out of recipes: set HF_TOKEN or run `hf auth login`")
    return value


def check_texts(source: Source, data: Any, path: Path_ = ()) -> None:
    """`checked_text` for every text in plain data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in pairs:
        checked_text(value, source, (*path, step))
        check_texts(source, value, (*path, step))


def mapping(events: Iterator, source: Source, path: Path_, at: Spot | None) -> dict:
    """The rest of a mapping as a dict. Keys are text as written; a second key of one name is noted, the first kept."""
    found: dict = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise refusal(event, source, at, "a key must be a word (text with '{' or '[' in front needs quotes)")
        if event.anchor or event.tag:
            build(event, events, source, path, at)  # refuses it
        if event.value == "<<" and event.implicit[0]:
            raise refusal(event, source, at, "merge keys (<<) are not allowed; write the keys out")
        if NO_CHARACTER.search(event.value):
            raise refusal(event, source, at, "a key holds a NUL character or half a surrogate pair; delete it")
        key, spot = event.value, spot_of(event, source, at)
        if key in found:
            what = f"{key!r} is written twice (first at {source.keys[(*path, key)].text}); keep one"
            source.problems.append(((*path, key, "again"), spot, f"{dotted(path)}: {what}" if path else what))
            build(next(events), events, Source(None, source.file), (*path, key), at)
            continue
        source.keys[(*path, key)] = spot
        found[key] = build(next(events), events, source, (*path, key), at)
    return found


def kind_of(value: Any) -> str:
    """What a value is, in words, with the value where it is short and no secret."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and TOKEN.search(value):
        return "a token"
    text = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return text

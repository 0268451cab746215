"""json and jsonl files: one object a row, each mistake with its line; keys that are missing are null."""

import io
import itertools
import json
from collections.abc import Collection, Iterable

import numpy as np

from hfft.messages import InputError, announce
from hfft.reading import squad
from hfft.reading.source import File, Growing, Source, cut, one_file, plural, shown
from hfft.reading.textfile import opened, read_text

ROWS = 10_000  # that are held as Python's objects at a time

OPTIONS = ("encoding", "field")
MAX_KEYS = 2000


def read_json(path: str, name: str, load: dict) -> Source:
    """A .json file: an array of objects, or an object with one list of them (`load.field` says which of several)."""
    text = read_text(path, name, load.get("encoding"))
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            announce(f"{name}: read as JSON lines (one object a line; rename it to .jsonl)")
            return from_lines(text, name)
        raise InputError(
            f"{name} line {error.lineno}: is not JSON ({error.msg}, column {error.colno}); repair it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {trouble(error)}; repair it") from None
    surrogates = "\\ud" in text.lower()
    if squad.is_nested(content, load.get("field")):
        rows, ids = squad.flat(content, name)
        source = from_rows(rows, name, surrogates=surrogates)
        source.files, source.numbers = [File(name, squad.UNIT)], np.array(ids)
        return source
    return from_rows(the_list(content, name, load.get("field")), name, surrogates=surrogates)


def read_jsonl(path: str, name: str, load: dict) -> Source:
    """A .jsonl or .ndjson file: one object a line."""
    if load.get("field"):
        raise InputError(f"data.load.field: does not apply to {name}, whose lines are the rows; take it out")
    with opened(path, name, load.get("encoding"), "\n")() as file:
        return from_file(file, name)


class DuplicateKey(ValueError):
    """The same key twice in one object: which of the two is meant cannot be known."""


class HalfPair(ValueError):
    """Half a surrogate pair: it is no character and cannot be written as UTF-8."""


def unique(pairs: list[tuple]) -> dict:
    """A JSON object whose keys are all different."""
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return record


def the_list(content, name: str, field: str | None) -> list:
    """The rows inside a JSON document."""
    if isinstance(content, list) and not field:
        return content
    lists = (
        {key: value for key, value in content.items() if isinstance(value, list)} if isinstance(content, dict) else {}
    )
    if field:
        if field not in lists:
            raise InputError(f"data.load.field: {name} has no list '{field}'; it has " + (", ".join(lists) or "none"))
        return lists[field]
    if len(lists) == 1:
        return next(iter(lists.values()))
    found = f"{plural(len(lists), 'list')} ({', '.join(lists)})" if lists else "no list of rows"
    raise InputError(f"{name}: an object with {found}; write an array of objects, or set data.load.field")


def from_lines(text: str, name: str) -> Source:
    """JSON lines in memory -> rows."""
    return from_file(io.StringIO(text, newline="\n"), name)


def from_file(file: Iterable[str], name: str) -> Source:
    """JSON lines -> rows; every malformed line is named."""
    numbered = ((number, line.removesuffix("\n")) for number, line in enumerate(file, 1))
    columns: dict[str, Growing] = {}
    numbers: list[np.ndarray] = []
    count = 0
    broken: list[str] = []
    odd: list[str] = []
    while block := list(itertools.islice(numbered, ROWS)):
        rows, lines, bad = parsed(block, name)
        broken, odd = broken + bad, odd + not_objects(rows, lines, name, "line")
        if broken or odd:  # the other lines are read for their mistakes only
            continue
        for key in dict.fromkeys(key for row in rows for key in row):
            columns.setdefault(key, Growing(count))
        refuse_many(columns, name)
        for key, column in columns.items():
            column.add([row.get(key) for row in rows])
        numbers.append(np.array(lines, dtype=np.int64))
        count += len(lines)
    if broken or odd:
        raise InputError(*cut(broken or odd))
    if not count:
        raise InputError(f"{name}: there are no rows in it; give a file with rows")
    places = np.concatenate(numbers)
    if places[-1] > count:
        announce(f"{name}: {plural(int(places[-1]) - count, 'blank line')} between the rows not read as rows")
    return one_file({key: column.column() for key, column in columns.items()}, name, places, "line")


def parsed(numbered: Iterable[tuple[int, str]], name: str) -> tuple[list, list[int], list[str]]:
    """(rows, the number of each one's line, a message for each malformed line) of lines that are not blank."""
    decode = json.JSONDecoder(object_pairs_hook=unique).decode
    rows, lines, bad = [], [], []
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            row = decode(line)
            if "\\ud" in line or "\\uD" in line:
                refuse_surrogates(row)
        except (ValueError, RecursionError) as error:
            bad.append(f"{name} line {number}: {trouble(error)}; repair the line or remove it")
            continue
        rows.append(row)
        lines.append(number)
    return rows, lines, bad


def trouble(error: Exception) -> str:
    """What is wrong with JSON that cannot be read."""
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error.msg}, column {error.colno})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return str(error) if isinstance(error, DuplicateKey | HalfPair) else "holds a number of thousands of digits"


def refuse_surrogates(row) -> None:
    """Raises HalfPair where there is one in a row."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HalfPair("holds half a surrogate pair (\\ud800–\\udfff), which is no character") from None


def not_objects(rows: list, numbers: list[int], name: str, unit: str, surrogates: bool = False) -> list[str]:
    """A message for each row that is no object, or is asked for `surrogates` and holds half a pair."""
    bad = []
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            bad.append(f'{name} {unit} {number}: {shown(row)} is not an object; write {{"column": value, …}}')
        elif surrogates:
            try:
                refuse_surrogates(row)
            except HalfPair as error:
                bad.append(f"{name} {unit} {number}: {error}; repair it")
    return bad


def from_rows(rows: list, name: str, lines: Iterable[int] | None = None, surrogates: bool = False) -> Source:
    """A list of dicts -> columns in the order in which their keys were first seen."""
    numbers, unit = (list(lines), "line") if lines is not None else (list(range(len(rows))), "row")
    bad = not_objects(rows, numbers, name, unit, surrogates)
    if bad:
        raise InputError(*cut(bad))
    if not rows:
        raise InputError(f"{name}: there are no rows in it; give a file with rows")
    names = list(dict.fromkeys(key for row in rows for key in row))
    refuse_many(names, name)
    return one_file({key: [row.get(key) for row in rows] for key in names}, name, numbers, unit)


def refuse_many(keys: Collection[str], name: str) -> None:
    """Stop where keys are hardly columns: each would take a cell of every row."""
    if len(keys) > MAX_KEYS:
        raise InputError(f"{name}: the rows have {len(keys):,} different keys; a key is a column, not a value")

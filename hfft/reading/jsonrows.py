"""json and jsonl files: one object a row, each mistake with its line; keys that are missing are null."""

import json
from collections.abc import Iterable

from hfft.messages import InputError, announce
from hfft.reading.source import Source, cut, one_file, plural, shown
from hfft.reading.textfile import read_text

OPTIONS = ("encoding", "field")


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
    except (DuplicateKey, RecursionError) as error:
        raise InputError(f"{name}: {error or 'is nested too deeply'}; repair it") from None
    rows = the_list(content, name, load.get("field"))
    return from_rows(rows, name, surrogates="\\ud" in text.lower())


def read_jsonl(path: str, name: str, load: dict) -> Source:
    """A .jsonl or .ndjson file: one object a line."""
    if load.get("field"):
        raise InputError(f"data.load.field: does not apply to {name}, whose lines are the rows; take it out")
    return from_lines(read_text(path, name, load.get("encoding")), name)


class DuplicateKey(ValueError):
    """The same key twice in one object: which of the two is meant cannot be known."""


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
    """JSON lines -> rows; every malformed line is named."""
    decode = json.JSONDecoder(object_pairs_hook=unique).decode
    rows, lines, bad, blank = [], [], [], 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            blank += 1
            continue
        try:
            row = decode(line)
            if "\\ud" in line or "\\uD" in line:
                refuse_surrogates(row)
        except (ValueError, RecursionError) as error:
            what = (
                f"is not JSON ({error.msg}, column {error.colno})"
                if isinstance(error, json.JSONDecodeError)
                else str(error)
            )
            bad.append(f"{name} line {number}: {what}; repair the line or remove it")
            continue
        rows.append(row)
        lines.append(number)
    if bad:
        raise InputError(*cut(bad))
    if blank > 1 or (blank and text.rstrip(" \t\r\n") + "\n" not in (text, text.replace("\r", ""))):
        inside = blank - (len(text) - len(text.rstrip()) > 0 and text[len(text.rstrip()) :].count("\n"))
        if inside > 0:
            announce(f"{name}: {plural(inside, 'blank line')} between the rows not read as rows")
    return from_rows(rows, name, lines)


def refuse_surrogates(row) -> None:
    """Half a surrogate pair is no character and cannot be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair (\\ud800–\\udfff), which is no character") from None


def from_rows(rows: list, name: str, lines: Iterable[int] | None = None, surrogates: bool = False) -> Source:
    """A list of dicts -> columns in the order in which their keys were first seen."""
    numbers, unit = (list(lines), "line") if lines is not None else (list(range(len(rows))), "row")
    bad = []
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, dict):
            bad.append(f'{name} {unit} {number}: {shown(row)} is not an object; write {{"column": value, …}}')
        elif surrogates:
            try:
                refuse_surrogates(row)
            except ValueError as error:
                bad.append(f"{name} {unit} {number}: {error}; repair it")
    if bad:
        raise InputError(*cut(bad))
    if not rows:
        raise InputError(f"{name}: there are no rows in it; give a file with rows")
    names = list(dict.fromkeys(key for row in rows for key in row))
    return one_file({key: [row.get(key) for row in rows] for key in names}, name, numbers, unit)

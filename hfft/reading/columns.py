"""Columns: which of the data set's columns is which of the task's, and what each must hold.

One function per canonical name says what its cells must be (`RULES`); it gives the column in its final form and a
problem for each row that does not fit. Labels need all splits at once and are in `labels.py`.
"""

import dataclasses
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading import pictures, textlists, wordlists
from hfft.reading.source import Problem, Source, is_text, plural, shown

COMMON = {
    "text": "text sentence review content question title description body message comment tweet query document",
    "image": "image img picture photo file filename file_name image_path path filepath",
    "question": "question questions query",
    "context": "context passage paragraph document article text story",
    "answers": "answers answer",
    "tokens": "tokens words",
    "tags": "tags ner_tags spans entities label labels",
    "label": "label labels target category class intent classes class_name sentiment topic emotion",
}
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
)
# canonical columns whose cells are strings, which may be joined of several columns
TEXTS = ("text", "text_pair", "question", "context", "positive")
SEVERAL = ("answers", "label")  # those whose cells may lie in several columns, each a part of the truth
LONG_TEXT = 1_000_000  # characters
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # https://www.unicode.org/reports/tr44/#General_Category_Values


def choose(data: Any, wanted: Sequence[str], source: Source) -> dict[str, list[str]]:
    """Canonical name -> the data set's column(s): as data.columns says, else where there is exactly one candidate.

    `wanted` are the task's columns; a trailing "?" marks one that may be absent.
    """
    known = [name.rstrip("?") for name in wanted]
    for name in data.columns:
        if name not in known:
            raise InputError(
                f"data.columns.{name}: the task has no such column.{hint(name, known)} It has {', '.join(known)}"
            )
    chosen = {name: given(data.columns[name], name, source) for name in known if name in data.columns}
    found = the_pair(source, chosen) if "text_pair" in known else {}
    missing = [name for name in wanted if not name.endswith("?") and name not in {**chosen, **found}]
    taken = {part for parts in (*chosen.values(), *found.values()) for part in parts}
    found.update({name: [column] for name, column in find(missing, source, taken).items()})
    if any(parts != [name] for name, parts in found.items()):
        listed = ", ".join(f"{name} is '{parts[0]}'" for name, parts in found.items() if parts != [name])
        announce(f"columns: {listed} (the only candidates; set data.columns)")
    chosen.update(found)
    for name, parts in chosen.items():
        if len(parts) > 1 and name in TEXTS:
            announce(f"columns: {name} is {' + '.join(parts)}, joined with {data.join!r} (set data.join)")
    return {name: chosen[name] for name in known if name in chosen}


def given(columns: str | list[str], name: str, source: Source) -> list[str]:
    """The columns that the recipe names, which must be there."""
    parts = [columns] if isinstance(columns, str) else list(columns)
    if not parts:
        raise InputError(f"data.columns.{name}: names no column; write one of {listing(source)}")
    if len(parts) > 1 and name not in (*TEXTS, *SEVERAL, "negative"):
        raise InputError(f"data.columns.{name}: only texts can be joined; name one column")
    for part in parts:
        if part not in source.columns:
            raise InputError(
                f"data.columns.{name}: {place(source)} has no column '{part}'.{hint(part, list(source.columns))} "
                f"It has {listing(source)}.{source.hint}"
            )
    return parts


def the_pair(source: Source, chosen: dict) -> dict[str, list[str]]:
    """Both columns of a text pair, when neither is given and exactly one well-known pair is there."""
    if "text" in chosen or "text_pair" in chosen:
        return {}
    lower = {name.lower(): name for name in source.columns}
    found = [(lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower]
    return {"text": [found[0][0]], "text_pair": [found[0][1]]} if len(found) == 1 else {}


def find(missing: list[str], source: Source, taken: set[str]) -> dict[str, str]:
    """Canonical name -> its one candidate: by its own name, a usual name, its type, or because it alone is left."""
    found = {name: name for name in missing if name in source.columns and name not in taken}
    for is_candidate in (has_usual_name, is_typed, is_left):
        for name in [name for name in missing if name not in found]:
            free = [column for column in source.columns if column not in {*taken, *found.values()}]
            candidates = [column for column in free if is_candidate(name, source, column)]
            if len(candidates) > 1:
                raise unclear(name, source, f"{len(candidates)} could be ({', '.join(candidates)})")
            if candidates:
                found[name] = candidates[0]
    for name in missing:
        if name not in found:
            raise unclear(name, source, "none is left")
    return found


def unclear(name: str, source: Source, why: str) -> InputError:
    """The line for a column that has to be named."""
    return InputError(
        f"data.columns: which column of {place(source)} is the {name}? {why}; write data.columns: {{{name}: …}}, "
        f"one of {listing(source)}.{source.hint}"
    )


def place(source: Source) -> str:
    """What messages call the whole source: its first file, or the folder."""
    file = source.files[source.file_ids[0]]
    return file.name if file.unit else "the folder"


def has_usual_name(name: str, source: Source, column: str) -> bool:
    """Whether a column is called as such columns often are."""
    return column.lower() in COMMON.get(name, name).split()


def is_left(name: str, source: Source, column: str) -> bool:
    """Whether a column is a candidate because nothing else is: any one that is not taken."""
    return True


def is_typed(name: str, source: Source, column: str) -> bool:
    """Whether a column's type alone makes it a candidate."""
    feature = type(source.features.get(column)).__name__
    values = source.columns[column]
    first = next((value for value in values[:100] if value is not None), None)
    first = getattr(first, "as_py", lambda: first)()
    if name in TEXTS:
        return isinstance(first, str) and feature != "ClassLabel"
    if name == "image":
        return feature == "Image" or isinstance(first, bytes) or hasattr(first, "getexif")
    if name == "tokens":
        return isinstance(first, list) or (isinstance(first, str) and has_usual_name("text", source, column))
    return name == "label" and feature == "ClassLabel"


def listing(source: Source) -> str:
    """The columns' names, the first thirty."""
    names = list(source.columns)
    return ", ".join(names[:30]) + (f" … ({len(names)} columns)" if len(names) > 30 else "")


def pick(source: Source, chosen: dict[str, list[str]], split: str, like: str) -> Source:
    """The canonical columns only. A column that this split lacks is named, with the split that has it."""
    columns: dict[str, Any] = {}
    for name, parts in chosen.items():
        for part in parts:
            if part not in source.columns:
                raise InputError(
                    f"{place(source)}: split '{split}' has no column '{part}', which '{like}' has; it has "
                    f"{listing(source)}. Give all splits the same columns"
                )
        columns[name] = source.columns[parts[0]] if len(parts) == 1 else [source.values(part) for part in parts]
    features = {name: source.features[parts[0]] for name, parts in chosen.items() if parts[0] in source.features}
    origin = {name: "\n".join(parts) for name, parts in chosen.items()}
    return dataclasses.replace(source, columns=columns, features=features, origin=origin)


def text(source: Source, column: str, join: str) -> list[Problem]:
    """Every text is a string that holds more than blanks; of joined columns, at least one part does."""
    values = source.columns[column]
    if isinstance(values, list) and values and "\n" in source.origin[column]:
        return joined_text(source, column, join)
    values = source.columns[column] = from_numbers(source, column)
    looked_at = doubtful(values) if is_text(values) else enumerate(source.values(column))
    problems = [
        Problem(i, column, value, *what_of_text(value))
        for i, value in looked_at
        if type(value) is not str or is_blank(value) or not is_unicode(value)
    ]
    if not is_text(values):
        values = source.columns[column] = source.values(column)
        for problem in problems:
            values[problem.position] = None
    warn_of_odd(source, column, values)
    return problems


def from_numbers(source: Source, column: str) -> Any:
    """The cells; where every one is a whole number, as a text is that is nothing but numbers, written out."""
    import pyarrow as pa

    values = source.columns[column]
    if isinstance(values, pa.ChunkedArray) and not pa.types.is_integer(values.type):
        return values
    cells = source.values(column)
    kinds = set(map(type, cells))
    if int not in kinds or kinds - {int, type(None)}:
        return values
    announce(f"{place(source)}, column '{source.origin[column]}': whole numbers, read as text")
    return [None if value is None else str(value) for value in cells]


def warn_of_odd(source: Source, column: str, values: Any) -> None:
    """Say of texts that can be read but are hardly meant."""
    lengths = sizes(values)
    longest = int(lengths.max(initial=0))
    if longest > LONG_TEXT:
        warn(f"{source.where(int(lengths.argmax()))}: a text of {longest:,} characters; is it one row?")
    with_nul = np.flatnonzero(holds(values, "\0"))
    if len(with_nul):
        first = source.where(int(with_nul[0]))
        warn(f"{first}, column '{source.origin[column]}': NUL characters in {plural(len(with_nul), 'text')}")


def holds(values: Any, character: str) -> np.ndarray:
    """(rows,) bool: which texts hold a character."""
    import pyarrow.compute as pc

    if is_text(values):
        return pc.fill_null(pc.match_substring(values, character), False).to_numpy()
    return np.fromiter((value is not None and character in value for value in values), bool, len(values))


def doubtful(values: Any) -> list[tuple[int, Any]]:
    """(position, value) of the arrow strings that have no visible ASCII character: the others are texts for sure."""
    import pyarrow.compute as pc

    unseen = ~pc.fill_null(pc.match_substring_regex(values, "[!-~]"), False).to_numpy()
    return list(zip(np.flatnonzero(unseen).tolist(), values.filter(unseen).to_pylist(), strict=True))


def sizes(values: Any) -> np.ndarray:
    """Characters of each text; of one that is missing 0."""
    import pyarrow.compute as pc

    if is_text(values):
        return pc.fill_null(pc.utf8_length(values), 0).to_numpy()
    return np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))


def joined_text(source: Source, column: str, join: str) -> list[Problem]:
    """Several columns as one text; empty parts are left out."""
    parts, problems, texts = source.columns[column], [], []
    partial = 0
    for i, cells in enumerate(zip(*parts, strict=True)):
        wrong = next((cell for cell in cells if cell is not None and not isinstance(cell, str)), None)
        full = [cell for cell in cells if isinstance(cell, str) and not is_blank(cell)]
        joined = join.join(full) if full and wrong is None else wrong
        if type(joined) is not str or not is_unicode(joined):
            problems.append(Problem(i, column, joined, *what_of_text(joined)))
            joined = None
        partial += len(full) < len(cells) and joined is not None
        texts.append(joined)
    if partial:
        name = source.files[source.file_ids[0]].name
        announce(f"{name}: {plural(partial, 'row')} with an empty part, joined from the others")
    source.columns[column] = texts
    return problems


def is_blank(value: str) -> bool:
    """Whether nothing of a text can be seen: blanks, and characters without width or form."""
    return all(unicodedata.category(letter) in INVISIBLE for letter in value)


def is_unicode(value: str) -> bool:
    """Whether a string can be written as UTF-8 (half a surrogate pair cannot)."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def what_of_text(value: Any) -> tuple[str, str]:
    """(what is wrong with a text, what to do)."""
    skip = "or set data.on_bad_row: skip"
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return "is empty", f"write a text, {skip}"
    if isinstance(value, str):
        if is_blank(value):
            return "holds only blanks", f"write a text, {skip}"
        return "holds half a surrogate pair, which is no character", f"repair it, {skip}"
    kind = {int: "number", float: "number", bool: "true or false", list: "list", dict: "object"}.get(
        type(value), type(value).__name__
    )
    return f"is {shown(value)} ({kind}), no text", f"write it as a string, {skip}"


def image(source: Source, column: str, join: str) -> list[Problem]:
    """Every picture is bytes or a file that is there, below the data's folder."""
    source.columns[column], problems = pictures.to_cells(source, column)
    return problems


def tokens(source: Source, column: str, join: str) -> list[Problem]:
    """Every cell is a list of words, or every one a text, whose words are found by its blanks and marks."""
    cells = source.columns[column]
    if is_text(cells) or all(isinstance(cell, str | None) for cell in source.values(column)):
        return text(source, column, join)
    return wordlists.check(source, column)


def negative(source: Source, column: str, join: str) -> list[Problem]:
    """Every cell is a text or a list of texts."""

    def fault(cell: Any) -> tuple[str, str] | None:
        good = isinstance(cell, str) and not is_blank(cell) and is_unicode(cell)
        return None if good else what_of_text(cell)

    return textlists.check(source, column, fault)


def other(source: Source, column: str, join: str) -> list[Problem]:
    """A column without a rule of its own: it may not be null."""
    return [
        Problem(i, column, None, "is empty", "write a value")
        for i, value in enumerate(source.values(column))
        if value is None
    ]


RULES: dict[str, Callable[[Source, str, str], list[Problem]]] = {
    **dict.fromkeys(TEXTS, text),
    "tokens": tokens,
    "negative": negative,
    "image": image,
}

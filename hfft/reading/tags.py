"""Tags: one for each word of a row, from lists of tags or from spans of a text; whatever their scheme, read as IOB2.

One of the kinds of truth in `truths.py`, which says what each has. A value is a tuple with the tag of each word. The
words of a list are its tokens, those of a text are found by `words.bounds`.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hfft import entities, words
from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading import labels
from hfft.reading.source import Found, Problem, Source, plural, shown

COLUMN, NAMED = "tags", True
SKIP = "or set data.on_bad_row: skip"
SPANS = "write a list of {start, end, label}, [] for none, " + SKIP
KEYS = (("start", "start_offset", "begin"), ("end", "end_offset"), ("label", "type", "entity", "tag"))
Values = list[tuple[str, ...] | None]


def read(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, Values], list[str]]:
    """(split -> the IOB2 tags of each row, None where it is bad; all tags in order). The first split is train."""
    train, *_ = picked
    values: dict[str, Values] = {}
    for split, source in picked.items():
        values[split], problems = _raw(data, source)
        found[split] += problems
    given = feature_names(picked[train]) or (list(map(str, data.labels)) if isinstance(data.labels, list) else None)
    labels.check_rename(data.labels, [[part for tag in _present(values) for part in {tag, entities.split(tag)[1]}]])
    values = {split: _renamed(data, rows) for split, rows in values.items()}
    scheme = _scheme(values, picked[train])
    for split, source in picked.items():
        found[split] += _as_iob2(source, values[split], scheme)
    if not given:
        _mark_spellings(values, scheme, found)
    names = order(values[train], given, scheme)
    for split, source in picked.items():
        known_from = "data.labels" if split == train and isinstance(data.labels, list) else train
        found[split] += mark_unknown(source, values[split], names, known_from)
    return values, names


def of_rows(data: Any, source: Source) -> tuple[Values, list[Problem]]:
    """(the IOB2 tags of each row, renamed by data.labels, None where they cannot be read; the problems)."""
    values, problems = _raw(data, source)
    values = _renamed(data, values)
    return values, problems + _as_iob2(source, values, _scheme({"": values}, source))


def _present(values: Mapping[str, Values]) -> Counter[str]:
    return Counter(tag for rows in values.values() for row in rows for tag in row or ())


def _scheme(values: Mapping[str, Values], source: Source) -> str:
    """The scheme of all tags, announced."""
    counts = _present(values)
    found = entities.scheme(counts, [row for rows in values.values() for row in rows if row])
    if not found:
        prefixes = sorted({entities.split(tag)[0] for tag in counts} - {"O", ""})
        raise InputError(
            f"{_place(source)}: tags with the prefixes {', '.join(prefixes)} are of no scheme that is read; write them "
            "as IOB2 (B- at the beginning of an entity, I- inside, O outside), IOB1 or BIOES"
        )
    kinds = {entities.split(tag)[1] for tag in counts if tag != "O"}
    if found == entities.WORDS:
        announce(f"tags: {plural(len(counts), 'tag')} without B- and I-, so each word stands by itself")
    else:
        read_as = "" if found == "IOB2" else ", read as IOB2"
        announce(f"tags: {found} (by their prefixes){read_as}; {plural(len(kinds), 'kind')} of entity")
    return found


def _place(source: Source) -> str:
    return f"{source.files[source.file_ids[0]].name}, column '{source.origin.get(COLUMN, COLUMN)}'"


def feature_names(source: Source) -> list[str] | None:
    """The names that come with the data, those of a list of ClassLabels."""
    return getattr(getattr(source.features.get(COLUMN), "feature", None), "names", None)


# ---- cells ----------------------------------------------------------------------------------------------------------
def _raw(data: Any, source: Source) -> tuple[Values, list[Problem]]:
    """The tags of each row as they are written."""
    known = feature_names(source) or (list(map(str, data.labels)) if isinstance(data.labels, list) else None)
    values: Values = []
    problems = []
    for i, (cell, row) in enumerate(zip(source.values(COLUMN), source.values("tokens"), strict=True)):
        if row is None:  # which is a problem already
            values.append(None)
            continue
        if known is None and isinstance(cell, list) and any(type(tag) is int for tag in cell):
            raise _no_names(source, i, cell)
        tags, what, remedy = _of_spans(cell, row) if isinstance(row, str) else _of_words(cell, row, known)
        if what:
            problems.append(Problem(i, COLUMN, cell, what, remedy))
        values.append(None if what else tuple(tags))
    return values, problems


def _renamed(data: Any, values: Values) -> Values:
    """By data.labels, the whole tag or its kind."""
    if not isinstance(data.labels, dict):
        return values
    rename = labels.renames(data.labels)

    def new(tag: str) -> str:
        prefix, kind = entities.split(tag)
        if tag in rename or kind not in rename:
            return rename.get(tag, tag)
        return f"{prefix}-{rename[kind]}" if prefix else rename[kind]

    return [row if row is None else tuple(map(new, row)) for row in values]


def _no_names(source: Source, i: int, cell: list) -> InputError:
    numbers, name = ", ".join(map(str, cell[:4])), source.origin.get(COLUMN, COLUMN)
    return InputError(
        f"{source.where(i)}, column '{name}': tags are numbers ({numbers} …) without names; "
        "write data.labels: [O, B-…, I-…, …], the name of each number from 0 on"
    )


def _of_words(cell: Any, row: list[str], known: list[str] | None) -> tuple[list[str], str, str]:
    """(the tag of each token, what is wrong, what to write)."""
    if not isinstance(cell, list):
        what = "is empty" if cell is None else f"is {shown(cell)}, no list of tags"
        return [], what, f"write a list with a tag for each token, {SKIP}"
    if any(isinstance(tag, dict | list | tuple) for tag in cell):
        return (
            [],
            "holds spans, which go with a text, not with tokens",
            "name the column of texts in data.columns.tokens",
        )
    if len(cell) != len(row):
        what = f"has {plural(len(cell), 'tag')} for {plural(len(row), 'token')}"
        return [], what, f"write one tag for each token, {SKIP}"
    tags = []
    for place, tag in enumerate(cell):
        name, what = _name(tag, known)
        if what:
            return [], f"word {place} ({shown(row[place], 20)}) {what}", f"write its tag, O for none, {SKIP}"
        tags.append(name)
    return tags, "", ""


def _name(tag: Any, known: list[str] | None) -> tuple[str, str]:
    if isinstance(tag, str):
        return (tag, "") if tag.strip() else ("", "has an empty tag")
    if type(tag) is int and known is not None:
        return (known[tag], "") if 0 <= tag < len(known) else ("", f"has the tag {tag}, outside the {len(known)} names")
    return "", f"has {shown(tag)}, no tag"


def _of_spans(cell: Any, text: str) -> tuple[list[str], str, str]:
    """(the tag of each word of a text, what is wrong, what to write)."""
    if not isinstance(cell, list):
        what = "is empty" if cell is None else f"is {shown(cell)}, no list of spans"
        return [], what, SPANS
    found: list[tuple[int, int, str]] = []
    for i, entry in enumerate(cell):
        span = _span(entry)
        if span is None:
            return [], f"span {i} is {shown(entry)}, no span", SPANS
        if what := _fault(span, entry, text):
            return [], f"span {i} ({span[0]} to {span[1]}, {span[2]!r}) {what}", f"mend its offsets, {SKIP}"
        found.append(span)
    found.sort()
    for one, other in itertools.pairwise(found):
        if other[0] < one[1]:
            what = f"spans {one[0]} to {one[1]} ({one[2]!r}) and {other[0]} to {other[1]} ({other[2]!r}) overlap"
            return [], what, f"keep one of them, {SKIP}"
    return _tagged(found, text)


def _span(entry: Any) -> tuple[int, int, str] | None:
    """(start, end, label) of an object or of a list of three."""
    if isinstance(entry, dict):
        values = [next((entry[key] for key in keys if entry.get(key) is not None), None) for keys in KEYS]
    else:
        values = list(entry) if isinstance(entry, list | tuple) and len(entry) == 3 else [None] * 3
    start, end, label = values
    good = type(start) is int and type(end) is int and isinstance(label, str) and bool(label.strip())
    return (start, end, label) if good else None  # type: ignore[return-value]


def _fault(span: tuple[int, int, str], entry: Any, text: str) -> str:
    start, end, _ = span
    if start < 0 or end > len(text):
        return f"lies outside the text of {plural(len(text), 'character')}"
    if start >= end:
        return "is empty" if start == end else "ends before it begins"
    quoted = entry.get("text") if isinstance(entry, dict) else None
    if isinstance(quoted, str) and quoted != text[start:end]:
        return f"says {shown(quoted, 30)}, where the text has {shown(text[start:end], 30)}"
    return "" if text[start:end].strip() else "holds only blanks"


def _tagged(spans: list[tuple[int, int, str]], text: str) -> tuple[list[str], str, str]:
    places = words.bounds(text)
    tags, at = ["O"] * len(places), 0
    for start, end, label in spans:
        while at < len(places) and places[at][1] <= start:
            at += 1
        first = at
        while at < len(places) and places[at][0] < end:
            low, high = places[at]
            if low < start or high > end:
                what = (
                    f"span {start} to {end} ({label!r}, {shown(text[start:end], 30)}) cuts the word {text[low:high]!r}"
                )
                return [], what, f"let it begin and end with words, {SKIP}"
            tags[at] = f"{'B' if at == first else 'I'}-{label}"
            at += 1
    return tags, "", ""


# ---- tags -----------------------------------------------------------------------------------------------------------
def _as_iob2(source: Source, values: Values, scheme: str) -> list[Problem]:
    """Rows whose tags cannot follow each other become None; the others IOB2."""
    problems = []
    rows = source.values("tokens")
    for i, row in enumerate(values):
        if row is None:
            continue
        wrong = entities.fault(row, scheme)
        values[i] = None if wrong else tuple(entities.to_iob2(row, scheme))
        if wrong:
            place, what, remedy = wrong
            cell = rows[i]
            word = cell[place] if isinstance(cell, list) else cell[slice(*words.bounds(cell)[place])]
            told = f"word {place} ({shown(word, 20)}) {what}"
            problems.append(Problem(i, COLUMN, row[place], told, f"{remedy}, {SKIP}"))
    return problems


def _mark_spellings(values: dict[str, Values], scheme: str, found: Found) -> None:
    """Rows with a rarer spelling of a kind of entity ("Per" beside "PER"), over all splits."""
    counts = Counter(entities.split(tag)[1] for tag in _present(values).elements() if tag != "O")
    if scheme == entities.WORDS:
        counts = _present(values)
    usual = labels.usual_spellings(counts)
    for split, rows in values.items() if usual else ():
        for i, row in enumerate(rows):
            kinds = [tag if scheme == entities.WORDS else entities.split(tag)[1] for tag in row or ()]
            if wrong := next((kind for kind in kinds if kind in usual), None):
                found[split].append(Problem(i, COLUMN, wrong, *labels.of_spelling(wrong, usual[wrong], counts)))
                rows[i] = None


def order(rows: Values, given: list[str] | None, scheme: str) -> list[str]:
    """The tags in a stable order: as the data's names or data.labels have them, else by kind."""
    if given and len(set(given)) < len(given):
        double = next(name for name in given if given.count(name) > 1)
        raise InputError(f"data.labels: '{double}' stands twice; name every tag once")
    if given and (scheme == entities.WORDS or entities.is_whole(given)):
        return given
    present = {tag for row in rows for tag in row or ()}
    if scheme == entities.WORDS:
        return sorted(present)
    kinds = list(dict.fromkeys(entities.split(tag)[1] for tag in given or sorted(present) if tag != "O"))
    return entities.names_of(kinds if given else sorted(kinds))


def mark_unknown(source: Source, values: Values, names: list[str], known_from: str) -> list[Problem]:
    """Rows with a tag that is none of `names`."""
    known, found = set(names), []
    for i, row in enumerate(values):
        if wrong := next((tag for tag in row or () if tag not in known), None):
            near = hint(wrong, names)
            what = f"{wrong!r} is no tag of {known_from}{f' ({near.strip()})' if near else ''}"
            found.append(Problem(i, COLUMN, wrong, what, f"write one of its tags, {SKIP}"))
            values[i] = None
    return found


def judge(values: dict[str, list], names: list[str], where: str) -> None:
    """Stop where there is nothing to find; warn of kinds that cannot be learnt or measured."""
    train, *others = values
    counts = {split: _kinds(rows) for split, rows in values.items()}
    if len(counts[train]) == 0:
        raise InputError(
            f"{where}: every tag is O, so there is nothing to learn; name the column of tags in data.columns"
        )
    known = dict.fromkeys(entities.split(name)[1] for name in names if name != "O")
    if absent := [kind for kind in known if not counts[train][kind]]:
        warn(f"{where}: {labels.listing('class', absent)} without rows")
    for split in others:
        if missing := sorted(kind for kind in counts[train] if not counts[split][kind]):
            warn(f"{split}: {labels.listing('class', missing)} of {train} without rows here, so not measured")


def _kinds(rows: list[tuple[str, ...]]) -> Counter[str]:
    """How many rows have each kind of entity."""
    return Counter(kind for row in rows for kind in {entities.split(tag)[1] for tag in set(row) - {"O"}})


def strata(values: list[tuple[str, ...]]) -> list[str]:
    """Each row's rarest kind of entity, so that rare ones are on both sides of a held-out split."""
    counts = _kinds(values)
    kinds = [{entities.split(tag)[1] for tag in set(row) - {"O"}} for row in values]
    return [min(row, key=lambda kind: (counts[kind], kind)) if row else "" for row in kinds]


def column(values: list[tuple[str, ...]], names: list[str]) -> tuple[Any, Any]:
    """(lists of indices as an arrow array, their feature)."""
    import pyarrow as pa
    from datasets import ClassLabel, List

    ids = {name: i for i, name in enumerate(names)}
    return pa.array([[ids[tag] for tag in row] for row in values], pa.list_(pa.int64())), List(ClassLabel(names=names))

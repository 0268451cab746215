"""Classes, one a row: every label as a class name, what cannot be one, and the order of the names.

One of the kinds of truth in `truths.py`, which says what each has.
"""

import math
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from hfft.lookup import hint, nearest
from hfft.messages import InputError, announce, warn
from hfft.reading.source import MAX_LINES, Found, Problem, Source, is_text, plural, shown

COLUMN, NAMED = "label", True

WRITE = "write a class, or set data.on_bad_row: skip"
NO_LABEL = {"-1": "is -1, which means 'no label' in test sets", "-100": "is -100, which the loss ignores"}


def read(data: Any, picked: dict[str, Source], found: Found) -> tuple[dict[str, list], list[str]]:
    """(split -> class name of each row, None where it is bad; the classes in order). The first split is train."""
    train = next(iter(picked))
    names: dict[str, list] = {}
    for split, source in picked.items():
        names[split], problems = read_names(source)
        refuse_numbers(source, names[split])
        found[split] += problems
    if rename := check_rename(data.labels, list(names.values())):
        names = {split: [rename.get(name, name) for name in values] for split, values in names.items()}
    class_names = getattr(picked[train].features.get(COLUMN), "names", None)
    if not class_names and not isinstance(data.labels, list):
        mark_spellings(picked, names, found)
    classes = order(names[train], class_names, data.labels)
    for split, source in picked.items():
        known_from = "data.labels" if split == train and isinstance(data.labels, list) else train
        known = set(classes if split == train else names[train])
        found[split] += mark_unknown(source, names[split], [name for name in classes if name in known], known_from)
    return names, classes


def of_rows(data: Any, source: Source) -> tuple[list[str | None], list[Problem]]:
    """(the class of each row of one source, renamed by data.labels, None where it has none; the problems)."""
    names, problems = read_names(source)
    renamed = renames(data.labels)
    return [name if name is None else renamed.get(name, name) for name in names], problems


def renames(labels: Any) -> dict[str, str]:
    """What data.labels renames: old -> new; nothing where it lists the classes, or is not given."""
    return {str(old): str(new) for old, new in labels.items()} if isinstance(labels, dict) else {}


def judge(values: dict[str, list], classes: list[str], where: str) -> None:
    """Stop or warn where the classes of the good rows cannot be learnt or measured; the first split is train."""
    train, *rest = values
    check_classes(values[train], classes, where)
    for split in rest:
        warn_of_absent(values[split], values[train], split)


def strata(names: list[str]) -> list[str]:
    """What a held-out split has a share of."""
    return names


def column(names: list[str], classes: list[str]) -> tuple[Any, Any]:
    """(the indices as an arrow array, their feature)."""
    import pyarrow as pa
    from datasets import ClassLabel

    ids = {label: i for i, label in enumerate(classes)}
    return pa.array([ids[name] for name in names], pa.int64()), ClassLabel(names=classes)


def read_names(source: Source) -> tuple[list[str | None], list[Problem]]:
    """The class name of every row (None where there is none) and a problem for each row without."""
    if "\n" in source.origin.get(COLUMN, ""):
        write = "name one column, or write problem: multi_label or regression in the task"
        raise InputError(f"data.columns.label: names several columns, where a row has one class; {write}")
    feature = source.features.get("label")
    class_names = getattr(feature, "names", None)
    if is_of_one_type(source.columns["label"]):
        return read_codes(source, class_names)
    known: dict[Any, tuple[str | None, str]] = {}
    names: list[str | None] = []
    problems = []
    values = source.values("label")
    for i, value in enumerate(values):
        key = (type(value), value) if isinstance(value, str | int | float | bool | None) else (type(value), None)
        if key not in known:
            known[key] = of_class(value, class_names) if class_names else name_of(value)
        name, what = known[key]
        names.append(name)
        if name is None:
            problems.append(Problem(i, "label", value, what, remedy(what)))
    problems += strangers(values, names) if not class_names else []
    return names, problems


def is_of_one_type(values: Any) -> bool:
    """Whether a column is arrow strings or integers: then each different value need be looked at only once."""
    import pyarrow as pa

    return is_text(values) or (isinstance(values, pa.ChunkedArray) and pa.types.is_integer(values.type))


def read_codes(source: Source, class_names: list[str] | None) -> tuple[list[str | None], list[Problem]]:
    """`read_names` of a column that `is_of_one_type`."""
    found = source.columns["label"].dictionary_encode().unify_dictionaries()
    values = [*(found.chunk(0).dictionary.to_pylist() if found.num_chunks else []), None]  # the last one for nulls
    known = [of_class(value, class_names) if class_names else name_of(value) for value in values]
    codes = np.concatenate(
        [np.empty(0, np.int64), *(c.indices.fill_null(len(known) - 1).to_numpy() for c in found.chunks)]
    )
    names = np.array([name for name, _ in known], dtype=object)[codes].tolist()
    wrong = np.flatnonzero(np.isin(codes, [code for code, (name, _) in enumerate(known) if name is None]))
    told = [(int(i), values[codes[i]], known[codes[i]][1]) for i in wrong]
    return names, [Problem(i, "label", value, what, remedy(what)) for i, value, what in told]


def remedy(what: str) -> str:
    """What to write instead of a value that is no class."""
    if "decimal point" in what:
        return "cast the column to integers or text"
    if "decimals" in what:
        return "this task needs classes; a number to predict is another task (regression)"
    return "one class a row is needed here; several are another task" if "several" in what else WRITE


def name_of(value: Any) -> tuple[str | None, str]:
    """(class name, "") of a raw value, or (None, what is wrong)."""
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    ):
        return None, "is empty"
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, str | int):
        name = str(value)
        return (None, NO_LABEL[name]) if name in NO_LABEL else (name, "")
    if isinstance(value, float):
        kind = "a decimal point" if value.is_integer() else "decimals"
        return None, f"is the number {value!r} with {kind}, no class"
    if isinstance(value, list | tuple):
        return None, "is a list of several labels"
    return None, f"is of type {type(value).__name__}, no class"


def of_class(value: Any, class_names: list[str]) -> tuple[str | None, str]:
    """The name of a ClassLabel's id."""
    if value is None:
        return None, "is empty"
    if str(value) in NO_LABEL:
        return None, NO_LABEL[str(value)]
    if not isinstance(value, int) or not 0 <= value < len(class_names):
        return None, f"is {value!r}, outside the {len(class_names)} classes of its ClassLabel"
    return class_names[value], ""


def strangers(values: list, names: list[str | None]) -> list[Problem]:
    """Rows whose label is of another type than most: text among numbers, true among text."""
    kinds = Counter(type(value) for value, name in zip(values, names, strict=True) if name is not None)
    if len(kinds) < 2:
        return []
    usual = kinds.most_common(1)[0][0]
    called = {str: "text", int: "integers", bool: "true or false"}
    what = f"though most labels are {called.get(usual, usual.__name__)}"
    found = []
    for i, (value, name) in enumerate(zip(values, names, strict=True)):
        if name is not None and type(value) is not usual:
            found.append(Problem(i, "label", value, f"is {shown(value)}, {what}", "write all labels in one type"))
            names[i] = None
    return found


def refuse_numbers(source: Source, names: list[str | None]) -> None:
    """Stop where the whole column is numbers to predict, not classes: one line instead of one a row."""
    values = [] if is_of_one_type(source.columns["label"]) else source.values("label")
    decimals = [i for i, value in enumerate(values) if isinstance(value, float) and not math.isnan(value)]
    if decimals and not any(isinstance(value, float) and not value.is_integer() for value in values):
        line = f"is the number {values[decimals[0]]!r} with a decimal point ({plural(len(decimals), 'row')} so)"
        raise InputError(Problem(decimals[0], "label", None, line, "cast the column to integers or text").line(source))
    if not decimals:
        texts = {name for name in names if name is not None}
        if not texts or not all(re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?", text) for text in texts):
            return
        fractions = {text for text in texts if not float(text).is_integer()}
        decimals = [i for i, name in enumerate(names) if name in fractions]
        if not decimals:
            return
    what = (
        f"is {shown(source.values('label')[decimals[0]])}, a number with decimals ({plural(len(decimals), 'row')} so)"
    )
    raise InputError(Problem(decimals[0], "label", None, what, remedy(what)).line(source))


def mark_spellings(
    sources: dict[str, Source], splits: dict[str, list[str | None]], problems: dict[str, list[Problem]]
) -> None:
    """Rows with a rarer spelling of a label, over all splits: "Pos", " pos" and "pos" are one label, not three."""
    counts = Counter(name for names in splits.values() for name in names if name is not None)
    usual = usual_spellings(counts)
    if not usual:
        return
    for split, names in splits.items():
        for i, given in enumerate(names):
            if given is not None and given in usual:
                problems[split].append(Problem(i, "label", given, *of_spelling(given, usual[given], counts)))
                names[i] = None


def usual_spellings(counts: Counter[str]) -> dict[str, str]:
    """Rarer spelling -> the usual one; they differ in case, blanks around or Unicode form only."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(unicodedata.normalize("NFC", name).strip().casefold(), []).append(name)
    usual: dict[str, str] = {}
    for group in groups.values():
        best, *rest = sorted(group, key=lambda name: (-counts[name], name != name.strip(), name))
        usual.update(dict.fromkeys(rest, best))
    return usual


def of_spelling(given: str, best: str, counts: Counter[str]) -> tuple[str, str]:
    """(what is wrong with a rarer spelling, what to write instead)."""
    against = f"{plural(counts[given], 'row')} against {counts[best]:,}"
    what = f"{given!r} is another spelling of {best!r} ({against})"
    return what, f"write {best!r}, or data.labels: {{{given!r}: {best!r}}}"


def mark_unknown(source: Source, names: list[str | None], ordered: list[str], known_from: str) -> list[Problem]:
    """Rows whose label is none of the classes."""
    classes, found = set(ordered), []
    some = f" ({', '.join(ordered[:10])}{' …' if len(ordered) > 10 else ''})"
    instead: dict[str, str] = {}
    for i, name in enumerate(names):
        if name is not None and name not in classes:
            if name not in instead:  # the nearest name takes time, and more than MAX_LINES are not told
                near = nearest(name, ordered) if len(instead) < MAX_LINES else None
                instead[name] = f"write {near!r}, or set data.on_bad_row: skip" if near else WRITE
            found.append(Problem(i, "label", name, f"{name!r} is no class of {known_from}{some}", instead[name]))
            names[i] = None
    return found


def warn_of_absent(names: list[str | None], train_names: list[str | None], split: str) -> None:
    """Classes that training has and a split lacks: their scores cannot be measured on it."""
    absent = sorted({name for name in train_names if name is not None} - set(names))
    if absent:
        warn(f"{split}: {listing('class', absent)} of train without rows here, so not measured")


def order(names: list[str | None], class_names: list[str] | None, labels: Any) -> list[str]:
    """The classes in a stable order: as data.labels or the ClassLabel has them, else by number, else sorted."""
    present = {name for name in names if name is not None}
    rename = renames(labels)
    if isinstance(labels, list):
        ordered = [str(label) for label in labels]
        double = next((label for label in ordered if ordered.count(label) > 1), None)
        if double is not None:
            raise InputError(f"data.labels: '{double}' stands twice; name every class once")
    elif class_names:
        ordered = list(dict.fromkeys(rename.get(name, name) for name in class_names))
    elif rename and present <= set(rename.values()):
        ordered = [name for name in dict.fromkeys(rename.values()) if name in present]
    elif all(re.fullmatch(r"-?\d+", name) for name in present):
        ordered = sorted(present, key=lambda name: (int(name), name))
    else:
        ordered = sorted(present)
    return ordered


def check_rename(labels: Any, sources: list[list[str | None]]) -> dict[str, str] | None:
    """data.labels as a rename, each key of which must occur."""
    if not isinstance(labels, dict):
        return None
    rename = renames(labels)
    present = {name for names in sources for name in names if name is not None}
    for key in rename:
        if key not in present:
            listed = ", ".join(sorted(present)[:20])
            raise InputError(
                f"data.labels: no row has the label '{key}'.{hint(key, sorted(present))} There are {listed}"
            )
    return rename


def check_classes(names: list[str | None], ordered: list[str], where: str) -> None:
    """Stop on one class or as many classes as rows; warn of classes with one row or none."""
    counts = Counter(name for name in names if name is not None)
    rows = sum(counts.values())
    if len(counts) == 1:
        only = next(iter(counts))
        raise InputError(f"{where}: the one label of {plural(rows, 'row')} is '{only}'; a classifier needs two classes")
    if len(counts) == rows:
        raise InputError(
            f"{where}: {plural(rows, 'row')}, each with a label of its own; name the class column in data.columns"
        )
    if len(counts) > max(20, rows / 2):
        warn(f"{where}: {len(counts):,} classes in {plural(rows, 'row')}; is data.columns.label the right column?")
    single = [name for name in ordered if counts[name] == 1]
    if single:
        warn(f"{where}: {listing('class', single)} with 1 row")
    none = [name for name in ordered if not counts[name]]
    if none:
        warn(f"{where}: {listing('class', none)} without rows")
    if all(name.isdecimal() for name in ordered) and [int(name) for name in ordered] != list(range(len(ordered))):
        announce(
            "classes, in the order of the model's outputs: "
            + ", ".join(ordered[:20])
            + (" …" if len(ordered) > 20 else "")
        )


def listing(word: str, names: list[str]) -> str:
    """2 classes ('a', 'b'), the first ten named."""
    many = f"{len(names)} {word}es" if len(names) != 1 else f"1 {word}"
    return f"{many} ({', '.join(repr(name) for name in names[:10])}{' …' if len(names) > 10 else ''})"

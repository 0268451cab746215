"""Forms of rows that teach embeddings: which one a data set has, and which of its columns is which.

pair (text, positive), scored_pair (text, text_pair, label), triplet (text, positive, negative), labelled (text, label).
"""

import re
from typing import Any, Literal

from hfft.messages import InputError, announce
from hfft.reading import columns, targets
from hfft.reading.source import Source

Form = Literal["pair", "scored_pair", "triplet", "labelled"]
COLUMNS: dict[str, tuple[str, ...]] = {
    "pair": ("text", "positive"),
    "scored_pair": ("text", "text_pair", "label"),
    "triplet": ("text", "positive", "negative"),
    "labelled": ("text", "label"),
}
ANSWERED = (  # the second is what the first wants to find
    ("anchor", "positive"),
    ("text", "positive"),
    ("query", "positive"),
    ("query", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "answer"),
)
ALIKE = (*columns.PAIRS, ("caption1", "caption2"), ("sent1", "sent2"), ("question", "answer"))
NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?_?\d*")
CALLED = ("score", "similarity", "similarity_score", "relatedness_score")
SCORES = (*CALLED, "label", "labels")
WHICH = "task: {text_embedding: {form: pair}}, or scored_pair, triplet, labelled, and the columns in data.columns"


def of_columns(names: Any) -> Form | None:
    """The form of rows that are in canonical columns already."""
    forms: tuple[Form, ...] = ("triplet", "pair", "scored_pair", "labelled")
    return next((form for form in forms if set(COLUMNS[form]) <= set(names)), None)


def settle(form: Form | None, source: Source, data: Any) -> Form:
    """The rows' form, by `form`, data.columns or the names of the source's columns; the columns go to data.columns.

    Both are announced where they were found. Raises InputError where there is more than one way to read the columns.
    """
    lower = {name.lower(): name for name in source.columns}
    taken = {part for given in data.columns.values() for part in ([given] if isinstance(given, str) else given)}
    free = {short: name for short, name in lower.items() if name not in taken}
    if form is None:
        form, why = _of_names(data.columns) or _found(source, free)
        announce(f"form {form} ({why}; set the task's form)")
    found = _columns(form, data.columns, source, free)
    if told := [f"{name} is {' + '.join(parts)}" for name, parts in found.items() if parts != [name]]:
        announce(f"columns: {', '.join(told)} (by their names; set data.columns)")
    data.columns = {**data.columns, **found}
    return form


def _of_names(given: dict) -> tuple[Form, str] | None:
    """By what data.columns names."""
    forms: tuple[tuple[str, Form], ...] = (("negative", "triplet"), ("text_pair", "scored_pair"))
    for name, form in forms:
        if name in given:
            return form, f"data.columns names {name}"
    if "label" in given and "positive" not in given:
        return "labelled", "data.columns names label and no second text"
    return None


def _found(source: Source, free: dict[str, str]) -> tuple[Form, str]:
    """By the columns' own names and what is in them."""
    texts = [name for name in free.values() if columns.is_typed("text", source, name)]
    answered = [pair for pair in ANSWERED if set(pair) <= free.keys()]
    alike = [pair for pair in ALIKE if set(pair) <= free.keys()]
    scores = [free[name] for name in SCORES if name in free]
    negatives = [name for name in free if NEGATIVE.fullmatch(name)]
    classes = [name for name in source.columns if columns.has_usual_name("label", source, name)]
    if negatives and answered:
        return "triplet", f"columns {', '.join([*answered[0], *negatives])}"
    if answered and not scores:
        return "pair", f"columns {', '.join(answered[0])}"
    if alike and len(scores) == 1 and _are_scores(scores[0], source.values(scores[0])):
        return "scored_pair", f"columns {', '.join(alike[0])} and numbers in {scores[0]}"
    if len(texts) == 2 and len(source.columns) == 2 and not scores:
        return "pair", f"two columns of texts, {' and '.join(texts)}"
    if len(source.columns) == 2 and len(classes) == 1 and len({*texts, *classes}) == 2:
        return "labelled", f"a column of texts and one of labels, {classes[0]}"
    raise InputError(
        f"{columns.place(source)}: which form have these rows? it has {columns.listing(source)}; write {WHICH}"
    )


def _are_scores(name: str, cells: list) -> bool:
    """Whether most cells are numbers, also written as texts, and by the column's name or their decimals no classes."""
    written = [
        str(cell).strip() for cell in cells if isinstance(cell, int | float | str) and not isinstance(cell, bool)
    ]
    known = [cell for cell in written if targets.NUMBER.fullmatch(cell) or targets.WITH_COMMA.fullmatch(cell)]
    whole = all(re.fullmatch(r"[-+]?\d+([.,]0*)?", cell) for cell in known)
    return len(known) > len(cells) / 2 and (name.lower() in CALLED or not whole)


def _columns(form: Form, given: dict, source: Source, free: dict[str, str]) -> dict[str, list[str]]:
    """Canonical name -> the column(s) of that usual name, of those that data.columns does not name."""
    found: dict[str, list[str]] = {}
    second = COLUMNS[form][1]
    pairs = {"scored_pair": ALIKE, "labelled": ()}.get(form, (*ANSWERED, *ALIKE))
    if "text" not in given and second not in given:
        both = next((pair for pair in pairs if set(pair) <= free.keys()), None)
        texts = [name for name in free.values() if columns.is_typed("text", source, name)]
        if both is not None:
            found |= {"text": [free[both[0]]], second: [free[both[1]]]}
        elif pairs and len(texts) == 2:
            found |= {"text": [texts[0]], second: [texts[1]]}
    if form == "triplet" and "negative" not in given:
        names = sorted(name for name in free if NEGATIVE.fullmatch(name))
        found |= {"negative": [free[name] for name in names]} if names else {}
    if form == "scored_pair" and "label" not in given:
        scores = [free[name] for name in SCORES if name in free]
        found |= {"label": scores} if len(scores) == 1 else {}
    return found

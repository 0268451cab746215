"""Entities in sequences of tags: schemes, IOB2, and precision, recall and F1 as seqeval counts them.

Schemes: IOB1 is that of Ramshaw and Marcus 1995 (https://arxiv.org/abs/cmp-lg/9505040), IOB2 that of Tjong Kim Sang and
Veenstra 1999 (https://arxiv.org/abs/cs/9907006). Scores: https://github.com/chakki-works/seqeval, its strict mode with
IOB2 and its default mode, which also takes an I without a B for a beginning; a test holds both to be equal.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

OUTSIDE, BEGIN, INSIDE = range(3)
METRICS = ("f1", "precision", "recall", "f1_default", "accuracy")
WORDS = "words"  # the scheme of tags that are no parts of entities, such as parts of speech
PREFIXED = re.compile(r"([BIESLUM])(?:[-_](.+))?", re.DOTALL)
GOES_ON, ENDS, ALONE = "IM", "EL", "SU"
NO_NAME = "entity"  # the kind of tags that are B, I and O alone


def split(tag: str) -> tuple[str, str]:
    """(prefix, kind) of a tag: ("B", "PER") of B-PER, ("O", "") outside; ("", tag) of one without a prefix."""
    if tag == "O":
        return "O", ""
    found = PREFIXED.fullmatch(tag)
    return (found[1], found[2] or NO_NAME) if found else ("", tag)


def scheme(counts: Counter[str], rows: Iterable[Sequence[str]]) -> str:
    """IOB1, IOB2, BIOES or WORDS, by tags with their `counts` and the rows of them; "" for prefixes that are of none.

    IOB1 only where it is beyond doubt: some I has no beginning, and no B stands where IOB1 has none.
    """
    tags = {tag: split(tag)[0] for tag in counts if tag != "O"}
    typed = sum(counts[tag] for tag, prefix in tags.items() if prefix and len(tag) > 1)
    others = sum(counts[tag] for tag, prefix in tags.items() if not prefix)
    if others > typed or (others and not typed):
        return WORDS
    prefixes = set(tags.values()) - {""}
    if prefixes & {*ENDS, *ALONE}:
        return "BIOES" if "B" in prefixes or prefixes <= {*ALONE} else ""
    if "M" in prefixes:
        return ""
    rows = list(rows)
    no_iob2 = any(fault(row, "IOB2") for row in rows)
    return "IOB1" if no_iob2 and not any(fault(row, "IOB1") for row in rows) else "IOB2"


def fault(tags: Sequence[str], name: str) -> tuple[int, str, str] | None:
    """(place, what is wrong, what to write) of the first tag that cannot stand where it does; None where all can."""
    if name == WORDS:
        return None
    before, last = ("O", ""), "nothing"
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = split(tag)
        same = kind == before[1]
        if not prefix:
            return i, f"has {tag!r}, no tag of {name}", "write O, or a prefix and a kind such as 'B-PER'"
        if name == "BIOES" and before[0] in "BIM" and not (same and prefix in GOES_ON + ENDS):
            what = f"has {tags[i - 1]!r}, but after it comes {tag!r}, so the entity has no end"
            return i - 1, what, f"write {'S' if before[0] == 'B' else 'E'}-{before[1]}"
        if name == "BIOES" and prefix in GOES_ON + ENDS and before[0] not in "BIM":
            return i, f"has {tag!r} after {last}, so the entity has no beginning", f"write B-{kind} or S-{kind}"
        if name == "IOB2" and prefix == "I" and not (before[0] in "BI" and same):
            return i, f"has {tag!r} after {last}, so the entity has no beginning (IOB2)", f"write B-{kind}"
        if name == "IOB1" and prefix == "B" and not (before[0] in "BI" and same):
            return i, f"has {tag!r} after {last}, where IOB1 has I", f"write I-{kind}"
        before, last = (prefix, kind), repr(tag)
    return None


def to_iob2(tags: Sequence[str], name: str) -> list[str]:
    """Valid tags of a scheme as IOB2."""
    if name == WORDS:
        return list(tags)
    found, before = [], ("O", "")
    for tag in tags:
        prefix, kind = split(tag)
        begins = prefix in "B" + ALONE or (name == "IOB1" and (before[0] == "O" or before[1] != kind))
        found.append("O" if prefix == "O" else f"{'B' if begins else 'I'}-{kind}")
        before = prefix, kind
    return found


def names_of(kinds: Iterable[str]) -> list[str]:
    """The IOB2 tags of kinds of entity, in order."""
    return ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]


def is_whole(names: Sequence[str]) -> bool:
    """Whether these are the tags of IOB2, none missing: O, and a B for each I."""
    parts = [split(name) for name in names]
    kinds = {kind for prefix, kind in parts if prefix == "I"}
    return (
        "O" in names
        and all(name == "O" or name[:2] in ("B-", "I-") for name in names)
        and kinds <= {kind for prefix, kind in parts if prefix == "B"}
    )


class Tags:
    """The tags of a model, by index: the part each plays and its kind; index -1 is outside."""

    def __init__(self, names: Sequence[str]):
        chunks = is_whole(names)
        parts = [split(name) if chunks else ("O" if name == "O" else "B", name) for name in names]
        self.kinds = sorted({kind for prefix, kind in parts if prefix != "O"})
        self.parts = np.array(["OBI".index(prefix) for prefix, _ in parts] + [OUTSIDE])
        self.kind_ids = np.array([self.kinds.index(k) if p != "O" else -1 for p, k in parts] + [-1])

    def entities(self, tags: np.ndarray, firsts: np.ndarray, *, strict: bool) -> tuple[np.ndarray, ...]:
        """(starts, ends, kinds) of the entities; tags (words,) are indices, firsts (words,) say where a row begins."""
        parts, kinds = self.parts[tags], self.kind_ids[tags]
        goes_on = np.zeros(len(tags), dtype=bool)
        goes_on[1:] = (parts[1:] == INSIDE) & (kinds[1:] == kinds[:-1]) & ~firsts[1:]
        starts = np.flatnonzero(~goes_on)
        ends = np.append(starts[1:], len(tags))
        chosen = parts[starts] == BEGIN if strict else parts[starts] != OUTSIDE
        return starts[chosen], ends[chosen], kinds[starts[chosen]]


def scores(predictions: Sequence[np.ndarray], labels: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Strict precision, recall and F1 of entities, F1 in seqeval's default mode, accuracy by word, and each kind.

    A row of each is an array of indices of `names`, a word an entry; -1 is a word without a prediction. What cannot be
    divided is 0.
    """
    tags = Tags(names)
    sizes = np.array([len(row) for row in labels])
    firsts = np.zeros(int(sizes.sum()), dtype=bool)
    firsts[(np.cumsum(sizes) - sizes)[sizes > 0]] = True
    said, true = (np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64) for rows in (predictions, labels))
    strict, default = (_counts(tags, said, true, firsts, strict=mode) for mode in (True, False))
    precision, recall, f1 = _of(*(each.sum() for each in strict))
    return {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "f1_default": _of(*(each.sum() for each in default))[2],
        "accuracy": float((said == true).mean()) if len(true) else 0.0,
        "per_entity": {
            kind: dict(zip(("precision", "recall", "f1"), _of(*(each[i] for each in strict)), strict=True))
            | {"support": int(strict[2][i])}
            for i, kind in enumerate(tags.kinds)
        },
    }


def _counts(tags: Tags, said: np.ndarray, true: np.ndarray, firsts: np.ndarray, *, strict: bool) -> list[np.ndarray]:
    """Entities of each kind that are right, predicted, and there."""
    found = [
        set(zip(*map(np.ndarray.tolist, tags.entities(x, firsts, strict=strict)), strict=True)) for x in (said, true)
    ]
    groups = [found[0] & found[1], *found]
    return [np.bincount([kind for _, _, kind in group], minlength=len(tags.kinds)) for group in groups]


def _of(right: int, predicted: int, there: int) -> tuple[float, float, float]:
    precision, recall = right / max(predicted, 1), right / max(there, 1)
    return float(precision), float(recall), float(2 * right / max(predicted + there, 1))

"""Which split is which: the training one, the held-out one, or one carved; and the copies between them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading.source import Source, as_list, plural

ROWS = 10_000  # that are held as Python's strings at a time

HELD_OUT = ("eval", "validation", "val", "valid", "dev")  # names that mean: to be evaluated on while training
ALIKE = ({"train", "training"}, {"eval", "validation", "val", "valid", "dev"}, {"test", "testing"})


def named(name: str, splits: Iterable[str], key: str) -> str:
    """The split of that name, in any case or under a name that means the same, if that is one."""
    there = list(splits)
    if name in there:
        return name
    alike = next((group for group in ALIKE if name.lower() in group), {name.lower()})
    found = [split for split in there if split.lower() == name.lower()] or [
        split for split in there if split.lower() in alike
    ]
    if len(found) != 1:
        raise InputError(f"data.{key}: there is no split '{name}'.{hint(name, there)} There are {', '.join(there)}")
    announce(f"data.{key}: '{name}' is the split '{found[0]}'")
    return found[0]


def choose_splits(data: Any, sizes: dict[str, int]) -> tuple[str, str | None]:
    """(training split, held-out split or None) as the recipe says, or by their names, announced."""
    train = named(data.train, sizes, "train")
    if data.eval is not None:
        held_out = named(data.eval, sizes, "eval")
        if held_out == train:
            raise InputError(
                f"data.eval: '{data.eval}' is the training split, whose score says nothing of new rows; name another "
                "split, or none to hold some rows out. If it is meant: data.path: {train: FILE, eval: FILE}"
            )
        return train, held_out
    found = [split for split in sizes if split.lower() in HELD_OUT and split != train]
    if len(found) > 1:
        raise InputError(f"data.eval: which split is evaluated, {' or '.join(found)}? Name one")
    others = [split for split in sizes if split != train]
    if found:
        announce(f"eval: the split '{found[0]}' (by its name; set data.eval)")
    elif others:
        announce(f"eval: {', '.join(others)} not touched (data.eval: {others[0]} would use it)")
    return train, found[0] if found else None


def text_keys(source: Source, without: Collection[str]) -> np.ndarray:
    """A 64-bit hash of each row's columns but those `without`: equal ones are copies."""
    columns = [values for name, values in source.columns.items() if name not in without]
    keys = [np.empty(0, np.int64)]
    for start in range(0, len(source), ROWS):
        cells = [as_list(values[start : start + ROWS]) for values in columns]
        rows = cells[0] if len(cells) == 1 else zip(*cells, strict=True)
        keys.append(numbered([row if type(row) is str else repr(row) for row in rows]))
    return np.concatenate(keys)


def numbered(keys: Any) -> np.ndarray:
    """Keys of any kind as numbers; equal ones have the same."""
    return keys if isinstance(keys, np.ndarray) else np.fromiter(map(hash, keys), np.int64, len(keys))


def carve(keys: Any, names: list[str] | None, size: float, seed: int) -> np.ndarray:
    """Positions of the held-out rows, sorted: a share of each class, copies together, classes of one row left in train.

    `size` below 1 is a share of the rows, from 1 on a number of them.
    """
    leaders = first_copies(numbered(keys))
    groups = by_class(np.flatnonzero(leaders == np.arange(len(leaders))), names)
    single = sorted(str(name) for name, rows in groups.items() if len(rows) == 1)
    if names and single:
        some = ", ".join(single[:10]) + (" …" if len(single) > 10 else "")
        announce(f"eval: classes of a single row stay in train ({some})")
    usable = {name: rows for name, rows in sorted(groups.items(), key=lambda item: str(item[0])) if len(rows) > 1}
    total = sum(map(len, usable.values()))
    if not total:
        raise InputError("data.eval_size: too few rows to hold any out; give an eval split in data.path")
    count = max(1, round(total * size)) if size < 1 else int(size)
    if count > total - len(usable):
        raise InputError(f"data.eval_size: {size} leaves some class no row to train on; hold out less of {total:,}")
    generator, shares = np.random.default_rng(seed), quotas({name: len(rows) for name, rows in usable.items()}, count)
    taken = [generator.permutation(usable[name])[:quota] for name, quota in shares.items()]
    return np.flatnonzero(np.isin(leaders, np.concatenate(taken)))


def first_copies(keys: np.ndarray) -> np.ndarray:
    """For each row the first one with the same key."""
    order = np.argsort(keys, kind="stable")
    alike = keys[order]
    is_first = np.concatenate([[True], alike[1:] != alike[:-1]])
    del alike
    if is_first.all():
        return np.arange(len(keys))
    leaders = np.empty(len(keys), dtype=np.int64)
    leaders[order] = order[is_first][np.cumsum(is_first, dtype=np.int32) - 1]
    return leaders


def by_class(rows: np.ndarray, names: list[str] | None) -> dict[str | None, np.ndarray]:
    """Class name -> those of these rows that have it, in order; all under None where rows have no class."""
    if not names:
        return {None: rows}
    known: dict[str | None, int] = {}
    codes = coded(names, known)[rows]
    order = np.argsort(codes, kind="stable")
    parts = np.split(rows[order], np.searchsorted(codes[order], np.arange(1, len(known))))
    return {name: part for name, part in zip(known, parts, strict=True) if len(part)}


def coded(names: list, known: dict) -> np.ndarray:
    """A small number for each name; `known` is filled with them in the order of their first rows."""
    return np.fromiter((known.setdefault(name, len(known)) for name in names), np.int32, len(names))


def quotas(sizes: dict[Any, int], total: int) -> dict[Any, int]:
    """How many of each class, `total` in all, by largest remainder; never the whole class."""
    exact = {name: size * total / sum(sizes.values()) for name, size in sizes.items()}
    counts = {name: min(int(share), sizes[name] - 1) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (counts[name] - exact[name], str(name)))
    for name in by_rest[: max(0, total - sum(counts.values()))]:
        counts[name] = min(counts[name] + 1, sizes[name] - 1)
    return counts


def count_in(ordered: np.ndarray, keys: np.ndarray) -> int:
    """How many of these keys are among the ordered ones, of which there is at least one."""
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return int((ordered[places] == keys).sum())


def warn_of_one(sizes: Mapping[str, int]) -> None:
    """Say which splits are of a single row: no score of theirs tells anything."""
    for split, size in sizes.items():
        if size == 1:
            warn(f"{split}: only 1 row, so its score says nothing")


def warn_of_copies(splits: Mapping[str, tuple[Any, list[str] | None]], train: str) -> None:
    """Say how many rows of other splits are in train too, and how many equal inputs in train have different labels."""
    warn_of_one({split: len(found) for split, (found, _) in splits.items()})
    keys, names = numbered(splits[train][0]), splits[train][1]
    order = np.argsort(keys, kind="stable")
    alike = keys[order]
    for split, (others, _) in splits.items():
        copies = 0 if split == train else count_in(alike, numbered(others))
        if copies:
            share = f"{100 * copies / len(others):.1f} %"
            warn(f"{split}: {plural(copies, 'row')} ({share}) also in {train}, so its score is too good")
    starts = np.flatnonzero(np.concatenate([[True], alike[1:] != alike[:-1]]))  # of each group of copies
    if names is None or len(starts) == len(keys):
        return
    classes = coded(names, {})[order]
    torn = np.minimum.reduceat(classes, starts) != np.maximum.reduceat(classes, starts)
    if torn.any():
        rows = int(np.diff(starts, append=len(keys))[torn].sum())
        inputs = plural(int(torn.sum()), "input")
        warn(f"{train}: {plural(rows, 'row')} with equal inputs but different labels ({inputs})")

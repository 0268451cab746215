"""Which split is which: the training one, the held-out one, or one carved; and the copies between them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hfft.lookup import hint
from hfft.messages import InputError, announce, warn
from hfft.reading.source import Source, plural

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


def text_keys(source: Source) -> list:
    """A key for each row's inputs: equal keys are copies. Unhashable values have none."""
    names = [name for name in source.columns if name != "label"]
    values = [source.values(name) for name in names]
    keys = values[0] if len(values) == 1 else [repr(row) for row in zip(*values, strict=True)]
    return [key if isinstance(key, str | tuple | int | float | bytes | None) else repr(key) for key in keys]


def carve(keys: list, names: list[str] | None, size: float, seed: int) -> np.ndarray:
    """Positions of the held-out rows, sorted: a share of each class, copies together, classes of one row left in train.

    `size` below 1 is a share of the rows, from 1 on a number of them.
    """
    first: dict[Any, int] = {}
    leaders = np.array([first.setdefault(key, i) for i, key in enumerate(keys)])
    heads = np.flatnonzero(leaders == np.arange(len(keys)))
    groups: dict[str | None, list[int]] = {}
    for i in heads:
        groups.setdefault(names[i] if names else None, []).append(int(i))
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
    generator, taken = np.random.default_rng(seed), []
    for name, quota in quotas({name: len(rows) for name, rows in usable.items()}, count).items():
        taken += list(generator.permutation(usable[name])[:quota])
    return np.flatnonzero(np.isin(leaders, taken))


def quotas(sizes: dict[Any, int], total: int) -> dict[Any, int]:
    """How many of each class, `total` in all, by largest remainder; never the whole class."""
    exact = {name: size * total / sum(sizes.values()) for name, size in sizes.items()}
    counts = {name: min(int(share), sizes[name] - 1) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (counts[name] - exact[name], str(name)))
    for name in by_rest[: max(0, total - sum(counts.values()))]:
        counts[name] = min(counts[name] + 1, sizes[name] - 1)
    return counts


def warn_of_copies(splits: Mapping[str, tuple[list, list[str] | None]], train: str) -> None:
    """Say how many rows of other splits are in train too, and how many equal inputs in train have different labels."""
    keys, names = splits[train]
    known = set(keys)
    for split, (others, _) in splits.items():
        copies = 0 if split == train else sum(key in known for key in others)
        if copies:
            share = f"{100 * copies / len(others):.1f} %"
            warn(f"{split}: {plural(copies, 'row')} ({share}) also in {train}, so its score is too good")
    if names is None or len(known) == len(keys):
        return
    labels: dict[Any, set[str]] = {}
    for key, name in zip(keys, names, strict=True):
        labels.setdefault(key, set()).add(name)
    torn = {key for key, found in labels.items() if len(found) > 1}
    rows = Counter(key for key in keys if key in torn)
    if torn:
        count = plural(sum(rows.values()), "row")
        warn(f"{train}: {count} with equal inputs but different labels ({plural(len(torn), 'input')})")

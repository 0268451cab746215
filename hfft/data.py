"""The rows that a run trains and is judged on: splits, canonical columns, bad rows, the held-out split, filters.

`load_splits` for training and evaluation, `read_rows` for prediction. Nothing is dropped or changed in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from hfft import lookup, origin
from hfft.messages import InputError, announce
from hfft.reading import columns, fingerprint, holdout, inputs, memory, readers, truths
from hfft.reading.checks import Checked, check
from hfft.reading.columns import TEXTS
from hfft.reading.source import Source, from_malloc, is_text, plural

CHECKED = 20_000  # pictures that are decoded before training starts
CARVED = "eval"  # how the split is called that was held out of train
DEFAULTS: dict[str, Any] = {
    "path": None, "name": None, "revision": None, "load": {}, "columns": {}, "train": "train", "eval": None,
    "eval_size": 0.1, "split_column": None, "labels": None, "join": " ", "on_bad_row": "error", "filters": [],
}  # fmt: skip


def require_pinned(recipe) -> None:
    """Raises InputError for a model, or data, of the Hub without the commit, which others could exchange."""
    model, path = recipe.model, recipe.data and recipe.data.path
    remote = isinstance(path, str) and ("://" in path or readers.is_hub(path))
    loose = [("model", model.name, model.revision)] if model and origin.is_of_hub(model) else []
    loose += [("data", path, recipe.data.revision)] if remote else []
    lines = [
        f"{recipe.where(kind, 'revision')}: {place!r} is not pinned; write the 40 hex digits of its commit"
        for kind, place, revision in loose
        if not origin.is_commit(revision)
    ]
    if lines:
        raise InputError(*lines)


@dataclass
class Splits:
    """What the data became: canonical columns and "row" in every split."""

    train: Any  # datasets.Dataset
    eval: Any  # datasets.Dataset, or None
    others: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    dropped: list[dict] = field(default_factory=list)


@from_malloc()
def load_splits(
    data: Any,
    task: Any,
    *,
    seed: int,
    data_in_memory: Any = None,
    splits: Sequence[str] = (),
    check_limit: int | None = CHECKED,
) -> Splits:
    """Read, check and split the data of a recipe.

    `splits` are further ones to give in `others`, by name. Up to `check_limit` pictures are decoded (None: all).
    Raises InputError with a line for each bad row (at most 20), unless data.on_bad_row is "skip".
    """
    data = complete(data, task)
    sources = read_sources(data, task, data_in_memory)
    train, held_out = holdout.choose_splits(data, {name: len(source) for name, source in sources.items()})
    also = [holdout.named(name, sources, "splits") for name in splits if held_out is not None or name != CARVED]
    wanted = list(dict.fromkeys([train, *([held_out] if held_out else []), *also]))
    task.meet(sources[train], data)
    picked, kind = pick_columns(data, task, {name: sources[name] for name in wanted}, train), truths.of(task)
    chosen = {name: parts.split("\n") for name, parts in picked[train].origin.items()}
    read = {"columns": chosen, "rows_read": {name: len(source) for name, source in picked.items()}}
    checked, names, dropped = check(data, picked, check_limit, kind)
    del sources, picked  # what `carve` parts is then held once
    if held_out is None and data.eval_size:
        checked, held_out = carve(checked, train, data.eval_size, seed, kind), CARVED
    holdout.warn_of_copies({name: (part.keys, part.truth) for name, part in checked.items()}, train)
    rows = {name: to_dataset(part, kind, names) for name, part in checked.items()}
    prints = {name: dataset._fingerprint for name, dataset in rows.items()}
    rows[train], filtered = apply_filters(rows[train], data.filters)
    report = {
        **read,
        "trained": len(rows[train]),
        "dropped": len(dropped),
        "fingerprint": fingerprint.of_splits(rows, prints),
        "filters": filtered,
    }
    others = {name: rows[holdout.named(name, rows, "splits")] for name in splits}
    return Splits(rows[train], rows.get(held_out) if held_out else None, others, report, dropped)


def complete(data: Any, task: Any) -> Any:
    """The section with every attribute that this layer reads, also when there is none (data in memory)."""
    given = {key: getattr(data, key, default) for key, default in DEFAULTS.items()}
    return SimpleNamespace(**given, truth_options=task.truth_options)


def wants(task: Any, column: str) -> bool:
    """Whether the task has a canonical column."""
    return column in [name.rstrip("?") for name in task.columns]


def read_sources(data: Any, task: Any, data_in_memory: Any) -> dict[str, Source]:
    """Data in memory replace data.path."""
    if data_in_memory is None:
        sources = readers.read_splits(data, pictures=wants(task, "image"))
    else:
        sources = memory.read_memory(data_in_memory)
        if data.split_column:
            sources = readers.by_column(sources, data.split_column)
    announce("data: " + memory.count(sources))
    return sources


def pick_columns(data: Any, task: Any, sources: dict[str, Source], train: str) -> dict[str, Source]:
    """The canonical columns of every split, chosen by the training split."""
    chosen = columns.choose(data, task.columns, sources[train])
    return {name: columns.pick(source, chosen, name, train) for name, source in sources.items()}


def carve(
    checked: dict[str, Checked], train: str, share: float, seed: int, kind: ModuleType | None
) -> dict[str, Checked]:
    """Take the held-out split from the training rows."""
    part = checked[train]
    strata = None if kind is None else kind.strata(part.truth)
    chosen = holdout.carve(part.keys, strata, share, seed)
    by_class = ", a share of each class" if strata else ""
    announce(
        f"eval: {plural(len(chosen), 'row')} of {len(part.source):,} held out of '{train}'{by_class}, seed {seed} "
        "(no eval split; set data.eval or data.eval_size)"
    )
    rest, held_out = part.parted(chosen)
    return {**checked, train: rest, CARVED: held_out}


def to_dataset(part: Checked, kind: ModuleType | None, names: list[str] | None) -> Any:
    """Canonical columns and "row" as a datasets.Dataset, its fingerprint made of its content.

    `names` are the classes of `kind`, the rows' truth.
    """
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features, Image, Value

    arrays: dict[str, Any] = {}
    known: dict[str, Any] = {"row": Value("int64")}
    truth = {} if kind is None or part.truth is None else {kind.COLUMN: part.truth}
    for name, values in part.source.columns.items():
        if kind is not None and name in truth:
            arrays[name], known[name] = kind.column(part.truth, names)
        elif name == "image":
            arrays[name], known[name] = values, Image(decode=False)
        elif name in TEXTS:
            arrays[name], known[name] = strings(values), Value("string")
        else:
            arrays[name] = pa.array(values) if isinstance(values, list) else values
            known.update({name: part.source.features[name]} if name in part.source.features else {})
    arrays["row"] = pa.array(part.source.index, pa.int64())
    table = pa.table(arrays)
    features = Features({**Features.from_arrow_schema(table.schema.remove_metadata()), **known})
    print_of_rows = fingerprint.of_rows(part.source, truth, part.keys, names)
    return Dataset(table, info=DatasetInfo(features=features), fingerprint=print_of_rows)


def strings(values: Any) -> Any:
    """Texts as arrow strings, in blocks, for one block holds 2 GB at most."""
    import pyarrow as pa

    if is_text(values) and values.type == pa.string():
        return values
    blocks = [values[start : start + 10_000] for start in range(0, len(values), 10_000)]
    if is_text(values):  # of the large kind
        return pa.chunked_array([chunk for block in blocks for chunk in block.cast(pa.string()).chunks], pa.string())
    return pa.chunked_array([pa.array(block, pa.string()) for block in blocks], pa.string())


def apply_filters(rows: Any, filters: list) -> tuple[Any, dict[str, int]]:
    """The recipe's filters in order, on the training split; what each dropped is announced and counted."""
    dropped: dict[str, int] = {}
    for part in filters:
        before = len(rows)
        rows = lookup.call("filters", part, rows)
        dropped[part.name] = dropped.get(part.name, 0) + before - len(rows)
        if not len(rows):
            raise InputError(f"data.filters: {part.name} left no row to train on; loosen its options")
    return rows, dropped


def read_rows(
    given: Any,
    task: Any,
    data: Any = None,
    need_truth: bool = False,
    *,
    label_names: list[str] | None = None,
    trained: dict[str, list[str]] | None = None,
) -> Any:
    """Rows to predict -> canonical columns and "row"; every bad row stops, for each row wants an answer.

    A file, a folder, one picture, sys.stdin (JSON lines), a string, or a list, DataFrame or Dataset in memory.
    Without `need_truth` no truth is read. With it its names are `label_names` (one that is none of them stops, with
    its row), or those that occur. `trained` are the columns that the run was trained on
    (report["columns"]): an optional one is then either needed or not read.
    """
    data = complete(data, task)
    kind = truths.of(task)
    named = task.columns if need_truth or task.answered is None else task.answered
    wanted = [name for name in named if need_truth or name.rstrip("?") not in truths.columns()]
    if trained is not None:
        wanted = [name.rstrip("?") for name in wanted if not name.endswith("?") or name.rstrip("?") in trained]
        data.columns = data.columns | {name: parts for name, parts in trained.items() if parts != [name]}
    source = inputs.read_inputs(given, wanted, data, need_truth)
    data.columns = inputs.mapping(data.columns, wanted, source)
    source.hint += " Or call the input's column by that name."
    if not need_truth:
        inputs.without_labels(source, data.columns, trained)
    source = columns.pick(source, columns.choose(data, wanted, source), "input", "input")
    checked, names = inputs.check_inputs(data, source, kind, label_names)
    return to_dataset(checked, kind, names)

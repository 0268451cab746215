"""Extract: a task that trains nothing turns each row of the data into an embedding, in parquet files of so many rows.

A file is written aside and renamed when it is whole, and is made of its own rows alone, in batches of like length: so a
run that was ended goes on with the files that are missing, several processes share the files among them, and what is
left is the same. `recipe.train` is null; the run's folder is the task's `output`.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hfft import arguments, card, contract, faults, launch, levers, lock, models, report, room, seal, together
from hfft.checkpoint import ASIDE
from hfft.messages import InputError, MachineError, Stopped, announce, first_line, redacted, warn
from hfft.once import splits_of
from hfft.predict import Result, load
from hfft.recipe import DataSection

FOLDER = "features"
WAIT = timedelta(days=7)  # for a process that has more to do; one that is gone is noticed at once
QUIET = 30.0  # seconds without a word


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a split, which become one file."""

    rows: Any  # datasets.Dataset
    start: int
    stop: int
    path: Path


def extract(recipe, task, rows: Any, guard, *, resume: bool = False, overwrite: bool = False) -> Result:
    """Leave the embeddings of all rows in `task.output`; `rows` in memory replace `data.path`. Every process calls it.

    Raises Stopped after a signal, MachineError where files lie on several machines' own disks.
    """
    refuse(recipe)
    cpu, limit = not torch.accelerator.is_available(), arguments.DEFAULTS["ddp_timeout"]
    with launch.meeting(limit, cpu):
        state = PartialState(cpu=cpu, timeout=timedelta(seconds=limit))
    if state.num_processes > 1:
        torch.distributed.set_timeout(WAIT)
    folder = Path(task.output)
    with ExitStack() as until_the_end:
        together.from_main(lambda: until_the_end.enter_context(lock.held(folder, "task: output")))
        if together.from_main(lambda: begins(folder, resume=resume, overwrite=overwrite)):
            return load(folder, trust_code=True)
        levers.keep_memory(levers.allowed(None), state.device)
        splits = read(recipe, task, rows)
        net = fitted(recipe, task, splits).to(state.device).eval()
        tried(task, net, splits)
        plan = contract.of(recipe, None, splits, net)
        together.from_main(lambda: write_plan(folder, recipe, splits, plan, overwrite=overwrite))
        parts = parts_of(folder, splits, task.rows_per_file)
        started, guard.watching = time.time(), True
        computed = compute(task, net, parts[state.process_index :: state.num_processes], guard)
        if guard.agreed(state.device):
            raise Stopped("stopped between two files; resume with --resume")
        told = {"seconds": time.time() - started, "computed": sum(gather_object([computed]))}
        together.from_main(lambda: finish(recipe, task, net, splits, parts, told))
        return load(folder, trust_code=True)


def refuse(recipe) -> None:
    """Raises InputError for what a recipe asks of a run that trains nothing."""
    name = recipe.task.name
    if recipe.train is not None:
        raise InputError(f"{recipe.where('train')}: {name} trains nothing; write train: null")
    for kind in ("tuning", "objectives", "metrics", "export"):
        if getattr(recipe, kind):
            raise InputError(f"{recipe.where(kind)}: {name} trains nothing; delete the section")
    section = recipe.data or DataSection()
    if section.augment:
        raise InputError(f"{recipe.where('data', 'augment')}: {name} trains nothing; delete it")
    if section.load.get("streaming"):
        raise InputError("data.load.streaming: the rows' embeddings are written in files of known rows; delete it")
    if section.eval_size not in (0, DataSection().eval_size):
        raise InputError(f"data.eval_size: {name} holds no rows out, for nothing is trained; delete it")


def begins(folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether there is nothing to do. Raises InputError for a folder that holds something, unless asked to go on."""
    known = report.read(folder / report.LOCK)
    if launch.attempt() and known.get("launch") == launch.identity():
        resume, overwrite = True, False  # the launcher has started the processes again
    if resume and overwrite:
        raise InputError("command line: --resume goes on with the run that --overwrite would remove; write one of them")
    there = [path.name for path in folder.iterdir() if path.name != lock.NAME]
    if there and not (resume or overwrite):
        raise InputError(f"task: output: {str(folder)!r} is not empty; write --resume, --overwrite or another folder")
    if there and "plan" not in known:
        raise InputError(f"task: output: {str(folder)!r} holds something else than features; empty it yourself")
    if resume and (folder / "metrics.json").is_file():
        announce(f"nothing to do: these features are all there; --overwrite starts anew ({folder})")
        return True
    return False


def read(recipe, task, rows: Any = None):
    """The splits, none held out."""
    section = replace(recipe.data or DataSection(), eval_size=0)
    return splits_of(section, task, seed=0, data=rows, label_names=lambda: None)


def fitted(recipe, task, splits) -> Any:
    """The model, its task ready."""
    room.for_weights(recipe.model)
    task.setup(recipe.model, splits.train)
    net = task.load_model(recipe.model)
    if levers.bf16_pays(net, next(net.parameters()).device) and not getattr(task, "bf16", True):
        announce("fp32 arithmetic (the task's bf16: true is faster here, and rounds to 3 digits)")
    return net


def tried(task, net, splits) -> None:
    """The longest of the first rows through the model, and what the files need of the disk. Raises what stops a run."""
    rows = splits.train[:100]
    longest = max(range(len(rows["text"])), key=lambda i: len(rows["text"][i]))
    encoded = task.encode({name: cells[longest : longest + 1] for name, cells in rows.items()})
    try:
        sizes = [values.shape[1] for _, values in _answered(task, net.eval(), encoded)]
    except room.UNFIT as error:
        raise InputError(f"model {net.name_or_path!r} cannot take a text: {first_line(error)}") from error
    needed = 4 * sum(sizes) * sum(map(len, filter(None, (splits.train, splits.eval))))
    there = next(
        place for place in (Path(task.output).absolute(), *Path(task.output).absolute().parents) if place.exists()
    )
    free = shutil.disk_usage(there).free
    if needed > free:
        raise MachineError(
            f"task: output: the features need {room.size(needed)}, {room.size(free)} are free; name another disk"
        )


def write_plan(folder: Path, recipe, splits, plan: dict[str, Any], *, overwrite: bool) -> None:
    """recipe.yaml and run.lock.json with the plan; one that is there already must be the same. Orphans are removed."""
    plan = plan | {"task": {**plan["task"][recipe.task.name], "output": ""}}
    before = {} if overwrite else report.read(folder / report.LOCK).get("plan", {})
    changed = sorted(key for key in before.keys() | plan.keys() if before and before.get(key) != plan.get(key))
    if changed:
        raise InputError(
            f"task: output: {str(folder)!r} was begun with another {', '.join(changed)}; undo that, or --overwrite"
        )
    report.empty_folder(str(folder), overwrite=overwrite)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for path in (folder / FOLDER).glob(f"{ASIDE}*"):
        path.unlink()
    report.write_facts(folder, recipe, splits, {"plan": plan})


def parts_of(folder: Path, splits, size: int) -> list[Part]:
    """All files of the run, in order; named as `datasets` names those of a split."""
    found = []
    for name, rows in zip(splits.report["rows_read"], (splits.train, splits.eval), strict=False):
        starts = range(0, len(rows), size)
        for i, start in enumerate(starts):
            path = folder / FOLDER / f"{name}-{i:05d}-of-{len(starts):05d}.parquet"
            found.append(Part(rows, start, min(start + size, len(rows)), path))
    return found


def compute(task, net, parts: list[Part], guard) -> int:
    """Make the files that are not there yet; how many rows that were. Ends before the next batch after a signal."""
    left, rows, told = [part for part in parts if not part.path.exists()], 0, time.monotonic()
    if len(left) < len(parts):
        announce(f"features: {len(parts) - len(left)} of {len(parts)} files are there already")
    for done, part in enumerate(left):
        table = embedded(task, net, part, guard)
        if table is None:
            break
        write(table, part.path)
        rows += len(table)
        if time.monotonic() > told + QUIET:
            announce(f"features: {done + 1} of {len(left)} files")
            told = time.monotonic()
    return rows


def embedded(task, net, part: Part, guard) -> Any:
    """The part as an arrow table: row, the ids, the embeddings (float32); None where a signal has come."""
    import pyarrow as pa

    rows, cut = part.rows[part.start : part.stop], task.cut_off()
    encoded = task.encode(rows)
    order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
    columns: dict[str, np.ndarray] = {}
    for start in range(0, len(order), task.batch_size):
        places = order[start : start + task.batch_size]
        for name, values in _answered(task, net, {key: [cells[i] for i in places] for key, cells in encoded.items()}):
            columns.setdefault(name, np.empty((len(order), values.shape[1]), np.float32))[places] = values
        faults.point("eval")
        if guard.asked_at is not None:
            return None
    _check_finite(columns, rows["row"])
    beside = part.rows.with_format("arrow")[part.start : part.stop].select(["row", *task.carried])
    for name, values in columns.items():
        cells = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        beside = beside.append_column(name, cells)
    return beside.combine_chunks().replace_schema_metadata({"truncated": str(task.cut_off() - cut)})


def _answered(task, net, encoded: dict[str, list]) -> Iterator[tuple[str, np.ndarray]]:
    inputs = task.collate([dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)])
    with torch.inference_mode():
        found = task.forward(net, {name: value.to(net.device) for name, value in inputs.items()})
    return ((name, values.cpu().numpy()) for name, values in found.items())


def _check_finite(columns: dict[str, np.ndarray], rows: list[int]) -> None:
    for values in columns.values():
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            raise MachineError(
                f"row {rows[wrong[0]]}: its embedding is not finite; take the task's bf16 out, if it is on"
            )


def write(table, path: Path) -> None:
    """Whole or not at all."""
    import pyarrow.parquet as pq

    aside = path.with_name(f"{ASIDE}{path.name}")
    pq.write_table(table, aside)
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)


def finish(recipe, task, net, splits, parts: list[Part], told: dict[str, Any]) -> None:
    """The model beside its features, metrics.json and the manifest, once all files are there."""
    import pyarrow.parquet as pq

    folder = Path(task.output)
    missing = [part.path.name for part in parts if not part.path.exists()]
    if missing:
        raise MachineError(
            f"task: output: {len(missing)} of {len(parts)} files are not here ({missing[0]}): another machine wrote "
            "them on its own disk; name a folder that all machines see"
        )
    rows = sum(part.stop - part.start for part in parts)
    splits.report["truncated"] = sum(int(pq.read_schema(part.path).metadata[b"truncated"]) for part in parts)
    if splits.report["truncated"] > 0.05 * rows:
        share = splits.report["truncated"] / rows
        warn(f"{splits.report['truncated']:,} of {rows:,} texts ({share:.1%}) were cut at {task.limit} tokens")
    models.save(net, task.processor, folder)
    found = {"rows": rows, "files": len(parts), "columns": list(task.layers), **told}
    (folder / "README.md").write_text(redacted(card.of_features(folder, recipe, task, rows)), encoding="utf-8")
    report.write(folder / "metrics.json", {"features": found, "data": splits.report})
    seal.seal(folder)
    announce(f"features: {rows:,} rows in {len(parts)} files of {folder / FOLDER}, {told['seconds']:.1f} s")

"""The pre-flight: every mistake of recipe, data, model and machine that can be found without training, all of them.

What does not depend on each other is looked at one after the other, and its mistakes are collected: exports, output
folder, metrics, arguments, data, model. Then all together: two batches forward and backward, memory, disk.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hfft import arguments, extract, levers, lookup, metrics, room, sheet
from hfft.batches import longest_first, unparted
from hfft.data import CHECKED
from hfft.messages import HfftError, HubError, InputError, MachineError, announce, first_line
from hfft.models import is_out_of_memory
from hfft.pipeline import fitted, read, ready
from hfft.reading.source import MAX_LINES
from hfft.recipe import Recipe

MORE = re.compile(r"… and ([\d,]+) more")
TOGETHER = "model and data together, a forward and backward pass, memory, disk"


@dataclass
class Findings:
    """The errors of what was looked at, in order, and what could be told."""

    recipe: Recipe
    errors: list[HfftError] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    writable: bool = True  # the output folder

    def of(self, look: Callable, *args, **options) -> Any:
        """What `look` gives; None where it ends with an error, which is kept."""
        try:
            return look(*args, **options)
        except HfftError as error:
            error.lines = [self.recipe.located(line) for line in error.lines]
            self.errors.append(error)
        except (OSError, MemoryError) as error:
            self.errors.append(MachineError(f"{type(error).__name__}: {error}"))
        return None

    def passes(self, look: Callable, *args) -> bool:
        """Whether it found nothing wrong."""
        before = len(self.errors)
        self.of(look, *args)
        return len(self.errors) == before

    def problems(self) -> list[dict[str, Any]]:
        """{"code", "message"} of each, at most 20 and how many more there are."""
        lines = [(error.exit_code, line) for error in self.errors for line in error.lines]
        known = [found for _, line in lines if (found := MORE.fullmatch(line))]
        lines = [(code, line) for code, line in lines if not MORE.fullmatch(line)]
        more = sum(int(found[1].replace(",", "")) for found in known) + max(0, len(lines) - MAX_LINES)
        shown = [{"code": code, "message": line} for code, line in lines[:MAX_LINES]]
        return [*shown, {"code": lines[0][0], "message": f"… and {more:,} more"}] if more else shown


def check(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    data: Any = None,
    *,
    show: str | Path | None = None,
    full: bool = False,
) -> dict[str, Any]:
    """What a run would see: rows, trainable parameters, the loss at the start, memory and disk. Raises HfftError.

    `recipe` and `data` as `finetune` takes them. In the folder `show` it leaves what the model will see in training.
    `full` decodes all pictures of a set of more than 20,000. The error has a line for each mistake, and in `answer`
    what was found all the same; its kind is the first mistake's.
    """
    recipe = Recipe.of(recipe)
    if show is not None:
        sheet.claim(show)
    recipe.require("model", *([] if data is not None else ["data"]))
    found = Findings(recipe)
    kind: Any = lookup.find("tasks", recipe.task.name)
    if not kind.trains:
        return _extraction(found, data, show)
    with tempfile.TemporaryDirectory() as folder:
        trainer, splits = _apart(found, recipe, data, folder, full)
        if trainer is not None:
            _together(found, recipe, trainer)
        if splits is not None:
            found.told["data"] = splits.report
        if trainer is not None and show is not None and not found.errors:
            found.told["shown"] = str(sheet.write(trainer, splits.train, show))
    answer = {"problems": found.problems(), **found.told}
    if found.errors:
        error = type(found.errors[0])(*[problem["message"] for problem in answer["problems"]])
        error.answer = answer
        raise error from found.errors[0]
    size = "a stream" if "streamed" in splits.report else f"{len(splits.train):,} rows"
    start = f"loss {answer['loss']:.4f} at the start"
    announce(f"check: {size} to train on, {len(splits.eval):,} rows to evaluate, {start}")
    return answer


def _apart(found: Findings, recipe: Recipe, data: Any, folder: str, full: bool) -> tuple[Any, Any]:
    """(Trainer, splits), each None where something before it was wrong."""
    task = found.of(lookup.call, "tasks", recipe.task)
    found.of(ready, recipe)
    if "output_dir" in (recipe.train or {}):
        found.writable = found.passes(room.writable, (recipe.train or {})["output_dir"])
    found.of(metrics.load_named, recipe.metrics)
    if task is None:
        _not_checked(found, f"data, model, {TOGETHER}")
        return None, None
    args = found.of(arguments.training_arguments, recipe, task)
    seed = 42 if args is None else args.seed
    before = len(found.errors)
    splits = found.of(read, recipe, task, seed, data, check_limit=None if full else CHECKED)
    if splits is None or args is None:
        _model_alone(found, recipe, before, splits is None)
        _not_checked(found, TOGETHER)
        return None, splits
    levers.keep_memory(levers.allowed(recipe.train), args.device)  # so a pass takes what it will take
    place, args.output_dir = args.output_dir, folder  # which transformers would make
    trainer = found.of(fitted, recipe, task, args, splits)
    args.output_dir = place
    if trainer is None:
        _not_checked(found, "a forward and backward pass, memory, disk")
    return trainer, splits


def _extraction(found: Findings, data: Any, show: str | Path | None) -> dict[str, Any]:
    """What a run that trains nothing would see: its rows, and the longest of the first through the model."""
    recipe = found.recipe
    if show is not None:
        raise InputError(f"--show: shows training rows, and {recipe.task.name} trains nothing; leave it out")
    found.of(extract.refuse, recipe)
    task = found.of(lookup.call, "tasks", recipe.task)
    before, splits = len(found.errors), None if task is None else found.of(extract.read, recipe, task, data)
    if task is not None and splits is None:
        _model_alone(found, recipe, before, True)
    elif task is not None:
        found.of(room.writable, task.output, "task: output")
        net = found.of(extract.fitted, recipe, task, splits)
        if net is not None:
            found.of(extract.tried, task, net, splits)
    answer = {"problems": found.problems()} | ({} if splits is None else {"data": splits.report})
    if found.errors:
        error = type(found.errors[0])(*[problem["message"] for problem in answer["problems"]])
        error.answer = answer
        raise error from found.errors[0]
    assert splits is not None
    rows = len(splits.train) + (0 if splits.eval is None else len(splits.eval))
    announce(f"check: {rows:,} rows to embed in {', '.join(task.layers)}")
    return answer


def _not_checked(found: Findings, what: str) -> None:
    found.told["not_checked"] = what
    announce(f"check: because of what is wrong, not looked at: {what}")


def _model_alone(found: Findings, recipe: Recipe, before: int, without_data: bool) -> None:
    """What the model can tell without data. Its mistakes stand before what the Hub could not give of the data."""
    late = found.errors[before:] if without_data else []
    from_hub = bool(late) and isinstance(late[0], HubError)
    name = None if recipe.model is None else recipe.model.name
    if from_hub and name is not None and not Path(name).exists():  # it would not give that either
        if "model.name" not in str(late[0]):
            line = f"{late[0]}. Not looked for then: model.name {name!r}, no folder here either"
            found.errors[before:] = [HubError(line)]
        return
    if from_hub:
        del found.errors[before:]
    task = lookup.call("tasks", recipe.task)
    if found.passes(task.setup, recipe.model):
        found.of(task.load_model, recipe.model)
    if from_hub:
        found.errors += late


def _together(found: Findings, recipe: Recipe, trainer) -> None:
    """Two batches, and what they show."""
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    passed = found.of(room.taken_by, lambda: _passes(trainer), trainer.args.device)
    disk = room.disk(recipe, trainer)
    memory = room.memory(trainer, passed[1] if passed else 0)
    found.told |= {"trainable_parameters": trainable, "memory": memory, "disk": disk}
    if passed:
        found.told["loss"] = passed[0]
    found.of(room.refuse, memory, room.MEMORY)
    if found.writable:
        found.of(room.refuse, disk, room.DISK)
    room.tell(disk, memory)


def _passes(trainer) -> float:
    """The loss of two batches, one of them of the longest rows, forward and backward; then one is evaluated."""
    try:
        if not trainer._sharded():
            trainer.create_optimizer_and_scheduler(num_training_steps=100)  # which may lack a library or an option
        loss = _forward_and_backward(trainer)
        if trainer.eval_dataset is not None:
            with torch.no_grad():
                trainer._kept(trainer.model.eval(), next(iter(trainer.get_eval_dataloader())))
    except HfftError:
        raise
    except ImportError as error:
        raise MachineError(f"training lacks a library: {first_line(error)}") from error
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        if is_out_of_memory(error):
            raise MachineError(f"a training step does not fit into memory: {first_line(error)}") from error
        raise InputError(f"a training step fails: {first_line(error)}; --debug shows where") from error
    if not torch.isfinite(torch.tensor(loss)):
        raise MachineError(f"the loss of the first rows is {loss}; look at them, and at `objectives`")
    return loss


def _forward_and_backward(trainer) -> float:
    model = trainer.model.train()
    batches, items = trainer.get_batch_samples(iter(_two(trainer)), 2, trainer.args.device)
    total = 0.0
    for part in [part for batch in batches for part in unparted(batch)]:
        loss = trainer.compute_loss(model, trainer._prepare_inputs(part), num_items_in_batch=items)
        loss.backward()
        total += loss.item()
    if not any(p.grad is not None for p in model.parameters()):
        raise InputError("no parameter receives a gradient; look at `tuning`")
    model.zero_grad()
    return total


def _two(trainer) -> list[dict[str, Any]]:
    """The first batch and, where lengths are known, one of the longest rows; else the second."""
    loader, rows = trainer.get_train_dataloader(), trainer.train_dataset
    if rows.lengths() is None:
        return list(islice(loader, 2))
    longest = longest_first(rows)[: trainer.args.train_batch_size].tolist()
    long = rows.__getitems__([(0, place, False) for place in longest])
    return [*islice(loader, 1), trainer._collate(long)]

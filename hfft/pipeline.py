"""THE PIPELINE, top to bottom: recipe -> Result."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from hfft import (
    arguments,
    batches,
    configs,
    contract,
    draws,
    features,
    heartbeat,
    levers,
    lock,
    lookup,
    metrics,
    models,
    report,
    room,
    seal,
    together,
    workers,
)
from hfft.evaluation import evaluate
from hfft.extract import extract
from hfft.guard import Guard
from hfft.messages import HfftError, InputError, announce, first_line, is_main_process
from hfft.once import splits_of
from hfft.predict import Result, load
from hfft.recipe import DataSection, Recipe
from hfft.trainer import Trainer
from hfft.tuning.base import trainable_table

UNREAD = [r"checkpoint-\d+", r"\.(tmp|trash)-.*", r"\.lock", "exports"]  # below a run's folder, by whom reads its model


def finetune(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    data: Any = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: Sequence[str] = (),
) -> Result:
    """Fine-tune as the recipe (or its file) says and leave the run in `train.output_dir`.

    `data` in memory replaces `data.path`: a Dataset, a DataFrame, a list of dicts, or {split: one of these}.
    `allow_change`: keys such as "train.learning_rate" that may differ from the run that is resumed.
    """
    with Guard() as guard, ExitStack() as until_the_end:
        recipe, task = begun(recipe, data)
        if not task.trains:
            return extract(recipe, task, data, guard, resume=resume, overwrite=overwrite)
        args = arguments.training_arguments(recipe, task)
        levers.keep_memory(levers.allowed(recipe.train), args.device)
        until_the_end.enter_context(heartbeat.beating(args.ddp_timeout, lambda: guard.step))
        together.from_main(lambda: until_the_end.enter_context(lock.held(args.output_dir)))
        until_the_end.enter_context(workers.named())
        start = together.from_main(lambda: report.start(args, recipe, resume=resume, overwrite=overwrite))
        if start.finished:
            return export(load(together.readable(args.output_dir, without=UNREAD), trust_code=True), recipe, guard)
        recipe = report.pinned(recipe, start)
        together.from_main(lambda: ready(recipe))
        checkpoint = start.checkpoint and str(together.readable(start.checkpoint))
        trainer, splits = prepare(recipe, task, args, data)
        until_the_end.enter_context(room.watched(trainer))
        trainer.contract = contract.of(recipe, args, splits, trainer.model)
        if checkpoint:
            trainer.changed = contract.kept(Path(checkpoint), trainer.contract, allow_change)
        if levers.allowed(recipe.train).features:
            features.once(trainer)
        guard.watch(trainer)
        report.write_lock(recipe, splits, args, overwrite=start.overwrite)
        trainer.train(resume_from_checkpoint=checkpoint)
        guard.check(trainer)
        return finish(recipe, trainer, splits, guard)


def begun(recipe: Recipe | Mapping[str, Any] | str | Path, data: Any) -> tuple[Recipe, Any]:
    """The recipe, whole as far as it is needed, and its task."""
    recipe = Recipe.of(recipe)
    recipe.require("model", *([] if data is not None else ["data"]))
    return recipe, lookup.call("tasks", recipe.task)


def finish(recipe: Recipe, trainer, splits, guard) -> Result:
    """Save what was trained, read it back, measure and export that; a signal ends it between two of these."""
    folder = Path(trainer.args.output_dir)
    trainer.task.finished(trainer.net())
    models.save_final(trainer.net(), trainer.task.processor, folder, weights=trainer.gathered())
    if is_main_process():
        trainer.task.save(folder)
    guard.check(trainer)
    # its code was trusted when the recipe was read
    result = load(together.readable(folder, without=UNREAD), trust_code=True)
    found = evaluate(result, splits.eval, trust_code=True, watched_by=guard)
    guard.check(trainer)
    result.folder = folder
    result.metrics = report.write_metrics(result, found, splits, trainer)
    return export(result, recipe, guard)


def export(result: Result, recipe: Recipe, guard) -> Result:
    """What the recipe asks for and has not been exported yet."""
    for part in recipe.export if is_main_process() else []:
        if not report.exported(result.folder, part):
            seal.of_export(lookup.call("export", part, result, Path(result.folder) / "exports" / part.name))
            report.note_export(result.folder, part)
        guard.check_alone()
    return result


def ready(recipe: Recipe) -> None:
    """Let each export say now what would stop it after the training: `ready(recipe, **options)` beside it."""
    for part in recipe.export:
        if check := lookup.beside("export", part.name, "ready"):
            check(recipe, **part.options)


def prepare(recipe: Recipe, task, args, data=None):
    """(Trainer ready to train, splits): all that can go wrong before the first step."""
    metrics.load_named(recipe.metrics)  # a misspelt one should not be found out after training
    splits = read(recipe, task, args.seed, data)
    trainer = fitted(recipe, task, args, splits)
    together.from_main(lambda: room.enough(recipe, trainer))
    return trainer, splits


def read(recipe: Recipe, task, seed: int, data=None, **limit: Any):
    """The splits; `limit` is `check_limit`, the number of pictures that are decoded."""
    set_seed(seed)
    known = partial(configs.known_labels, recipe.model)
    return splits_of(recipe.data or DataSection(), task, seed=seed, data=data, label_names=known, **limit)


def fitted(recipe: Recipe, task, args, splits) -> Trainer:
    """Model, rows and loss together."""
    section = recipe.data or DataSection()
    room.for_weights(recipe.model)
    allowed = levers.allowed(recipe.train)
    task.uint8 = allowed.uint8
    task.setup(recipe.model, splits.train)
    arguments.settle(args, recipe, task)
    model, loss = task.load_model(recipe.model), task.loss
    before = dict(model.state_dict())
    for part in recipe.tuning:
        model = lookup.call("tuning", part, model, task=task, train=splits.train)
    models.remember_base(model, before)
    models.check_tuned(model, args)
    levers.arrange(model, args, allowed, recipe.train)
    for part in recipe.objectives:
        loss = lookup.call("objectives", part, loss, task=task, train=splits.train)
    augment = [partial(lookup.find("augment", part.name), **part.options) for part in section.augment]
    augment = [task.opened, *augment] if augment and allowed.uint8 else augment
    train = draws.encoded(splits.train, task, split="train", seed=args.seed, augment=augment, cache=allowed.cache)
    splits.report["truncated"] = task.data_report("train").get("truncated", 0)
    held_out = batches.encoded(splits.eval, task, split="eval", seed=args.seed, cache=allowed.cache)
    task.data_report("eval")
    announce(trainable_table(model))
    stopping = arguments.early_stopping(recipe)
    try:
        trainer = Trainer(model, args, task=task, loss=loss, train=train, eval=held_out, early_stopping=stopping)
        levers.in_parts(trainer, allowed)
        return trainer
    except HfftError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the machine's
            raise
        what = f"transformers or accelerate refuses a value of it ({type(error).__name__}: {first_line(error)})"
        raise InputError(f"{recipe.where('train')}: {what}; --debug shows which") from error

"""THE PIPELINE, top to bottom: recipe -> Result."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from hfft import arguments, batches, draws, features, levers, lookup, metrics, models, report, together
from hfft.evaluation import evaluate
from hfft.guard import Guard
from hfft.messages import announce, is_main_process
from hfft.once import splits_of
from hfft.predict import Result, load
from hfft.recipe import DataSection, Recipe
from hfft.trainer import Trainer
from hfft.tuning.base import trainable_table

UNREAD = [r"checkpoint-\d+", r"\.tmp-.*", "exports"]  # below a run's folder, by whom reads its model


def finetune(
    recipe: Recipe | Mapping[str, Any] | str | Path, data: Any = None, *, resume: bool = False, overwrite: bool = False
) -> Result:
    """Fine-tune as the recipe (or its file) says and leave the run in `train.output_dir`.

    `data` in memory replaces `data.path`: a Dataset, a DataFrame, a list of dicts, or {split: one of these}.
    """
    with Guard() as guard:
        recipe = Recipe.of(recipe)
        recipe.require("model", *([] if data is not None else ["data"]))
        task = lookup.call("tasks", recipe.task)
        args = arguments.training_arguments(recipe, task)
        levers.keep_memory(levers.allowed(recipe.train), args.device)
        start = together.from_main(lambda: report.start(args, resume=resume, overwrite=overwrite))
        if start.finished:
            return load(together.readable(args.output_dir, without=UNREAD), trust_code=True)
        together.from_main(lambda: ready(recipe))
        checkpoint = start.checkpoint and str(together.readable(start.checkpoint))
        trainer, splits = prepare(recipe, task, args, data)
        if levers.allowed(recipe.train).features:
            features.once(trainer)
        guard.watch(trainer)
        report.empty_folder(args.output_dir, overwrite=overwrite)
        report.write_lock(recipe, splits, args, trainer.model)
        trainer.train(resume_from_checkpoint=checkpoint)
        guard.check(trainer)
        return finish(recipe, trainer, splits, guard)


def finish(recipe: Recipe, trainer, splits, guard) -> Result:
    """Save what was trained, read it back, measure and export that; a signal ends it between two of these."""
    folder = Path(trainer.args.output_dir)
    models.save_final(trainer.net(), trainer.task.processor, folder, weights=trainer.gathered())
    guard.check(trainer)
    # its code was trusted when the recipe was read
    result = load(together.readable(folder, without=UNREAD), trust_code=True)
    found = evaluate(result, splits.eval, trust_code=True, watched_by=guard)
    guard.check(trainer)
    result.folder = folder
    result.metrics = report.write_metrics(result, found, splits, trainer)
    for part in recipe.export if is_main_process() else []:
        lookup.call("export", part, result, folder / "exports" / part.name)
        guard.check_alone()
    return result


def ready(recipe: Recipe) -> None:
    """Let each export say now what would stop it after the training: `ready(recipe, **options)` beside it."""
    for part in recipe.export:
        if check := lookup.beside("export", part.name, "ready"):
            check(recipe, **part.options)


def prepare(recipe: Recipe, task, args, data=None):
    """(Trainer ready to train, splits): all that can go wrong before the first step."""
    set_seed(args.seed)
    metrics.load_named(recipe.metrics)  # a misspelt one should not be found out after training
    section = recipe.data or DataSection()
    known = partial(models.known_labels, recipe.model)
    splits = splits_of(section, task, seed=args.seed, data=data, label_names=known)
    allowed = levers.allowed(recipe.train)
    task.uint8 = allowed.uint8
    task.setup(recipe.model, splits.train)
    model, loss = task.load_model(recipe.model), task.loss
    before = dict(model.state_dict())
    for part in recipe.tuning:
        model = lookup.call("tuning", part, model, task=task, train=splits.train)
    models.remember_base(model, before)
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
    return Trainer(model, args, task=task, loss=loss, train=train, eval=held_out, early_stopping=stopping), splits

"""THE PIPELINE, top to bottom: recipe -> Result."""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from hfft import arguments, batches, levers, lookup, metrics, models, report
from hfft.data import load_splits
from hfft.evaluation import evaluate
from hfft.messages import announce
from hfft.predict import Result, load
from hfft.recipe import DataSection, Recipe
from hfft.trainer import Trainer
from hfft.tuning.base import trainable_table


def finetune(recipe: Recipe | dict[str, Any], data=None, *, resume: bool = False, overwrite: bool = False) -> Result:
    """Fine-tune as the recipe says and leave the run in `train.output_dir`; `data` in memory replaces `data.path`."""
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
    recipe.require("model", *([] if data is not None else ["data"]))
    task = lookup.call("tasks", recipe.task)
    args = arguments.training_arguments(recipe, task)
    levers.keep_memory(levers.allowed(recipe.train), args.device)
    report.claim_folder(args.output_dir, resume=resume, overwrite=overwrite)
    checkpoint = report.resume_point(args.output_dir, resume=resume)
    trainer, splits = prepare(recipe, task, args, data)
    report.empty_folder(args.output_dir, overwrite=overwrite)
    report.write_lock(recipe, splits, args, trainer.model)
    trainer.train(resume_from_checkpoint=checkpoint)
    models.save_final(trainer.model, task.processor, args.output_dir)
    trainer.accelerator.wait_for_everyone()
    result = load(args.output_dir, trust_code=True)  # its code was trusted when the recipe was read
    result.metrics = report.write_metrics(result, evaluate(result, splits.eval, trust_code=True), splits, trainer)
    for part in recipe.export:
        lookup.call("export", part, result, Path(args.output_dir) / "exports" / part.name)
    return result


def prepare(recipe: Recipe, task, args, data=None):
    """(Trainer ready to train, splits): all that can go wrong before the first step."""
    set_seed(args.seed)
    metrics.load_named(recipe.metrics)  # a misspelt one should not be found out after training
    section = recipe.data or DataSection()
    splits = load_splits(section, task, seed=args.seed, data_in_memory=data)
    task.setup(recipe.model, splits.train)
    model, loss = task.load_model(recipe.model), task.loss
    before = dict(model.state_dict())
    for part in recipe.tuning:
        model = lookup.call("tuning", part, model, task=task, train=splits.train)
    models.remember_base(model, before)
    levers.arrange(model, args, levers.allowed(recipe.train), recipe.train)
    for part in recipe.objectives:
        loss = lookup.call("objectives", part, loss, task=task, train=splits.train)
    augment = [partial(lookup.find("augment", part.name), **part.options) for part in section.augment]
    train = batches.encoded(splits.train, task, split="train", seed=args.seed, augment=augment)
    splits.report["truncated"] = task.data_report("train").get("truncated", 0)
    held_out = batches.encoded(splits.eval, task, split="eval", seed=args.seed)
    task.data_report("eval")
    announce(trainable_table(model))
    stopping = arguments.early_stopping(recipe)
    return Trainer(model, args, task=task, loss=loss, train=train, eval=held_out, early_stopping=stopping), splits

"""The pre-flight: recipe, data and model together, up to one forward and backward pass, without training."""

import tempfile
from typing import Any

from hfft import arguments, lookup
from hfft.messages import MachineError, announce
from hfft.pipeline import prepare
from hfft.recipe import Recipe


def check(recipe: Recipe | dict[str, Any], data=None) -> dict[str, Any]:
    """What a run would see: rows, classes, trainable parameters. Raises InputError for the first mistake."""
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
    task = lookup.call("tasks", recipe.task)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments.training_arguments(recipe, task)
        args.output_dir = folder
        trainer, splits = prepare(recipe, task, args, data)
        loss = _one_pass(trainer)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    announce(
        f"check: {len(splits.train):,} rows to train on, {len(splits.eval):,} to evaluate, loss {loss:.4f} at the start"
    )
    return {"data": splits.report, "trainable_parameters": trainable, "loss": loss, "problems": []}


def _one_pass(trainer) -> float:
    model = trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=trainer.task.items(batch))
    loss.backward()
    if not any(p.grad is not None for p in model.parameters()):
        raise MachineError("no parameter receives a gradient; look at `tuning`")
    model.zero_grad()
    return loss.item()

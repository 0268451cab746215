"""The pre-flight: recipe, data and model together, up to one forward and backward pass, without training."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfft import arguments, lookup, sheet
from hfft.messages import HubError, MachineError, announce
from hfft.pipeline import prepare, ready
from hfft.recipe import Recipe


def check(
    recipe: Recipe | Mapping[str, Any] | str | Path, data: Any = None, *, show: str | Path | None = None
) -> dict[str, Any]:
    """What a run would see: rows, trainable parameters, the loss at the start. Raises InputError for the first mistake.

    `recipe` and `data` as `finetune` takes them. In the folder `show` it leaves what the model will see in training.
    """
    recipe = Recipe.of(recipe)
    if show is not None:
        sheet.claim(show)
    recipe.require("model", *([] if data is not None else ["data"]))
    task = lookup.call("tasks", recipe.task)
    ready(recipe)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments.training_arguments(recipe, task)
        args.output_dir = folder
        try:
            trainer, splits = prepare(recipe, task, args, data)
        except HubError as error:
            raise _with_model(error, task, recipe.model) from error
        loss = _one_pass(trainer)
        shown = {} if show is None else {"shown": str(sheet.write(trainer, splits.train, show))}
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    size = "a stream" if "streamed" in splits.report else f"{len(splits.train):,} rows"
    announce(f"check: {size} to train on, {len(splits.eval):,} rows to evaluate, loss {loss:.4f} at the start")
    return {"data": splits.report, "trainable_parameters": trainable, "loss": loss, "problems": [], **shown}


def _with_model(error: HubError, task, model) -> HubError:
    """The Hub's absence, after what a model on this disk can tell without data; one that is elsewhere is named too."""
    if model.name is None or Path(model.name).exists():
        task.setup(model)
        task.load_model(model)
    elif "model.name" not in str(error):
        return HubError(f"{error}. Not looked for then: model.name {model.name!r}, no folder here either")
    return error


def _one_pass(trainer) -> float:
    model = trainer.model.train()
    (batch,), items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    loss = trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=items)
    loss.backward()
    if not any(p.grad is not None for p in model.parameters()):
        raise MachineError("no parameter receives a gradient; look at `tuning`")
    model.zero_grad()
    return loss.item()

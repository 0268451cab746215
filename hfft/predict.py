"""A finished run, read back from its folder: plain weights, the saved preprocessing, answers for new rows."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from hfft import adapters, data, lookup, models, origin
from hfft.messages import CheckpointError, InputError
from hfft.reading.inputs import is_empty
from hfft.recipe import ModelSection, Part, Recipe
from hfft.tasks.base import Task

NO_ADAPTER = {"subfolder": "no-adapter"}  # keeps from_pretrained from injecting the adapter that lies beside the base


@dataclass
class Result:
    """A fine-tuned model with its task: `.metrics`, `.model`, `.predict(rows)`, `.folder`."""

    model: Any = field(repr=False)
    task: Task = field(repr=False)
    recipe: Recipe
    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, list[str]] | None:
        """What the columns that it was trained on were called, by canonical name (None: not recorded)."""
        return self.metrics.get("data", {}).get("columns")

    def predict(self, rows: Any, *, batch_size: int = 32, top_k: int | None = None) -> list[dict[str, Any]]:
        """One answer a row, each with `row`, its place in the input, in the fields of transformers' pipelines.

        `rows`: a text or a picture (PIL, path, bytes, array, tensor), a list of them, pairs of texts as tuples, dicts,
        a dict of columns, a DataFrame, a Dataset, a file or folder (of texts as a Path: a string is a text).
        """
        if batch_size < 1:
            raise InputError(f"predict: batch_size {batch_size}; write 1 or more")
        if is_empty(rows):
            return []
        rows = data.read_rows(rows, self.task, self.recipe.data, trained=self.columns)
        self.model.eval()
        answers: list[dict[str, Any]] = []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            encoded = self.task.encode(batch | {"row": list(range(len(batch["row"])))})
            inputs = self.task.collate(
                [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
            )
            found = self.task.decode(self._outputs(inputs), batch, inputs)
            places = [{"row": row, **_path(batch, i)} for i, row in enumerate(batch["row"])]
            answers.extend(place | answer for place, answer in zip(places, found, strict=True))
        return [_top(answer, top_k) for answer in answers]

    def _outputs(self, inputs: dict[str, Any]) -> Any:
        placed = {k: value.to(self.model.device) if torch.is_tensor(value) else value for k, value in inputs.items()}
        with torch.inference_mode():
            return self.task.forward(self.model, self.task.prepare(placed))


def _path(batch: dict[str, list], i: int) -> dict[str, str]:
    """The file a picture came from, where it is a file: the order of a folder is not for people to count."""
    picture = batch["image"][i] if "image" in batch else None
    if isinstance(picture, dict) and picture.get("bytes") is None and picture.get("path"):
        return {"path": picture["path"]}
    return {}


def _top(answer: dict[str, Any], k: int | None) -> dict[str, Any]:
    if k is None or "scores" not in answer:
        return answer
    best = sorted(answer["scores"].items(), key=lambda item: item[1], reverse=True)[:k]
    return answer | {"scores": dict(best)}


def load(folder: str | Path, *, trust_code: bool = False) -> Result:
    """The run that `hfft train` left in `folder`. Raises CheckpointError when it is none.

    Of a run's own code only a task's and a model's are run here, and only with `trust_code`.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(
            f"{folder}: no recipe.yaml here, so it is no finished run; name the train.output_dir of one"
        )
    base = folder / models.BASE if (folder / models.BASE).is_dir() else folder
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise CheckpointError(f"{folder}: a run that did not finish, without a model; train it again")
    recipe = Recipe.read(folder / "recipe.yaml", trust_code=True)
    if recipe.task.name.endswith(".py") and not trust_code:
        raise InputError(f"{folder}: the run's task is Python code ({recipe.task.name}); give --trust-code to run it")
    remote_code = recipe.model is not None and recipe.model.trust_remote_code
    if remote_code and not trust_code:
        raise InputError(f"{folder}: the run's model is Python code of its repository; give --trust-code to run it")
    if folder != base:
        origin.folder(ModelSection(name=str(folder)), weights=True)
    section = ModelSection(name=str(base), trust_remote_code=remote_code, trusted=trust_code)
    task = lookup.call("tasks", Part(recipe.task.name, recipe.task.options))
    task.setup(section)
    metrics = json.loads(path.read_text()) if (path := folder / "metrics.json").is_file() else {}
    if metrics.get("tuned"):
        task.tuned = metrics["tuned"]
    return Result(
        model=_load_model(folder, section, task).to(
            torch.accelerator.current_accelerator(check_available=True) or "cpu"
        ),
        task=task,
        recipe=recipe,
        folder=folder,
        metrics=metrics,
    )


def _load_model(folder: Path, section: ModelSection, task):
    auto_class = getattr(transformers, task.auto_model)
    place = origin.folder(section, weights=True)
    try:
        base = auto_class.from_pretrained(
            place,
            dtype=torch.float32,
            trust_remote_code=section.trust_remote_code,
            use_safetensors=None if section.trusted else True,
            adapter_kwargs=dict(NO_ADAPTER),
        )
        if not (folder / "adapter_config.json").is_file():
            return base.eval()
        return adapters.load(base, folder).eval()
    except Exception as error:  # configs and adapters of others fail in ways of their own
        raise CheckpointError(f"{folder}: the model cannot be loaded: {adapters.problem(error)}") from error

"""The model card: what was trained on what, and only metrics that were measured."""

from pathlib import Path
from typing import Any

import yaml

from hfft import __version__, models

# task -> (the Hub's name of it, the class that loads it)
PIPELINES = {"image_classification": "image-classification", "text_classification": "text-classification"}


def text(result, metrics: dict[str, Any]) -> str:
    """README.md of a run: front matter with a model-index, then how to load it, the figures and the recipe."""
    recipe, task = result.recipe, result.recipe.task.name
    front = yaml.safe_dump(_front(result, metrics), sort_keys=False, allow_unicode=True)
    figures = {k: v for k, v in metrics["eval"].items() if isinstance(v, int | float)}
    table = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    base = _public(recipe.model.name) or ("a local checkpoint" if recipe.model.name else "random weights")
    method = ", ".join(part.options.get("peft_type", part.name) for part in recipe.tuning) or "full fine-tuning"
    return (
        f"---\n{front}---\n\n# {_escaped(result.folder.resolve().name)}\n\n"
        f"{_escaped(base)}, {task.replace('_', ' ')}, {method}, trained with hfft {__version__}.\n\n"
        f"```python\n{_loading(result)}\n```\n\n"
        f"| measured on the evaluation split | |\n|---|---|\n{table}\n\n"
        f"Trained on {metrics['train']['rows']:,} rows in {metrics['train']['steps']:,} steps. "
        "The whole recipe is in `recipe.yaml`, versions and fingerprints are in `run.lock.json`.\n"
    )


def _loading(result) -> str:
    """The code that loads this folder."""
    auto = result.task.auto_model
    if (result.folder / models.BASE).is_dir():
        return (
            f"from peft import PeftModel\nfrom transformers import {auto}\n\n"
            f'base = {auto}.from_pretrained("PATH/{models.BASE}")\n'
            'model = PeftModel.from_pretrained(base, "PATH")'
        )
    return f'from transformers import {auto}\n\nmodel = {auto}.from_pretrained("PATH_OR_ID")'


def _front(result, metrics: dict[str, Any]) -> dict[str, Any]:
    recipe = result.recipe
    task = PIPELINES.get(recipe.task.name, recipe.task.name.replace("_", "-"))
    path = recipe.data.path if recipe.data else None
    dataset = path if isinstance(path, str) and _public(path) else "private"
    measured = [
        {"type": name, "name": name, "value": round(value, 6)}
        for name, value in metrics["eval"].items()
        if isinstance(value, float)
    ]
    front: dict[str, Any] = {"library_name": "peft" if _is_adapter(result.folder) else "transformers"}
    if _public(recipe.model.name):
        front["base_model"] = recipe.model.name
    if dataset != "private":
        front["datasets"] = [dataset]
    front |= {"pipeline_tag": task, "tags": ["hfft"]}
    front["model-index"] = [
        {
            "name": result.folder.resolve().name,
            "results": [
                {"task": {"type": task}, "dataset": {"name": dataset, "type": dataset}, "metrics": measured},
            ],
        }
    ]
    return front


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _public(name: str | None) -> str | None:
    """A Hub id; a path of this machine is nobody else's business."""
    return (
        name
        if name and name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
        else None
    )


def _escaped(words: str) -> str:
    return words.replace("<", "&lt;").replace("\n", " ").replace("---", "—")

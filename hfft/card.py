"""The model card: what was trained on what, and only metrics that were measured."""

import html
import re
from pathlib import Path
from typing import Any

import yaml

from hfft import __version__, models


def text(result, metrics: dict[str, Any]) -> str:
    """README.md of a run: front matter with a model-index, then how to load it, the figures and the recipe."""
    recipe = result.recipe
    front = yaml.safe_dump(_front(result, metrics), sort_keys=False, allow_unicode=True)
    figures = {k: v for k, v in metrics["eval"].items() if isinstance(v, int | float)}
    table = "\n".join(f"| {_escaped(name)} | {value:.4f} |" for name, value in figures.items())
    base = _public(recipe.model.name) or ("a local checkpoint" if recipe.model.name else "random weights")
    methods = [part.options.get("peft_type", Path(part.name).name) for part in recipe.tuning] or ["full fine-tuning"]
    what = _escaped(", ".join([Path(recipe.task.name).stem.replace("_", " "), *methods]))
    return (
        f"---\n{front}---\n\n# {_escaped(result.folder.resolve().name)}\n\n"
        f"{_escaped(base)}, {what}, trained with hfft {__version__}.\n\n"
        f"```python\n{_loading(result.task.auto_model, base=_has_base(result))}\n```\n\n"
        f"| measured on the evaluation split | |\n|---|---|\n{table}\n\n"
        f"Trained on {metrics['train']['rows']:,} rows in {metrics['train']['steps']:,} steps. "
        "The whole recipe is in `recipe.yaml`, versions and fingerprints are in `run.lock.json`.\n"
    )


def of_features(folder: Path, recipe, task, rows: int) -> str:
    """README.md of a run that trained nothing: the model, how to load it, and where its embeddings lie."""
    base = _public(recipe.model.name)
    front: dict[str, Any] = {"library_name": "transformers", **({"base_model": base} if base else {})}
    front |= {"pipeline_tag": task.pipeline_tag, "tags": ["hfft"]}
    how = f"{task.pooling} pooling, {', '.join(f'{name}: layer {layer}' for name, layer in task.layers.items())}"
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {_escaped(folder.resolve().name)}\n\n"
        f"{_escaped(base or 'A local checkpoint')} as it was, and its embeddings of {rows:,} rows in `features/` "
        f"({how}), by hfft {__version__}.\n\n```python\n{_loading(task.auto_model, base=False)}\n```\n"
    )


def _loading(auto: str, repo: str | None = None, revision: str | None = None, *, base: bool) -> str:
    """The code that loads the run, from its folder or from `repo`; `base`: its base model lies in a folder below."""
    where = '"' + (repo or "PATH_OR_ID") + '"' + (f', revision="{revision}"' if revision else "")
    if not base:
        return f"from transformers import {auto}\n\nmodel = {auto}.from_pretrained({where})"
    return (
        ("from huggingface_hub import snapshot_download\n" if repo else "")
        + f"from peft import PeftModel\nfrom transformers import {auto}\n\n"
        + (f"folder = snapshot_download({where})\n" if repo else 'folder = "PATH"\n')
        + f'base = {auto}.from_pretrained(folder + "/{models.BASE}")\nmodel = PeftModel.from_pretrained(base, folder)'
    )


def published(result, repo: str, revision: str | None, names: list[str]) -> str:
    """The run's card as it stands in `repo`, beside the files `names`: with that title, and code that loads it there.

    What a person has written into it stays.
    """
    text = (result.folder / "README.md").read_text(encoding="utf-8")
    old, new, auto = result.folder.resolve().name, repo.rpartition("/")[2], result.task.auto_model
    library = "peft" if "adapter_config.json" in names else "transformers"
    for before, after in (
        ("\nlibrary_name: peft\n", f"\nlibrary_name: {library}\n"),
        (f"\nmodel-index:\n- name: {old}\n", f"\nmodel-index:\n- name: {new}\n"),
        (f"\n# {_escaped(old)}\n", f"\n# {new}\n"),
        (
            _loading(auto, base=_has_base(result)),
            _loading(auto, repo, revision, base=f"{models.BASE}/config.json" in names),
        ),
    ):
        text = text.replace(before, after, 1)
    return text


def _has_base(result) -> bool:
    return (result.folder / models.BASE).is_dir()


def _front(result, metrics: dict[str, Any]) -> dict[str, Any]:
    recipe = result.recipe
    task = result.task.pipeline_tag
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
    return name if name and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else None


def _escaped(words: str) -> str:
    """A name of somebody else's as plain text: no HTML, no link, no code, no line or table cell of its own."""
    words = html.escape(" ".join(words.split()), quote=False).replace("---", "—").replace("`", "'")
    return re.sub(r"([\[\]|\\])", r"\\\1", words)

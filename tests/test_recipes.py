"""Every file of recipes/: whole, at most 40 lines, with its command and its known result, and it runs."""

from pathlib import Path

import pytest
import tiny

import hfft
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# what a recipe starts from -> the tiny model of the same architecture
TINY = {
    "google/vit-base-patch16-224-in21k": "vit",
    "facebook/dinov2-small": "dinov2",
    "timm/resnet50.a1_in1k": "timm_resnet",
    "google-bert/bert-base-uncased": "bert",
    "nreimers/MiniLM-L6-H384-uncased": "bert",
    "answerdotai/ModernBERT-base": "modernbert",
}


def rows_for(recipe: Recipe) -> dict[str, list[dict]]:
    """Two splits in memory whose columns are called as the recipe says."""
    kind = "text" if recipe.task.name.startswith("text") else "image"
    make = tiny.sentences if kind == "text" else tiny.pictures
    names = {name: recipe.data.columns.get(name, name) for name in (kind, "label")}
    rows = [[{names[key]: value for key, value in row.items()} for row in make(24, seed)] for seed in (0, 1)]
    return {"train": rows[0], recipe.data.eval or "validation": rows[1]}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_runs_two_steps(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = Recipe.read(path, [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=2", "train.use_cpu=true"])
    recipe.train["per_device_train_batch_size"] = 4
    data = None
    if not str(recipe.data.path).startswith("sklearn:"):
        data = rows_for(recipe)
        recipe.model.name = tiny.build(TINY[recipe.model.name], tmp_path / "base")
    result = hfft.finetune(recipe, data=data)
    assert 0 <= result.metrics["eval"]["accuracy"] <= 1
    assert result.metrics["train"]["steps"] == 2
    for part in recipe.export:
        assert (tmp_path / "run" / "exports" / part.name / "model.safetensors").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_whole_and_tells_its_command_and_result(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    head = [line for line in lines if line.startswith("#")]
    assert any(f"recipes/{path.name}" in line for line in head)
    assert any("Known result:" in line for line in head)
    assert Recipe.read(path).train["output_dir"] == f"runs/{path.stem}"


def test_every_recipe_stands_in_the_table():
    table = (ROOT / "recipes" / "README.md").read_text()
    for path in RECIPES:
        assert f"`{path.name}`" in table
    assert table.count(".yaml`") == len(RECIPES)

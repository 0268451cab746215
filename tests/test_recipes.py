"""Every file of recipes/: whole, at most 40 lines, with its command and its known result, and it runs."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import tiny
import token_layouts

import hfft
from hfft.messages import HubError, InputError
from hfft.metrics import LOWER_IS_BETTER
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
TRAINING = [path for path in RECIPES if Recipe.read(path).train is not None]
# what a recipe starts from -> the tiny model of the same architecture
TINY = {
    "google/vit-base-patch16-224-in21k": "vit",
    "facebook/dinov2-small": "dinov2",
    "timm/resnet50.a1_in1k": "timm_resnet",
    "google-bert/bert-base-uncased": "bert",
    "google-bert/bert-base-cased": "bert",
    "nreimers/MiniLM-L6-H384-uncased": "bert",
    "answerdotai/ModernBERT-base": "modernbert",
}


MINILM = ["model.name={shared}/models/minilm-l6-v5k", "train.learning_rate=5e-4"]
CIFAR = ["data.path={shared}/data/cifar10-folder", "data.columns={{}}", "data.eval=test", "train.learning_rate=3e-3"]
HELD_OUT = ["data.eval=null", "data.eval_size=150"]
SQUAD = ["data.path={shared}/data/squad-newwiki/dev.json", "data.eval=null", "data.eval_size=60"]
SQUAD += ["task={{question_answering: {{max_length: 128, stride: 32}}}}"]
SMALL_NET, TIMM_NET = "{shared}/models/mobilenet-v1-0.25-128", "{shared}/models/timm-mobilenetv2-100-in1k"
# recipe -> what its command line says to run it on weights and data that are here, and the least of its best metric
OWN: dict[str, tuple[list[str], float]] = {
    "bert_sst2": ([*MINILM, "data.path={shared}/data/sst2/dev.tsv", "data.eval=null", "data.eval_size=200"], 0.55),
    "bert_goemotions": (
        [
            *MINILM,
            "data.path={shared}/data/goemotions/train.jsonl",
            *("data.name=null", *HELD_OUT, "train.max_steps=60"),
        ],
        0.1,
    ),
    "bert_stsb": (
        [
            *MINILM,
            "data.path={shared}/data/stsb/dev.csv",
            *HELD_OUT,
        ],
        0.2,
    ),
    "minilm_stsb_embedding": (
        [
            *MINILM,
            "data.path={shared}/data/stsb/dev.csv",
            *(*HELD_OUT, "train.learning_rate=2e-4"),
        ],
        0.3,
    ),
    "minilm_allnli_embedding": (
        [
            *MINILM,
            "task={{text_embedding: {{form: pair, max_length: 64, mini_batch: 8, dimensions: [384, 64]}}}}",
            "data.path={shared}/data/caption-pairs/val.parquet",
            *("data.name=null", *HELD_OUT, "data.columns={{}}", "train.learning_rate=2e-4"),
        ],
        0.02,
    ),
    "bert_agnews_mlm": (  # a perplexity: 5,120 tokens, and a head that begins afresh
        [
            *MINILM,
            "task={{masked_lm: {{max_length: 64, whole_word_masking: true}}}}",
            "data.path={shared}/data/ag_news/test.csv",
            *("data.columns={{text: [title, description]}}", "data.eval=null", "train.gradient_accumulation_steps=1"),
        ],
        2500.0,
    ),
    "bert_yelp_stream": (
        [
            *MINILM,
            "task={{text_classification: {{max_length: 64}}}}",
            "data.path={{train: '{shared}/data/ag_news/train.csv', test: '{shared}/data/ag_news/test.csv'}}",
            "data.columns={{text: [title, description], label: label}}",
            "train.eval_strategy=no",
        ],
        0.6,
    ),
    "minilm_trec": (
        [*MINILM, "data.path={{train: '{shared}/data/trec/train.jsonl', eval: '{shared}/data/trec/test.jsonl'}}"],
        0.4,
    ),
    "modernbert_agnews_lora": (
        [
            *MINILM,
            "task={{text_classification: {{max_length: 64}}}}",
            "data.path={shared}/data/ag_news/test.csv",
            "data.eval=null",
            "data.columns={{text: [title, description], label: label}}",
            "tuning=[{{peft: {{peft_type: LORA, r: 16, lora_alpha: 32, target_modules: [query, value]}}}}]",
            "train.learning_rate=2e-3",
        ],
        0.4,
    ),
    "minilm_wnut17": (
        [
            *MINILM,
            "data.path={shared}/data/wnut17/dev.conll",
            *(*HELD_OUT, "train.learning_rate=1e-3"),
        ],
        0.02,
    ),
    "bert_wikiann": (
        [
            *MINILM,
            "data.path={shared}/data/wnut17/dev.conll",
            *(*HELD_OUT, "data.name=null", "data.columns={{}}", "train.learning_rate=1e-3"),
        ],
        0.02,
    ),
    "bert_squad": ([*MINILM, *SQUAD, "train.max_steps=20"], 0.02),
    "modernbert_squad2_lora": ([*MINILM, *SQUAD, "train.learning_rate=3e-3"], 0.02),
    "dinov2_food_probe": (["model.name=" + SMALL_NET, *CIFAR], 0.25),
    "vit_cifar": (["model.name=" + SMALL_NET, *CIFAR], 0.25),
    "timm_resnet_beans": (["model.name=" + TIMM_NET, "model.image_size=96", *CIFAR], 0.2),
    "vit_cifar_lora": (
        [
            *("model.name=" + TIMM_NET, "model.image_size=96", *CIFAR, "train.learning_rate=1e-3"),
            "tuning=[{{peft: {{peft_type: LORA, r: 16, lora_alpha: 16}}}}]",
        ],
        0.18,
    ),
}


# where so few steps do not move the best metric: the most that the loss may be at the end (at the start it is the
# logarithm of the tags, or of a window's tokens; of GoEmotions the entropy of the labels' shares, 0.149)
LOSS = {"bert_goemotions": 0.145, "minilm_wnut17": 1.0, "bert_wikiann": 1.0, "modernbert_squad2_lora": 4.0}


def on_hub(path) -> bool:
    """Whether the recipe's data are a data set of the Hub."""
    found = Recipe.read(path).data.path
    return isinstance(found, str) and ":" not in found


def several_labels(num_rows: int, seed: int) -> list[dict]:
    return [row | {"label": [row["label"]] * (i % 3)} for i, row in enumerate(tiny.sentences(num_rows, seed))]


def scored_pairs(num_rows: int, seed: int) -> list[dict]:
    rows = tiny.sentences(num_rows, seed)
    return [{"text": row["text"], "text_pair": rows[0]["text"], "label": i / 7} for i, row in enumerate(rows)]


def triplets(num_rows: int, seed: int) -> list[dict]:
    texts = [row["text"] for row in tiny.sentences(3 * num_rows, seed)]
    return [dict(zip(("text", "positive", "negative"), texts[i::num_rows], strict=True)) for i in range(num_rows)]


# recipe -> rows of canonical columns, where they are others than those of its kind; each takes (number, seed)
ROWS = {
    "bert_goemotions": several_labels,
    "minilm_wnut17": token_layouts.sentences,
    "bert_wikiann": token_layouts.sentences,
    "bert_squad": tiny.questions,
    "bert_agnews_mlm": tiny.sentences,
    "bert_stsb": scored_pairs,
    "modernbert_squad2_lora": partial(tiny.questions, impossible=True),
    "minilm_stsb_embedding": scored_pairs,
    "minilm_allnli_embedding": triplets,
}


def rows_for(recipe: Recipe, stem: str) -> dict[str, list[dict]]:
    """Two splits in memory whose columns are called as the recipe says."""
    make = ROWS.get(stem) or (tiny.sentences if recipe.task.name.startswith("text") else tiny.pictures)
    names = recipe.data.columns
    rows = [[{names.get(key, key): value for key, value in row.items()} for row in make(24, seed)] for seed in (0, 1)]
    return {"train": rows[0], recipe.data.eval or "validation": rows[1]}


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_a_recipe_runs_two_steps(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = Recipe.read(path, [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=2", "train.use_cpu=true"])
    recipe.train["per_device_train_batch_size"] = 4
    data = None
    if not str(recipe.data.path).startswith("sklearn:"):
        data = rows_for(recipe, path.stem)
        recipe.model.name = tiny.build(TINY[recipe.model.name], tmp_path / "base")
        recipe.task.options.pop("dimensions", None)  # more than it has
        if recipe.task.name == "masked_lm":
            masks = tiny.tokenizer()
            masks.mask_token = "scene"
            masks.save_pretrained(tmp_path / "base")
    result = hfft.finetune(recipe, data=data)
    assert set(result.task.metric_names) <= set(result.metrics["eval"])
    assert result.metrics["train"]["steps"] == 2
    for part in recipe.export:
        assert (tmp_path / "run" / "exports" / part.name / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in TRAINING if not path.stem.startswith("digits")], ids=lambda p: p.stem
)
def test_a_recipe_for_the_hub_learns_on_weights_and_data_that_are_here(path, tmp_path, shared):
    overrides, least = OWN[path.stem]
    overrides = [word.format(shared=shared) for word in overrides]
    recipe = Recipe.read(path, ["train.max_steps=30", *overrides, f"train.output_dir={tmp_path / 'run'}"])
    recipe.train["per_device_train_batch_size"] = 16
    result = hfft.finetune(recipe)
    best, name = result.metrics["eval"], result.task.best_metric
    if path.stem in LOSS:
        name, least = "loss", LOSS[path.stem]
    assert best[name] < least if name in LOWER_IS_BETTER else best[name] > least, best
    assert result.metrics["train"]["steps"] == recipe.train["max_steps"]
    for part in recipe.export:
        assert (tmp_path / "run" / "exports" / part.name / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_recipe_for_features_runs_on_weights_and_data_that_are_here(tmp_path, shared):
    overrides = [
        *(f"model.name={shared}/models/minilm-l6-v5k", f"data.path={shared}/data/ag_news/test.csv", "data.eval=null"),
        *("data.columns={text: [title, description]}", f"task.feature_extraction.output={tmp_path / 'run'}"),
    ]
    result = hfft.finetune(Recipe.read(ROOT / "recipes" / "minilm_agnews_features.yaml", overrides))
    assert result.metrics["features"]["rows"] == 1000 and len(result.predict(["a film"])[0]["embedding"]) == 384


def command(path) -> str:
    """How the recipe's header must say that it is run."""
    return f"accelerate launch hfft/run.py recipes/{path.name}"


def title(path) -> str:
    """The first sentence of the header."""
    return path.read_text().splitlines()[0].removeprefix("# ").replace(command(path), "").strip().rstrip(".")


def table_row(path) -> str:
    """The recipe's row in recipes/README.md, made from the file."""
    recipe = Recipe.read(path)
    parts = [part.options.get("peft_type", part.name) for part in recipe.tuning]
    model = recipe.model.name or "random weights"
    data = recipe.data.path if isinstance(recipe.data.path, str) else ", ".join(recipe.data.path.values())
    tuned = " + ".join(parts) or ("nothing trained" if recipe.train is None else "full")
    cells = [f"[`{path.name}`]({path.name})", title(path), recipe.task.name, tuned, model, data]
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_whole_and_tells_its_command_and_result(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert command(path) in "\n".join(head[:2])
    assert title(path) and title(path)[0].isalpha()
    known = " ".join(line.removeprefix("#") for line in head).split("Known result:")[1]
    measured = re.search(r"\d\.\d{2}.*\d+ \w{3} 20\d\d, *commit [0-9a-f]{7}", known)
    assert measured or known.strip().startswith("not run here"), "a figure has its date and commit, or there is none"
    recipe = Recipe.read(path)
    folder = recipe.task.options["output"] if recipe.train is None else recipe.train["output_dir"]
    assert folder == f"runs/{path.stem}"


def test_the_table_of_recipes_is_made_of_their_files():
    rows = [line for line in (ROOT / "recipes" / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert sorted(rows) == sorted(table_row(path) for path in RECIPES)


@pytest.mark.parametrize("path", [path for path in RECIPES if on_hub(path)], ids=lambda p: p.stem)
def test_offline_a_recipe_is_checked_up_to_what_the_hub_would_give(path):
    recipe = Recipe.read(path)
    with pytest.raises(HubError) as caught:
        hfft.check(path)
    (line,) = caught.value.lines
    assert line.startswith(f"data.path: '{recipe.data.path}' is no file or folder here, and the Hub cannot be reached")
    assert line.endswith(f"model.name {recipe.model.name!r}, no folder here either") and "\n" not in line


def test_a_mistake_is_told_before_the_hub_is_asked(tmp_path):
    bad = ["model.name=" + tiny.build("bert", tmp_path / "base"), "task={text_classification: {max_length: 9999}}"]
    with pytest.raises(InputError, match="max_length 9999 is above the"):
        hfft.check(Recipe.read(ROOT / "recipes" / "bert_sst2.yaml", bad))
    with pytest.raises(InputError, match="'auccuracy' is none of"):
        hfft.check(Recipe.read(ROOT / "recipes" / "vit_cifar.yaml", ["train.metric_for_best_model=auccuracy"]))


@pytest.mark.slow
def test_the_command_says_in_one_line_what_is_not_there():
    code = "import sys; from hfft.cli import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", code, "check", "recipes/bert_sst2.yaml"]
    out = subprocess.run(args, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    errors = [line for line in out.stderr.splitlines() if line.startswith("hfft: error: ")]
    assert (out.returncode, len(errors), "Traceback" in out.stderr) == (5, 1, False)

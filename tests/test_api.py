"""The Python API: what it takes, its types, what it says in a session, and that runs do not leak into each other."""

import json
import logging
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

import hfft
from hfft import messages
from hfft.messages import CheckpointError, InputError
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent


def recipe_of(folder: Path, name: str = "bert", **train) -> dict:
    given = {"output_dir": str(folder / "run"), "use_cpu": True, "max_steps": 3, "learning_rate": 1e-2, **train}
    model = str(folder / "base") if (folder / "base").is_dir() else tiny.build(name, folder / "base")
    return {"task": f"{tiny.CONFIGS[name][0]}_classification", "model": {"name": model}, "train": given}


def test_every_public_name_is_there_and_is_listed():
    assert sorted(dir(hfft)) == sorted(hfft.__all__)
    for name in hfft.__all__:
        assert getattr(hfft, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'fintune'"):
        hfft.fintune  # noqa: B018


def test_a_recipe_is_a_dict_a_recipe_or_a_file(tmp_path):
    data = recipe_of(tmp_path)
    recipe = Recipe.from_dict(data)
    recipe.save(tmp_path / "recipe.yaml")
    for given in (data, recipe, str(tmp_path / "recipe.yaml"), tmp_path / "recipe.yaml"):
        assert hfft.Recipe.of(given) == recipe
        assert hfft.check(given, data=tiny.sentences(24))["data"]["trained"] == 22
    result = hfft.finetune(tmp_path / "recipe.yaml", data=tiny.sentences(24))
    assert result.folder == tmp_path / "run" and result.metrics["train"]["steps"] == 3
    assert (data, recipe) == (recipe_of(tmp_path), Recipe.from_dict(data)), "what the caller gave is unchanged"


@pytest.mark.parametrize("call", [hfft.finetune, hfft.check])
def test_a_recipe_that_is_none_is_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = {
        "gone.yaml: cannot be read: No such file or directory": "gone.yaml",
        "a recipe is a mapping (task: …, model: …), got ": 7,
        "the recipe has no model section; write model: {name: ": {
            "task": "text_classification",
            "train": {"output_dir": "x"},
        },
    }
    for line, given in wrong.items():
        with pytest.raises(InputError) as caught:
            call(given, data=tiny.sentences(8))
        assert caught.value.lines[0].startswith(line) and len(caught.value.lines) == 1, caught.value
    with pytest.raises(InputError, match="the recipe has no data section; write data: {path: "):
        call({"task": "text_classification", "model": {"name": "x"}, "train": {"output_dir": "run"}})


def test_result_has_metrics_model_folder_and_a_short_repr(tmp_path):
    result = hfft.finetune(recipe_of(tmp_path), data=tiny.sentences(24))
    assert set(result.metrics) == {"eval", "train", "data", "integrity"}
    assert result.model.config.num_labels == 2 and not result.model.training
    assert "Linear" not in repr(result) and str(result.folder) in repr(result)
    again = hfft.load(str(tmp_path / "run"))
    assert again.metrics == result.metrics and again.columns == {"text": ["text"], "label": ["label"]}
    assert again.predict("good film") == result.predict("good film")
    with pytest.raises(CheckpointError, match="no finished run"):
        hfft.load(tmp_path / "base")


USER = """
from pathlib import Path

import hfft

rows: list[dict[str, str]] = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
recipe: hfft.Recipe = hfft.Recipe.read(Path("x.yaml"), ["train.max_steps=1"], trust_code=True)
result: hfft.Result = hfft.finetune({"task": "text_classification", "train": {}}, data=rows, overwrite=True)
result = hfft.finetune(recipe, resume=True)
result = hfft.finetune("recipe.yaml")
accuracy: float = result.metrics["eval"]["accuracy"]
label: str = result.predict(["a"], batch_size=4, top_k=1)[0]["label"]
folder: Path = result.folder
columns: dict[str, list[str]] | None = result.columns
again: hfft.Result = hfft.load(folder, trust_code=False)
found: dict[str, object] = hfft.check(recipe, data=rows)
task: hfft.Task = again.task
reveal_type(hfft.finetune)
reveal_type(hfft.check)
reveal_type(hfft.load)
reveal_type(result.predict)
"""
WRONG = """
import hfft

hfft.finetune(7)
hfft.load("x").predict()
hfft.fintune
result: str = hfft.load("x")
"""


STRICT = """
[mypy]
strict = true
[mypy-torch.*,transformers.*,peft.*,datasets.*,accelerate.*,sklearn.*,timm.*,numpy.*,PIL.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_a_strict_type_check_of_a_users_script_passes_and_finds_mistakes(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "strict.ini").write_text(STRICT)
    options = ["--config-file=strict.ini", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir=cache"]
    command = [sys.executable, "-m", "mypy", *options, "user.py", "wrong.py"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"MYPYPATH": str(ROOT)})
    errors = [tuple(line.split(":")[:2]) for line in out.stdout.splitlines() if ": error: " in line]
    assert errors == [("wrong.py", line) for line in ("4", "5", "6", "7")], out.stdout
    assert out.stdout.count('Revealed type is "def (') == 4 and "Any, Any" not in out.stdout, out.stdout


def test_every_argument_of_the_public_api_is_annotated():
    import inspect

    public = [hfft.finetune, hfft.check, hfft.load, hfft.Result.predict, Recipe.read, Recipe.from_dict, Recipe.save]
    for function in public:
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function
        for name, parameter in signature.parameters.items():
            assert name == "self" or parameter.annotation is not inspect.Parameter.empty, (function, name)


@pytest.mark.slow
def test_the_wheel_says_that_it_is_typed(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "hfft/py.typed" in names and "hfft/preflight.py" in names
    assert any(name.startswith("hfft/recipes/") for name in names)


def test_finetune_works_in_a_thread(tmp_path):
    found: list = []

    def work() -> None:
        try:
            found.append(hfft.finetune(recipe_of(tmp_path), data=tiny.sentences(24)).predict("good film"))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0][0]["label"] in ("pos", "neg"), found[0]


ALONE = """
import json, sys
sys.path.insert(0, {tests!r})
import tiny
import hfft
for recipe in json.loads(sys.argv[1]):
    kind = tiny.sentences if recipe["task"].startswith("text") else tiny.pictures
    hfft.finetune(recipe, data=kind(24))
"""


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs left the same weights, bit for bit."""
    first, second = [load_file(folder / "model.safetensors") for folder in (one, other)]
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_runs_after_each_other_give_what_each_gives_in_its_own_process(tmp_path):
    low, full = recipe_of(tmp_path / "low", bf16=True), recipe_of(tmp_path / "full", seed=7)
    picture = recipe_of(tmp_path / "picture", "convnext")
    in_one = [low, full, picture, *[moved(recipe, "again") for recipe in (full, picture, low)]]
    for given in (in_one, [moved(full, "alone")]):
        command = [sys.executable, "-c", ALONE.format(tests=str(ROOT / "tests")), json.dumps(given)]
        out = subprocess.run(command, capture_output=True, text=True)
        assert out.returncode == 0, out.stderr[-2000:]
    pairs = [("low/run", "low/run-again"), ("picture/run", "picture/run-again")]
    for one, other in [*pairs, ("full/run", "full/run-alone"), ("full/run-again", "full/run-alone")]:
        assert same_weights(tmp_path / one, tmp_path / other), f"{one} is not {other}"
    assert not same_weights(tmp_path / "low" / "run", tmp_path / "full" / "run")
    for run, precision in (("low/run", True), ("full/run", False), ("low/run-again", True)):
        lock = json.loads((tmp_path / run / "run.lock.json").read_text())
        assert lock["train"]["bf16"] is precision


def moved(recipe: dict, word: str) -> dict:
    """The same recipe with another output folder."""
    return recipe | {"train": recipe["train"] | {"output_dir": recipe["train"]["output_dir"] + "-" + word}}


SESSION = """
import sys
sys.ps1 = ">>> "  # what Python and IPython set at a prompt and in a notebook
sys.path.insert(0, {tests!r})
import tiny
import hfft
hfft.finetune({recipe!r}, data=tiny.sentences(24))
hfft.load({folder!r})
"""


@pytest.mark.slow
def test_a_session_shows_announcements_and_progress_without_any_set_up(tmp_path):
    recipe = recipe_of(tmp_path, max_steps=4, logging_steps=2)
    code = SESSION.format(tests=str(ROOT / "tests"), recipe=recipe, folder=str(tmp_path / "run"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    said = out.stdout.splitlines()
    assert len([line for line in said if line.startswith("hfft: data: train 24 rows")]) == 1, "each line once"
    assert [line.split()[2] for line in said if line.startswith("hfft: step ") and "grad_norm" in line] == [
        "2/4:",
        "4/4:",
    ]
    assert any(line.startswith("hfft: result: ") for line in said)


@pytest.fixture
def no_set_up(monkeypatch):
    """A call after which the loggers are as before anybody set them up; in a test, for pytest adds handlers to them."""
    ours, root = messages.logger, logging.getLogger()
    levels = ours.level, root.level

    def forget() -> logging.Logger:
        for logger, level in ((ours, logging.NOTSET), (root, logging.WARNING)):
            monkeypatch.setattr(logger, "handlers", [])
            monkeypatch.setattr(logger, "propagate", True)
            logger.setLevel(level)
        return ours

    yield forget
    ours.setLevel(levels[0])
    root.setLevel(levels[1])


def test_a_first_use_in_a_session_sets_up_printing_once(no_set_up, monkeypatch, capsys):
    logger = no_set_up()
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert hfft.finetune and hfft.load and hfft.check
    messages.announce("one line")
    assert capsys.readouterr().out == "hfft: one line\n" and len(logger.handlers) == 1
    logging.getLogger().handlers.append(logging.NullHandler())  # the user sets up logging after that
    messages.announce("another")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("case", ["a script", "our level is set", "our handler is set", "the root's level is set"])
def test_nothing_is_printed_in_a_script_or_where_the_user_set_up_logging(case, no_set_up, monkeypatch, capsys):
    logger = no_set_up()
    if case != "a script":
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    if case == "our level is set":
        logger.setLevel(logging.ERROR)
    elif case == "our handler is set":
        logger.handlers.append(logging.NullHandler())
    elif case == "the root's level is set":
        logging.getLogger().setLevel(logging.ERROR)
    assert hfft.finetune
    messages.announce("a line")
    messages.warn("a warning")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_in_ipython_the_cell_shows_progress(tmp_path):
    pytest.importorskip("IPython")
    recipe = recipe_of(tmp_path, max_steps=4, logging_steps=2)
    code = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import sys; sys.path.insert(0, {str(ROOT / "tests")!r}); import tiny, hfft")
done = shell.run_cell("result = hfft.finetune({recipe!r}, data=tiny.sentences(24))")
done.raise_error()
shell.run_cell("print(result.predict('good film')[0]['label'])")
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    assert "hfft: step 2/4: " in out.stdout and out.stdout.split()[-1] in ("pos", "neg")

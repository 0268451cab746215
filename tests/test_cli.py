"""The command line as a user meets it: one line per mistake, DESIGN's exit codes, JSON on stdout, people on stderr."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from hfft.cli import main

ROOT = Path(__file__).resolve().parent.parent


def hfft(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "import sys; from hfft.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, input=stdin)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with train.csv, test.csv, a tiny BERT in base/ and a recipe."""
    folder = tmp_path_factory.mktemp("cli")
    for name, seed in (("train", 0), ("test", 1)):
        rows = tiny.sentences(24, seed)
        lines = [f"{row['text']},{row['label']}" for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    tiny.build("bert", folder / "base")
    (folder / "recipe.yaml").write_text(
        f"task: text_classification\nmodel: {{name: {folder}/base}}\n"
        f"data: {{path: {{train: {folder}/train.csv, test: {folder}/test.csv}}, eval: test}}\n"
        f"train: {{output_dir: {folder}/run, max_steps: 4, learning_rate: 1e-2, use_cpu: true}}\n"
    )
    return folder


@pytest.fixture(scope="module")
def run(files) -> Path:
    assert main(["train", str(files / "recipe.yaml"), "--overwrite"]) == 0
    return files / "run"


def test_train_leaves_the_folder_of_the_design(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "run.lock.json"} <= names
    assert {"metrics.json", "README.md"} <= names and "training_args.bin" not in names
    assert not list(run.rglob("training_args.bin"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"eval", "train", "data", "integrity"} and metrics["eval"]["rows"] == 24
    assert metrics["data"]["trained"] == 24 and metrics["data"]["dropped"] == 0
    lock = json.loads((run / "run.lock.json").read_text())
    assert lock["packages"]["torch"] and lock["data"]["fingerprint"] and lock["seed"] == 42
    assert not any(key.startswith(("hub", "push")) for key in lock["train"])


def test_the_card_has_a_model_index_of_measured_metrics_only(run):
    import yaml

    text = (run / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    measured = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    metrics = json.loads((run / "metrics.json").read_text())["eval"]
    assert measured == {k: pytest.approx(v, abs=1e-6) for k, v in metrics.items() if isinstance(v, float)}
    assert str(run.parent) not in text


def test_a_run_that_did_not_finish_is_no_checkpoint(run, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    assert main(["predict", str(tmp_path), "x.csv"]) == 4
    assert "a run that did not finish" in capsys.readouterr().err


def test_resume_without_a_checkpoint_is_one_line(files, tmp_path, capsys):
    assert main(["train", str(files / "recipe.yaml"), f"train.output_dir={tmp_path / 'new'}", "--resume"]) == 4
    assert "holds no checkpoint; start without --resume" in capsys.readouterr().err


def test_a_run_that_was_ended_before_its_first_checkpoint_begins_anew_by_resume(run, files, tmp_path, capsys):
    words = ["train", str(files / "recipe.yaml"), f"train.output_dir={tmp_path}", "--resume"]
    for name in ("run.lock.json", "metrics.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main([*words, "train.num_train_epochs=9"]) == 4  # a finished run without checkpoints is not removed
    (tmp_path / "metrics.json").unlink()
    assert main(words) == 0
    assert "ended before its first checkpoint; it begins anew" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").is_file()


def test_a_folder_that_is_not_empty_is_refused(run, files, capsys):
    assert main(["train", str(files / "recipe.yaml")]) == 2
    assert "is not empty; write --resume, --overwrite or another folder" in capsys.readouterr().err


def test_overwrite_keeps_the_old_run_until_the_new_one_is_checked(run, files, capsys):
    before = (run / "metrics.json").read_bytes()
    assert main(["train", str(files / "recipe.yaml"), "data.columns.text=txet", "--overwrite"]) == 2
    assert "Did you mean 'text'?" in capsys.readouterr().err
    assert (run / "metrics.json").read_bytes() == before


def test_overwrite_never_empties_a_folder_that_is_no_run(files, tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert main(["train", str(files / "recipe.yaml"), f"train.output_dir={tmp_path}", "--overwrite"]) == 2
    assert "holds something else than a run" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.slow
def test_predictions_recomputed_by_hand_give_the_accuracy_of_metrics_json(run, files):
    out = hfft("predict", str(run), str(files / "test.csv"), "--top-k", "1")
    assert out.returncode == 0, out.stderr
    answers = [json.loads(line) for line in out.stdout.splitlines()]
    assert [answer["row"] for answer in answers] == list(range(24))
    assert all(len(answer["scores"]) == 1 and answer["score"] >= 0.5 for answer in answers)
    truth = [line.rsplit(",", 1)[1] for line in (files / "test.csv").read_text().splitlines()[1:]]
    accuracy = sum(a["label"] == label for a, label in zip(answers, truth, strict=True)) / 24
    assert json.loads((run / "metrics.json").read_text())["eval"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
def test_eval_measures_what_training_wrote(run, files):
    out = hfft("eval", str(run), "--json")
    written = json.loads((run / "metrics.json").read_text())["eval"]
    assert json.loads(out.stdout) == written
    other = hfft("eval", str(run), "--data", str(files / "train.csv"), "--json")
    assert json.loads(other.stdout)["rows"] == 24 and json.loads(other.stdout) != written


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["train"], 2, "command line: the following arguments are required"),
        (["train", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
        (["train", "recipes/vit_cifar.yaml", "--wrong"], 2, "command line: unknown argument '--wrong'"),
        (["train", "recipes/vit_cifar.yaml", "trian.seed=1"], 2, "Did you mean 'train'?"),
        (["fly"], 2, "command line: argument COMMAND: invalid choice: 'fly'"),
        (["predict", "nowhere", "x.csv"], 4, "nowhere: no recipe.yaml here"),
        (["eval", "nowhere"], 4, "nowhere: no recipe.yaml here"),
        (["export", "nowhere", "mrege"], 2, "Did you mean 'merge'?"),
        (["predict", "nowhere", "x.csv", "--top-k", "0"], 2, "must be 1 or more"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(words, code, line, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(words) == code
    err = capsys.readouterr().err
    assert line in err and err.startswith("hfft: error: ") and err.count("\n") == 1 and "Traceback" not in err


def test_the_schema_and_the_list_are_printed(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"
    assert main(["list", "tuning"]) == 0
    assert {"frozen", "peft"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}


@pytest.mark.slow
def test_check_finds_what_a_run_would_meet_without_training(files, tmp_path):
    out = hfft("check", str(files / "recipe.yaml"), f"train.output_dir={tmp_path / 'new'}", "--json")
    assert out.returncode == 0 and json.loads(out.stdout)["problems"] == []
    assert not (tmp_path / "new").exists()
    wrong = hfft("check", str(files / "recipe.yaml"), "data.columns.text=txet")
    assert wrong.returncode == 2 and "Did you mean 'text'?" in wrong.stderr


@pytest.mark.slow
def test_the_script_for_launchers_takes_the_same_arguments(files, tmp_path):
    command = [sys.executable, "hfft/run.py", str(files / "recipe.yaml"), f"train.output_dir={tmp_path / 'run'}"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert out.stdout == "" and (tmp_path / "run" / "metrics.json").is_file()

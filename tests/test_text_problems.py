"""Text classification with any number of classes a row, and with numbers: how they are read, learnt, answered, kept."""

import json
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from sklearn import metrics as sk

import hfft
from hfft import metrics, problems
from hfft.messages import InputError

SETS = [["joy", "anger"], [], ["joy"], ["fear"], ["anger", "fear"], ["joy", "fear"]]


def write(path, lines: list) -> str:
    path.write_text("\n".join(json.dumps(line) if not isinstance(line, str) else line for line in lines) + "\n")
    return str(path)


def texts(count: int) -> list[str]:
    return [row["text"] for row in tiny.sentences(count)]


def recipe(folder, path: str | None, task="text_classification", **data) -> dict:
    return {
        "task": task,
        "model": {"name": tiny.build("bert", folder / "base")},
        "data": {**({"path": path} if path else {}), **data},
        "train": {
            "output_dir": str(folder / "run"), "max_steps": 3, "per_device_train_batch_size": 8,
            "learning_rate": 1e-2, "use_cpu": True, "load_best_model_at_end": False,
        },
    }  # fmt: skip


def lists(count: int = 24) -> list[dict]:
    return [{"text": text, "labels": SETS[i % len(SETS)]} for i, text in enumerate(texts(count))]


# ---- reading --------------------------------------------------------------------------------------------------------
def forms(folder) -> dict[str, tuple[str, dict]]:
    """The same labels in every form: (path, data section)."""
    rows = lists()
    joined = ["text;labels", *[f"{row['text']};{'|'.join(row['labels'])}" for row in rows]]
    hot = ["text,joy,anger,fear"]
    for row in rows:
        hot.append(",".join([row["text"], *("01"[name in row["labels"]] for name in ("joy", "anger", "fear"))]))
    (folder / "joined.csv").write_text("\n".join(joined) + "\n")
    (folder / "hot.csv").write_text("\n".join(hot) + "\n")
    return {
        "lists": (write(folder / "lists.jsonl", rows), {}),
        "joined": (str(folder / "joined.csv"), {}),
        "hot": (str(folder / "hot.csv"), {"columns": {"text": "text", "label": ["joy", "anger", "fear"]}}),
    }


@pytest.mark.parametrize("form", ["lists", "joined", "hot"])
def test_every_form_of_several_labels_gives_the_same_rows(form, tmp_path):
    from hfft import data, lookup
    from hfft.recipe import DataSection, Part

    path, more = forms(tmp_path)[form]
    task = lookup.call("tasks", Part("text_classification", {"problem": "multi_label"}))
    rows = data.load_splits(DataSection(path=path, eval_size=0, **more), task, seed=0).train
    names = rows.features["label"].feature.names
    assert sorted(names) == ["anger", "fear", "joy"]
    found = [sorted(names[i] for i in row) for row in rows["label"]]
    assert found == [sorted(SETS[i % len(SETS)]) for i in range(24)]


PROBLEM = {
    "lists of names": (lists(), {}, "multi_label (the labels are lists"),
    "numbers": ([{"text": t, "score": i * 1.37} for i, t in enumerate(texts(30))], {}, "regression (the labels are 30"),
    "two numbers": (
        [{"text": t, "a": i + 0.5, "b": -i} for i, t in enumerate(texts(24))],
        {"columns": {"text": "text", "label": ["a", "b"]}},
        "regression (the labels are several numbers",
    ),
    "flags": (
        [{"text": t, "a": i % 2, "b": (i // 2) % 2} for i, t in enumerate(texts(24))],
        {"columns": {"text": "text", "label": ["a", "b"]}},
        "multi_label (the labels are 0 and 1",
    ),
}


@pytest.mark.parametrize("case", PROBLEM)
def test_the_problem_is_found_where_the_labels_leave_no_doubt_and_told(case, tmp_path, caplog):
    rows, data, line = PROBLEM[case]
    with caplog.at_level(logging.INFO, logger="hfft"):
        hfft.check(recipe(tmp_path, write(tmp_path / "train.jsonl", rows), **data))
    assert any(f"problem {line}" in record.getMessage() for record in caplog.records)


def test_labels_are_renamed_and_two_become_one(tmp_path):
    path = write(tmp_path / "t.jsonl", lists())
    result = hfft.finetune(recipe(tmp_path, path, labels={"anger": "bad", "fear": "bad"}))
    assert sorted(result.task.names) == ["bad", "joy"]
    with pytest.raises(InputError, match="data.labels: no row has the label 'angre'. Did you mean 'anger'"):
        hfft.check(recipe(tmp_path, path, labels={"angre": "bad"}))


def rows_with(labels: list, name: str = "label") -> list[dict]:
    every = [labels[i % len(labels)] for i in range(24)]
    return [{"text": text, name: label} for text, label in zip(texts(24), every, strict=True)]


MULTI, NUMBER = {"problem": "multi_label"}, {"problem": "regression"}
WRONG = {
    "several or one": (rows_with(["joy,anger", "joy", "anger"]), {}, "is 'joy,anger' one class or several?"),
    "two marks": (rows_with(["a,b;c", "a"]), MULTI, "what parts the classes, ',' or ';'?"),
    "an empty part": (rows_with(["a,,b", "a,b"]), MULTI, "line 1, column 'label': is 'a,,b', with nothing"),
    "no list": (rows_with([["a"], ["b"], 3]), MULTI, "line 3, column 'label': is 3, no list of classes"),
    "null": (rows_with([["a"], ["b"], None]), MULTI, "line 3, column 'label': is empty; write a list"),
    "an entry of null": (rows_with([["a"], ["b", None]]), MULTI, "line 2, column 'label': holds an entry that is e"),
    "a list of lists": (rows_with([["a"], [["b"]]]), MULTI, "line 2, column 'label': holds an entry that is a list"),
    "no labels at all": (rows_with([[]]), MULTI, "no row has any class"),
    "a rare spelling": (rows_with([["joy"]] * 5 + [["Joy"]]), MULTI, "line 6, column 'label': 'Joy' is another spell"),
    "text": (rows_with([1.5, 2.5, "much"]), NUMBER, "line 3, column 'label': is 'much', no number"),
    "nan": (rows_with([1.5, 2.5, math.nan]), NUMBER, "line 3, column 'label': is nan, not finite"),
    "a missing number": (rows_with([1.5, 2.5, None]), NUMBER, "line 3, column 'label': is empty"),
    "true": (rows_with([1.5, 2.5, True]), NUMBER, "line 3, column 'label': is True, no number"),
    "a decimal comma": (rows_with(["1,5", "2,5"]), NUMBER, "line 1, column 'label': is '1,5'; is the comma a"),
    "a point too": (rows_with(["1,5", "2.5"]), {**NUMBER, "decimal": ","}, "line 2, column 'label': is '2.5', with"),
    "other lengths": (rows_with([[1.0, 2.5], [1.0]]), NUMBER, "line 2, column 'label': holds 1 numbers, where"),
    "one number": (rows_with([3.5]), NUMBER, "the target 'label' is 3.5 in every row"),
    "classes as numbers": (rows_with([0.0, 1.0]), {}, "a decimal point"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_one_line_with_its_row(case, tmp_path):
    rows, options, line = WRONG[case]
    path = write(tmp_path / "train.jsonl", rows)
    with pytest.raises(InputError) as caught:
        hfft.check(recipe(tmp_path, path, task={"text_classification": options}))
    assert line in str(caught.value) and "\n" not in caught.value.lines[0]
    assert "Traceback" not in str(caught.value)


def test_one_hot_columns_with_another_number_name_row_and_column(tmp_path):
    rows = [{"text": text, "a": i % 2, "b": 2 if i == 5 else 0} for i, text in enumerate(texts(24))]
    data = {"columns": {"text": "text", "label": ["a", "b"]}}
    with pytest.raises(InputError, match="line 6, column 'a'\\+'b': column 'b' holds 2, where 0 or 1 says"):
        hfft.check(recipe(tmp_path, write(tmp_path / "t.jsonl", rows), {"text_classification": MULTI}, **data))


def test_bad_rows_are_left_out_and_counted_where_asked(tmp_path):
    rows = rows_with([["a"], ["b"], [], None, ["a", "b"], 3])
    path = write(tmp_path / "t.jsonl", rows)
    result = hfft.finetune(recipe(tmp_path, path, {"text_classification": MULTI}, on_bad_row="skip", eval_size=4))
    listed = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert len(listed) == 8 == result.metrics["data"]["dropped"]
    assert result.metrics["data"]["trained"] + result.metrics["eval"]["rows"] + len(listed) == 24


def test_a_comma_is_read_as_decimal_where_asked(tmp_path):
    rows = rows_with([f"{i},25" for i in range(24)])
    task = {"text_classification": {**NUMBER, "decimal": ","}}
    result = hfft.finetune(recipe(tmp_path, write(tmp_path / "t.jsonl", rows), task))
    assert result.task.problem == "regression" and result.metrics["eval"]["mae"] < 24


# ---- learning -------------------------------------------------------------------------------------------------------
def test_a_fresh_head_starts_at_the_log_odds_of_its_classes(tmp_path):
    from hfft import data, lookup
    from hfft.recipe import DataSection, ModelSection, Part

    task = lookup.call("tasks", Part("text_classification", {}))
    section = DataSection(path=write(tmp_path / "t.jsonl", lists(600)), eval_size=0)
    rows = data.load_splits(section, task, seed=0).train
    model = ModelSection(name=tiny.build("bert", tmp_path / "base"))
    task.setup(model, rows)
    net = task.load_model(model)
    shares = {name: (300 if name != "anger" else 200) / 600 for name in task.names}
    expected = [math.log(shares[name] / (1 - shares[name])) for name in task.names]
    torch.testing.assert_close(net.classifier.bias.detach(), torch.tensor(expected), rtol=0.02, atol=0.01)
    assert net.config.problem_type == "multi_label_classification"


PLAIN = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(json.dumps([model.config.problem_type, model.config.id2label, logits.tolist()]))
"""


def plain(folder, given: list[str]) -> list:
    out = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder), json.dumps(given)], capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [[], [{"peft": {"peft_type": "LORA", "r": 4}}]], ids=["full", "lora"])
def test_several_labels_answer_in_plain_code_as_here(tuning, tmp_path):
    given = recipe(tmp_path, write(tmp_path / "t.jsonl", lists(48))) | {"tuning": tuning}
    result = hfft.finetune(given)
    problem, names, logits = plain(tmp_path / "run", texts(5))
    assert problem == "multi_label_classification"
    answers = hfft.load(tmp_path / "run").predict(texts(5))
    for answer, row in zip(answers, torch.tensor(logits).sigmoid().tolist(), strict=True):
        assert answer["scores"] == pytest.approx(dict(zip(names.values(), row, strict=True)), abs=1e-5)
        assert set(answer["labels"]) == {name for name, score in answer["scores"].items() if score >= 0.5}
    assert set(metrics.MULTI_LABEL) < set(result.metrics["eval"])
    assert set(result.metrics["eval"]["per_class"]) == {"joy", "anger", "fear"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "llama"])  # whose head has no bias
@pytest.mark.parametrize("tuning", [[], [{"peft": {"peft_type": "LORA", "r": 4}}]], ids=["full", "lora"])
def test_numbers_come_back_in_their_own_units_in_plain_code_too(name, tuning, tmp_path):
    rows = [{"text": text, "price": 50_000.0 + 700.5 * len(text)} for text in texts(48)]
    given = recipe(tmp_path, write(tmp_path / "t.jsonl", rows)) | {"tuning": tuning}
    given["model"] = {"name": tiny.build(name, tmp_path / "base")}
    result = hfft.finetune(given)
    problem, names, logits = plain(tmp_path / "run", texts(5))
    assert problem == "regression" and names == {"0": "price"}
    answers = hfft.load(tmp_path / "run").predict(texts(5))
    assert [answer["score"] for answer in answers] == pytest.approx([row[0] for row in logits], rel=1e-5)
    assert 10_000 < answers[0]["score"] < 200_000
    again = hfft.load(tmp_path / "run")
    from hfft.evaluation import of_run

    assert of_run(str(again.folder))["rmse"] == pytest.approx(result.metrics["eval"]["rmse"], rel=1e-5)


def test_several_numbers_are_answered_and_measured_by_name(tmp_path):
    rows = [{"text": text, "a": 0.5 * i, "b": -3.0 * i} for i, text in enumerate(texts(24))]
    path = write(tmp_path / "t.jsonl", rows)
    result = hfft.finetune(recipe(tmp_path, path, columns={"text": "text", "label": ["a", "b"]}))
    assert set(result.metrics["eval"]["per_target"]) == {"a", "b"}
    assert set(result.predict("good film")[0]["scores"]) == {"a", "b"}


def test_a_tuned_threshold_is_kept_with_the_run(tmp_path):
    task = {"text_classification": {"threshold": "tuned"}}
    result = hfft.finetune(recipe(tmp_path, write(tmp_path / "t.jsonl", lists(48)), task))
    tuned = result.metrics["tuned"]["threshold"]
    again = hfft.load(tmp_path / "run")
    assert 0.05 <= tuned <= 0.95 and again.task.tuned == {"threshold": tuned}
    answer = again.predict("good film")[0]
    assert set(answer["labels"]) == {name for name, score in answer["scores"].items() if score >= tuned}


@pytest.mark.slow
@pytest.mark.parametrize("given", [lists(24), rows_with([float(i) + 0.5 for i in range(24)])], ids=["lists", "numbers"])
def test_a_run_that_is_interrupted_ends_as_one_that_is_not(given, tmp_path):
    weights = {}
    for name, stops in (("whole", False), ("stopped", True)):
        (tmp_path / name).mkdir()
        each = recipe(tmp_path / name, write(tmp_path / name / "t.jsonl", given))
        each["train"] |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no", "max_steps": 4}
        if stops:
            stop(each)
        hfft.finetune(each, resume=stops)
        weights[name] = (tmp_path / name / "run" / "model.safetensors").read_bytes()
    assert weights["whole"] == weights["stopped"]


def stop(given: dict) -> None:
    """Train to step 2 and be killed there."""
    code = "import json, sys, hfft; hfft.finetune(json.loads(sys.argv[1]))"
    import os

    environment = {**os.environ, "HFFT_FAULT": "step:3:kill"}
    out = subprocess.run([sys.executable, "-c", code, json.dumps(given)], capture_output=True, env=environment)
    assert out.returncode == -9, out.stderr[-500:]


# ---- metrics --------------------------------------------------------------------------------------------------------
def test_multi_label_metrics_are_scikit_learns():
    generator = np.random.default_rng(0)
    scores, labels = generator.random((200, 5)), generator.random((200, 5)) < 0.3
    found = metrics.multi_label(scores, labels, list("abcde"), 0.5)
    chosen = scores >= 0.5
    for kind in ("micro", "macro", "weighted"):
        assert found[f"f1_{kind}"] == pytest.approx(sk.f1_score(labels, chosen, average=kind))
    assert found["accuracy_subset"] == pytest.approx(sk.accuracy_score(labels, chosen))
    assert found["map"] == pytest.approx(sk.average_precision_score(labels, scores))


def test_a_class_that_a_split_lacks_divides_nothing_by_zero():
    scores, labels = np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[True, False], [False, False]])
    found = metrics.multi_label(scores, labels, ["a", "b"], 0.5)
    assert (found["f1_macro"], found["map"], found["accuracy_subset"]) == (1.0, 1.0, 1.0)
    nothing = metrics.multi_label(scores * 0.1, labels & False, ["a", "b"], 0.5)
    assert nothing["f1_micro"] == 0.0 and nothing["accuracy_subset"] == 1.0


def test_regression_metrics_are_the_fields():
    predictions, labels = np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0, 5.0])
    found = metrics.regression(predictions, labels, ["x"])
    assert found["pearson"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    assert found["spearman"] == pytest.approx(0.9486832980505138)  # scipy.stats.spearmanr
    assert found["mae"] == pytest.approx(0.5) and found["rmse"] == pytest.approx(math.sqrt(0.5))
    assert found["r2"] == pytest.approx(sk.r2_score(labels, predictions))
    assert metrics.regression(np.ones(4), labels, ["x"])["pearson"] == 0.0


def test_a_threshold_is_the_best_of_the_split_and_nearest_to_a_half():
    scores, labels = np.array([[0.3], [0.2], [0.9]]), np.array([[True], [False], [True]])
    assert metrics.best_threshold(scores, labels) == pytest.approx(0.3)
    assert metrics.best_threshold(np.array([[0.9], [0.1]]), np.array([[True], [False]])) == 0.5


def test_a_checkpoint_names_its_problem():
    assert problems.of_config(type("Config", (), {"problem_type": None})) == "single_label"
    assert problems.of_config(type("Config", (), {"problem_type": "regression"})) == "regression"

"""Feature extraction: embeddings of every layer as plain transformers gives them, in files that survive an end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import transformers as tf

import hfft
from hfft import lookup
from hfft.messages import InputError, Stopped
from hfft.recipe import ModelSection, Part
from hfft.tasks.feature_extraction import pooled

NAMES = ["bert", "roberta", "distilbert", "modernbert", "electra", "llama", "gpt2"]


def build(folder: Path, name: str = "bert") -> str:
    torch.manual_seed(0)
    tf.AutoModel.from_config(tiny.CONFIGS[name][1]()).save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.padding_side = "left" if name in ("llama", "gpt2") else "right"
    tokenizer.save_pretrained(folder)
    return str(folder)


def data_of(num_rows: int = 25) -> list[dict]:
    return [{"text": row["text"], "key": f"k{i}"} for i, row in enumerate(tiny.sentences(num_rows))]


def recipe_of(folder: Path, name: str = "bert", **options) -> dict:
    given = {"output": str(folder / "run"), "rows_per_file": 10, "batch_size": 4, **options}
    return {"task": {"feature_extraction": given}, "model": {"name": build(folder / "base", name)}, "train": None}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "run" / "features").iterdir())}


def plain(folder: str, texts: list[str], layer: int, pooling: str) -> np.ndarray:
    """One text at a time, without padding."""
    model, tokenizer = tf.AutoModel.from_pretrained(folder).eval(), tf.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[layer][0]
        ways = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}
        found.append(ways[pooling].numpy())
    return np.array(found)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_those_of_plain_transformers(name, pooling, tmp_path):
    folder, rows = build(tmp_path, name), [row["text"] for row in data_of(7)]
    task = lookup.call("tasks", Part("feature_extraction", {"output": "x", "layer": [0, 1, -1], "pooling": pooling}))
    task.setup(ModelSection(name=folder))
    net = task.load_model(ModelSection(name=folder)).eval()
    encoded = task.encode({"text": rows})
    inputs = task.collate([{"input_ids": ids} for ids in encoded["input_ids"]])
    with torch.no_grad():
        found = task.forward(net, inputs)
    assert list(found) == ["embedding_0", "embedding_1", "embedding_2"]
    for layer, values in enumerate(found.values()):
        assert np.abs(values.numpy() - plain(folder, rows, layer, pooling)).max() <= 1e-5


def test_pooling_passes_over_padding_on_either_side():
    hidden = torch.tensor([[[9.0], [1.0], [3.0]], [[2.0], [-4.0], [-9.0]]])
    tokens = torch.tensor([[False, True, True], [True, True, False]])
    expected = {"mean": [2.0, -1.0], "cls": [1.0, 2.0], "last": [3.0, -4.0], "max": [3.0, 2.0]}
    assert {how: pooled(hidden, tokens, how).flatten().tolist() for how in expected} == expected


def test_a_run_leaves_a_row_of_parquet_for_each_row_with_its_ids_and_a_model_that_predicts_the_same(tmp_path):
    rows = data_of()
    result = hfft.finetune(recipe_of(tmp_path, ids=["key"]), data=rows)
    names = [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert list(files(tmp_path)) == names
    found = pd.read_parquet(tmp_path / "run" / "features")
    assert list(found.columns) == ["row", "key", "embedding"]
    assert found["row"].tolist() == list(range(25)) and found["key"].tolist() == [row["key"] for row in rows]
    values = np.stack(found["embedding"].to_list())
    texts = [row["text"] for row in rows]
    assert values.dtype == np.float32 and np.abs(values - plain(str(tmp_path / "run"), texts, -1, "mean")).max() <= 1e-5
    answers = hfft.load(tmp_path / "run").predict(texts)
    assert [answer["row"] for answer in answers] == list(range(25))
    assert np.abs(np.array([answer["embedding"] for answer in answers]) - values).max() <= 1e-5
    assert result.metrics["features"]["rows"] == 25 and result.metrics["features"]["seconds"] > 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["features"]["computed"] == 25
    from hfft.seal import verify

    assert verify(tmp_path / "run")["files"] >= 8


def test_the_files_are_a_data_set_and_name_their_split(tmp_path):
    from datasets import load_dataset

    hfft.finetune(recipe_of(tmp_path, layer=[1, -1]), data={"train": data_of(12), "validation": data_of(5)})
    found = load_dataset(str(tmp_path / "run" / "features"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 12, "validation": 5}
    assert found["train"].column_names == ["row", "embedding_1", "embedding_2"]


def test_normalized_embeddings_have_length_one(tmp_path):
    hfft.finetune(recipe_of(tmp_path, normalize=True), data=data_of(5))
    values = np.stack(pd.read_parquet(tmp_path / "run" / "features")["embedding"].to_list())
    assert np.linalg.norm(values, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_a_run_that_was_ended_makes_the_missing_files_and_all_are_byte_equal(tmp_path):
    recipe = recipe_of(tmp_path, ids=["key"])
    hfft.finetune(recipe, data=data_of())
    whole = files(tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    middle = tmp_path / "run" / "features" / "train-00001-of-00003.parquet"
    middle.unlink()
    (middle.parent / f".tmp-{middle.name}").write_bytes(b"half")
    assert hfft.finetune(recipe, data=data_of(), resume=True).metrics["features"]["computed"] == 10
    assert files(tmp_path) == whole
    before = middle.stat().st_mtime_ns
    hfft.finetune(recipe, data=data_of(), resume=True)  # nothing to do
    assert middle.stat().st_mtime_ns == before


@pytest.mark.parametrize("what", ["data", "task", "model"])
def test_other_features_are_not_mixed_with_those_of_a_run_that_began(what, tmp_path):
    recipe, rows = recipe_of(tmp_path), data_of()
    hfft.finetune(recipe, data=rows)
    (tmp_path / "run" / "metrics.json").unlink()
    if what == "data":
        rows = data_of(20)
    elif what == "task":
        recipe["task"]["feature_extraction"]["pooling"] = "cls"
    else:
        torch.manual_seed(1)
        tf.AutoModel.from_config(tiny.CONFIGS["bert"][1]()).save_pretrained(tmp_path / "base")
    key = {"data": "data.fingerprint", "task": "task", "model": "model.weights"}[what]
    with pytest.raises(InputError, match=f"was begun with another {key}; undo that, or --overwrite"):
        hfft.finetune(recipe, data=rows, resume=True)
    assert hfft.finetune(recipe, data=rows, overwrite=True).metrics["features"]["rows"] == len(rows)


def test_a_folder_that_holds_something_is_refused(tmp_path):
    recipe = recipe_of(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty; write --resume, --overwrite or another folder"):
        hfft.finetune(recipe, data=data_of())
    with pytest.raises(InputError, match="holds something else than features; empty it yourself"):
        hfft.finetune(recipe, data=data_of(), overwrite=True)


def test_a_signal_ends_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    import signal

    from hfft import extract

    recipe, whole = recipe_of(tmp_path), extract.embedded
    hfft.finetune(
        recipe
        | {
            "task": {
                "feature_extraction": recipe["task"]["feature_extraction"] | {"output": str(tmp_path / "other" / "run")}
            }
        },
        data=data_of(),
    )
    calls = []

    def embedded(*args):
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*args)

    monkeypatch.setattr(extract, "embedded", embedded)
    with pytest.raises(Stopped):
        hfft.finetune(recipe, data=data_of())
    assert len(files(tmp_path)) == 1 and not (tmp_path / "run" / "metrics.json").exists()
    monkeypatch.undo()
    hfft.finetune(recipe, data=data_of(), resume=True)
    assert files(tmp_path) == files(tmp_path / "other")


@pytest.mark.slow
def test_two_processes_and_a_killed_run_leave_the_same_files(forks, tmp_path):
    import yaml

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in data_of(55)))
    recipe = recipe_of(tmp_path) | {"data": {"path": str(rows)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    one, two, killed = ((tmp_path / name / "run") for name in ("one", "two", "killed"))
    word = "task.feature_extraction.output="
    assert forks.run("train", tmp_path / "recipe.yaml", f"{word}{one}")[0] == [0]
    codes, said = forks.run("train", tmp_path / "recipe.yaml", f"{word}{two}", processes=2)
    assert codes == [0, 0], said
    codes, _ = forks.run("train", tmp_path / "recipe.yaml", f"{word}{killed}", HFFT_FAULT="eval:8:kill")
    assert codes == [-9] and len(files(killed.parent)) == 2
    assert forks.run("train", tmp_path / "recipe.yaml", f"{word}{killed}", "--resume")[0] == [0]
    assert files(one.parent) == files(two.parent) == files(killed.parent) and len(files(one.parent)) == 6
    found = pd.read_parquet(two / "features")
    assert sorted(found["row"]) == list(range(55))


PLAIN = """
import sys, torch
from transformers import AutoModel, AutoTokenizer
import pandas as pd, numpy as np
model, tokenizer = AutoModel.from_pretrained(sys.argv[1]).eval(), AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    found = model(**tokenizer("a good film", return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
print(",".join(map(str, found.tolist())))
"""


@pytest.mark.slow
def test_a_fresh_process_without_hfft_gives_the_same_embedding(tmp_path):
    result = hfft.finetune(recipe_of(tmp_path), data=data_of(5))
    out = subprocess.run([sys.executable, "-c", PLAIN, str(result.folder)], capture_output=True, text=True, check=True)
    plain = np.array([float(word) for word in out.stdout.strip().split(",")])
    assert np.abs(np.array(result.predict(["a good film"])[0]["embedding"]) - plain).max() <= 1e-5


# ---- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train": {"output_dir": "x"}}, "feature_extraction trains nothing; write train: null"),
        ({"tuning": ["frozen"]}, "feature_extraction trains nothing; delete the section"),
        ({"objectives": ["label_smoothing"]}, "feature_extraction trains nothing; delete the section"),
        ({"export": ["merge"]}, "feature_extraction trains nothing; delete the section"),
        ({"data": {"eval_size": 0.3}}, "holds no rows out, for nothing is trained; delete it"),
    ],
)
def test_what_would_have_no_effect_is_one_line(changes, line, tmp_path):
    recipe = recipe_of(tmp_path) | changes
    for run in (hfft.finetune, hfft.check):
        with pytest.raises(InputError, match=line) as caught:
            run(recipe, data=data_of())
        assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"layer": 3}, "layer: 3: the model has 0 .its embeddings. to 2, or -1 for the last"),
        ({"layer": [-4]}, "layer: -4: the model has 0"),
        ({"layer": [2, -1]}, r"layer: \[2, -1\] names a layer twice"),
        ({"layer": []}, "layer: names no layer"),
        ({"ids": ["row"]}, "ids: 'row' is a column of the files anyway"),
        ({"ids": ["key", "key"]}, "ids: 'key' is a column of the files anyway"),
        ({"ids": ["kee"]}, "which column of .* is the kee"),
        ({"batch_size": 0}, "batch_size: 0; write 1 or more"),
        ({"max_length": 9999}, "max_length 9999 is above"),
        ({"output": ""}, "output: is empty"),
        ({"pooling": "sum"}, "pooling"),
    ],
)
def test_a_wrong_option_is_one_line(options, line, tmp_path):
    with pytest.raises(InputError, match=line) as caught:
        hfft.finetune(recipe_of(tmp_path, **options), data=[row | {"more": 1} for row in data_of(5)])
    assert len(caught.value.lines) == 1


WRONG = {
    "empty": ('{"text": "a", "key": 1}\n{"text": "", "key": 2}\n', r"x\.jsonl line 2, column 'text': is empty"),
    "blank": ('{"text": "a", "key": 1}\n{"text": " ", "key": 2}\n', r"line 2, column 'text': holds only blanks"),
    "number": ('{"text": "a", "key": 1}\n{"text": 0.5, "key": 2}\n', r"line 2, column 'text': is 0\.5"),
    "no id": ('{"text": "a", "key": 1}\n{"text": "b", "key": null}\n', r"line 2, column 'key': is empty"),
    "list": ('{"text": "a", "key": 1}\n{"text": ["b"], "key": 2}\n', r"line 2, column 'text': is \['b'\] \(list\)"),
    "json": ('{"text": "a", "key": 1}\n{"text": \n', r"x\.jsonl line 2"),
    "column": ('{"words": 1.5, "key": 1}\n{"words": 2.5, "key": 2}\n', r"words"),
    "nothing": ("", r"x\.jsonl"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line(name, tmp_path):
    content, line = WRONG[name]
    (tmp_path / "x.jsonl").write_text(content)
    recipe = recipe_of(tmp_path, ids=["key"]) | {"data": {"path": str(tmp_path / "x.jsonl")}}
    with pytest.raises(InputError, match=line):
        hfft.finetune(recipe)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_bad_rows_that_are_skipped_are_listed(tmp_path):
    rows = [*data_of(8), {"text": "", "key": "x"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(tmp_path) | {"data": {"path": str(tmp_path / "x.jsonl"), "on_bad_row": "skip"}}
    found = hfft.finetune(recipe).metrics
    assert found["data"]["rows_read"] == {"train": 9} and found["features"]["rows"] == 8
    assert len((tmp_path / "run" / "dropped.jsonl").read_text().splitlines()) == found["data"]["dropped"] == 1


def test_texts_that_are_cut_are_counted(tmp_path):
    rows = [{"text": "good " * 30}, {"text": "bad"}]
    assert hfft.finetune(recipe_of(tmp_path, max_length=8), data=rows).metrics["data"]["truncated"] == 1


def test_check_tells_the_rows_and_writes_nothing(tmp_path):
    found = hfft.check(recipe_of(tmp_path), data=data_of())
    assert found["problems"] == [] and found["data"]["rows_read"] == {"train": 25} and not (tmp_path / "run").exists()


def test_the_metrics_of_features_are_refused_in_one_line(tmp_path):
    from hfft.evaluation import of_run

    hfft.finetune(recipe_of(tmp_path), data=data_of(5))
    with pytest.raises(InputError, match="feature_extraction has no right answers, and so no metrics"):
        of_run(str(tmp_path / "run"))

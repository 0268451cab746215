"""Splits, columns, labels, the held-out split, fingerprints, filters; and the real data sets, counted."""

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import standin
from PIL import Image

from hfft.data import load_splits
from hfft.filters.dedup import dedup
from hfft.lookup import Part
from hfft.messages import InputError
from hfft.reading.holdout import quotas

TEXT = standin.task("text", "text_pair?", "label")
IMAGE = standin.task("image", "label")


def rows(*labels, start=0) -> list[dict]:
    return [{"text": f"word {start + i}", "label": label} for i, label in enumerate(labels)]


def load(memory, task=TEXT, seed=0, splits=(), **data):
    return load_splits(SimpleNamespace(**data), task, seed=seed, data_in_memory=memory, splits=splits)


def names(part) -> list[str]:
    classes = part.features["label"].names
    return [classes[i] for i in part["label"][:]]


def said(caplog) -> list[str]:
    return [record.getMessage().removeprefix("warning: ") for record in caplog.records]


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 9, 10], ["9", "10"]),
        (["10", "9", "10"], ["9", "10"]),
        (["01", "1", "01"], ["01", "1"]),
        ([True, False, True], ["false", "true"]),
        (["NA", "null", "NA"], ["NA", "null"]),
        (["10", "9", "b"] * 2, ["10", "9", "b"]),
    ],
)
def test_classes_are_in_a_stable_order(labels, order):
    splits = load(rows(*labels), eval_size=0)
    assert splits.train.features["label"].names == order
    assert names(splits.train) == [str(label).lower() if isinstance(label, bool) else str(label) for label in labels]


def test_data_labels_gives_the_order_or_renames():
    assert load(rows("a", "b", "a"), eval_size=0, labels=["b", "a"]).train.features["label"].names == ["b", "a"]
    renamed = load(rows(0, 1, 0), eval_size=0, labels={"1": "pos", "0": "neg"}).train
    assert (renamed.features["label"].names, names(renamed)) == (["pos", "neg"], ["neg", "pos", "neg"])
    merged = load(rows("a", "A", "b", "b"), eval_size=0, labels={"A": "a"}).train
    assert names(merged) == ["a", "a", "b", "b"]


def test_spellings_that_differ_in_unicode_form_only_are_one_label():
    with pytest.raises(InputError, match=r"another spelling of"):
        load(rows("\u00e9", "\u00e9", "e\u0301", "b"), eval_size=0)


def test_a_class_label_keeps_letters_in_both_cases():
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["a", "A", "b"]))
    table = datasets.Dataset.from_dict({"text": list("wxyz"), "label": [0, 1, 2, 0]}, features=features)
    assert load(table, eval_size=0).train.features["label"].names == ["a", "A", "b"]


def test_the_held_out_split_has_a_share_of_each_class_and_depends_on_the_seed_only(caplog):
    memory = rows(*["a"] * 60, *["b"] * 30, *["c"] * 10, "d")
    with caplog.at_level(logging.INFO, "hfft"):
        splits = load(memory)
    assert Counter(names(splits.eval)) == {"a": 6, "b": 3, "c": 1}
    assert sorted([*splits.train["row"], *splits.eval["row"]]) == list(range(101))
    assert splits.eval["row"][:] == load(memory).eval["row"][:] != load(memory, seed=1).eval["row"][:]
    assert "eval: classes of a single row stay in train (d)" in said(caplog)
    assert (
        "eval: 10 rows of 101 held out of 'train', a share of each class, seed 0 "
        "(no eval split; set data.eval or data.eval_size)" in said(caplog)
    )


def test_eval_size_from_one_on_is_a_number_of_rows():
    assert len(load(rows(*"ab" * 20), eval_size=6).eval) == 6


def test_copies_of_a_text_are_held_out_together():
    memory = [{"text": f"word {i // 4}", "label": "ab"[i // 4 % 2]} for i in range(80)]
    splits = load(memory, eval_size=0.5)
    assert not set(splits.train["text"]) & set(splits.eval["text"])


def test_quotas_take_no_class_whole():
    assert quotas({"a": 2, "b": 2, "c": 96}, 50) == {"a": 1, "b": 1, "c": 48}
    assert quotas({"a": 2, "b": 2}, 4) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("there", "data", "chosen", "line"),
    [
        ("train val test", {}, "val", "eval: the split 'val' (by its name; set data.eval)"),
        ("train validation", {}, "validation", "eval: the split 'validation' (by its name; set data.eval)"),
        ("train test", {"eval": "test"}, "test", None),
        ("train val", {"eval": "validation"}, "val", "data.eval: 'validation' is the split 'val'"),
        ("train test", {}, None, "eval: test not touched (data.eval: test would use it)"),
    ],
)
def test_the_evaluation_split_is_chosen_by_name_and_announced(there, data, chosen, line, caplog):
    memory = {split: rows(*"abababababab", start=100 * i) for i, split in enumerate(there.split())}
    with caplog.at_level(logging.INFO, "hfft"):
        splits = load(memory, **data)
    first = 100 * there.split().index(chosen or "train")
    assert int(splits.eval["text"][0].split()[1]) // 100 * 100 == first
    assert line is None or line in said(caplog)
    assert ("train" in splits.report["rows_read"]) and len(splits.report["rows_read"]) == 2 - (chosen is None)


def test_two_candidates_for_evaluation_are_a_question():
    with pytest.raises(InputError, match=r"^data\.eval: which split is evaluated, val or dev\? Name one$"):
        load({split: rows("a", "b", "a") for split in ("train", "val", "dev")})


def test_other_splits_come_when_asked_for_with_the_classes_of_train():
    memory = {"train": rows(*"abcabcabc"), "val": rows("a", "b", "c", start=50), "test": rows("c", start=90)}
    splits = load(memory, splits=["test"])
    assert list(splits.others) == ["test"]
    assert names(splits.others["test"]) == ["c"]
    assert splits.others["test"].features["label"].names == ["a", "b", "c"]
    assert load(memory).others == {}


def test_files_by_split_may_be_the_same_file_when_that_is_said(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\nc,y\n")
    path = {"train": str(tmp_path / "a.csv"), "eval": [str(tmp_path / "a.csv")]}
    splits = load_splits(SimpleNamespace(path=path), TEXT, seed=0)
    assert "eval: 3 rows (100.0 %) also in train, so its score is too good" in said(caplog)
    assert len(splits.eval) == 3


@pytest.mark.parametrize(
    ("columns", "data", "text"),
    [
        (["Sentence", "Category"], {}, "one"),
        (["text", "category"], {}, "one"),
        (["utterance", "label"], {}, "one"),
        (["utterance", "label"], {"columns": {"text": "utterance"}}, "one"),
        (["words", "mood"], {"columns": {"text": "words"}}, "one"),
    ],
)
def test_columns_are_found_where_there_is_one_candidate(columns, data, text):
    memory = [dict(zip(columns, cells, strict=True)) for cells in (("one", "a"), ("two", "b"), ("three", "a"))]
    assert load(memory, eval_size=0, **data).train["text"][0] == text


def test_found_columns_are_announced(caplog):
    with caplog.at_level(logging.INFO, "hfft"):
        load([{"sentence": f"w {i}", "klass": i % 2} for i in range(9)], eval_size=0)
    assert "columns: text is 'sentence', label is 'klass' (the only candidates; set data.columns)" in said(caplog)


def test_several_texts_are_joined_or_paired(caplog):
    memory = [{"title": f"t{i}", "body": None if i == 1 else f"b{i}", "label": i % 2} for i in range(4)]
    with caplog.at_level(logging.INFO, "hfft"):
        joined = load(memory, eval_size=0, columns={"text": ["title", "body"]}, join=" | ").train
    assert joined["text"][:] == ["t0 | b0", "t1", "t2 | b2", "t3 | b3"]
    assert "columns: text is title + body, joined with ' | ' (set data.join)" in said(caplog)
    assert "train: 1 row with an empty part, joined from the others" in said(caplog)
    pairs = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": i % 2} for i in range(4)]
    assert load(pairs, eval_size=0).train[1] == {"text": "p1", "text_pair": "h1", "label": 1, "row": 1}
    given = load(memory[:1] + memory[2:], eval_size=0, columns={"text": "title", "text_pair": "body"}).train
    assert given["text_pair"][:] == ["b0", "b2", "b3"]


def test_the_fingerprint_is_of_the_content(tmp_path):
    def of(*labels, **data):
        return load(rows(*labels), eval_size=0, **data).report["fingerprint"]

    assert of("a", "b", "a") == of("a", "b", "a") == "dee0e7549b1f68ff320cdbc2efbda0cf"
    assert (
        len({of("a", "b", "a"), of("a", "b", "b"), of("a", "b", "a", labels=["b", "a"]), of("a", "b", "a", "a")}) == 4
    )


def test_the_fingerprint_of_pictures_is_of_their_bytes(tmp_path):
    def fingerprint(folder):
        for i, name in enumerate(("cat", "cat", "dog", "dog")):
            path = tmp_path / folder / name / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
        return load_splits(SimpleNamespace(path=str(tmp_path / folder), eval_size=0), IMAGE, seed=0).report[
            "fingerprint"
        ]

    first = fingerprint("here")
    assert first == fingerprint("there")
    Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / "here" / "cat" / "0.bmp")
    changed = load_splits(SimpleNamespace(path=str(tmp_path / "here"), eval_size=0), IMAGE, seed=0).report[
        "fingerprint"
    ]
    assert changed != first


def test_filters_see_the_training_rows_only_and_are_counted(caplog):
    memory = {
        "train": [*rows("a", "b", "a"), *rows("a", "b")],
        "val": [*rows("a", "b", start=50), *rows("a", start=50)],
    }
    with caplog.at_level(logging.INFO, "hfft"):
        splits = load(memory, filters=[Part("dedup")])
    assert (len(splits.train), len(splits.eval)) == (3, 3)
    assert splits.report["filters"] == {"dedup": 2}
    assert splits.report["rows_read"] == {"train": 5, "val": 3}
    assert "dedup: 2 of 5 rows dropped as exact copies (keep: first)" in said(caplog)


def test_dedup_compares_inputs_not_labels():
    table = datasets.Dataset.from_dict({"text": ["a", "b", "a", "c"], "label": [0, 1, 1, 0], "row": [0, 1, 2, 3]})
    assert dedup(table)["row"][:] == [0, 1, 3]
    assert dedup(table, keep="none")["row"][:] == [1, 3]
    with pytest.raises(ValueError, match=r"write 'first' or 'none'"):
        dedup(table, keep="last")


def test_dedup_compares_pictures_by_their_bytes(tmp_path):
    for name in ("cat/0.bmp", "cat/1.bmp", "dog/2.bmp", "dog/3.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (int(name[4]) // 2, 0, 0)).save(tmp_path / name)
    part = load_splits(SimpleNamespace(path=str(tmp_path), eval_size=0), IMAGE, seed=0).train
    assert dedup(part)["row"][:] == [0, 2]


def test_a_sample_of_many_pictures_is_decoded_and_that_is_said(tmp_path, caplog):
    for i in range(12):
        path = tmp_path / ("cat", "dog")[i % 2] / f"{i}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    data = SimpleNamespace(path=str(tmp_path), eval_size=0)
    with caplog.at_level(logging.INFO, "hfft"):
        load_splits(data, IMAGE, seed=0, check_limit=6)
    assert "train: 6 of 12 pictures decoded before training, evenly spread (12 in all)" in said(caplog)
    (tmp_path / "cat" / "10.bmp").write_bytes(b"BMgarbage")
    with pytest.raises(InputError, match=r"^cat/10\.bmp: is damaged|^cat/10\.bmp: is no picture"):
        load_splits(data, IMAGE, seed=0, check_limit=None)


def test_the_data_layer_needs_no_torch():
    code = "import sys, hfft.data; print([m for m in ('torch', 'datasets', 'pandas', 'pyarrow') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"


REAL = {
    "sst2": (TEXT, {"splits": ["test"]}, {"train": 6920, "dev": 872, "test": 1821}, {"0": 3310, "1": 3610}),
    "ag_news": (
        TEXT,
        {"columns": {"text": ["title", "description"]}, "eval": "test"},
        {"train": 5500, "test": 1000},
        {"Business": 1334, "Sci/Tech": 1404, "Sports": 1377, "World": 1385},
    ),
    "trec": (TEXT, {"eval": "test"}, {"train": 5452, "test": 500}, {"abbreviation": 86}),
    "cifar10-parquet": (IMAGE, {"eval": "test"}, {"train": 5000, "test": 1000}, {"cat": 500}),
    "cifar10-folder": (IMAGE, {"eval": "test"}, {"train": 1000, "test": 200}, {"cat": 100}),
    "flowers5": (IMAGE, {"eval": "test"}, {"train": 1500, "test": 500}, {"daisy": 300}),
    "groceries": (IMAGE, {"splits": ["test"]}, {"train": 1032, "val": 161, "test": 604}, {}),
}
CLASSES = {
    "sst2": 2,
    "ag_news": 4,
    "trec": 6,
    "cifar10-parquet": 10,
    "cifar10-folder": 10,
    "flowers5": 5,
    "groceries": 34,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data_are_read_to_the_last_row(name, shared):
    task, data, sizes, counts = REAL[name]
    section = SimpleNamespace(path=str(shared / "data" / name), **data)
    splits = load_splits(section, task, seed=0, splits=data.get("splits", ()))
    assert splits.report["rows_read"] == sizes
    assert len(splits.train) == sizes["train"] and splits.report["dropped"] == 0
    assert len(splits.train.features["label"].names) == CLASSES[name]
    assert {label: count for label, count in Counter(names(splits.train)).items() if label in counts} == counts

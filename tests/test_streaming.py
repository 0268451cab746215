"""Streams: the rows of each step, nothing twice or lost, resuming, mistakes with their lines, flat memory."""

import csv
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pytest
import standin
import tiny
import torch
from safetensors.torch import load_file

import hfft
from hfft import draws, streams
from hfft.batches import EpochLoader, GlobalBatches
from hfft.lookup import Part
from hfft.messages import InputError
from hfft.reading.blocks import open_table
from hfft.reading.source import as_list
from hfft.reading.tables import Place, read_table
from hfft.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
TEXT = standin.task("text", "text_pair?", "label", lazy=False)
IMAGE = standin.task("image", "label", lazy=True)


class Plain:
    """A task that encodes a row as what it is."""

    columns = TEXT.columns
    lazy = False
    vary = None

    def encode(self, rows, *, train=False):
        return {"text": rows["text"], "labels": rows["label"]}

    def cut_off(self):
        return 0

    def data_report(self, split):
        return {}


def write(path: Path, num_rows: int, last: str = "") -> str:
    with open(path, "w") as file:
        for i in range(num_rows):
            file.write(json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}) + "\n")
        file.write(last)
    return str(path)


def load(memory=None, task=TEXT, **data):
    data["load"] = {"streaming": True} | data.get("load", {})
    return streams.load_splits(SimpleNamespace(**data), task, seed=0, data_in_memory=memory)


def rows_of(path: str, seed: int = 0, steps: int = 8, batch: int = 10, strategy: str = "random", **data):
    stream = load(path=path, labels=["a", "b"], eval_size=0, **data).train
    rows = draws.encoded(stream, Plain(), split="train", seed=0)
    return rows, rows.arrange(seed, batch, steps, strategy)


def texts(rows, order, layout=(10, 1, 1), workers: int = 0) -> list[list[str]]:
    """The texts of every step for (rows a batch, processes, accumulation), drawn through the real loader."""
    size, processes, accumulation = layout
    micro = []
    for process in range(processes):
        sampler = GlobalBatches(len(rows), size, order, process=process, num_processes=processes)
        loader = EpochLoader(
            rows, sampler, num_workers=workers, collate_fn=lambda batch: [row["text"] for row in batch]
        )
        micro.append(list(loader))
    joined = [[text for share in micro for text in share[m]] for m in range(len(micro[0]))]
    return [flat(joined[at : at + accumulation]) for at in range(0, len(joined), accumulation)]


def flat(steps: list[list[str]]) -> list[str]:
    return [text for step in steps for text in step]


def said(caplog) -> list[str]:
    return [record.getMessage().removeprefix("warning: ") for record in caplog.records]


# ---- reading --------------------------------------------------------------------------------------------------------
TABLE = [{"text": f"a, {i}" if i % 3 else f'q "{i}"\nb', "label": "ab"[i % 2]} for i in range(2300)]


def delimited(path, sep=","):
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, ["text", "label"], delimiter=sep)
        out.writeheader()
        out.writerows(TABLE)


def as_parquet(path):
    names = datasets.ClassLabel(names=["b", "a"])
    datasets.Dataset.from_list(TABLE).cast_column("label", names).to_parquet(path)


def as_arrow(path, kind=pa.ipc.new_file):
    table = pa.Table.from_pylist(TABLE)
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as out:
        out.write_table(table, max_chunksize=700)


WRITERS = {
    "a.csv": delimited,
    "a.tsv": lambda path: delimited(path, "\t"),
    "semicolons.csv": lambda path: delimited(path, ";"),
    "a.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n\n" for row in TABLE)),
    "lines.json": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in TABLE)),
    "utf16.csv": lambda path: path.write_bytes(
        "".join(f"té {i},{i % 2}\r\n" for i in range(-1, 1200)).encode("utf-16")
    ),
    "latin.csv": lambda path: path.write_bytes("".join(f"té {i},{i % 2}\n" for i in range(-1, 1200)).encode("cp1252")),
    "quotes.tsv": lambda path: path.write_text("text\tlabel\n" + '5" long\ta\n' * 3 + "plain\tb\n" * 1500),
    "a.txt": lambda path: path.write_text("".join(f"line {i}\n" for i in range(1500)) + "one\x0btwo"),
    "a.parquet": as_parquet,
    "a.arrow": as_arrow,
    "stream.arrow": lambda path: as_arrow(path, pa.ipc.new_stream),
    "a.feather": as_arrow,
}


@pytest.mark.parametrize("name", WRITERS)
def test_blocks_are_the_rows_of_the_whole_file_with_their_lines(name, tmp_path):
    WRITERS[name](tmp_path / name)
    place = Place(str(tmp_path / name), name, {})
    whole, table = read_table(*place), open_table(place)
    for _ in range(2):
        blocks = list(table.blocks())
        assert len(blocks) > 1 and max(map(len, blocks)) <= 1000
        found = {column: [x for block in blocks for x in as_list(block.columns[column])] for column in whole.columns}
        assert found == {column: as_list(values) for column, values in whole.columns.items()}
        assert [block.where(i) for block in blocks for i in range(len(block))] == list(
            map(whole.where, range(len(whole)))
        )
        assert [i for block in blocks for i in block.index] == list(range(len(whole)))
        assert str(blocks[0].features) == str(whole.features)


REFUSED = {
    "broken.csv": ("text,label\n" + "x,a\n" * 1500 + '"open,b\n', "broken.csv line 1502: a quote is opened here"),
    "ragged.csv": ("text,label\n" + "x,a\n" * 1500 + "x,y,b\n", "ragged.csv line 1502: 3 cells where the header has 2"),
    "damaged.csv": (
        ("text,label\n" + "é,a\n" * 400_000).encode() + b"\xff,b\n",
        "damaged.csv line 400002: byte 0xff is",
    ),
    "nul.csv": ("text,label\n" + "x,a\n" * 1500 + "a\0,b\n", "nul.csv line 1502: holds a NUL character"),
    "half.jsonl": ('{"text": "x", "label": "a"}\n' * 1500 + '{"text": \n', "half.jsonl line 1501: is not JSON"),
    "list.jsonl": ('{"text": "x", "label": "a"}\n' * 1500 + "[1]\n", "list.jsonl line 1501: [1] is not an object"),
    "document.json": ('[{"text": "x", "label": "a"}]', "document.json: is one JSON document, which is no stream"),
    "header.csv": ("text,label\n", "header.csv: there are no rows below the header"),
    "empty.csv": ("", "empty.csv: the file is empty (0 bytes)"),
    "noparquet.parquet": ("x", "noparquet.parquet: is damaged or no parquet file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_file_is_named_with_its_line(name, tmp_path):
    content, line = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(InputError) as caught:
        for _ in open_table(Place(str(path), name, {})).blocks():
            pass
    assert caught.value.lines[0].startswith(line) and len(caught.value.lines) == 1


# ---- order ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_no_row_is_twice_in_an_epoch_or_lost_whatever_the_layout(strategy, tmp_path):
    rows, order = rows_of(write(tmp_path / "a.jsonl", 2315), steps=300, batch=20, strategy=strategy)
    drawn = Counter((place.epoch, place.row.number) for place in map(rows._drawn, range(6000)))
    assert set(drawn.values()) == {1}
    for epoch in (0, 1):
        assert [number for of, number in sorted(drawn) if of == epoch] == list(range(2315))
    whole = texts(rows, order, (20, 1, 1))
    for layout, workers in (((10, 1, 2), 2), ((10, 2, 1), 0), ((5, 2, 2), 2), ((20, 1, 1), 2)):
        assert [sorted(step) for step in texts(rows, order, layout, workers)] == [sorted(step) for step in whole]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(tmp_path):
    path = write(tmp_path / "a.jsonl", 100)
    drawn = [flat(texts(*rows_of(path, seed, steps=20))) for seed in (0, 0, 1)]
    every = [f"row {i}" for i in range(100)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0][:100]) == sorted(drawn[0][100:]) == sorted(every)
    assert drawn[0][:100] != drawn[0][100:] and every != drawn[0][:100]
    assert flat(texts(*rows_of(path, steps=10, strategy="sequential"))) == every


def test_a_buffer_mixes_rows_no_farther_than_its_size(tmp_path):
    rows, order = rows_of(write(tmp_path / "a.jsonl", 3000), steps=300, load={"buffer_size": 50})
    drawn = [int(text.split()[1]) for text in flat(texts(rows, order))]
    assert sorted(drawn) == list(range(3000))
    assert max(number - place for place, number in enumerate(drawn)) <= 50
    assert sum(number != place for place, number in enumerate(drawn)) > 2500


def test_rows_of_like_length_share_a_batch(tmp_path):
    lines = [json.dumps({"text": "x" * (7 * i % 101 + 1), "label": "ab"[i % 2]}) for i in range(2000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    spread = {}
    for strategy in ("random", "group_by_length"):
        steps = texts(*rows_of(str(tmp_path / "a.jsonl"), steps=200, strategy=strategy))
        spread[strategy] = sum(max(map(len, step)) - min(map(len, step)) for step in steps) / len(steps)
    assert spread["group_by_length"] < 5 < 50 < spread["random"]


def test_files_are_read_in_an_order_drawn_for_each_epoch(tmp_path):
    paths = [str(tmp_path / f"{i}.jsonl") for i in range(6)]
    for i, path in enumerate(paths):
        Path(path).write_text("".join(json.dumps({"text": f"{i} {j}", "label": "ab"[j % 2]}) + "\n" for j in range(20)))
    drawn = flat(texts(*rows_of(paths, steps=24, load={"buffer_size": 1})))
    files = [[text.split()[0] for text in drawn[at : at + 20]] for at in range(0, 240, 20)]
    assert all(len(set(part)) == 1 for part in files)
    orders = ["".join(part[0] for part in files[at : at + 6]) for at in (0, 6)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list("012345")


def test_what_is_random_in_a_row_depends_on_seed_epoch_and_row_only(tmp_path):
    path = write(tmp_path / "a.jsonl", 60)
    stream = load(path=path, labels=["a", "b"], eval_size=0).train

    def noisy(rows):
        return rows | {"text": [f"{text} {torch.rand(()).item():.6f}" for text in rows["text"]]}

    found = []
    for batch, workers in ((10, 0), (5, 2)):
        rows = draws.encoded(stream, Plain(), split="train", seed=3, augment=[noisy])
        found.append(flat(texts(rows, rows.arrange(3, batch, 120 // batch, "random"), (batch, 1, 1), workers)))
    assert found[0] == found[1] and len(set(found[0])) == 120


def test_the_first_batch_comes_before_the_file_is_read_whole(tmp_path):
    path = write(tmp_path / "a.jsonl", 30_000, last="{broken\n")
    rows, order = rows_of(path, load={"buffer_size": 100})
    assert len(texts(rows, order)[0]) == 10
    rows, order = rows_of(path, steps=3000, load={"buffer_size": 100})
    with pytest.raises(InputError, match=r"^a\.jsonl line 30001: is not JSON"):
        texts(rows, order)


# ---- classes --------------------------------------------------------------------------------------------------------
def names(splits) -> list[str]:
    return splits.train.features["label"].names


def test_classes_come_from_labels_or_one_announced_pass(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", 3000)
    with caplog.at_level(logging.INFO, "hfft"):
        assert names(load(path=path, labels=["b", "a"], eval_size=9)) == ["b", "a"]
        assert names(load(path=path, labels={"b": "second", "a": "first"}, eval_size=9)) == ["second", "first"]
        assert not [line for line in said(caplog) if line.startswith("classes")]
        assert names(load(path=path, eval_size=9)) == ["a", "b"]
    assert [line[:64] for line in said(caplog) if line.startswith("classes")] == [
        "classes: train read through once for its labels, 2,991 rows in 0"
    ]


def test_a_class_label_is_taken_as_it_is(tmp_path):
    as_parquet(tmp_path / "a.parquet")
    splits = load(path=str(tmp_path / "a.parquet"), eval_size=9)
    assert names(splits) == ["b", "a"]
    assert [splits.eval["label"][i] for i in range(4)] == [1, 0, 1, 0]


def iterable(num_rows: int = 50) -> datasets.IterableDataset:
    def rows():
        for i in range(num_rows):
            yield {"text": f"row {i}", "label": "ab"[i % 2]}

    return datasets.IterableDataset.from_generator(rows)


def test_a_stream_that_cannot_be_read_before_needs_its_classes(caplog):
    section = SimpleNamespace(load={"streaming": True}, eval_size=5)
    with pytest.raises(InputError, match=r"^data\.labels: a stream does not tell its classes"):
        streams.load_splits(section, TEXT, seed=0, data_in_memory=iterable())
    with caplog.at_level(logging.INFO, "hfft"):
        splits = streams.load_splits(section, TEXT, seed=0, data_in_memory=iterable(), label_names=lambda: ["b", "a"])
    assert names(splits) == ["b", "a"]
    assert "classes: b, a (the checkpoint's; the stream names none, set data.labels)" in said(caplog)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            ["pos"] * 9 + ["neg"] * 9 + ["Pos"],
            "a.jsonl line 19, column 'label': 'Pos' is another spelling of 'pos' (1 row",
        ),
        (["pos"] * 9, "a.jsonl: the one label of 9 rows is 'pos'; a classifier needs two classes"),
        (["a", "b", None], "a.jsonl line 3, column 'label': is empty; write a class"),
        ([0.5, 1.5, 2.5], "a.jsonl line 1, column 'label': is 0.5, a number with decimals"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused_before_training(labels, line, tmp_path):
    lines = [json.dumps({"text": f"row {i}", "label": label}) for i, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        load(path={"train": str(tmp_path / "a.jsonl"), "eval": write(tmp_path / "b.jsonl", 9)})
    assert caught.value.lines[0].startswith(line) and len(caught.value.lines) == 1


def test_rows_sorted_by_class_beyond_the_buffer_are_warned_of(tmp_path, caplog):
    lines = [json.dumps({"text": f"row {i}", "label": "ab"[i > 300]}) for i in range(600)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    load(path=str(tmp_path / "a.jsonl"), eval_size=9, load={"buffer_size": 100})
    assert any(
        line.startswith("train: 299 rows of one class follow each other, more than the 100") for line in said(caplog)
    )


# ---- evaluation -----------------------------------------------------------------------------------------------------
def test_held_out_rows_are_the_first_and_never_trained_on(tmp_path, caplog):
    paths = [write(tmp_path / f"{i}.jsonl", 60) for i in range(2)]
    with caplog.at_level(logging.INFO, "hfft"):
        splits = load(path=paths, labels=["a", "b"], eval_size=20)
    assert splits.eval["text"][:] == [f"row {i}" for i in range(20)]
    rows = draws.encoded(splits.train, Plain(), split="train", seed=0)
    drawn = Counter(flat(texts(rows, rows.arrange(0, 10, 20, "random"))))
    assert all(drawn[f"row {i}"] == (2 if i < 20 else 4) for i in range(60))
    held = "eval: the first 20 rows of 'train' held out (no eval split; set data.eval, or data.eval_size to a number"
    assert held in [line.removesuffix(" of rows)") for line in said(caplog)]


def test_a_split_of_its_own_is_held_whole_and_checked_whole(tmp_path):
    train, held_out = write(tmp_path / "train.jsonl", 50), write(tmp_path / "dev.jsonl", 1500)
    assert len(load(path={"train": train, "dev": held_out}).eval) == 1500
    write(tmp_path / "dev.jsonl", 1500, last='{"text": "x", "label": "c"}\n')
    with pytest.raises(InputError, match=r"^dev\.jsonl line 1501, column 'label': 'c' is no class of train \(a, b\)"):
        load(path={"train": train, "dev": held_out})


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {"eval_size": 0.2},
            "data.eval_size: 0.2 is a share, and a stream does not tell its rows; write a number of rows",
        ),
        ({"eval_size": 70}, "data.eval_size: 70 rows would be held out of 'train', which has 60; write less"),
        ({}, "data.eval_size: 1,000 rows would be held out of 'train', which has 60; write less"),
        ({"filters": [Part("dedup")]}, "data.filters: dedup reads the training rows whole"),
        ({"split_column": "label"}, "data.split_column: a stream is not split by a column"),
        ({"load": {"buffer_size": 0}}, "data.load.buffer_size: 0 is no number of rows"),
        ({"load": {"sep": ";"}}, "data.load.sep: is no option for jsonl files"),
        ({"columns": {"text": "txt"}}, "data.columns.text: a.jsonl has no column 'txt'. Did you mean 'text'?"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(data, line, tmp_path):
    with pytest.raises(InputError) as caught:
        load(path=write(tmp_path / "a.jsonl", 60), **data)
    assert caught.value.lines[0].startswith(line) and len(caught.value.lines) == 1


# ---- other sources --------------------------------------------------------------------------------------------------
def test_a_stream_of_the_hub_is_read_as_it_comes(tmp_path, monkeypatch):
    write(tmp_path / "train.jsonl", 2100), write(tmp_path / "test.jsonl", 30)
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    loaded = datasets.load_dataset("json", data_files=files, streaming=True)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **options: asked.append((path, options)) or loaded)
    splits = load(path="some/where", labels=["a", "b"], eval="test", name="plain")
    assert asked == [("some/where", {"name": "plain", "revision": None, "streaming": True})]
    assert len(splits.eval) == 30
    rows = draws.encoded(splits.train, Plain(), split="train", seed=0)
    drawn = flat(texts(rows, rows.arrange(0, 10, 210, "random"), (5, 2, 1), 2))
    assert sorted(drawn) == sorted(f"row {i}" for i in range(2100))


def test_what_a_stream_in_memory_raises_is_one_line():
    def rows():
        yield {"text": "x", "label": "a"}
        raise KeyError("gone")

    with pytest.raises(InputError, match=r"^train: the stream failed \(KeyError: 'gone'\)$"):
        load(datasets.IterableDataset.from_generator(rows), labels=["a", "b"], eval_size=1)


def test_an_iterable_dataset_without_streaming_says_what_to_write():
    with pytest.raises(
        InputError, match=r"^train: an IterableDataset is a stream; write data\.load: \{streaming: true\}"
    ):
        streams.load_splits(SimpleNamespace(), TEXT, seed=0, data_in_memory=iterable())


def save_pictures(folder: Path, num_rows: int = 24) -> str:
    for i, row in enumerate(tiny.pictures(num_rows)):
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / row["label"] / f"{i:03}.png")
    return str(folder)


def test_a_folder_of_pictures_is_shuffled_whole_and_opened_on_access(tmp_path):
    stream = load(path=save_pictures(tmp_path / "p", 40), task=IMAGE, eval_size=0, load={"buffer_size": 1}).train
    rows = draws.StreamRows(stream, Plain(), seed=0)
    rows.arrange(0, 10, 8, "random")
    drawn = [rows._drawn(i).row.columns for i in range(80)]
    assert names(SimpleNamespace(train=stream)) == ["dark", "light"]
    paths = [row["image"]["path"] for row in drawn]
    assert sorted(paths[:40]) == sorted(paths[40:]) and len(set(paths)) == 40 and paths[:40] != paths[40:]
    assert {row["label"] for row in drawn[:10]} == {0, 1} and drawn[0]["image"]["bytes"] is None


# ---- a whole run ----------------------------------------------------------------------------------------------------
def recipe_of(folder: Path, name: str = "bert", data=None, tuning=(), **train) -> dict:
    kind = tiny.CONFIGS[name][0]
    return {
        "task": f"{kind}_classification",
        "model": {"name": tiny.build(name, folder / "base")},
        "data": {"load": {"streaming": True, **(data or {}).pop("load", {})}, **(data or {})},
        "tuning": list(tuning),
        "train": {
            "output_dir": str(folder / "run"), "use_cpu": True, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
            "max_steps": 12, **train,
        },
    }  # fmt: skip


def sentences_in(path: Path, num_rows: int = 60, extra: str = "") -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny.sentences(num_rows)) + extra)
    return str(path)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    adapter = folder / "adapter_model.safetensors"
    return load_file(adapter if adapter.is_file() else folder / "model.safetensors")


LORA = [{"peft": {"peft_type": "LORA", "lora_dropout": 0.1}}]


@pytest.mark.parametrize(
    ("name", "tuning", "workers"),
    [
        pytest.param("bert", [], 2, marks=pytest.mark.slow),
        ("bert", LORA, 0),
        ("vit", [], 0),
        pytest.param("timm", LORA, 2, marks=pytest.mark.slow),
    ],
    ids=["bert-full-2-workers", "bert-lora", "vit-full", "timm-lora-2-workers"],
)
def test_a_resumed_run_ends_with_the_same_weights(name, tuning, workers, tmp_path):
    if name == "bert":
        data = {"path": sentences_in(tmp_path / "a.jsonl"), "load": {"buffer_size": 20}, "eval_size": 10}
    else:
        data = {"path": save_pictures(tmp_path / "p", 26), "augment": [{"image": {"crop": [0.5, 1.0]}}], "eval_size": 6}
    recipe = recipe_of(
        tmp_path, name, data, tuning, gradient_accumulation_steps=2, eval_steps=2, save_total_limit=9,
        load_best_model_at_end=False, dataloader_num_workers=workers,
    )  # fmt: skip
    if name == "bert":
        recipe["model"]["config"] = {"hidden_dropout_prob": 0.2}
    hfft.finetune(recipe)
    whole = weights_of(tmp_path / "run")
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 8:  # step 8 of 12 lies inside the second epoch of 50 rows
            shutil.rmtree(folder)
    recipe["train"]["dataloader_num_workers"] = 2 - workers
    for left in ("metrics.json", "model.safetensors"):
        (tmp_path / "run" / left).unlink(missing_ok=True)
    result = hfft.finetune(recipe, resume=True)
    resumed = weights_of(tmp_path / "run")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert result.metrics["train"]["rows"] == 96 and result.metrics["data"]["epochs"] > 1


def test_a_run_reports_what_it_read_trained_dropped_and_cut(tmp_path):
    extra = '{"text": " ", "label": "pos"}\n{"text": "good", "label": "what"}\n'
    extra += json.dumps({"text": "good " * 30, "label": "pos"}) + "\n"
    paths = {"train": sentences_in(tmp_path / "a.jsonl", 60, extra), "dev": sentences_in(tmp_path / "dev.jsonl", 8)}
    data = {"path": paths, "labels": ["neg", "pos"], "on_bad_row": "skip"}
    recipe = recipe_of(tmp_path, data=data, max_steps=32)
    recipe["task"] = {"text_classification": {"max_length": 20}}
    found = hfft.finetune(recipe).metrics
    assert found["train"]["rows"] == 128 and found["train"]["steps"] == 32 and found["eval"]["rows"] == 8
    assert found["data"]["rows_read"] == {"train": 63, "dev": 8}
    assert (found["data"]["trained"], found["data"]["dropped"], found["data"]["epochs"]) == (61, 2, 3)
    assert found["data"]["truncated"] in (2, 3)  # the long row, once in each epoch
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["data"] == found["data"]
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert [(row["line"], row["row"], row["column"]) for row in dropped] == [(61, 60, "text"), (62, 61, "label")]


def test_a_run_that_resumes_after_its_last_step_reports_the_same(tmp_path):
    data = {"path": sentences_in(tmp_path / "a.jsonl"), "eval_size": 10}
    recipe = recipe_of(tmp_path, data=data, load_best_model_at_end=False)
    whole = hfft.finetune(recipe).metrics
    (tmp_path / "run" / "metrics.json").unlink()
    found = hfft.finetune(recipe, resume=True).metrics
    assert found["data"] == whole["data"] and found["train"]["rows"] == whole["train"]["rows"] == 48


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_stops_with_its_line_alone(workers, tmp_path):
    path = sentences_in(tmp_path / "a.jsonl", 1200, '{"text": 3, "label": "pos"}\n')
    data = {"path": path, "labels": ["neg", "pos"], "eval_size": 8, "load": {"buffer_size": 50}}
    recipe = recipe_of(tmp_path, data=data, max_steps=400, dataloader_num_workers=workers, eval_strategy="no")
    with pytest.raises(InputError) as caught:
        hfft.finetune(recipe)
    assert caught.value.lines == [
        "a.jsonl line 1201, column 'text': is 3 (number), no text; write it as a string, or set data.on_bad_row: skip"
    ]
    assert not multiprocessing.active_children()


def test_a_bad_picture_stops_with_its_name_or_is_skipped(tmp_path):
    folder = save_pictures(tmp_path / "p", 24)
    (tmp_path / "p" / "light" / "999.png").write_bytes((tmp_path / "p" / "light" / "001.png").read_bytes()[:60])
    recipe = recipe_of(tmp_path, "vit", {"path": folder, "eval_size": 4}, dataloader_num_workers=2)
    with pytest.raises(InputError, match=r"^light/999\.png: is damaged .*data\.on_bad_row: skip$"):
        hfft.finetune(recipe)
    recipe["data"]["on_bad_row"] = "skip"
    found = hfft.finetune(recipe, overwrite=True).metrics["data"]
    assert (found["rows_read"]["train"], found["trained"], found["dropped"]) == (21, 20, 1)


@pytest.mark.slow
def test_workers_change_no_weight(tmp_path):
    weights = []
    for workers in (0, 2):
        data = {"path": sentences_in(tmp_path / "a.jsonl"), "load": {"buffer_size": 20}, "eval_size": 10}
        hfft.finetune(recipe_of(tmp_path / str(workers), data=data, dataloader_num_workers=workers, max_steps=30))
        weights.append(weights_of(tmp_path / str(workers) / "run"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_streamed_and_held_rows_train_to_the_same_quality(tmp_path):
    recipe = recipe_of(tmp_path, data={"eval_size": 40}, max_steps=60, per_device_train_batch_size=8)
    result = hfft.finetune(recipe, data=tiny.sentences(240))
    assert result.metrics["eval"]["accuracy"] > 0.95


def test_an_iterable_dataset_is_trained_on_from_python(tmp_path):
    rows = datasets.Dataset.from_list(tiny.sentences(40)).to_iterable_dataset()
    data = {"labels": ["neg", "pos"]}
    result = hfft.finetune(recipe_of(tmp_path, data=data), data={"train": rows, "eval": tiny.sentences(8)})
    assert result.metrics["data"]["rows_read"] == {"train": 40, "eval": 8}
    assert result.predict(["good film"])[0]["label"] in ("neg", "pos")


def test_class_weights_are_of_one_pass_or_refused(tmp_path, caplog):
    rows = [row for i, row in enumerate(tiny.sentences(60)) if row["label"] == "pos" or i % 6 == 1]
    recipe = recipe_of(tmp_path, data={"eval_size": 8, "labels": ["neg", "pos"]}, max_steps=2) | {
        "objectives": [{"class_weights": "balanced"}]
    }
    with caplog.at_level(logging.INFO, "hfft"):
        hfft.finetune(recipe, data=rows)
    counts = Counter(row["label"] for row in rows[8:])
    total = sum(counts.values())
    expected = {name: total / 2 / counts[name] for name in ("neg", "pos")}
    assert f"class weights: neg {expected['neg']:.3g}, pos {expected['pos']:.3g}" in said(caplog)
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    with pytest.raises(InputError, match=r"^data\.load\.streaming: a part of this recipe needs the rows of each class"):
        hfft.finetune(recipe, data=stream, overwrite=True)


def test_check_and_eval_read_no_more_than_they_need(tmp_path, caplog):
    from hfft.evaluation import of_run

    path = sentences_in(tmp_path / "a.jsonl", 3000, "{broken\n")
    data = {"path": path, "labels": ["neg", "pos"], "eval_size": 8, "load": {"buffer_size": 50}}
    recipe = recipe_of(tmp_path, data=data, max_steps=3)
    with caplog.at_level(logging.INFO, "hfft"):
        hfft.check(recipe, show=tmp_path / "seen")
    assert any(line.startswith("check: a stream to train on, 8 rows to evaluate") for line in said(caplog))
    assert (tmp_path / "seen" / "training_texts.txt").read_text().count("[CLS]") == 4
    hfft.finetune(recipe)
    assert of_run(str(tmp_path / "run"))["rows"] == 8
    assert of_run(str(tmp_path / "run"), data=sentences_in(tmp_path / "b.jsonl", 20), split="train")["rows"] == 20


# ---- the recipe -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("load", "train", "line"),
    [
        (
            "{streaming: true}",
            "{output_dir: x}",
            "train: needs max_steps, for a stream does not tell how many rows an epoch",
        ),
        ("{streaming: true}", "{output_dir: x, max_steps: -1}", "train: needs max_steps"),
        (
            "{streaming: true}",
            "{output_dir: x, max_steps: 9, num_train_epochs: 3}",
            "train.num_train_epochs: has no effect",
        ),
        (
            "{streaming: true}",
            "{output_dir: x, max_steps: 9, save_strategy: epoch}",
            "train.save_strategy: a stream does",
        ),
        (
            "{streaming: true}",
            "{output_dir: x, max_step: 9}",
            "train: unknown key 'max_step'. Did you mean 'max_steps'?",
        ),
        ("{buffer_size: 9}", "{output_dir: x}", "data.load.buffer_size: has no effect without streaming: true"),
        (
            "{streaming: true, buffersize: 9}",
            "{output_dir: x, max_steps: 9}",
            "data.load: unknown key 'buffersize'. Did",
        ),
        ("{streaming: 1}", "{output_dir: x}", "data.load.streaming: expected true or false, got 1"),
    ],
)
def test_a_recipe_that_streams_is_checked_before_training(load, train, line, tmp_path):
    path = tmp_path / "r.yaml"
    text = f"task: text_classification\nmodel: {{name: x}}\ndata:\n  path: a.csv\n  load: {load}\ntrain: {train}\n"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Recipe.read(path)
    assert len(caught.value.lines) == 1
    place, _, what = caught.value.lines[0].partition(": ")
    assert what.startswith(line) and place.split(":")[1] in ("5", "6")


# ---- processes ------------------------------------------------------------------------------------------------------
MEMORY = """
import sys
import psutil
sys.path.insert(0, sys.argv[2])
import test_streaming as t
steps, sizes = int(sys.argv[3]), []
rows, order = t.rows_of(sys.argv[1], steps=steps, batch=100, strategy="group_by_length")
for step in range(steps):
    if step % 20 == 0:
        sizes.append(psutil.Process().memory_info().rss // 1_000_000)
    rows.__getitems__([(0, i, False) for i in range(step * 100, step * 100 + 100)])
print(max(sizes) - sizes[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    growth = {}
    for num_rows in (20_000, 200_000):
        path = write(tmp_path / f"{num_rows}.jsonl", num_rows)
        command = [sys.executable, "-c", MEMORY, path, str(ROOT / "tests"), str(num_rows // 100)]
        out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=environment())
        growth[num_rows] = int(out.stdout)
    assert growth[20_000] > 0 and growth[200_000] - growth[20_000] < 15, growth  # MB; 200,000 rows held are some 100


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        data = {"path": sentences_in(tmp_path / "a.jsonl", 90), "load": {"buffer_size": 20}, "eval_size": 9}
        recipe = recipe_of(
            folder, data=data, per_device_train_batch_size=8 // processes, optim="sgd", dataloader_num_workers=1
        )
        (folder / "r.json").write_text(json.dumps(recipe))  # JSON is YAML
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
        command = [sys.executable, *launch, "hfft/run.py", str(folder / "r.json")]
        out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
        assert out.returncode == 0, out.stderr
        assert out.stderr.count("read through once for its labels") == 1
        found[processes] = json.loads((folder / "run" / "metrics.json").read_text()), weights_of(folder / "run")
    (one, first), (two, second) = found[1], found[2]
    assert one["data"] == two["data"] and one["train"]["rows"] == two["train"]["rows"] == 96
    assert one["eval"]["accuracy"] == two["eval"]["accuracy"] and two["eval"]["rows"] == 9
    assert all(torch.allclose(first[key], second[key], rtol=1e-4, atol=1e-6) for key in first)

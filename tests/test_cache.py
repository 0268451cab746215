"""The cache of encoded rows: found at the second start, never stale, never damaged, and no number changes by it."""

import json
import logging
import multiprocessing
import os
import resource
import signal
import stat
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
import transformers as tf

from hfft import batches, cache, compact, launch, lookup, text
from hfft.recipe import ModelSection, Part

NAMES = ["neg", "pos"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("HFFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny.build("bert", tmp_path_factory.mktemp("bert"))


def data_of(num_rows: int = 40, names=NAMES, **changes) -> datasets.Dataset:
    rows = tiny.sentences(num_rows)
    columns = {"text": [r["text"] for r in rows], "label": [NAMES.index(r["label"]) for r in rows]} | changes
    columns["row"] = list(range(len(columns["text"])))
    return datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=list(names)))


def task_of(model: str, data=None, **options):
    task = lookup.call("tasks", Part("text_classification", options))
    task.setup(ModelSection(name=model), data or data_of())
    return task


def encoded(task, data=None, split: str = "train", cached: bool = True) -> batches.EncodedRows:
    return batches.encoded(data or data_of(), task, split=split, seed=0, cache=cached)


def rows_of(encoded_rows: batches.EncodedRows) -> list[dict]:
    rows = encoded_rows.__getitems__([(0, i, False) for i in range(len(encoded_rows))])
    return [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()} for row in rows
    ]


def entries(home: Path) -> list[Path]:
    return sorted((home / "tokens").iterdir()) if (home / "tokens").is_dir() else []


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# ---- flat arrays ----------------------------------------------------------------------------------------------------
KINDS = {
    "ids": ([[1, 2, 300], [], [65535]], "list", np.uint16),
    "signed": ([[1, -100], [3], []], "list", np.int8),
    "large": ([[70000], [1], [2]], "list", np.int32),
    "huge": ([[2**40], [1], [2]], "list", np.int64),
    "floats": ([[0.1, 0.2], [], [3.0]], "list", np.float64),
    "arrays": ([np.array([1, 2]), np.array([300]), np.array([], np.int64)], "list", np.uint16),
    "label": ([0, 1, 2], "number", np.uint8),
    "score": ([0.1, 2.5, -1.0], "number", np.float64),
    "flag": ([True, False, True], "number", np.bool_),
    "word": (["naïve", "", "漢字 🙂"], "text", np.uint8),
}


@pytest.mark.parametrize("saved", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("name", KINDS)
def test_a_column_gives_back_what_went_in_and_is_small(name, saved, tmp_path):
    cells, kind, dtype = KINDS[name]
    rows = compact.gather([{name: cells}, {name: []}, {name: cells[:1]}])
    if saved:
        rows = compact.read(tmp_path, json.loads(json.dumps(compact.save(rows, tmp_path))))
    column = rows.columns[name]
    assert (len(rows), column.kind, column.values.dtype) == (4, kind, dtype)
    order = [3, 2, 0, 1, 2]
    found = rows[order][name]
    expected = [[*cells, cells[0]][i] for i in order]
    assert [getattr(x, "tolist", lambda x=x: x)() for x in found] == [
        getattr(x, "tolist", lambda x=x: x)() for x in expected
    ]
    assert kind == "list" or [type(x) for x in found] == [type(x) for x in expected]
    lengths = rows.lengths(name)
    assert lengths is None if kind != "list" else lengths.tolist() == [len(x) for x in [*cells, cells[0]]]


def test_blocks_of_other_ranges_are_joined_in_the_type_that_holds_both():
    rows = compact.gather([{"x": [[1], [2]]}, {"x": [[-1, 70000]]}, {"x": [[255]]}])
    assert [cell.tolist() for cell in rows[range(4)]["x"]] == [[1], [2], [-1, 70000], [255]]


@pytest.mark.parametrize("cells", [[None, 1], [[[1]], [[2]]], [{"a": 1}], [[1], None], [2**70, 1], [["a"], ["b"]]])
def test_other_things_stay_as_they_came_and_cannot_be_saved(cells):
    rows = compact.gather([{"x": cells, "y": list(range(len(cells)))}])
    assert rows[range(len(cells))]["x"] == cells and rows.unsuited() == ["x"]


def test_an_encoding_may_make_more_or_fewer_rows_but_the_same_columns():
    assert len(compact.gather([{"x": [1, 2, 3]}, {"x": []}, {"x": [4]}])) == 4
    with pytest.raises(ValueError, match="encode gave the columns y after x"):
        compact.gather([{"x": [1]}, {"y": [1]}])


# ---- hits and keys --------------------------------------------------------------------------------------------------
def test_a_second_start_encodes_nothing_and_says_the_same(model, home, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, "hfft"):
        first_task = task_of(model, max_length=8)
        first = rows_of(encoded(first_task))
        report = first_task.data_report("train")
    before, (entry,) = said(caplog), entries(home)
    assert f"train: encoded rows kept for the next start in {entry} (train.levers.cache=false turns it off)" in before
    caplog.clear()
    second_task = task_of(model, max_length=8)
    monkeypatch.setattr(text, "encode", lambda *_: pytest.fail("encoded again"))
    with caplog.at_level(logging.INFO, "hfft"):
        second = encoded(second_task)
        assert second_task.data_report("train") == report and report["truncated"] > 0
    assert f"train: 40 encoded rows from the cache ({entry}; train.levers.cache=false encodes anew)" in said(caplog)
    assert [line for line in said(caplog) if "median" in line] == [line for line in before if "median" in line] != []
    monkeypatch.undo()
    assert rows_of(second) == first == rows_of(encoded(task_of(model, max_length=8), cached=False))


def keys_of(model: str, folder: Path) -> dict[str, str]:
    """The key for every single change of what an encoding depends on."""
    plain, first = task_of(model), tiny.sentences(40)[0]["text"]
    texts = data_of()["text"][:]
    flipped = [1 - label for label in data_of()["label"]]
    made = {
        "plain": (plain, data_of(), True),
        "one text": (plain, data_of(text=[first + " a", *texts[1:]]), True),
        "one label": (plain, data_of(label=[flipped[0], *data_of()["label"][1:]]), True),
        "order": (plain, data_of().select([1, 0, *range(2, 40)]), True),
        "fewer rows": (plain, data_of(39), True),
        "label names": (plain, data_of(names=["pos", "neg"]), True),
        "class order": (task_of(model, data_of(names=["pos", "neg"])), data_of(), True),
        "a pair": (plain, data_of(text_pair=texts), True),
        "max_length": (task_of(model, max_length=8), data_of(), True),
        "split": (plain, data_of(), False),
    }
    words = tf.AutoTokenizer.from_pretrained(model)
    words.add_tokens(["film book"])
    words.save_pretrained(folder / "words")
    made["tokenizer"] = (task_of(model), data_of(), True)
    made["tokenizer"][0].processor = words
    left = task_of(model)
    left.processor.truncation_side = "left"
    made["truncation side"] = (left, data_of(), True)
    return {name: cache.key(data, task, train=train) for name, (task, data, train) in made.items()}


def test_the_key_depends_on_everything_that_decides_the_ids(model, tmp_path, monkeypatch):
    keys = keys_of(model, tmp_path)
    assert len(set(keys.values())) == len(keys), keys
    task = task_of(model)
    monkeypatch.setattr(cache, "__version__", "9.9.9")
    assert cache.key(data_of(), task, train=True) not in keys.values()
    monkeypatch.undo()
    for name in ("text.py", "text_classification.py", "compact.py", "models.py"):
        whole = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda p, n=name, w=whole: w(p) + (b"#" if p.name == n else b""))
        assert cache.key(data_of(), task, train=True) not in keys.values(), name
        monkeypatch.undo()


def test_the_key_depends_on_nothing_else(model, tmp_path):
    copy = tiny.build("bert", tmp_path / "elsewhere")
    chunks = datasets.concatenate_datasets([data_of().select(range(7)), data_of().select(range(7, 40))])
    mapped = datasets.concatenate_datasets([data_of(), data_of()]).select([*range(3), *range(43, 80)])
    same = [(task_of(model), data_of()), (task_of(copy), data_of()), (task_of(model), chunks), (task_of(model), mapped)]
    assert len({cache.key(data, task, train=True) for task, data in same}) == 1
    assert same[0][1]._fingerprint != same[3][1]._fingerprint


TASK = """
from dataclasses import dataclass
from words import number
from hfft.tasks.base import Task

@dataclass(kw_only=True)
class Counting(Task):
    columns = ("text", "label")
    def encode(self, rows, *, train=False):
        return {"input_ids": [[number(word) for word in text.split()] for text in rows["text"]]}
"""


def test_a_task_of_ones_own_is_encoded_anew_when_its_code_or_what_it_imports_changes(model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "counting.py").write_text(TASK)
    (tmp_path / "words.py").write_text("def number(word):\n    return len(word)\n")

    def ids() -> list:
        sys.modules.pop("words", None)
        task = lookup.call("tasks", Part(str(tmp_path / "counting.py"), {}))
        return [row["input_ids"] for row in rows_of(encoded(task))]

    first = ids()
    assert ids() == first and len(entries(tmp_path / "cache")) == 1
    (tmp_path / "words.py").write_text("def number(word):\n    return 2 * len(word)\n# other\n")
    assert ids() == [[2 * size for size in row] for row in first]
    (tmp_path / "counting.py").write_text(TASK.replace("[number(word)", "[number(word) + 1"))
    assert ids() == [[2 * size + 1 for size in row] for row in first]


def test_a_task_whose_state_cannot_be_named_is_never_cached(model, home, caplog):
    task = task_of(model)
    task.rule = len
    with caplog.at_level(logging.INFO, "hfft"):
        rows_of(encoded(task))
    assert "train: encoded anew at each start, for task.rule cannot name a cache entry" in said(caplog)
    assert not entries(home)


def test_columns_that_are_no_numbers_are_never_cached(model, home, caplog):
    def encode() -> compact.Columns:
        return compact.gather([{"input_ids": [[1], [2]], "tree": [{"a": 1}, {"a": 2}]}])

    with caplog.at_level(logging.INFO, "hfft"):
        columns = cache.through(data_of(), task_of(model), split="eval", encode=encode, root=None)
    assert columns[[1]]["tree"] == [{"a": 2}] and not entries(home)
    assert said(caplog) == ["eval: encoded anew at each start, for 'tree' holds no numbers or texts"]


# ---- what may be wrong on the disk ----------------------------------------------------------------------------------
def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


DAMAGES = {
    "a flipped bit in the ids": lambda entry: flip(entry / "input_ids.npy", 200),
    "a flipped bit in the places": lambda entry: flip(entry / "input_ids.offsets.npy", 140),
    "a flipped bit in the labels": lambda entry: flip(entry / "labels.npy", 129),
    "a flipped bit in the counts": lambda entry: flip(entry / "entry.json", 60),
    "a file cut short": lambda entry: os.truncate(entry / "input_ids.npy", 150),
    "an empty file": lambda entry: os.truncate(entry / "labels.npy", 0),
    "a missing file": lambda entry: (entry / "labels.npy").unlink(),
    "no entry.json": lambda entry: (entry / "entry.json").unlink(),
    "another entry.json": lambda entry: (entry / "entry.json").write_text("[]"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_made_again_and_said(name, model, home, caplog):
    expected = rows_of(encoded(task_of(model)))
    (entry,) = entries(home)
    DAMAGES[name](entry)
    assert rows_of(encoded(task_of(model))) == expected
    warnings = [line for line in said(caplog) if line.startswith(f"warning: cache: {entry} is damaged (")]
    assert len(warnings) == 1 and warnings[0].endswith("; encoded anew")
    caplog.clear()
    assert rows_of(encoded(task_of(model))) == expected and entries(home) == [entry] and not said(caplog)


def test_a_folder_that_cannot_be_written_is_said_once_and_costs_only_the_cache(model, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HFFT_CACHE", str(tmp_path / "file" / "cache"))
    rows = rows_of(encoded(task_of(model)))
    assert rows == rows_of(encoded(task_of(model), cached=False))
    (line,) = said(caplog)
    assert line.startswith(f"warning: cache: {tmp_path}/file/cache/tokens cannot be written (") and "HFFT_CACHE" in line


def in_child(work) -> multiprocessing.Process:
    """A process that was started with a function: exit code 0 where that returned."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_full_disk_leaves_no_entry_and_no_half_of_one(model, home, tmp_path, monkeypatch):
    task, data, heard = task_of(model), data_of(), tmp_path / "heard"
    expected = rows_of(encoded(task, data, cached=False))
    monkeypatch.setattr(cache, "warn", heard.write_text)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        assert rows_of(encoded(task, data)) == expected

    process = in_child(work)
    process.join(60)
    assert process.exitcode == 0 and "cannot be written" in heard.read_text() and not entries(home)


def test_only_the_user_may_read_the_cache(model, home):
    encoded(task_of(model))
    for path in (home, home / "tokens", *entries(home)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_no_run_has_used_for_a_month_is_removed_and_said(model, home, caplog):
    encoded(task_of(model))
    (old,) = entries(home)
    os.utime(old / "entry.json", (0, time.time() - 31 * 86400))
    (home / "tokens" / ".half.abc").mkdir()
    os.utime(home / "tokens" / ".half.abc", (0, time.time() - 31 * 86400))
    with caplog.at_level(logging.INFO, "hfft"):
        encoded(task_of(model, max_length=8))
    assert len(entries(home)) == 1 and old not in entries(home)
    assert f"cache: 2 entries of {home / 'tokens'} removed, unused for 30 days" in said(caplog)


def test_an_entry_in_use_stays_young(model, home):
    encoded(task_of(model))
    (entry,) = entries(home)
    os.utime(entry / "entry.json", (0, time.time() - 29 * 86400))
    encoded(task_of(model))
    assert time.time() - (entry / "entry.json").stat().st_mtime < 60


def test_two_processes_at_once_make_one_entry(model, home, tmp_path, monkeypatch):
    task, data, plain = task_of(model), data_of(), text.encode
    expected = rows_of(encoded(task, data, cached=False))

    def start(mine: str, other: str) -> multiprocessing.Process:
        def slowly(*args):
            (tmp_path / mine).touch()
            while not (tmp_path / other).exists():  # so that both have found no entry
                time.sleep(0.01)
            return plain(*args)

        def work():
            monkeypatch.setattr(text, "encode", slowly)
            assert rows_of(encoded(task, data)) == expected

        return in_child(work)

    pair = [start("a", "b"), start("b", "a")]
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0] and len(entries(home)) == 1
    monkeypatch.setattr(text, "encode", lambda *_: pytest.fail("encoded again"))
    assert rows_of(encoded(task, data)) == expected


@pytest.mark.parametrize("cached", [True, False], ids=["cache on", "cache off"])
def test_the_processes_of_a_machine_encode_once(cached, model, home, tmp_path, monkeypatch):
    task, data, plain = task_of(model), data_of(), text.encode
    expected = rows_of(encoded(task, data, cached=False))

    def start(rank: int) -> multiprocessing.Process:
        def counted(*args):
            (tmp_path / f"encoded-{rank}").touch()
            return plain(*args)

        def work():
            os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_PORT=f"1{int(cached)}")
            monkeypatch.setattr(text, "encode", counted)
            launch._state["folder"] = None
            launch.begin()
            assert rows_of(encoded(task, data, cached=cached)) == expected
            (tmp_path / f"done-{rank}").touch()
            while not (tmp_path / f"done-{1 - rank}").exists():
                time.sleep(0.01)
            launch._leave(os.getpid()) if rank == 0 else None  # a forked process has no end of its own

        return in_child(work)

    pair = [start(1), start(0)]
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    assert [path.name for path in tmp_path.glob("encoded-*")] == ["encoded-0"]
    assert len(entries(home)) == cached


# ---- training -------------------------------------------------------------------------------------------------------
def test_training_is_bitwise_the_same_with_the_cache_and_without(tmp_path, home):
    import test_trainer

    weights = []
    for cached in (False, True, True):
        trainer = test_trainer.trainer_of(
            tmp_path / str(len(weights)), dropout=0.2, train_sampling_strategy="group_by_length"
        )
        rows = data_of(24)
        trainer.train_dataset = encoded(trainer.task, rows, cached=cached)
        trainer.eval_dataset = encoded(trainer.task, rows, "eval", cached)
        trainer.train()
        loss = trainer.evaluate()["eval_loss"]
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()] + [torch.tensor([loss])]))
    assert len(entries(home)) == 2 and torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_the_pipeline_keeps_and_finds_rows_unless_told_not_to(tmp_path, home, caplog, monkeypatch):
    import hfft

    weights, base = [], tiny.build("bert", tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    for name, options in {"off": {"levers": {"cache": False}}, "first": {}, "second": {}}.items():
        caplog.clear()
        train = {"output_dir": name, "max_steps": 3, "use_cpu": True, "learning_rate": 1e-2, **options}
        with caplog.at_level(logging.INFO, "hfft"):
            hfft.finetune(
                {"task": "text_classification", "model": {"name": base}, "train": train}, data=tiny.sentences(40)
            )
        assert len(entries(home)) == (0 if name == "off" else 2)
        told = [line for line in said(caplog) if "train.levers.cache=false" in line]
        assert ["kept for" in line for line in told] == {"off": [], "first": [True] * 2, "second": [False] * 2}[name]
        assert sum("(median)" in line for line in said(caplog)) == 2
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["data"]["truncated"] == 0
    assert weights[0] == weights[1] == weights[2]

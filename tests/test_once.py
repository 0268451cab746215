"""Data are read once per machine; the other processes find the same rows, features and fingerprints."""

from types import SimpleNamespace

import pytest
import tiny
import yaml

from hfft import lookup, once
from hfft.data import load_splits
from hfft.recipe import DataSection, Part


def task_of(kind: str):
    return lookup.call("tasks", Part(f"{kind}_classification", {}))


def pictures_in(folder) -> str:
    for i, row in enumerate(tiny.pictures(12)):
        place = folder / row["label"]
        place.mkdir(parents=True, exist_ok=True)
        row["image"].save(place / f"{i}.png")
    return str(folder)


def sentences_in(folder) -> str:
    rows = [*tiny.sentences(12), {"text": "", "label": "pos"}, *tiny.sentences(3)]  # a bad one, and three twice
    folder.mkdir()
    (folder / "rows.csv").write_text("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows))
    return str(folder / "rows.csv")


@pytest.mark.parametrize("kind", ["text", "image"])
def test_what_is_handed_over_is_what_was_read(kind, tmp_path):
    path = (sentences_in if kind == "text" else pictures_in)(tmp_path / "data")
    section = DataSection(path=path, on_bad_row="skip", filters=[Part("dedup", {})], eval_size=0.25)
    splits = load_splits(section, task_of(kind), seed=1)
    once.write(splits, tmp_path / "left")
    found = once.read(tmp_path / "left")
    assert (found.report, found.dropped) == (splits.report, splits.dropped)
    assert len(found.dropped) == (kind == "text")
    for one, other in ((splits.train, found.train), (splits.eval, found.eval)):
        assert other[:] == one[:] and other.features == one.features and other._fingerprint == one._fingerprint
        assert other.cache_files  # lies on disk, and is not a copy in memory


def test_data_in_memory_and_one_process_read_for_themselves(tmp_path):
    task, section = task_of("text"), DataSection()
    assert len(once.splits_of(section, task, seed=0, label_names=None, data=tiny.sentences(20)).train) == 18
    section = DataSection(path=sentences_in(tmp_path / "data"), on_bad_row="skip")
    assert not once.splits_of(section, task, seed=0, label_names=None).train.cache_files


@pytest.fixture
def recipe(tmp_path):
    tiny.build("bert", tmp_path / "bert")
    content = {
        "task": "text_classification",
        "model": {"name": str(tmp_path / "bert")},
        "data": {"path": sentences_in(tmp_path / "data"), "on_bad_row": "skip"},
        "train": {"output_dir": str(tmp_path / "run"), "max_steps": 2, "per_device_train_batch_size": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return SimpleNamespace(file=tmp_path / "recipe.yaml", run=tmp_path / "run")


@pytest.mark.slow
def test_of_two_processes_one_reads_and_encodes_and_one_speaks(recipe, forks):
    codes, said = forks.run("train", recipe.file, processes=2, SIGNAL="SIGKILL hfft.once:load_splits 1 1")
    assert codes == [0, 0] and said[1] == "" and said[0].count("hfft: data: ") == 1
    assert (recipe.run / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.path=nowhere.csv", "nowhere.csv"),  # found by the process that reads
        ("train.learning_rat=1", "Did you mean 'learning_rate'?"),  # found by all
        ("train.output_dir=.", "is not empty"),  # main's to know
    ],
)
def test_a_mistake_ends_all_processes_with_one_line(change, message, recipe, forks):
    codes, said = forks.run("train", recipe.file, change, processes=2)
    assert codes == [2, 2]
    lines = [line for line in "".join(said).splitlines() if "error" in line]
    assert len(lines) == 1 and message in lines[0]

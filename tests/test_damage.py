"""Every file of the newest checkpoint damaged in every way: it is found out, named, and an older one is taken."""

import json
import logging
import os
import shutil
from pathlib import Path

import damage
import pytest
import survival

from hfft import checkpoint
from hfft.messages import CheckpointError


@pytest.fixture(scope="module", params=["all weights", "LoRA"])
def runs(request, forks, tmp_path_factory) -> Path:
    """A run that was stopped after its fifth step, with checkpoints 2, 4 and 5."""
    folder = tmp_path_factory.mktemp("damage")
    options = {"lora": request.param == "LoRA", "dataloader_num_workers": 0, "load_best_model_at_end": False}
    file = survival.recipe(survival.files(folder), folder, "text", **options)
    assert forks.run("train", file, SIGNAL=f"SIGTERM {survival.STEP} 8 0")[0] == [75]
    assert survival.saved(folder / "run") == [2, 4, 5]
    return folder / "run"


@pytest.fixture
def run(runs, tmp_path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "run"))


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoint-5").iterdir())


def taken(run: Path, caplog) -> tuple[str, list[str]]:
    """The checkpoint that would be resumed, and what was said."""
    caplog.clear()
    logging.getLogger("hfft").propagate = True
    with caplog.at_level(logging.INFO, "hfft"):
        found = checkpoint.newest(run)
    return found.name, [record.getMessage() for record in caplog.records]


def test_a_checkpoint_holds_what_a_run_needs_and_no_pickle(runs):
    assert {"optimizer.safetensors", "scheduler.safetensors", "random-0.safetensors"} <= {*names(runs)}
    assert {"MANIFEST.json", "trainer_state.json"} <= {*names(runs)}
    for path in runs.rglob("*"):
        assert path.suffix not in (".pt", ".pth", ".bin", ".pkl")
        assert not path.is_file() or b"\x80\x02" != path.read_bytes()[:2] != b"PK"


@pytest.mark.parametrize("kind", damage.KINDS)
def test_a_damaged_file_is_named_and_the_checkpoint_before_taken(kind, run, caplog):
    place = run / "checkpoint-5"
    for name in names(run):
        before = (place / name).read_bytes()
        damage.KINDS[kind](place / name, run / "checkpoint-4" / name)
        changed = not (place / name).exists() or (place / name).read_bytes() != before
        found, said = taken(run, caplog)
        if changed:
            assert found == "checkpoint-4" and len(said) == 1, (name, said)
            assert said[0].startswith(f"warning: {place} cannot be resumed: ")
            assert name in (*said[0].split(), checkpoint.MANIFEST)
        else:
            assert found == "checkpoint-5" and kind == "of another step"  # the two files are the same
        (place / name).write_bytes(before)
    assert taken(run, caplog) == ("checkpoint-5", [])


def test_there_are_more_than_eighty_damages(runs):
    assert len(names(runs)) * len(damage.KINDS) > 80


@pytest.mark.parametrize("key", ["step", "files", "sha256", "contract", "rows_per_step"])
def test_a_manifest_that_lacks_something_is_damaged(key, run, caplog):
    damage.without(key)(run / "checkpoint-5" / "MANIFEST.json", run)
    found, [line] = taken(run, caplog)
    assert found == "checkpoint-4" and "MANIFEST.json is damaged" in line


@pytest.mark.parametrize("content", ["[]", "null", "7", '"x"', "{}", "[" * 100_000, '{"sha256": 1}', "\x00"])
def test_a_manifest_of_another_kind_is_damaged(content, run, caplog):
    (run / "checkpoint-5" / "MANIFEST.json").write_text(content)
    found, [line] = taken(run, caplog)
    assert found == "checkpoint-4" and "MANIFEST.json is damaged" in line


def test_a_whole_checkpoint_under_another_name_is_not_taken(run, caplog):
    shutil.rmtree(run / "checkpoint-5")
    shutil.copytree(run / "checkpoint-2", run / "checkpoint-5")
    found, [line] = taken(run, caplog)
    assert found == "checkpoint-4" and line.endswith("it is that of step 2 under another name")


def test_a_link_in_place_of_a_file_is_not_followed(run, caplog):
    file = run / "checkpoint-5" / "optimizer.safetensors"
    file.rename(run / "elsewhere")
    file.symlink_to(run / "elsewhere")
    found, [line] = taken(run, caplog)
    assert found == "checkpoint-4" and line.endswith("optimizer.safetensors is missing")


def test_empty_and_foreign_folders_are_passed_over(run, caplog):
    (run / "checkpoint-99").mkdir()
    (run / "checkpoint-new").mkdir()
    (run / "checkpoint-7").write_text("a file")
    found, [line] = taken(run, caplog)
    assert found == "checkpoint-5" and "checkpoint-99 cannot be resumed: it has no MANIFEST.json" in line


def test_the_order_is_that_of_steps_not_of_times(run, caplog):
    os.utime(run / "checkpoint-2", (2**31, 2**31))
    assert taken(run, caplog) == ("checkpoint-5", [])


def test_where_none_is_whole_each_is_named_and_the_exit_code_is_4(run):
    for place in run.glob("checkpoint-*"):
        (place / "scheduler.safetensors").unlink()
    with pytest.raises(CheckpointError) as error:
        checkpoint.newest(run)
    assert [line.split(": ")[0].split("/")[-1].split()[0] for line in error.value.lines] == [
        "checkpoint-5", "checkpoint-4", "checkpoint-2", "no",
    ]  # fmt: skip


def test_one_whose_best_is_damaged_is_passed_over_where_the_best_is_wanted(run, caplog):
    place = run / "checkpoint-5"
    known = json.loads((place / "MANIFEST.json").read_text())
    assert known["best"] in ("checkpoint-2", "checkpoint-4")
    (run / known["best"] / "trainer_state.json").unlink()
    assert checkpoint.newest(run).name == "checkpoint-5"
    older = {"checkpoint-2": "checkpoint-4", "checkpoint-4": "checkpoint-2"}[known["best"]]
    assert json.loads((run / older / "MANIFEST.json").read_text())["best"] in (older, None, known["best"])


def test_rotation_keeps_the_newest_and_the_best_and_removes_what_was_skipped(run):
    (run / "checkpoint-5" / "scheduler.safetensors").unlink()  # it was passed over, and step 4 saved anew
    (run / "checkpoint-99").mkdir()
    checkpoint.rotate(run, 1, None, 4)
    assert checkpoint.steps(run) == [4, 99]


def test_rotation_never_removes_the_best(run):
    checkpoint.rotate(run, 1, str(run / "checkpoint-2"), 5)
    assert checkpoint.steps(run) == [2, 5]


def test_what_a_crash_has_left_is_finished_or_removed(run):
    for name in (".trash-checkpoint-1", ".tmp-checkpoint-6"):
        shutil.copytree(run / "checkpoint-2", run / name)
    (run / ".tmp-checkpoint-6" / "MANIFEST.json").unlink()
    (run / "checkpoint-5").rename(run / ".tmp-checkpoint-5")
    checkpoint.clean(run)
    assert sorted(path.name for path in run.glob(".*")) == [] and checkpoint.steps(run) == [2, 4, 5]

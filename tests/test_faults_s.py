"""Disks that are full, closed, shared or damaged, row S01 to S14 of the catalogue of faults, in short real runs.

`make disk` fills the disk at 20 sizes; four of them stand in the suite.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import survival
from verdict import told

from hfft import checkpoint, lock

ROOT = Path(__file__).resolve().parent.parent
LIMITED = ROOT / "tests" / "limited.py"
PLENTY = f"free={10**12}"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


def recipe(files: Path, folder: Path, **train) -> Path:
    """6 steps, a checkpoint after each second one."""
    return survival.recipe(files, folder, "text", **{"dataloader_num_workers": 0, **train})


@pytest.fixture(scope="module")
def whole(forks, files, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run, with its recipe."""
    folder = tmp_path_factory.mktemp("whole")
    told(forks, "train", recipe(files, folder), code=0)
    return folder


def error(lines: list[str]) -> str:
    [line] = [line for line in lines if line.startswith("hfft: error: ")]
    return line


def goes_on(forks, file: Path, whole: Path, *words: str) -> None:
    """The run can be finished now, and ends with the weights of the one that nothing has stopped."""
    told(forks, "train", file, *words, code=0)
    assert survival.equal(file.parent / "run", whole / "run")


@pytest.mark.slow
def test_s01_a_disk_that_is_full_in_the_weights_leaves_the_checkpoint_before(forks, files, whole, tmp_path):
    file, run = recipe(files, tmp_path), tmp_path / "run"
    line = error(told(forks, "train", file, code=3, HFFT_FAULT="save.weights:2:enospc"))
    assert line.startswith(f"hfft: error: {run}: the disk is full: a checkpoint takes ")
    assert line.endswith(" are free; make room, then --resume goes on from checkpoint-2")
    assert survival.saved(run) == [2]
    goes_on(forks, file, whole, "--resume")


@pytest.mark.slow
def test_s02_a_disk_that_is_full_in_the_optimizer_says_so(forks, files, whole, tmp_path):
    file, place = recipe(files, tmp_path), whole / "run" / "checkpoint-6"
    between = (place / "optimizer.safetensors").stat().st_size - 1000
    assert (place / "model.safetensors").stat().st_size < between
    line = error(told(forks, LIMITED, f"file={between}", PLENTY, "train", file, code=3))
    assert "the disk is full: a checkpoint takes " in line
    assert line.endswith("make room, then start again with --overwrite")
    assert survival.saved(tmp_path / "run") == []
    goes_on(forks, file, whole, "--overwrite")


@pytest.mark.parametrize("command", ["check", "train"])
def test_s03_a_disk_without_room_for_the_checkpoints_is_refused_before_the_first_step(command, forks, files, tmp_path):
    file = recipe(files, tmp_path, save_total_limit=1, load_best_model_at_end=False)
    line = error(told(forks, LIMITED, "free=300000", command, file, code=3))
    assert (
        f"train.output_dir: '{tmp_path / 'run'}' needs " in line
        and " 300,0" in line
        and " bytes are free; make room" in line
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("place", ["/sys/hfft/run", "/sys/kernel"])  # where even root makes no file
def test_s04_a_folder_that_may_not_be_written_is_refused(place, command, forks, files, tmp_path):
    line = error(told(forks, command, recipe(files, tmp_path, output_dir=place), code=3))
    assert f"train.output_dir: '{place}' cannot be " in line


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("below", "code", "expected"),
    [("", 2, "is a file; name a folder"), ("/run", 3, "cannot be ")],
    ids=["file", "below"],
)
def test_s05_a_file_in_the_place_of_the_folder_is_refused(below, code, expected, command, forks, files, tmp_path):
    file = recipe(files, tmp_path)
    (tmp_path / "taken").write_text("dear to me")
    line = error(told(forks, command, file, f"train.output_dir={tmp_path / 'taken'}{below}", code=code))
    assert f"train.output_dir: '{tmp_path / 'taken'}{below}' {expected}" in line
    assert (tmp_path / "taken").read_text() == "dear to me"


def test_s06_the_folder_of_another_run_is_left_alone(forks, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    before = sorted(path.name for path in (tmp_path / "copy" / "run").iterdir())
    place = f"train.output_dir={tmp_path / 'copy' / 'run'}"
    line = error(told(forks, "train", whole / "recipe.yaml", place, "train.seed=7", code=2))
    assert "is not empty; write --resume, --overwrite or another folder" in line
    assert sorted(path.name for path in (tmp_path / "copy" / "run").iterdir()) == before


def test_s07_of_two_runs_in_one_folder_the_second_is_refused(forks, files, tmp_path):
    file = recipe(files, tmp_path)
    with lock.held(tmp_path / "run"):
        line = error(told(forks, "train", file, code=2))
    assert f"train.output_dir: '{tmp_path / 'run'}' is in use by process {os.getpid()} on " in line
    assert not (tmp_path / "run").exists()


def test_s07_the_lock_of_a_process_that_is_gone_holds_nobody_up(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / lock.NAME).write_text('{"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00"}')
    with lock.held(tmp_path / "run"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "run" / lock.NAME).read_text()
    assert not (tmp_path / "run" / lock.NAME).exists()


@pytest.mark.slow
def test_s08_folders_for_caches_that_cannot_be_written_do_not_matter(files, tmp_path):
    code = "import sys; from hfft.cli import main; sys.exit(main(sys.argv[1:]))"
    env = os.environ | {name: "/dev/null/none" for name in ("HF_HOME", "HFFT_CACHE", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", code, "check", str(recipe(files, tmp_path))]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert out.returncode == 0 and "Traceback" not in out.stderr, out.stderr
    assert "hfft: warning: cache: /dev/null/none/tokens cannot be written (Not a directory)" in out.stderr


def test_s09_a_flipped_bit_in_the_cache_is_found_and_the_rows_are_made_anew(forks, files, tmp_path):
    file, cache = recipe(files, tmp_path), tmp_path / "cache"
    told(forks, "check", file, code=0, HFFT_CACHE=str(cache))
    damaged = max((cache / "tokens").rglob("*.*"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    lines = told(forks, "check", file, code=0, HFFT_CACHE=str(cache))
    assert any("is damaged (" in line and line.endswith("); encoded anew") for line in lines)
    lines = told(forks, "check", file, code=0, HFFT_CACHE=str(cache))
    assert not any("damaged" in line for line in lines)


@pytest.mark.slow
def test_s10_every_file_of_a_checkpoint_is_flushed_with_its_folder_and_the_one_above(forks, files, tmp_path):
    file = recipe(files, tmp_path, max_steps=2)
    told(forks, LIMITED, f"syncs={tmp_path / 'flushed'}", "train", file, code=0)
    flushed = (tmp_path / "flushed").read_text().splitlines()
    names = {path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    aside = str(tmp_path / "run" / ".tmp-checkpoint-2")
    assert {f"{aside}/{name}" for name in names} | {aside, str(tmp_path / "run")} <= set(flushed)


def test_s11_what_a_run_leaves_may_be_read_by_whom_the_umask_allows(whole):
    mask = os.umask(0)
    os.umask(mask)
    left = [path for path in (whole / "run").rglob("*") if path.is_file()]
    assert {path.name for path in left} >= {
        "model.safetensors",
        "optimizer.safetensors",
        "MANIFEST.json",
        "recipe.yaml",
    }
    assert {
        path.name: oct(path.stat().st_mode & 0o777) for path in left if path.stat().st_mode & 0o777 != 0o666 & ~mask
    } == {}


@pytest.mark.slow
def test_s12_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_part_of_it(forks, files, whole, tmp_path):
    file = recipe(files, tmp_path, save_total_limit=1, eval_strategy="no", save_strategy="steps", save_steps=2)
    codes, _ = forks.run("train", file, HFFT_FAULT="rotate:1:kill")
    assert codes == [-9] and list((tmp_path / "run").glob(".trash-*"))
    told(forks, "train", file, "--resume", code=0)
    assert survival.saved(tmp_path / "run") == [6]


@pytest.mark.slow
def test_s13_names_may_be_long_and_of_any_letters(forks, files, tmp_path):
    file, place = recipe(files, tmp_path, max_steps=2), tmp_path / "ein Ordner für ‘Läufe’ 🙂" / ("n" * 250)
    told(forks, "train", file, f"train.output_dir='{place}'", code=0)
    assert survival.saved(place) == [2] and (place / "metrics.json").is_file()
    for command in ("check", "train"):
        line = error(told(forks, command, file, f"train.output_dir={tmp_path / ('n' * 256)}", code=2))
        assert "holds a name of more than 250 characters, which no file has" in line


def test_s14_the_order_of_checkpoints_is_that_of_their_steps(whole, tmp_path):
    shutil.copytree(whole / "run", tmp_path / "run")
    for age, step in enumerate(checkpoint.steps(tmp_path / "run")):  # the clock was set back
        os.utime(checkpoint.path_of(tmp_path / "run", step), (10**9 - age, 10**9 - age))
    assert checkpoint.steps(tmp_path / "run") == [2, 4, 6]
    assert checkpoint.newest(tmp_path / "run").name == "checkpoint-6"
    checkpoint.rotate(tmp_path / "run", 1, None, newest=6)
    assert checkpoint.steps(tmp_path / "run") == [6]


# ---- any size -------------------------------------------------------------------------------------------------------
class Disk:
    """A folder that holds no more than some bytes: a file system of its own where this user may mount one.

    Elsewhere the largest file may have a share of them, for a checkpoint's largest file is two thirds of it.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        mount = shutil.which("mount")
        self.mounted = mount is not None and subprocess.run([mount, *options], capture_output=True).returncode == 0

    def words(self, *, lies: bool) -> list[str]:
        """What limits the run; one that `lies` says that there is plenty of room."""
        limits = [] if self.mounted else [f"file={self.size // 4}"]
        return [LIMITED, *limits, *([PLENTY] if lies else [])] if limits or lies else []

    def grow(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", str(self.folder)], check=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


SIZES = range(20) if os.environ.get("HFFT_DISK") == "all" else (3, 8, 13, 17)


@pytest.mark.slow
@pytest.mark.parametrize("place", SIZES)
def test_a_disk_that_is_full_at_any_size_is_one_line_and_the_run_goes_on_after_it(place, forks, files, whole, tmp_path):
    needed = sum(path.stat().st_size for path in (whole / "run").rglob("*") if path.is_file())
    disk = Disk(tmp_path / "disk", needed * (place + 1) // 20)
    try:
        run = tmp_path / "disk" / "run"
        file = recipe(files, tmp_path, output_dir=str(run))
        (code,), (said,) = forks.run(*disk.words(lies=place % 3 > 0), "train", file)
        assert code in (0, 3), said
        if code:
            line = survival.complaint(said, "bytes", " free")
            assert "the disk is full" in line or f"'{run}' needs" in line
        disk.grow()
        if code:
            told(forks, "train", file, "--resume" if checkpoint.steps(run) else "--overwrite", code=0)
        assert survival.equal(run, whole / "run")
    finally:
        disk.close()

"""How a run is started: fewer processes than asked for, what a machine does once, and what happens when that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfft import launch
from hfft.messages import MachineError

ROOT = Path(__file__).resolve().parent.parent


def start(code: str, rank: int, folder: Path, world: int = 2, local_rank: int | None = None) -> subprocess.Popen:
    """A process as torchrun starts one, without torch: `launch`, `time`, `Path` and `out` are there."""
    local_rank = rank if local_rank is None else local_rank
    env = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": str(local_rank), "WORLD_SIZE": str(world), "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
    }  # fmt: skip
    code = f"import sys, time\nfrom pathlib import Path\nfrom hfft import launch\nout = Path({str(folder)!r})\n" + code
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)


ONCE = """
with launch.main_first("data"):
    if not (out / "made").exists():
        time.sleep(0.3)
        (out / "made").write_text("x")
        (out / f"by-{launch.local_rank()}").touch()
with launch.main_first("data"):
    (out / f"again-{launch.local_rank()}").write_text(str(time.time()))
(out / f"folder-{launch.local_rank()}").write_text(str(launch.folder()))
"""


def test_the_first_process_works_and_the_others_find_the_result(tmp_path):
    processes = [start(ONCE, rank, tmp_path) for rank in (1, 0)]
    assert [process.wait(20) for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.glob("by-*")] == ["by-0"]
    assert float((tmp_path / "again-1").read_text()) >= float((tmp_path / "again-0").read_text())
    folders = [Path((tmp_path / f"folder-{rank}").read_text()) for rank in (0, 1)]
    assert folders[0] == folders[1] and not folders[0].exists()


def test_each_machine_has_its_own_first_process(tmp_path):
    for machine in (tmp_path / "a", tmp_path / "b"):
        machine.mkdir()
    processes = [start(ONCE, 0, tmp_path / "a"), start(ONCE, 1, tmp_path / "b", local_rank=0)]
    assert [process.wait(20) for process in processes] == [0, 0]
    assert (tmp_path / "a" / "by-0").exists() and (tmp_path / "b" / "by-0").exists()


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("from hfft.messages import InputError; raise InputError('data.csv:3: wrong')", 2),
        ("raise MemoryError", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 3),
    ],
)
def test_a_failure_of_the_first_process_ends_the_others_with_its_code_and_in_silence(trouble, code, tmp_path):
    work = (
        f"with launch.main_first('data'):\n    time.sleep(0.2)\n    if launch.local_rank() == 0:\n        {trouble}\n"
    )
    processes = [start(work, rank, tmp_path) for rank in (1, 0)]
    assert processes[0].wait(20) == code and processes[1].wait(20) != 0
    assert processes[0].stderr.read() == ""


def test_who_comes_after_a_failure_ends_too(tmp_path):
    first = start("with launch.main_first('data'):\n    raise OSError", 0, tmp_path)
    assert first.wait(20) == 1
    late = start("with launch.main_first('data'):\n    pass", 1, tmp_path)
    assert late.wait(20) == 3


def test_folders_of_killed_launches_are_removed_by_the_next(tmp_path):
    killed = start("launch.folder(); time.sleep(60)", 0, tmp_path)
    while not list(tmp_path.glob("hfft-*/alive")):
        time.sleep(0.02)
    [left] = tmp_path.glob("hfft-*")
    killed.kill()
    killed.wait()
    os.utime(left, (0, 0))
    os.rename(left, left.with_name(left.name + "0"))  # another launch's name
    assert start("launch.folder()", 0, tmp_path).wait(20) == 0
    assert not list(tmp_path.glob("hfft-*"))


def test_a_mistake_that_all_processes_meet_is_said_once(tmp_path):
    say = "launch.begin()\nif launch.first_to_say('a: b'): print('a: b', file=sys.stderr)\ntime.sleep(0.5)"
    processes = [start(say, rank, tmp_path) for rank in (0, 1)]
    assert [process.wait(20) for process in processes] == [0, 0]
    assert "".join(process.stderr.read() for process in processes) == "a: b\n"


def test_one_process_needs_no_waiting_and_leaves_no_folder(tmp_path):
    code = "with launch.main_first('x'):\n    print(launch.folder(), file=sys.stderr)"
    process = start(code, 0, tmp_path, world=1)
    assert process.wait(20) == 0
    folder = Path(process.stderr.read().strip())
    assert folder.parent == tmp_path and not folder.exists()


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("python /bin/accelerate launch --cpu --num_processes 2 hfft/run.py r.yaml", 2),
        ("python -m accelerate.commands.launch --num-processes=3 hfft/run.py r.yaml", 3),
        ("/bin/accelerate-launch --config_file CONFIG hfft/run.py r.yaml", 4),
        ("python /bin/accelerate launch --cpu --num_machines 2 --machine_rank 0 hfft/run.py r.yaml", 2),
        ("python /bin/accelerate launch --cpu hfft/run.py r.yaml", 1),
        ("python /bin/accelerate launch hfft/run.py r.yaml", 1),
        ("bash -c hfft train r.yaml --num_processes 2", 1),
    ],
)
def test_what_accelerate_was_asked_for_is_read_from_its_command(words, asked, tmp_path, monkeypatch):
    (tmp_path / "four.yaml").write_text("distributed_type: 'NO'\nnum_processes: 4\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert launch.asked_of_accelerate(words.replace("CONFIG", str(tmp_path / "four.yaml")).split()) == asked


def test_separate_processes_of_srun_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(MachineError, match="srun started 4 processes that know nothing of each other"):
        launch.refuse_fewer_than_asked()


def test_a_killed_launcher_takes_the_process_with_it(tmp_path):
    inner = "from hfft import launch; launch.die_with_launcher(); import time; print('up', flush=True); time.sleep(60)"
    outer = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {inner!r}], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    env = os.environ | {"ACCELERATE_MIXED_PRECISION": "no", "PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen([sys.executable, "-c", outer], env=env, stdout=subprocess.PIPE, text=True)
    child = int(launcher.stdout.readline())
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the process outlived its launcher")

"""How this process was started: by which launcher, as one of how many, and what the processes of a machine do once.

Processes of one machine agree through files in a folder of their own, not through collectives: those time out while
the first process still reads the data, and must not be needed before there is a process group.
"""

import atexit
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hfft.messages import HfftError, MachineError, Stopped, first_line, is_main_process

TWO_ON_CPU = "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {n} hfft/run.py RECIPE"
PR_SET_PDEATHSIG = 1
_state: dict[str, Any] = {"folder": None, "lock": None, "turns": Counter()}


def world_size() -> int:
    """Processes of this run on all machines, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def attempt() -> int:
    """How often this launcher has started the processes again (torchrun's --max-restarts); 0 the first time."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def identity() -> str:
    """A name of this launch that its attempts share: the rendezvous' own, else the launcher's process."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return _launcher() if name == "none" else name


@contextmanager
def meeting(timeout: float, cpu: bool, backend: str | None = None) -> Iterator[None]:
    """The block makes the process group: all processes of the run have to come together within `timeout` seconds.

    Raises MachineError where they do not: one has ended before, or the machines do not reach each other.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch.distributed import DistError

    limit = timedelta(seconds=timeout)
    try:
        _find_anew(limit)
        if world_size() > 1 and (cpu or parse_flag_from_env("ACCELERATE_USE_CPU")):
            PartialState(cpu=True, backend=backend, timeout=limit)  # transformers hands the limit to GPUs only
        yield
    except DistError as error:
        raise MachineError(
            f"launch: the {world_size()} processes of this run did not come together at {os.environ.get('MASTER_ADDR')}"
            f":{os.environ.get('MASTER_PORT')} within {timeout:g} s (train.ddp_timeout): {first_line(error)}"
        ) from error


def _find_anew(limit: timedelta) -> None:
    """Let processes that torchrun has started again find each other in a store of their own.

    The launcher's still holds the addresses of those that are gone, and gloo waits for them as long as it may.
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")  # on one machine
    if not attempt() or not alone or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed import TCPStore

    launcher = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=limit)
    if os.environ["RANK"] == "0":
        with socket.socket() as found:
            found.bind(("", 0))
            launcher.set(f"hfft-port-{attempt()}", str(found.getsockname()[1]))
    os.environ["MASTER_PORT"] = launcher.get(f"hfft-port-{attempt()}").decode()
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # rank 0 holds it


def local_rank() -> int:
    """The place of this process on its machine; 0 is the machine's first."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))


def begin() -> None:
    """What a command does first: end with the launcher, refuse to be fewer than asked for, open the shared folder."""
    # DDP tells in each process, at a length, that it looked for unused weights and found none, and how strides differ.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    die_with_launcher()
    refuse_fewer_than_asked()
    if world_size() > 1:
        folder()


def die_with_launcher(number: int = signal.SIGTERM) -> None:
    """Ask Linux to send SIGTERM when the launcher dies, or with 0 no longer; without it a killed launcher leaves us."""
    if not sys.platform.startswith("linux") or not {"RANK", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys():
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if number and os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), number)


def refuse_fewer_than_asked() -> None:
    """Raises MachineError where a launcher was asked for several processes and has started single ones."""
    if "WORLD_SIZE" in os.environ:
        return
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        raise MachineError(
            f"launch: srun started {tasks} processes that know nothing of each other; set RANK, LOCAL_RANK and "
            "WORLD_SIZE as the README's SLURM script does, or start one launcher on each node"
        )
    asked = asked_of_accelerate(_command_line(os.getppid()))
    if asked > 1:
        raise MachineError(
            f"launch: asked for {asked} processes, 1 was started; on several GPUs add --multi_gpu, on a CPU write "
            + TWO_ON_CPU.format(n=asked)
        )


def asked_of_accelerate(words: list[str]) -> int:
    """The processes that a command line `accelerate launch …` asks for, its config file included; 1 if it is none."""
    starts = [i for i, word in enumerate(words[:4]) if Path(word).name in ("accelerate", "accelerate-launch")]
    starts += [i for i, word in enumerate(words[:4]) if word.startswith("accelerate.commands")]
    if not starts:
        return 1
    options: dict[str, str] = {}
    for word, following in zip(words[starts[0] + 1 :], [*words[starts[0] + 2 :], ""], strict=True):
        name, equals, value = word.partition("=")
        options.setdefault(name.replace("-", "_"), value if equals else following)
    asked = options.get("__num_processes")
    if asked is None and ("__config_file" in options or "__cpu" not in options):
        asked = _configured(options.get("__config_file"))
    return max(int(number) for number in ("1", asked or "", options.get("__num_machines", "")) if number.isdigit())


def _configured(file: str | None) -> str:
    import yaml

    home = os.environ.get("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    path = Path(file or os.path.join(home, "accelerate", "default_config.yaml")).expanduser()
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return str(found.get("num_processes")) if isinstance(found, dict) else ""


def _command_line(process: int) -> list[str]:
    path = Path(f"/proc/{process}/cmdline")
    return path.read_text(errors="replace").split("\0") if path.is_file() else []


# ---- once per machine -----------------------------------------------------------------------------------------------
@contextmanager
def main_first(name: str) -> Iterator[None]:
    """The machine's first process runs the block at once, the others when it has left it, and find what it left.

    No collective and no time limit. Where the first fails, the others end in silence with the same exit code.
    """
    if world_size() == 1:
        yield
        return
    _state["turns"][name] += 1  # the same block may come again in one launch, in the same order everywhere
    done = folder() / f"done-{name}-{_state['turns'][name]}"
    if local_rank() == 0:
        try:
            yield
        except BaseException as error:
            failed(exit_code(error))
            raise
        done.touch()
    else:
        _wait(done)
        yield


def folder() -> Path:
    """The temporary folder that the processes of this launch on this machine share; removed at the end."""
    if _state["folder"] is None:
        if world_size() == 1:
            own = Path(tempfile.mkdtemp(prefix="hfft-"))
            atexit.register(shutil.rmtree, own, ignore_errors=True)
            _state["folder"] = own
        elif local_rank() == 0:
            _sweep()
            _state["folder"] = _open(_path())
            atexit.register(_leave, os.getpid())
        else:
            _state["folder"] = _path()
            _wait(_path() / "alive")
    return _state["folder"]


def failed(code: int) -> None:
    """Tell the machine's other processes that its first one ends with this exit code, so that none waits for it."""
    if _state["lock"] is not None:
        (_state["folder"] / "failed").write_text(str(code))


def first_to_say(line: str) -> bool:
    """Whether this process is the machine's first to say it: all of them meet the same mistakes."""
    if world_size() == 1:
        return True
    mark = _path() / ("said-" + hashlib.blake2b(line.encode(), digest_size=12).hexdigest())
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError:  # no folder, or no longer
        return is_main_process()
    return True


def exit_code(error: BaseException) -> int:
    """The exit code of a process that this error ends."""
    if isinstance(error, HfftError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return Stopped.exit_code
    machine = isinstance(error, OSError | MemoryError) or is_of_another(error)
    return MachineError.exit_code if machine else HfftError.exit_code


def is_of_another(error: BaseException) -> bool:
    """Whether it only tells that another process of this run is gone, which has told why."""
    said = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
    return world_size() > 1 and isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def _path() -> Path:
    """One name for all processes of a launcher on this machine, and no other launch's."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
    # torchrun's folder of an attempt, also where a wrapper stands between it and us; else the launcher's process.
    launch = str(Path(file).parent.parent) if file else f"{_launcher()} {os.environ.get('MASTER_PORT')}"
    key = hashlib.blake2b(launch.encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"hfft-{os.getuid()}-{key}"


def _launcher() -> str:
    """The launcher's process, with the time of its start, for numbers come again."""
    parent = os.getppid()
    stat = Path(f"/proc/{parent}/stat")
    return f"{parent} {stat.read_text().rpartition(')')[2].split()[19] if stat.is_file() else ''}"


def _open(path: Path) -> Path:
    """Make the folder, with a lock that the kernel gives up when this process is gone, however it goes."""
    import fcntl

    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    lock = open(path / "opening", "w")  # noqa: SIM115 - held until the process ends
    fcntl.flock(lock, fcntl.LOCK_EX)
    (path / "opening").rename(path / "alive")  # locked from the moment that the others can see it
    _state["lock"] = lock
    return path


def _wait(path: Path) -> None:
    """Until `path` is there. Ends the process where the first one has failed or is gone without removing the folder."""
    parent, seen = path.parent, path.name != "alive"  # who waits for another file has seen that one
    while not path.exists():
        code = (parent / "failed").read_text() if (parent / "failed").is_file() else ""
        if code:
            raise SystemExit(int(code))
        if seen and not parent.exists():  # the first has ended well, after all it had to do
            return
        seen = seen or (parent / "alive").exists()
        if seen and not path.exists() and _abandoned(parent):
            raise SystemExit(MachineError.exit_code)
        time.sleep(0.02)


def _abandoned(path: Path) -> bool:
    """Whether the process that opened the folder is gone and has left it."""
    import fcntl

    try:
        with open(path / "alive") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _leave(process: int) -> None:
    """Remove the folder at the end; after a failure its exit code stays for who comes late."""
    if os.getpid() != process:  # a forked worker's exit
        return
    path = _state["folder"]
    if not (path / "failed").exists():
        shutil.rmtree(path, ignore_errors=True)
        return
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of launches that were killed or failed before."""
    old = time.time() - 60  # the other processes of a launch that has just failed may still be coming
    for path in Path(tempfile.gettempdir()).glob(f"hfft-{os.getuid()}-*"):
        if (path / "alive").is_file() and path.stat().st_mtime < old and _abandoned(path):
            shutil.rmtree(path, ignore_errors=True)

"""Runs hfft's command line in real processes that a server forks: the imports, most of a start's time, are made once.

`python tests/forks.py` reads JSON lines {"argv", "env", "processes"} and answers each with the exit codes and what
each process wrote to stderr. Several processes find each other as torchrun's do, by the same variables.

FOLDER in "env" is where the process works.

SIGNAL in "env" sends the process a signal at an exact place: "SIGTERM hfft.trainer:Trainer.training_step 3 0" when rank
0 (or "all") calls that for the third time; with a fifth word, "loader", to its first loader process; "sleep6" waits
there instead. KILL sends it at a time: "SIGKILL 2.5 0" to rank 0 after 2.5 seconds. SET changes a constant:
"hfft.workers:PATIENCE 0.5". What runs longer than `limit` seconds is killed, and so are processes that are stopped when
all others have ended.
"""

import gc
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

import hfft.cli

ROOT = Path(__file__).resolve().parent.parent


class Forks:
    """The server, for a test."""

    def __init__(self):
        env = os.environ | {"PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}  # as launch.begin would, earlier
        command = [sys.executable, str(Path(__file__))]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(
        self,
        *argv: str | Path,
        processes: int = 1,
        machines: list[Path] | None = None,
        limit: float = 300,
        **env: str,
    ) -> tuple[list[int], list[str]]:
        """(exit codes, stderr) of each process of `hfft ARGV`, or of a script; an exit code is negative for a signal.

        `machines` are the folders in which machines of one process each work; they share nothing else. Afterwards
        `pids`, `seconds` tell who ran for how long, `stopped` after how many seconds one was stopped.
        """
        places = [str(place) for place in machines or []]
        count = len(places) or processes
        words = [str(word) for word in argv]
        job = {"argv": words, "env": env, "processes": count, "machines": places, "limit": limit}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.pids, self.seconds, self.stopped = answer["pids"], answer["seconds"], answer["stopped"]
        return answer["codes"], answer["stderr"]

    def orphans(self, patience: float = 8) -> list[int]:
        """What the last run's processes have left behind and is still there after so many seconds."""
        end = time.monotonic() + patience
        while (left := [pid for pid in psutil.pids() if _session(pid) in self.pids]) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:  # it has answered all that was asked: nothing is lost
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else 0
    except (ProcessLookupError, psutil.NoSuchProcess):  # it has ended in between
        return 0


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def signal_at(name: str, place: str, call: str, rank: str, whom: str = "itself") -> None:
    """Let the process send itself, or a loader process, the signal at this call of a function."""
    module, _, path = place.partition(":")
    owner, _, attribute = path.rpartition(".")
    holder = importlib.import_module(module)
    holder = getattr(holder, owner) if owner else holder
    inner, calls = getattr(holder, attribute), itertools.count(1)

    def counted(*args, **kwargs):
        if next(calls) == int(call) and rank in ("all", os.environ.get("RANK", "0")):
            pid = multiprocessing.active_children()[0].pid if whom == "loader" else os.getpid()
            time.sleep(float(name[5:])) if name.startswith("sleep") else os.kill(pid, getattr(signal, name))
        return inner(*args, **kwargs)

    setattr(holder, attribute, counted)


def limit(seconds: int, memory: int) -> None:
    """Let the process take so much time of a core, and so many more bytes of addresses than it has now."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def script(argv: list[str]) -> int:
    """What `python ARGV` would do."""
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")
    return 0


def started(job: dict, rank: int, port: str, stderr) -> int:
    """The pid of a process that runs the job."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stderr.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        if job["processes"] > 1:
            size = str(job["processes"])
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if job["machines"]:
            os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TMPDIR": job["machines"][rank]}
            tempfile.tempdir = None
            os.chdir(job["machines"][rank])
        os.environ |= job["env"]
        if "LIMITS" in os.environ:
            limit(*map(int, os.environ["LIMITS"].split()))
        os.chdir(os.environ.pop("FOLDER", "."))
        if "SIGNAL" in os.environ:
            signal_at(*os.environ["SIGNAL"].split())
        if "SET" in os.environ:
            place, value = os.environ["SET"].split()
            module, name = place.split(":")
            setattr(importlib.import_module(module), name, float(value))
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            import fsdp_on_cpu

            fsdp_on_cpu.apply()
        code = script(job["argv"]) if job["argv"][0].endswith(".py") else hfft.cli.main(job["argv"])
    except SystemExit as end:
        code = end.code
    finally:
        import atexit

        atexit._run_exitfuncs()  # os._exit, which a forked process needs, leaves them out
        sys.stderr.flush()
        os._exit(code)


def watched(pids: list[int], limit: float, kill: str | None) -> dict:
    """How each of the processes has ended, and when."""
    start, codes, seconds, stopped, first = time.monotonic(), {}, {}, set(), None
    while len(codes) < len(pids):
        now = time.monotonic() - start
        if kill and now > float(kill.split()[1]):
            pid = pids[int(kill.split()[2])]
            kill = None if pid in codes else os.kill(pid, getattr(signal, kill.split()[0]))
        for pid in set(pids) - codes.keys():
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if found and os.WIFSTOPPED(status):
                stopped.add(pid)
                first = first or now
            elif found:
                codes[pid], seconds[pid] = os.waitstatus_to_exitcode(status), now
        left = set(pids) - codes.keys()
        if now > limit or left <= stopped:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return {
        "codes": [codes[pid] for pid in pids],
        "seconds": [seconds[pid] for pid in pids],
        "stopped": first,
        "pids": pids,
    }


def serve() -> None:
    import peft  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401
    import transformers.models.bert.modeling_bert
    import transformers.models.vit.modeling_vit  # noqa: F401

    import hfft.evaluation
    import hfft.pipeline
    import hfft.preflight  # noqa: F401

    gc.collect()
    gc.freeze()  # a child that collected would copy the pages of all that was imported
    for line in sys.stdin:
        job, port = json.loads(line), free_port()
        files = [tempfile.TemporaryFile("w+") for _ in range(job["processes"])]  # noqa: SIM115
        pids = [started(job, rank, port, file) for rank, file in enumerate(files)]
        ends = watched(pids, job["limit"], job["env"].get("KILL"))
        texts = [(file.seek(0), file.read())[1] for file in files]
        print(json.dumps({**ends, "stderr": texts}), flush=True)


if __name__ == "__main__":
    serve()

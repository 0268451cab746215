"""Runs hfft's command line in real processes that a server forks: the imports, most of a start's time, are made once.

`python tests/forks.py` reads JSON lines {"argv", "env", "processes"} and answers each with the exit codes and what
each process wrote to stderr. Several processes find each other as torchrun's do, by the same variables.

SIGNAL in "env" sends the process a signal at an exact place: "SIGTERM hfft.trainer:Trainer.training_step 3 0" when rank
0 calls that for the third time.
"""

import gc
import importlib
import itertools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

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
        self, *argv: str | Path, processes: int = 1, machines: list[Path] | None = None, **env: str
    ) -> tuple[list[int], list[str]]:
        """(exit codes, stderr) of each process of `hfft ARGV`, or of a script; an exit code is negative for a signal.

        `machines` are the folders in which machines of one process each work; they share nothing else.
        """
        places = [str(place) for place in machines or []]
        count = len(places) or processes
        job = {"argv": [str(word) for word in argv], "env": env, "processes": count, "machines": places}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["codes"], answer["stderr"]

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:  # it has answered all that was asked: nothing is lost
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def signal_at(name: str, place: str, call: str, rank: str) -> None:
    """Let the process send itself the signal at this call of a function."""
    module, _, path = place.partition(":")
    owner, _, attribute = path.rpartition(".")
    holder = importlib.import_module(module)
    holder = getattr(holder, owner) if owner else holder
    inner, calls = getattr(holder, attribute), itertools.count(1)

    def counted(*args, **kwargs):
        if next(calls) == int(call) and os.environ.get("RANK", "0") == rank:
            os.kill(os.getpid(), getattr(signal, name))
        return inner(*args, **kwargs)

    setattr(holder, attribute, counted)


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
        if "SIGNAL" in os.environ:
            signal_at(*os.environ["SIGNAL"].split())
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
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        texts = [(file.seek(0), file.read())[1] for file in files]
        print(json.dumps({"codes": codes, "stderr": texts}), flush=True)


if __name__ == "__main__":
    serve()

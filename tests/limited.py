"""hfft on a machine with little: `limited.py file=N memory=N free=N syncs=FILE oom=N COMMAND …`.

`file`: no file may be larger than N bytes, which stands in for a full disk; `memory`: N bytes more than now; `free`:
the disk is said to have N bytes left; `syncs`: note in FILE what is flushed;
`oom`: the Nth training step runs out of memory.
"""

import os
import resource
import shutil
import sys
from collections import namedtuple

import psutil

import hfft.cli

Usage = namedtuple("Usage", "total used free")


def file(number: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))


def memory(number: str) -> None:
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + int(number), resource.RLIM_INFINITY))


def free(number: str) -> None:
    shutil.disk_usage = lambda _: Usage(10**12, 10**12 - int(number), int(number))


def syncs(name: str) -> None:
    """The names of what was flushed, one a line."""
    inner = os.fsync

    def noted(handle: int) -> None:
        with open(name, "a") as out:
            out.write(os.readlink(f"/proc/self/fd/{handle}") + "\n")
        inner(handle)

    os.fsync = noted


def oom(number: str) -> None:
    import torch

    from hfft.trainer import Trainer

    inner, calls = Trainer.training_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(number):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has no more.")
        return inner(*args, **kwargs)

    Trainer.training_step = step


if __name__ == "__main__":
    words = sys.argv[1:]
    while "=" in words[0] and words[0].partition("=")[0] in globals():
        name, _, value = words.pop(0).partition("=")
        globals()[name](value)
    sys.exit(hfft.cli.main(words))

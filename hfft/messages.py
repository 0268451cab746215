"""Everything hfft says to a person: one-line errors with their exit codes, and announcements on stderr."""

import logging
import os
import sys

logger = logging.getLogger("hfft")


class HfftError(Exception):
    """An error with a message for people: one line per problem, no traceback. `exit_code` is the process's."""

    exit_code = 70

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class InputError(HfftError, ValueError):
    """The user's mistake: usage, recipe, data, model or adapter."""

    exit_code = 2


class MachineError(HfftError, RuntimeError):
    """The machine cannot do it: disk, memory, a missing package, non-finite training."""

    exit_code = 3


class CheckpointError(HfftError):
    """No checkpoint that can be resumed or loaded."""

    exit_code = 4


class HubError(HfftError):
    """The Hub refused or could not be reached."""

    exit_code = 5


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks (RANK as torchrun and accelerate set it)."""
    return int(os.environ.get("RANK", "0")) == 0


def announce(line: str) -> None:
    """Tell what the pipeline decided by itself, with its reason, once per run."""
    if is_main_process():
        logger.info(line)


def warn(line: str) -> None:
    """Tell what is likely a mistake but does not stop the run."""
    if is_main_process():
        logger.warning("warning: %s", line)


def speak(level: int = logging.INFO) -> None:
    """Send announcements to stderr as plain lines (the commands call this; a library user configures logging)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("hfft: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False

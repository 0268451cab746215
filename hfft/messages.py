"""Everything hfft says to a person: one-line errors with their exit codes, and announcements on stderr."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")  # of the Hub
logger = logging.getLogger("hfft")


class HfftError(Exception):
    """An error with a message for people: one line per problem, no traceback. `exit_code` is the process's."""

    exit_code = 70

    def __init__(self, *lines: str):
        self.lines = [redacted(line) for line in lines]
        super().__init__("\n".join(self.lines))


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


def redacted(text: str) -> str:
    """The text without Hub tokens: what was typed or answered may hold one, a terminal's log should not."""
    return TOKEN.sub("hf_…", text)


class Stopped(KeyboardInterrupt):
    """A signal has ended the run between two steps; `str` of it says where. Exit code 75."""

    exit_code = 75


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


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Nothing is told inside the block: for what was told once and is done again, such as reading a file anew."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def speak(level: int = logging.INFO) -> None:
    """Send announcements to stderr as plain lines (the commands call this; a library user configures logging)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("hfft: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


class SessionHandler(logging.Handler):
    """Prints plain lines where the cell or prompt shows its output, unless logging has handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line; looked up at each, because notebooks and tests exchange sys.stdout."""
        if not logging.getLogger().handlers:
            print(self.format(record), flush=True)


def speak_in_session() -> None:
    """Show announcements and progress in a notebook or at a prompt (`sys.ps1`), where nobody has set up logging.

    Scripts stay silent until they configure logging; so does a session whose "hfft" logger has a level or a handler.
    """
    if not hasattr(sys, "ps1") or logger.handlers or logger.level != logging.NOTSET:
        return
    handler = SessionHandler()
    handler.setFormatter(logging.Formatter("hfft: %(message)s"))
    logger.addHandler(handler)
    if logging.getLogger().level == logging.WARNING:  # its default: nobody has chosen one
        logger.setLevel(logging.INFO)

"""Everything hfft says to a person: one-line errors with their exit codes, and announcements on stderr."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")  # of the Hub
VALUE = r"""[^\s"'`\\,;&<>(){}\[\]]+"""  # ends where a text, a list or an address goes on
SECRETS = (  # what no line and no file may show, and what stands there instead
    (TOKEN, "hf_…"),
    (re.compile(r"\b(gh[oprsu]_|github_pat_|api_org_|AKIA|ASIA)[A-Za-z0-9_]{16,}"), r"\1…"),
    (re.compile(rf"""(authorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?){VALUE}""", re.I), r"\1…"),
    (re.compile(r"\b(bearer\s+)(?=\S*[\d._-])[\w.~+/=-]{16,}", re.I), r"\1…"),
    (re.compile(r"(\w://)[^\s/@\"'<>]+@"), r"\1…@"),  # user and password
    (
        re.compile(
            r"([?&;](?:X-Amz-[\w-]+|X-Goog-[\w-]+|AWSAccessKeyId|GoogleAccessId|Key-Pair-Id|Policy|Signature|se|sig|"
            rf"[\w-]*(?:token|secret|password|api[_-]?key)[\w-]*)=){VALUE}",
            re.I,
        ),
        r"\1…",
    ),
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 300  # characters of a line
logger = logging.getLogger("hfft")


class HfftError(Exception):
    """An error with a message for people: one line per problem, no traceback. `exit_code` is the process's."""

    exit_code = 70
    answer: dict | None = None  # what a command has found all the same, for --json

    def __init__(self, *lines: str):
        self.lines = [redacted(one_line(line)) for line in lines]
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


def one_line(text: str) -> str:
    """Control characters written out (\\n, \\x1b): a name in the data neither ends a line nor steers the terminal."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def short(line: str) -> str:
    """A line that is not too long: the place that it begins with and the remedy that it ends with are kept.

    One with a command in it stays whole, for it is to be copied.
    """
    return line if len(line) <= LONGEST or "`hfft " in line else f"{line[: LONGEST - 103]} … {line[-100:]}"


def printed(line: str) -> str:
    """A line as it goes to a terminal."""
    return short(one_line(redacted(line)))


def redacted(text: str, *, home: bool = True) -> str:
    """The text without tokens, and without passwords and signatures in URLs; with `home` its folder's path is "~".

    What was typed or answered may hold one; logs are kept and shown, and so are reports and cards.
    """
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return at_home(text) if home else text


def at_home(text: str) -> str:
    """The text with "~" for the home folder's path, which holds a person's name."""
    home = os.path.expanduser("~").rstrip("/")
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?=/)", "~", text) if home else text


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


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


class Lines(logging.Formatter):
    """Announcements as they stand on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, each line of it no longer than others."""
        return "\n".join(printed(line) for line in super().format(record).split("\n"))


class OfLibraries(logging.Formatter):
    """Python's warnings as one line each: the text alone, without the place in a library's code and that line."""

    def format(self, record: logging.LogRecord) -> str:
        """What the library says, in hfft's form."""
        said = super().format(record).split("Warning: ", 1)[-1].split("\n")[0]
        return printed(f"hfft: warning: {said}")


def pass_warnings_on() -> None:
    """Python's warnings go to stderr as lines of ours from here on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OfLibraries())
    logging.getLogger("py.warnings").handlers[:] = [handler]
    logging.captureWarnings(True)


def speak(level: int = logging.INFO) -> None:
    """Send announcements to stderr as plain lines (the commands call this; a library user configures logging)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("hfft: %(message)s"))
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
    handler.setFormatter(Lines("hfft: %(message)s"))
    logger.addHandler(handler)
    if logging.getLogger().level == logging.WARNING:  # its default: nobody has chosen one
        logger.setLevel(logging.INFO)

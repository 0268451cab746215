"""Every test is offline and runs where no shared data is; those that need it say so in one line."""

import atexit
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HFFT_CACHE"] = tempfile.mkdtemp(prefix="hfft-tests-")  # no test finds what another day left

import pytest

# Started in the background, as by `nohup`, tests would ignore what hfft then rightly ignores too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

atexit.register(shutil.rmtree, os.environ["HFFT_CACHE"], ignore_errors=True)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A folder with a short name: in a long one an error's line is cut where it has no room."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def place() -> Iterator[Path]:
    """The shortest: two of its paths have room in one line. It goes with the test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def speech() -> Iterator[None]:
    """Who speaks, and how much, is after a test as it was before: commands set up logging."""
    logger = logging.getLogger("hfft")
    before = logger.level, logger.propagate, logger.handlers[:]
    yield
    logger.level, logger.propagate, logger.handlers[:] = before[0], before[1], before[2]
    logger.manager._clear_cache()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and weights named by HFFT_SHARED (default ../shared)."""
    folder = Path(os.environ.get("HFFT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared data here: set HFFT_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def forks():
    """Starts hfft's command line in processes of their own, without the seconds of a new interpreter's imports."""
    from forks import Forks

    server = Forks()
    yield server
    server.close()

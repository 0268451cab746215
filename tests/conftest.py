"""Every test is offline and runs where no shared data is; those that need it say so in one line."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and weights named by HFFT_SHARED (default ../shared)."""
    folder = Path(os.environ.get("HFFT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared data here: set HFFT_SHARED to its folder")
    return folder

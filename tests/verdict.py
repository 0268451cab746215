"""What every fault has in common: an exit code, and lines that a person can read, none of them a traceback."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

LONGEST = 300


def told(forks, *argv: str | Path, code: int, **env: str) -> list[str]:
    """The lines that `hfft ARGV` wrote; it ended with this code, and said so as an hfft command does."""
    (found,), (text,) = forks.run(*argv, **env)
    assert found == code, text
    lines = text.splitlines()
    assert "Traceback" not in text and "a bug of hfft" not in text, text
    assert [line for line in lines if len(line) > LONGEST and not line.startswith("{")] == []
    errors = [line for line in lines if line.startswith("hfft: error: ")]
    assert bool(errors) == bool(code), text
    assert len(errors) <= 21
    return lines


def one_a_row(cases: Iterable[str]) -> Iterator:
    """Cases named "M01 …": the first of each row of the catalogue among the fast tests, others among the slow ones."""
    seen: set[str] = set()
    for case in cases:
        yield pytest.param(case, marks=[pytest.mark.slow] if case[:3] in seen else [])
        seen.add(case[:3])

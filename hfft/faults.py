"""HFFT_FAULT=point:n:action makes a run fail at an exact place, for tests of what it survives (CONTRIBUTING.md).

`point` is one of POINTS, `n` the time it is passed at which it happens (1 is the first), `action` one of ACTIONS.
Without the variable nothing is done.
"""

import errno
import os
import signal
import time
from collections import Counter

from hfft.messages import InputError

POINTS = ("step", "eval", "save.weights", "save.manifest", "save.rename", "rotate", "push")
ACTIONS = ("kill", "raise", "enospc", "sleep", "sigterm", "nan")
_passed: Counter[str] = Counter()


def point(name: str) -> bool:
    """What the environment asks for at this place, if anything; True where the caller is to make its values NaN."""
    asked = os.environ.get("HFFT_FAULT")
    if not asked:
        return False
    where, number, action = _read(asked)
    if where != name:
        return False
    _passed[name] += 1
    return _passed[name] == number and _act(action)


def _read(asked: str) -> tuple[str, int, str]:
    words = asked.split(":")
    if len(words) != 3 or words[0] not in POINTS or not words[1].isdecimal() or words[2] not in ACTIONS:
        what = f"point:n:action, point one of {', '.join(POINTS)}, action one of {', '.join(ACTIONS)}"
        raise InputError(f"HFFT_FAULT={asked!r}: write {what}")
    return words[0], int(words[1]), words[2]


def _act(action: str) -> bool:
    if action in ("kill", "sigterm"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGTERM)
    elif action == "sleep":
        time.sleep(3600)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "raise":
        raise RuntimeError("HFFT_FAULT")
    return action == "nan"

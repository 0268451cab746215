"""One run a folder: a lock that the system drops when the process that holds it ends, however it ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfft.messages import InputError, MachineError, warn

NAME = ".lock"


@contextmanager
def held(folder: str | Path, called: str = "train.output_dir") -> Iterator[None]:
    """No other process writes into `folder` while the block runs; one that is made for it and stays empty goes again.

    `called` is the key that names it. Raises InputError naming the process that holds it. On a disk without locks it
    warns and goes on.
    """
    folder = Path(folder)
    made = _make(folder, called)
    handle = _taken(folder / NAME, called)
    try:
        yield
    finally:
        if handle is not None:
            (folder / NAME).unlink(missing_ok=True)
            handle.close()
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _make(folder: Path, called: str) -> bool:
    if folder.is_dir():
        return False
    if folder.exists():
        raise InputError(f"{called}: {str(folder)!r} is a file; name a folder")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise MachineError(f"{called}: {str(folder)!r} cannot be made: {error.strerror}") from error
    return True


def _taken(path: Path, called: str):
    """The open file that holds the lock. Of POSIX's kind: loader processes do not inherit it and outlive the run."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    while True:
        try:
            handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - it is held open
        except OSError as error:
            where = f"{called}: {str(path.parent)!r}"
            raise MachineError(f"{where} cannot be written: {error.strerror}; name another folder") from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(f"{called}: {str(path.parent)!r} is in use by {_holder(path)}") from error
        except OSError as error:
            handle.close()
            warn(f"{path.parent}: this disk has no locks ({error.strerror}); let no other run write there")
            return None
        if path.exists() and os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
            break
        handle.close()  # its last holder has removed it in between
    handle.truncate(0)
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}, handle)
    handle.flush()
    return handle


def _holder(path: Path) -> str:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return f"process {known['pid']} on {known['host']} since {known['since']}; wait for it, or name another folder"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process; wait for it, or name another folder"

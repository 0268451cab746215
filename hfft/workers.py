"""The processes that load batches: one that is stopped, hangs or was killed ends the run in one line that names it."""

import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from hfft.messages import MachineError

PATIENCE = 30.0  # seconds between two looks at the processes: one that is stopped ends the run at the first that finds
AT_WORK = 0.1  # it so; one that hangs at the third, if it has computed no longer than this (seconds) in between
GONE = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited)")
GONE_LINE = (
    "loader process with pid {} is gone{}, killed for want of memory as a rule; write fewer "
    "train.dataloader_num_workers, or a smaller batch, and --resume"
)
ADVICE = "--resume goes on from the last checkpoint; train.dataloader_num_workers=0 loads without such processes"
_watches: weakref.WeakKeyDictionary[Any, "Watch"] = weakref.WeakKeyDictionary()


def watched(batches: Iterator) -> Iterator[Any]:
    """The batches of a loader. Raises MachineError for a process that gives none, where torch would wait for ever."""
    if not hasattr(batches, "_workers"):
        yield from batches
        return
    if batches not in _watches:
        _watches[batches] = Watch(batches)
    watch = _watches[batches]
    while True:
        watch.waits = True
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            for each in batches._workers if isinstance(error, OSError | EOFError) else ():
                each.join(1)  # its connection is gone before its end is known
            dead = [str(each.pid) for each in batches._workers if not each.is_alive()]
            if watch.found is not None:
                raise MachineError(f"{watch.found}; {ADVICE}") from error
            if isinstance(error, RuntimeError) or not dead:
                raise
            raise MachineError(GONE_LINE.format(", ".join(dead), "")) from error
        finally:
            watch.waits, watch.given = False, watch.given + 1
        yield batch


class Watch:
    """Looks at the processes of an iterator from a thread: the main one may be inside a call that has no time limit."""

    def __init__(self, batches):
        self.waits, self.given = False, 0
        self.found: str | None = None  # what is wrong, once it is known
        gone = threading.Event()
        weakref.finalize(batches, gone.set)
        threading.Thread(target=self._go_on, args=(weakref.ref(batches), gone), daemon=True).start()

    def _go_on(self, known: weakref.ref, gone: threading.Event) -> None:
        before: tuple | None = None  # what the last look has found
        while self.found is None and not gone.wait(PATIENCE):
            batches = known()
            if batches is None or batches._shutdown:
                return
            try:
                before = self._look(batches, before) if self.waits else None
            except psutil.NoSuchProcess:  # of which torch tells
                return
            del batches  # else it would live as long as this thread

    def _look(self, batches, before: tuple | None) -> tuple:
        number = batches._task_info.get(batches._rcvd_idx, (0,))[0]
        stopped = [i for i, each in enumerate(batches._workers) if _stopped(each.pid)]
        number = stopped[0] if stopped else number
        process = psutil.Process(batches._workers[number].pid)
        now, looks = sum(process.cpu_times()[:2]), 1
        if before is not None and before[:2] == (self.given, number) and now - before[2] < AT_WORK:
            looks = before[3] + 1
        if stopped or looks == 3:
            hangs = f"hangs: for {2 * PATIENCE:g} s it has neither computed nor given a batch"
            how = "is stopped and gives no batch" if stopped else hangs
            self.found = f"loader process {number + 1} of {len(batches._workers)} (pid {process.pid}) {how}"
            process.kill()  # what ends the main thread's waiting, and the process itself, which may be stopped
        return self.given, number, now, looks


def _stopped(pid: int) -> bool:
    """Not for a moment only, as where a whole job is stopped and goes on."""
    for _ in range(5):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            return False
        time.sleep(0.1)
    return True


def _told_later(unraisable) -> None:
    """Of a process that is gone torch tells in a signal's handler, at times where nothing can be raised: then later."""
    if GONE.search(str(unraisable.exc_value)) is None:
        sys.__unraisablehook__(unraisable)


@contextmanager
def named() -> Iterator[None]:
    """What torch says of a loader process that is gone, wherever it comes, becomes a MachineError."""
    before, sys.unraisablehook = sys.unraisablehook, _told_later
    try:
        yield
    except RuntimeError as error:
        found = GONE.search(str(error))
        if found is None or isinstance(error, MachineError):
            raise
        ended = next((watch.found for watch in list(_watches.values()) if watch.found is not None), None)
        if ended is not None:  # by its watch, and torch has told so in the middle of a step
            raise MachineError(f"{ended}; {ADVICE}") from error
        raise MachineError(GONE_LINE.format(found[1], f" ({found[2].strip()})" if found[2] else "")) from error
    finally:
        sys.unraisablehook = before

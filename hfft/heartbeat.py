"""Which process is stuck: each tells the others in the background that it lives and how far it is.

A collective that one process never joins ends the others by a timeout (`train.ddp_timeout`) that names nobody; nor
does any time limit end those that wait for a first process which prepares the data and was stopped. So main watches
all processes, and all watch main.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from hfft import launch
from hfft.messages import HfftError, MachineError

LONGEST = 2.0  # seconds between two beats
TIMED_OUT = ("timed out", "timeout", "time out")
ENDED = "ended"  # the last beat of a process that has ended by itself


@contextmanager
def beating(timeout: float, step: Callable[[], int]) -> Iterator[None]:
    """While the block runs this process beats, and ends where one that it needs has not beaten for `timeout` seconds.

    `timeout` is the collectives' own, and what they raise after it becomes a MachineError naming who is stuck.
    `step()` is how far this process is. Alone, nothing is done.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        yield
        return
    distributed.set_timeout(timedelta(seconds=timeout))  # also of a group that an earlier run here has made
    beats, ended = Beats(timeout, step), threading.Event()
    threads = [threading.Thread(target=work, args=(ended,), daemon=True) for work in (beats.go_on, beats.watch)]
    for thread in threads:
        thread.start()
    try:
        yield
    except RuntimeError as error:
        line = None if isinstance(error, HfftError) else beats.why(error)
        if line is None:
            raise
        raise MachineError(line) from error
    finally:
        ended.set()
        threads[0].join(1.0)  # it says farewell


class Beats:
    """The beats of all processes, in the store by which they have found each other."""

    def __init__(self, timeout: float, step: Callable[[], int]):
        from torch.distributed.distributed_c10d import _get_default_store  # there is no public name for it

        self.timeout, self.step = timeout, step
        self.pause, self.processes = min(LONGEST, timeout / 10), torch.distributed.get_world_size()
        self.rank = torch.distributed.get_rank()
        self.watched = [rank for rank in range(self.processes) if rank != self.rank] if self.rank == 0 else [0]
        self.store = torch.distributed.PrefixStore("hfft-beats", _get_default_store().clone())
        self.heard: dict[int, str] = {}  # the last beat of each that is watched
        self.silence: Counter[int] = Counter()  # for how many pauses it has been the same
        self.unanswered = 0  # pauses since the store has answered: it lies in main or in the launcher, which may stop

    def go_on(self, ended: threading.Event) -> None:
        """Beat until `ended`; hear the others. Where the store's process is stopped this never comes back."""
        number = 0
        try:
            while not ended.wait(self.pause if number else 0):
                number += 1
                self.store.set(str(self.rank), f"{number} {self.step()}")
                for rank in self.watched:
                    beat = self._last(rank)
                    same = beat != ENDED and beat == self.heard.get(rank, "")
                    self.silence[rank] = self.silence[rank] + 1 if same else 0
                    self.heard[rank] = beat
                self.unanswered = 0
            self.store.set(str(self.rank), ENDED)
        except RuntimeError:  # the process that holds the store is gone
            return

    def watch(self, ended: threading.Event) -> None:
        """End this process when one that it needs has been silent too long. Pauses are counted, not seconds.

        So a job that was stopped as a whole goes on.
        """
        while not ended.wait(self.pause):
            self.unanswered += 1
            longest = self.timeout / self.pause
            silent = [rank for rank in self.watched if self.silence[rank] >= longest]
            who = self.holder() if self.unanswered >= longest else _named(silent) if silent else None
            if who is not None and not ended.is_set():
                self._end(f"launch: {self._stopped(who)}; after {self.timeout:g} s (train.ddp_timeout) the run ends")

    def _end(self, line: str) -> None:
        launch.failed(MachineError.exit_code)
        if launch.first_to_say(line):
            os.write(2, f"hfft: error: {line}\n".encode())
        os._exit(MachineError.exit_code)  # the main thread may wait for ever

    def why(self, error: RuntimeError) -> str | None:
        """What a collective's error means, or None where it is another error."""
        if any(words in str(error).lower() for words in TIMED_OUT):
            return f"launch: {self.stuck()}; after {self.timeout:g} s (train.ddp_timeout) the run ends"
        if launch.is_of_another(error):
            still = self.still()
            if ENDED not in self.heard.values():  # else it has told why
                who = self.holder() if still is None else _named(still) if still else "another process"
                return f"launch: {who} of {self.processes} is gone, killed perhaps; the launcher's report may say why"
        return None

    def stuck(self) -> str:
        """Which processes do not beat, or if all do, which has not waited for the others."""
        self.store.set(f"waits-{self.rank}", "")
        still = self.still()
        if still is None or still:
            return self._stopped(self.holder() if still is None else _named(still))
        waiting = [rank for rank in range(self.processes) if self.store.check([f"waits-{rank}"])]
        busy = [rank for rank, beat in self.heard.items() if rank not in waiting and beat != ENDED]
        if not busy:
            return f"all {self.processes} processes wait for each other after step {self.step()}"
        return f"{_named(busy)} of {self.processes} is stuck after step {self.heard[busy[0]].split()[1]}"

    def still(self) -> list[int] | None:
        """The processes that do not beat; None where the store does not answer."""
        time.sleep(self.pause)
        if self.unanswered > 1:
            return None
        try:
            before = [self._last(rank) for rank in range(self.processes)]
            time.sleep(2.5 * self.pause)
            now = [self._last(rank) for rank in range(self.processes)]
        except RuntimeError:
            return None
        self.heard = dict(enumerate(now))
        return [rank for rank in range(self.processes) if now[rank] != ENDED and now[rank] == before[rank]]

    def holder(self) -> str:
        """Who holds the store."""
        return "the launcher" if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else "process 0"

    def _last(self, rank: int) -> str:
        """The last beat of a process, empty before its first."""
        return self.store.get(str(rank)).decode() if self.store.check([str(rank)]) else ""

    def _stopped(self, who: str) -> str:
        return f"{who} of {self.processes} no longer answers: stopped, swapped out or off the network"


def _named(ranks: list[int]) -> str:
    return ("process " if len(ranks) == 1 else "processes ") + ", ".join(str(rank) for rank in ranks)

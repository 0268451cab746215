"""The guard by itself: handlers only where they may be, put back afterwards; a second signal ends the process."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from hfft.guard import SIGNALS, Guard, ignore_signals
from hfft.messages import Stopped


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


def test_handlers_are_put_back_and_outside_the_main_thread_there_are_none():
    before = handlers()
    with Guard():
        assert not {*handlers()} & {*before}
    assert handlers() == before
    seen = []

    def elsewhere():
        with Guard() as guard:
            seen.append((handlers() == before, guard.asked_at))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(True, None)] and handlers() == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Guard() as guard:
            signal.raise_signal(signal.SIGHUP)
            assert guard.asked_at is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_before_the_training_a_signal_ends_the_block_at_once():
    with pytest.raises(Stopped, match="before the first step"), Guard():
        signal.raise_signal(signal.SIGUSR1)
    assert issubclass(Stopped, KeyboardInterrupt)  # which no library's `except Exception` takes for its own


def worker(up) -> None:
    ignore_signals(0)
    up.set()
    time.sleep(60)


def test_a_loader_process_ends_by_its_parent_only():
    fork = multiprocessing.get_context("fork")
    up = fork.Event()
    process = fork.Process(target=worker, args=(up,), daemon=True)
    process.start()
    assert up.wait(10)
    for number in SIGNALS:
        subprocess.run(["kill", f"-{int(number)}", str(process.pid)], check=True)
    process.join(0.5)
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def test_a_second_signal_ends_the_process_but_not_one_that_the_launcher_passes_on():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with Guard() as guard:
            guard.watch(SimpleNamespace(add_callback=lambda _: None))
            os.write(writing, b"up")
            while guard.asked_at is None:
                time.sleep(0.01)
            os.write(writing, b"ok")
            time.sleep(30)
        os._exit(0)
    assert os.read(reading, 2) == b"up"
    os.kill(child, signal.SIGINT)
    assert os.read(reading, 2) == b"ok"
    os.kill(child, signal.SIGTERM)
    time.sleep(1.3)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75

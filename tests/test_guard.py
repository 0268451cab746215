"""The guard by itself: handlers only where they may be, put back afterwards; a second signal ends the process."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

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


@pytest.mark.slow
def test_a_second_signal_ends_the_process_but_not_one_that_the_launcher_passes_on():
    code = (
        "import time; from types import SimpleNamespace; from hfft.guard import Guard\n"
        "with Guard() as guard:\n"
        "    guard.watch(SimpleNamespace(add_callback=lambda _: None))\n"
        "    print('up', flush=True)\n"
        "    while guard.asked_at is None: time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(1.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75
    assert "ended at once" in process.stderr.read()

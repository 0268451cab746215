"""The guard by itself: handlers only where they may be, put back afterwards; a second signal ends the process."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from hfft.guard import SIGNALS, Guard
from hfft.messages import Stopped


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


def test_handlers_are_put_back_and_outside_the_main_thread_there_are_none():
    before = handlers()
    with Guard():
        assert all(handler not in before for handler in handlers())
    assert handlers() == before
    seen = []

    def elsewhere():
        with Guard() as guard:
            seen.append((handlers() == before, guard.asked_at))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(True, None)] and handlers() == before


def test_before_the_training_a_signal_ends_the_block_at_once():
    with pytest.raises(Stopped, match="before the first step"), Guard():
        signal.raise_signal(signal.SIGUSR1)
    assert issubclass(Stopped, KeyboardInterrupt)  # which no library's `except Exception` takes for its own


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

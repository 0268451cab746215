"""Loader processes: one that hangs is named, one that is merely slow is waited for, one that is gone is one line."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hfft import workers
from hfft.messages import MachineError


class Rows(Dataset):
    """Numbers, of which one takes long: by computing, or by waiting for nothing."""

    def __init__(self, slow: float = 0.0, idle: float = 0.0):
        self.slow, self.idle = slow, idle

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        end = time.monotonic() + (self.slow if index == 3 else 0)
        while time.monotonic() < end:
            sum(range(1000))
        time.sleep(self.idle if index == 3 else 0)
        return index


def drawn(rows: Rows) -> list[int]:
    loader = DataLoader(rows, num_workers=2)
    iterator = iter(loader)
    try:
        return [int(batch) for batch in workers.watched(iterator)]
    finally:
        iterator._shutdown_workers()


def test_a_process_that_computes_long_is_waited_for(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.7)
    monkeypatch.setattr(workers, "AT_WORK", 0.01)  # also on a busy machine
    assert drawn(Rows(slow=2.5)) == [0, 1, 2, 3, 4, 5]


def test_a_process_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.4)
    with pytest.raises(MachineError, match=r"loader process 2 of 2 \(pid \d+\) hangs: for 0.8 s it has neither"):
        drawn(Rows(idle=6))


def test_a_process_that_is_stopped_is_named_and_ended(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.4)
    batches = iter(DataLoader(Rows(), num_workers=2))
    os.kill(batches._workers[0].pid, signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"loader process 1 of 2 \(pid \d+\) is stopped and gives no batch"):
        list(workers.watched(batches))
    batches._workers[0].join(5)
    assert batches._workers[0].exitcode == -signal.SIGKILL
    batches._shutdown_workers()


def test_without_processes_nothing_is_watched():
    batches = iter(DataLoader(Rows()))
    assert [int(batch) for batch in workers.watched(batches)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "pid 12 is gone (Killed), killed for want"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "pid 12, 13 is gone, killed for want"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible", "pid 7 is gone (Bus error)"),
    ],
)
def test_what_torch_says_of_a_process_that_is_gone_becomes_one_line(said, line):
    with pytest.raises(MachineError) as error, workers.named():
        raise RuntimeError(said)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("Caught RuntimeError in DataLoader worker process 0."), MachineError("x"), ValueError("y")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as found, workers.named():
        raise error
    assert found.value is error


def test_batches_of_tensors_are_passed_on():
    assert torch.equal(next(workers.watched(iter([torch.ones(2)]))), torch.ones(2))


def test_what_torch_says_where_nothing_can_be_raised_is_no_traceback(capsys):
    class Late:
        def __init__(self, said):
            self.said = said

        def __del__(self):
            raise RuntimeError(self.said)

    with workers.named():
        late = Late("DataLoader worker (pid 7) is killed by signal: Killed. ")
        del late
        assert capsys.readouterr().err == ""
        late = Late("something else")
        del late
        assert "something else" in capsys.readouterr().err

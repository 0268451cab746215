"""What a signal does to a run: it finishes the step, saves a checkpoint and ends with code 75; a second one ends it.

SIGTERM (schedulers, `kill`), SIGINT (Ctrl-C), SIGUSR1 (SLURM's warning) and SIGHUP (a closed terminal) are treated
alike, where they are not ignored, as by `nohup`. The processes of a run agree on the step after which they stop,
whichever of them was signalled.
"""

import os
import signal
import threading
import time

import torch
from transformers import TrainerCallback

from hfft import launch
from hfft.messages import Stopped, announce

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
AGAIN = 1.0  # seconds: launchers pass on what their process group was sent already


class Guard(TrainerCallback):
    """Handlers while the block runs. Before `watch` a signal raises Stopped at once, for nothing was done yet."""

    def __init__(self):
        self.asked_at: float | None = None
        self.watching = False
        self.stopping = False  # agreed upon by all processes
        self.step = self.saved = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *_):
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def watch(self, trainer) -> None:
        """From here on a signal waits for the end of the step."""
        trainer.add_callback(self)
        trainer.guard = self
        self.watching = True

    def _handle(self, number: int, _frame) -> None:
        if not self.watching:
            raise Stopped("stopped before the first step")
        if self.asked_at is None:
            self.asked_at = time.monotonic()
            launch.die_with_launcher(0)  # it may go now; its end is no second signal
            announce(f"{signal.Signals(number).name}: this step is finished and saved; a second signal ends at once")
        elif time.monotonic() - self.asked_at > AGAIN:
            os.write(2, b"hfft: ended at once; what came after the last checkpoint is lost\n")
            os._exit(Stopped.exit_code)

    def agreed(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; every process must call it at the same place."""
        if not self.stopping:
            asked = torch.tensor(int(self.asked_at is not None), device=device)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self.stopping = bool(asked.item())
        return self.stopping

    def stopped(self) -> Stopped:
        """The exception that ends the run."""
        return Stopped(f"stopped at step {self.step}; resume with --resume")

    def check(self, trainer) -> None:
        """When training has ended, and between the works that follow: raises Stopped where that was asked for."""
        if not self.agreed(trainer.args.device):
            return
        if self.saved != self.step and (trainer.is_in_train or not trainer.args.load_best_model_at_end):
            trainer._save_checkpoint(trainer.model_wrapped, None)  # its weights are still the last step's
        raise self.stopped()

    def check_alone(self) -> None:
        """The same where the main process works alone, at the very end."""
        if self.asked_at is not None:
            raise self.stopped()

    # ---- the Trainer's events ---------------------------------------------------------------------------------------
    def on_train_begin(self, args, state, control, **kwargs):
        """A resumed run begins at its checkpoint's step."""
        self.step = self.saved = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        """Stop after this step; what is due at an epoch's end is left to that."""
        self.step = state.global_step
        if self.agreed(args.device):
            control.should_training_stop = True
            control.should_save |= not _epoch_ends(state)

    def on_epoch_end(self, args, state, control, **kwargs):
        """The loop also says so when it was left in the middle of an epoch, where nothing is due."""
        if not self.agreed(args.device):
            return
        control.should_training_stop = True
        if not _epoch_ends(state):
            control.should_log = control.should_evaluate = control.should_save = False
        elif self.saved != state.global_step:
            control.should_save = True

    def on_prediction_step(self, args, state, control, **kwargs):
        """An evaluation is not waited for: it may take longer than a scheduler does. One before any step is."""
        if self.step and self.agreed(args.device):
            raise self.stopped()

    def on_save(self, args, state, control, **kwargs):
        """Remember it, lest the same step be saved twice."""
        self.saved = state.global_step


def _epoch_ends(state) -> bool:
    return state.epoch == int(state.epoch)


def ignore_signals(_worker: int) -> None:
    """For loader processes: schedulers signal them too, and they are needed until the step is finished.

    A signal of the process that they work for does end them: it is about to wait for their end.
    """
    if not hasattr(signal, "sigwaitinfo"):  # not on macOS, where nobody tells who sent a signal
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)

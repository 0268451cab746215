"""How the Trainer saves a checkpoint and goes on from one: whole, with every process's random state, and what is due.

transformers' own way writes in place, each process its own files, and forgets what early stopping has counted.
"""

import tempfile
import time
from pathlib import Path

import torch
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from hfft import checkpoint, together

DUE = "due"  # among the saved states of callbacks: an evaluation that a signal has ended
STREAM = "stream"  # the same: what a stream has counted


def save(trainer) -> None:
    """checkpoint-N of this step, and the oldest removed; every process calls it, main's disk gets it."""
    args, state = trainer.args, trainer.state
    place = checkpoint.path_of(args.output_dir, state.global_step)
    trainer.store_flos()
    if state.best_global_step == state.global_step:
        state.best_model_checkpoint = str(place)
    about = {
        "step": state.global_step,
        "rows_per_step": checkpoint.rows_per_step(args),
        "processes": args.world_size,
        "resumable": not args.save_only_model,
    }
    wait, main = trainer.accelerator.wait_for_everyone, args.should_save
    if hasattr(trainer.train_dataset, "cut"):  # rows of a stream, counted where they are encoded
        state.stateful_callbacks[STREAM] = {"cut": sum(gather_object([trainer.train_dataset.cut]))}
    with checkpoint.written(place, main=main, together=wait, about=about) as folder:
        trainer.save_model(str(folder), _internal_call=True)
        if not args.save_only_model:
            trainer._save_optimizer_and_scheduler(str(folder))
            trainer._save_scaler(str(folder))
            trainer._save_rng_state(str(folder))
        if main:
            for each in [*trainer.callback_handler.callbacks, trainer.control]:
                if isinstance(each, ExportableState):
                    state.stateful_callbacks[type(each).__name__] = each.state()
            state.save_to_json(str(folder / TRAINER_STATE_NAME))
    if main:
        checkpoint.rotate(args.output_dir, args.save_total_limit, state.best_model_checkpoint)


def save_together(write, folder: str, main: bool) -> None:
    """What `write(folder)` writes in each process goes into main's folder: no other may be on its disk."""
    with tempfile.TemporaryDirectory() as own:
        write(own)
        written = [(path.name, path.read_bytes()) for path in Path(own).iterdir()]
    for name, content in gather_object(written):
        if main:
            (Path(folder) / name).write_bytes(content)


def restore(trainer) -> None:
    """After the state was read: where the best checkpoint lies now, and what early stopping has counted."""
    state = trainer.state
    best = checkpoint.path_of(trainer.args.output_dir, state.best_global_step or 0)
    state.best_model_checkpoint = together.from_main(lambda: str(best) if best.is_dir() else None)
    if STREAM in state.stateful_callbacks and trainer.args.process_index == 0:
        trainer.train_dataset.cut = state.stateful_callbacks[STREAM]["cut"]
    for each in trainer.callback_handler.callbacks:
        if isinstance(each, EarlyStoppingCallback):
            known = state.stateful_callbacks.get("EarlyStoppingCallback", {"attributes": {}})
            vars(each).update(known["attributes"])


def nothing_left(trainer) -> bool:
    """Whether a run that resumes has no step to take: all are done, or its patience was at an end."""
    patient = [each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
    ended = any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in patient)
    return ended or trainer.state.global_step >= trainer.state.max_steps


def reseed(trainer, folder: str) -> None:
    """Where a checkpoint knows no random state of this process, one of its own, the same at each resume."""
    index, alone = trainer.args.process_index, trainer.args.world_size == 1
    if not (Path(folder) / ("rng_state.pth" if alone else f"rng_state_{index}.pth")).is_file():
        torch.manual_seed(hash((trainer.args.seed, trainer.state.global_step, index)) % 2**63)


class Due(TrainerCallback):
    """Makes up for the evaluation that a signal had ended, before the first step of the run that goes on."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        """What the checkpoint says is due."""
        due = state.stateful_callbacks.pop(DUE, None)
        if due is not None:
            control.should_evaluate, control.should_save = True, due["save"]
            trainer = self.trainer
            trainer._load_rng_state(trainer.resumed_from)  # which is saved once more
            trainer._maybe_log_save_evaluate(
                trainer._tr_loss, None, trainer.model_wrapped, None, state.epoch, None, time.time()
            )

"""How the Trainer saves a checkpoint and goes on from one: whole, with every process's random state, and what is due.

transformers' own way writes in place, each process its own files, in pickles, and forgets what early stopping has
counted. Models in shares (FSDP2, DeepSpeed) keep their optimizer in those libraries' own format.
"""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from hfft import __version__, batches, checkpoint, faults, models, together
from hfft.messages import CheckpointError, InputError, MachineError, announce, first_line
from hfft.states import packed, read, write

DUE = "due"  # among the saved states of callbacks: an evaluation that a signal has ended
SMALLEST = 1e-3  # a loss scale that halves down to here scales nothing: the gradient itself is not finite
STREAM = "stream"  # the same: what a stream has counted
OPTIMIZER, SCHEDULER, SCALER = "optimizer.safetensors", "scheduler.safetensors", "scaler.safetensors"


def save(trainer) -> None:
    """checkpoint-N of this step, and the oldest removed; every process calls it, main's disk gets it."""
    args, state = trainer.args, trainer.state
    place = checkpoint.path_of(args.output_dir, state.global_step)
    refuse_non_finite(trainer)
    trainer.store_flos()
    if state.best_global_step == state.global_step:
        state.best_model_checkpoint = str(place)
    about = {
        "step": state.global_step,
        "rows_per_step": checkpoint.rows_per_step(args),
        "processes": args.world_size,
        "resumable": not args.save_only_model,
        "format": ("deepspeed" if trainer.is_deepspeed_enabled else "fsdp") if trainer._sharded() else "hfft",
        "versions": {
            "hfft": __version__,
            **{name: metadata.version(name) for name in ("torch", "transformers", "peft")},
        },
        "contract": trainer.contract,
        "best": state.best_model_checkpoint and Path(state.best_model_checkpoint).name,
        "integrity": trainer.integrity,
    }
    wait, main = trainer.accelerator.wait_for_everyone, args.should_save
    if hasattr(trainer.train_dataset, "cut"):  # rows of a stream, counted where they are encoded
        state.stateful_callbacks[STREAM] = {"cut": sum(gather_object([trainer.train_dataset.cut]))}
    with checkpoint.written(place, main=main, together=wait, about=about) as folder:
        faults.point("save.weights")
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
        checkpoint.rotate(args.output_dir, args.save_total_limit, state.best_model_checkpoint, state.global_step)


def refuse_no_steps(args, rows) -> None:
    """Raises InputError where the rows do not fill one step and what is not full is left out."""
    wanted = checkpoint.rows_per_step(args)
    if args.dataloader_drop_last and rows is not None and len(rows) < wanted:
        raise InputError(
            f"train.dataloader_drop_last: a step has {wanted} rows, and there are {len(rows)} to train on: none would "
            "be trained; write false, or a smaller per_device_train_batch_size"
        )


def refuse_non_finite(trainer) -> None:
    """Raises MachineError where a step has made a weight overflow: no such model is written."""
    if (name := _not_finite(trainer)) is not None:
        raise MachineError(
            f"step {trainer.state.global_step}: {name} is no longer finite, and is not saved; write a smaller "
            "train.learning_rate"
        )


def _not_finite(trainer) -> str | None:
    """The first weight that is not; of shares nothing is known."""
    weights = {} if trainer._sharded() else trainer.net().state_dict()
    bad = (name for name, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all())
    return next(bad, None)


def save_optimizer(trainer, folder: Path) -> None:
    """Optimizer and schedule."""
    write(folder / OPTIMIZER, trainer.optimizer.state_dict())
    write(folder / SCHEDULER, trainer.lr_scheduler.state_dict())


def load_optimizer(trainer, folder: Path) -> None:
    """What `save_optimizer` left; where options of `train` were changed, and may be, the position in those of now."""
    optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    known, changed = read(folder / SCHEDULER), any(key.startswith("train.") for key in trainer.changed)
    if changed:
        known = {**schedule.state_dict(), **{key: known[key] for key in ("last_epoch", "_step_count") if key in known}}
    if "train.optim" in trainer.changed:
        announce("the optimizer is another one than in the checkpoint and starts afresh")
    else:
        try:
            optimizer.load_state_dict(read(folder / OPTIMIZER))
            _lay_out(optimizer)
        except ValueError as error:
            raise CheckpointError(f"{folder}: its optimizer does not fit this model: {first_line(error)}") from error
    schedule.load_state_dict(known)
    if changed and hasattr(schedule, "lr_lambdas"):
        for group, now, share in zip(optimizer.param_groups, groups, schedule.lr_lambdas, strict=True):
            group.update(now, lr=now["initial_lr"] * share(schedule.last_epoch))
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]


def _lay_out(optimizer) -> None:
    """The optimizer's memory in the layout of its weights (channels_last), as it was: in another one it rounds else."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def random_file(trainer, folder: str | Path) -> Path:
    """Where the random states of this process lie."""
    return Path(folder) / f"random-{trainer.args.process_index}.safetensors"


def save_random(trainer, folder: Path) -> None:
    """The random states of each process, into main's folder: no other may be on its disk."""
    for name, content in gather_object([(random_file(trainer, folder).name, packed(batches.rng_state()))]):
        if trainer.args.should_save:
            (folder / name).write_bytes(content)


def load_random(trainer, folder: Path) -> None:
    """What `save_random` left; where it knows no state of this process, one of its own, the same at each resume."""
    args = trainer.args
    saved = checkpoint.about(folder)["processes"]
    if saved == args.world_size:
        batches.set_rng_state(read(random_file(trainer, folder)))
    else:
        torch.manual_seed(hash((args.seed, trainer.state.global_step, args.process_index)) % 2**63)


def restore(trainer) -> None:
    """After the state was read: where the best checkpoint lies now, and what early stopping has counted."""
    state = trainer.state
    best = checkpoint.path_of(trainer.args.output_dir, state.best_global_step or 0)
    state.best_model_checkpoint = together.from_main(lambda: str(best) if best.is_dir() else None)
    if state.global_step > state.max_steps:
        raise InputError(
            f"train: {state.max_steps} steps are asked for (max_steps or num_train_epochs), but this run is at step "
            f"{state.global_step} already; ask for more"
        )
    if STREAM in state.stateful_callbacks and trainer.args.process_index == 0:
        trainer.train_dataset.cut = state.stateful_callbacks[STREAM]["cut"]
    for each in trainer.callback_handler.callbacks:
        if isinstance(each, EarlyStoppingCallback):
            known = state.stateful_callbacks.get("EarlyStoppingCallback", {"attributes": {}})
            vars(each).update(known["attributes"])


def load_weights(trainer, folder: str | Path) -> None:
    """A checkpoint's weights. Raises CheckpointError where they are another model's, or not finite."""
    models.load_weights(trainer.model, folder)
    if (name := _not_finite(trainer)) is not None:
        raise CheckpointError(f"{folder}: {name} is not finite; remove this checkpoint, or start anew with --overwrite")


def best_is_whole(trainer) -> None:
    """Raises CheckpointError where the best checkpoint, whose weights are to be the run's, has been damaged since."""
    place = Path(trainer.state.best_model_checkpoint)
    lacks = together.from_main(lambda: checkpoint.trouble(place))
    if lacks:
        raise CheckpointError(
            f"{place}, the best, cannot be used: {lacks}; --resume goes on from an older one, or write "
            "train.load_best_model_at_end: false"
        )


def skipped(trainer) -> bool:
    """Count a step of fp16 whose scaled gradient has overflowed: its scaler leaves it out, but not for ever."""
    scaler = getattr(trainer.accelerator, "scaler", None)
    trainer.integrity["non_finite_steps"] += 1
    return scaler is not None and scaler.get_scale() > SMALLEST and bool(torch.isfinite(trainer._tr_loss))


def integrity_of(folder: str | Path) -> dict[str, Any]:
    """What the runs before this one have counted, and that this one goes on from here."""
    place = Path(folder)
    known = checkpoint.about(place).get("integrity") or {}
    return {"non_finite_steps": 0, **known, "resumed_from": [*known.get("resumed_from", []), place.name]}


def nothing_left(trainer) -> bool:
    """Whether a run that resumes has no step to take: all are done, or its patience was at an end."""
    patient = [each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
    ended = any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in patient)
    return ended or trainer.state.global_step >= trainer.state.max_steps


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

"""Room: what a run needs of disk and memory, estimated before its first step, and what is said when one is full.

The estimates are lower bounds: what is refused could not have worked.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import psutil
import torch

from hfft import checkpoint, launch
from hfft.messages import HfftError, InputError, MachineError, announce, first_line
from hfft.models import is_out_of_memory
from hfft.shelf import free_memory

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAID = re.compile(r"No space left|StorageFull|File too large|quota exceeded|os error (28|27|122)\b|unexpected pos \d+")
STATES = {"sgd": 0.0, "adafactor": 0.0, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}  # of an optimizer; AdamW has two
UNFIT = (
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
)  # of a batch that a model cannot take
DISK = (
    "train.output_dir: {folder!r} needs {needed} ({parts}), {available} are free; make room, name another disk, or "
    "write a smaller train.save_total_limit"
)
MEMORY = (
    "memory: training needs {needed} ({parts}), {available} are there; write peft or frozen in tuning, another "
    "train.optim, or a smaller batch"
)
SMALL = ("galore", "apollo", "lomo", "schedule_free", "came")  # whose states are less, or unlike, the weights


def writable(folder: str | Path, called: str = "train.output_dir") -> None:
    """Try a run's folder and leave nothing; `called` is the key that names it.

    Raises InputError or MachineError where no run could write.
    """
    folder = Path(folder)
    if os.path.exists(folder) and not folder.is_dir():
        raise InputError(f"{called}: {str(folder)!r} is a file; name a folder")
    new = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"hfft")
    except OSError as error:
        why = error.strerror or error
        raise MachineError(f"{called}: {str(folder)!r} cannot be written ({why}); name another folder") from error
    finally:
        for each in new:
            with contextlib.suppress(OSError):  # not made, or another run has begun there
                each.rmdir()


def enough(recipe, trainer) -> None:
    """Raises MachineError where the disk or the memory is clearly too small for the run that is about to start."""
    refuse(disk(recipe, trainer), DISK)
    refuse(memory(trainer), MEMORY)


def refuse(found: dict[str, Any], line: str) -> None:
    """Raises MachineError where more is needed than there is."""
    if found["available"] is None or found["needed"] <= found["available"]:
        return
    parts = ", ".join(f"{name} {size(value)}" for name, value in found["parts"].items() if value)
    told = {"needed": size(found["needed"]), "available": size(found["available"]), "parts": parts}
    raise MachineError(line.format(folder=found.get("folder"), **told))


def disk(recipe, trainer) -> dict[str, Any]:
    """{"needed", "available", "parts", "checkpoint", "folder"}: bytes of all that will lie there at the same time."""
    model, adapted, one = trainer.net(), hasattr(trainer.net(), "peft_config"), checkpoint_bytes(trainer)
    whole = sum(each.nbytes for each in model.state_dict().values())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    base = sum(each.nbytes for each in getattr(model, "base_weights", {}).values())
    merged = [part for part in recipe.export if part.name == "merge"]
    parts = {
        "checkpoints": one * _held(trainer),
        "the model": (trained if adapted else whole) + base,
        "exports": (whole - trained) * len(merged) if adapted else 0,
    }
    folder = Path(trainer.args.output_dir)
    is_run = (folder / "recipe.yaml").is_file() or any(folder.glob("checkpoint-*"))  # no other is ever emptied
    taken = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if is_run else 0
    return {
        "needed": sum(parts.values()),
        "available": shutil.disk_usage(_nearest(folder)).free + taken,  # which a new run, or rotation, removes
        "parts": parts,
        "checkpoint": one,
        "folder": trainer.args.output_dir,
    }


def checkpoint_bytes(trainer) -> int:
    """Bytes of one checkpoint: the weights that are saved, and the optimizer's states of those that are trained."""
    model = trainer.net()
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    saved = trained if hasattr(model, "peft_config") else sum(each.nbytes for each in model.state_dict().values())
    return saved + (0 if trainer.args.save_only_model else _states(trainer))


def _nearest(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.exists(each))


def _held(trainer) -> int:
    """How many checkpoints lie there at the fullest moment: those that are kept, and the one being written."""
    args, rows = trainer.args, len(trainer.train_dataset)
    if args.save_strategy == "no":
        return 0
    a_pass = max(1, ceil(rows / checkpoint.rows_per_step(args)))
    steps = args.max_steps if args.max_steps > 0 else ceil(args.num_train_epochs * a_pass)
    every = args.save_steps if args.save_steps >= 1 else ceil(args.save_steps * steps)
    saves = {"epoch": ceil(steps / a_pass), "steps": ceil(steps / every)}.get(str(args.save_strategy.value), 1)
    if args.save_total_limit is None:
        return saves
    beside = args.eval_strategy.value != "no"  # the best, which stays beside the newest
    return min(saves, max(args.save_total_limit, 1 + beside) + 1)


def _states(trainer) -> int:
    """Bytes of the optimizer's states for what is trained."""
    name = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    share = 0.0 if name.startswith(SMALL) else STATES.get(name.split("_")[0], 2.0)
    trained = sum(p.nbytes for p in trainer.net().parameters() if p.requires_grad)
    return round(trained * share / (4 if "8bit" in name else 1))


def memory(trainer, a_pass: int = 0) -> dict[str, Any]:
    """{"needed", "available", "parts"}: bytes of weights and all that comes with training them, on their device.

    `a_pass` is what one forward and backward pass was seen to take, gradients included. Nothing is known ("available"
    None) of models that are shared by processes.
    """
    model, device = trainer.net(), trainer.args.device
    weights = sum(each.nbytes for each in model.state_dict().values())
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    parts = {"weights": weights, "gradients": gradients, "optimizer": _states(trainer)}
    if a_pass:
        parts["activations"] = max(0, a_pass - gradients)
    return {
        "needed": sum(parts.values()),
        "available": None if trainer._sharded() else _available(device, weights),
        "parts": parts,
    }


def _available(device: torch.device, weights: int) -> int | None:
    """What this process has or may still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    held = psutil.Process().memory_info()
    return max(weights, held.rss) + min(free_memory(), _address_space(held.vms))


def _address_space(used: int) -> int:
    """Bytes that `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 1 << 62
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 1 << 62 if limit == resource.RLIM_INFINITY else max(0, limit - used)


def for_weights(model) -> None:
    """Raises MachineError where the weights of the recipe's model section, which lie on this disk, do not fit."""
    folder = Path(model.name or "")
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else list(folder.glob("model-*-of-*.safetensors")) if model.name else []
    needed, available = sum(path.stat().st_size for path in files), _available(torch.device("cpu"), 0)
    if available is not None and needed > available:
        raise MachineError(
            f"model {model.name!r}: its weights alone need {size(needed)} of memory, {size(available)} are there; "
            "take a smaller model or a larger machine"
        )


# ---- while it runs --------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def watched(trainer) -> Iterator[None]:
    """A full disk or memory inside the block, or a model that cannot take its first batch, is told in one line."""
    try:
        yield
    except HfftError:
        raise
    except Exception as error:
        if is_full(error):
            raise MachineError(_of_disk(trainer)) from error
        if is_out_of_memory(error):
            raise MachineError(_of_memory(trainer, error)) from error
        if isinstance(error, ImportError):
            raise MachineError(f"training lacks a library: {first_line(error)}") from error
        if trainer.is_in_train and not trainer.state.global_step and isinstance(error, UNFIT) and not _of_others(error):
            raise InputError(f"the first training step fails: {first_line(error)}; `hfft check` says more") from error
        raise


def _of_others(error: Exception) -> bool:
    """Whether another process, or a test, has ended the step."""
    return launch.is_of_another(error) or "HFFT_FAULT" in str(error)


def is_full(error: BaseException) -> bool:
    """Whether a disk, a quota or the largest allowed file is at its end."""
    return (isinstance(error, OSError) and error.errno in FULL) or bool(SAID.search(str(error)))


def _of_disk(trainer) -> str:
    folder = Path(trainer.args.output_dir)
    needed = checkpoint_bytes(trainer)
    free = shutil.disk_usage(_nearest(folder)).free
    saved = checkpoint.steps(folder)
    then = f"--resume goes on from checkpoint-{saved[-1]}" if saved else "start again with --overwrite"
    return f"{folder}: the disk is full: a checkpoint takes {needed:,} bytes, {free:,} are free; make room, then {then}"


def _of_memory(trainer, error: BaseException) -> str:
    """The figures, and the same global batch in smaller pieces."""
    args = trainer.args
    batch, pieces = args.per_device_train_batch_size, args.gradient_accumulation_steps
    asked = re.search(r"[Tt]ried to allocate [\d.,]+ ?\w+", str(error))
    available = _available(args.device, 0)
    told = [f"t{asked[0][1:]}"] if asked else []
    told += [f"{size(available)} in all"] if available is not None else []
    where = f"out of memory after step {trainer.state.global_step} ({', '.join(told)})"
    if not trainer.model.training:
        smaller = max(1, args.per_device_eval_batch_size // 2)
        return f"{where} in an evaluation: write train.per_device_eval_batch_size={smaller} and --resume"
    if batch == 1:
        return f"{where} with one row a batch: write train.gradient_checkpointing=true, or take a smaller model"
    parts = next(number for number in range(2, batch + 1) if batch % number == 0)
    same = "the rows of a step stay the same"
    then = "--resume" if checkpoint.steps(args.output_dir) else "--overwrite"
    return (
        f"{where} with per_device_train_batch_size {batch}: write train.per_device_train_batch_size={batch // parts} "
        f"train.gradient_accumulation_steps={pieces * parts} and {then}; {same}"
    )


def taken_by(work, device: torch.device) -> tuple[Any, int]:
    """(what `work()` gives, the bytes that it took at its fullest moment; 0 where that cannot be seen)."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return work(), torch.cuda.max_memory_allocated(device) - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    before = psutil.Process().memory_info().rss
    try:
        reset.write_text("5")  # Linux: forget the highest use so far
    except OSError:
        return work(), 0
    answer = work()
    highest = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    return answer, max(0, int(highest[1]) * 1024 - before) if highest else 0


def tell(disk_found: dict[str, Any], memory_found: dict[str, Any]) -> None:
    """Both estimates in one line."""
    for name, found in (("disk", disk_found), ("memory", memory_found)):
        there = "" if found["available"] is None else f" of {size(found['available'])}"
        announce(f"{name}: about {size(found['needed'])}{there} needed")


def size(count: int) -> str:
    """Bytes as people read them, and exactly where that decides."""
    return f"{count:,} bytes" if count < 10e6 else f"{count / 1e9:.2f} GB ({count:,} bytes)"

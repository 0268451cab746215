"""Adapters read back strictly: onto the base they were trained on, every one of their weights and no other.

peft 0.21 leaves a weight that the file lacks at its random start, and takes any base of the same shapes, in silence.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from hfft.messages import CheckpointError, first_line

WEIGHTS, LOCK = "adapter_model.safetensors", "run.lock.json"
SAMPLE = 1 << 16  # bytes of each weight that are hashed
FREE = {"prompt_embeddings"}  # which peft puts in by itself


def print_of(weights: dict[str, torch.Tensor]) -> str:
    """A hash of the names and shapes of weights and of the first part of each, whatever type they are stored in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        sample = weights[name].detach().reshape(-1)[: SAMPLE // 4].cpu().float().contiguous()
        digest.update(f"{name} {tuple(weights[name].shape)} ".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def sign(folder: str | Path, base: dict[str, torch.Tensor]) -> None:
    """Note in the run's run.lock.json which base weights its adapter belongs to."""
    lock = Path(folder) / LOCK
    if lock.is_file():
        known = json.loads(lock.read_text(encoding="utf-8"))
        known["model"]["base"] = print_of(base)
        lock.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tell_base(base, folder: Path) -> None:
    """Let the adapter's config tell the base's name, not its place here; peft's own card, which tells it too, goes."""
    config, name = folder / "adapter_config.json", base.config._name_or_path
    if name and config.is_file():
        known = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
        config.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)


def load(base, folder: str | Path):
    """`base` with the adapter in `folder`. Raises CheckpointError where that is not whole, or another base's."""
    from peft import PeftModel

    _check_base(base, Path(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # all of them, which is an error here
        net = PeftModel.from_pretrained(base, str(folder))
    net.active_peft_config.base_model_name_or_path = base.name_or_path  # or peft asks the Hub for the name's config
    _check_whole(net, Path(folder))
    return net


def put(net, folder: str | Path) -> None:
    """Give an adapted model the adapter weights of a checkpoint. Raises CheckpointError where they are not its own."""
    from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

    if not (Path(folder) / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: no {WEIGHTS} there, for the run that began trained no adapter; "
            "go on with its own tuning, or start anew with --overwrite"
        )
    _check_whole(net, Path(folder))
    try:
        result: Any = set_peft_model_state_dict(net, load_peft_weights(str(folder), device="cpu"))
    except (RuntimeError, KeyError) as error:
        moves = getattr(net.active_peft_config.peft_type, "value", "") == "ADALORA"
        remedy = "its ranks move: write train.load_best_model_at_end: false" if moves else "start anew with --overwrite"
        raise CheckpointError(f"{folder}: the adapter does not fit this model ({problem(error)}); {remedy}") from error
    left = set(result.unexpected_keys) - FREE
    assert not left, left


def problem(error: Exception) -> str:
    """What a library says of weights that do not fit, without the line that only says so."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Error(s) in loading")]
    return told[0][:160].rstrip(".") if told else first_line(error)


def _check_whole(net, folder: Path) -> None:
    """Every weight that this adapter has is in the file, and no other, each of finite values."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    found, wanted = load_file(folder / WEIGHTS), get_peft_model_state_dict(net).keys()
    for what, names in (("lacks", wanted - found.keys()), ("has, beyond this adapter,", found.keys() - wanted - FREE)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"{folder / WEIGHTS}: {what} {min(names)}{more}; it was changed, or another adapter's"
            )
    wrong = [name for name, weight in found.items() if weight.is_floating_point() and not torch.isfinite(weight).all()]
    if wrong:
        raise CheckpointError(f"{folder / WEIGHTS}: {wrong[0]} holds values that are not finite")


def _check_base(base, folder: Path) -> None:
    """run.lock.json tells which weights the adapter was trained on; other tools' adapters tell nothing."""
    lock = folder / LOCK
    if not lock.is_file():
        return
    try:
        known = json.loads(lock.read_text(encoding="utf-8"))["model"].get("base")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{lock}: is damaged; restore it, or remove it to load the run as it is") from error
    if known is not None and known != print_of(base.state_dict()):
        raise CheckpointError(
            f"{folder}: the base model there is not the one that the adapter was trained on ({LOCK}, model.base); put "
            "its own weights back"
        )

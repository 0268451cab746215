"""Freezing: train the head only, the last layers with it, or exactly the parameters that are named.

Layers are found for any architecture (`hfft.tuning.base.blocks`). BatchNorm of what is frozen keeps its statistics.
Training the head first or alone: "Fine-Tuning can Distort Pretrained Features", https://arxiv.org/abs/2202.10054.
"""

import re

from hfft.lookup import hint
from hfft.messages import InputError, announce
from hfft.models import below, head_modules
from hfft.tuning.base import blocks, keep_batchnorm_frozen


def train_defaults(*, last: int = 0, train: list[str] | None = None, freeze: list[str] | None = None) -> dict:
    """The learning rate: 1e-3 for a head alone, 5e-5 as soon as pretrained layers move.

    1e-3 is Adam's own default (arXiv:1412.6980), right for weights that start at random; 5e-5 is the greatest that
    BERT's authors tried for pretrained layers (arXiv:1810.04805, appendix A.3) and transformers' default.
    """
    return {"learning_rate": 5e-5 if last or train or freeze else 1e-3}


def frozen(model, *, last: int = 0, train: list[str] | None = None, freeze: list[str] | None = None):
    """Freeze all but the head, and but the `last` blocks with what the backbone has behind them (norm, pooler).

    `train` and `freeze` are names of modules or parameters (a module's name takes all below it) or regular expressions
    for whole names. `train` thaws those too; `freeze` freezes those last of all. With `freeze` alone everything else
    trains.

    Raises InputError for a name that matches nothing, more blocks than there are, or nothing left to train.
    """
    if hasattr(model, "peft_config"):
        raise InputError("tuning: frozen after peft would freeze the adapter; peft freezes the base model by itself")
    parameters = dict(model.named_parameters())
    chosen = set(parameters) if freeze and not (last or train) else _default(model, last)
    chosen |= _matching(model, "train", train)
    chosen -= _matching(model, "freeze", freeze)
    if not chosen:
        raise InputError("tuning: frozen: nothing is left to train; name something in train or set last")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    norms = keep_batchnorm_frozen(model)
    if norms:
        announce(f"frozen: {norms} BatchNorm layers keep their statistics (their weights are frozen)")
    return model


def _default(model, last: int) -> set[str]:
    """Names of the head's parameters and of all that come after the start of the last `last` blocks."""
    heads, names = head_modules(model), [name for name, _ in model.named_parameters()]
    found = blocks(model) if last else []
    if last < 0 or last > len(found):
        raise InputError(f"tuning: frozen: last: {last}, but the model has {len(blocks(model))} blocks")
    start = len(names)
    if last:
        start = min(index for index, name in enumerate(names) if below(name, found[-last:]))
    return {name for index, name in enumerate(names) if index >= start or below(name, heads)}


def _matching(model, option: str, patterns: list[str] | None) -> set[str]:
    """Names of the parameters that one of the names or regular expressions takes."""
    parameters = [name for name, _ in model.named_parameters()]
    names = [name for name, _ in model.named_modules() if name] + parameters
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns or []:
        try:
            hits = [name for name in names if name == pattern or re.fullmatch(pattern, name)]
        except re.error as error:
            raise InputError(f"tuning: frozen: {option}: {pattern!r} is no regular expression: {error}") from error
        taken = {name for name in parameters if below(name, hits)}
        if not taken:
            raise InputError(
                f"tuning: frozen: {option}: {pattern!r} matches no module or parameter.{hint(pattern, names)}"
            )
        found |= taken
    return found

"""Features of a frozen trunk, computed once: where only the head trains, the epochs train it on the trunk's output.

A fixed network's output as the input of a classifier: DeCAF, https://arxiv.org/abs/1310.1531. Here it is the same run
as without, only faster: the same rows in each step, the same random draws, the same weights up to float rounding. That
it is the same is not assumed from names of layers but tried on a batch: nothing may be drawn before the features, and
loss and gradients from stored features must be those of the whole model.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers.modeling_outputs import SequenceClassifierOutput

from hfft.batches import EncodedRows, Key, rng_state, set_rng_state, undisturbed
from hfft.levers import switch
from hfft.messages import announce, first_line
from hfft.models import below, head_modules
from hfft.shelf import free_memory
from hfft.trainer import Trainer

PROBED = 8  # rows that are tried
SHARE = 0.5  # of the free memory that features may take
QUIET = 30.0  # seconds without a word
PADDING, VARIES = -1, -2  # in place of a row's index


Probed = tuple[list[nn.Module], dict[str, torch.Tensor], str]


class Unfit(Exception):
    """Why the trunk has to run in every epoch after all."""


@dataclass
class StoredRows(Dataset):
    """`rows` with their features in memory: columns of tensors (rows, ...), drawn as whole batches."""

    rows: EncodedRows
    columns: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self):
        """Those of the rows: batches hold the rows that they would hold without features."""
        return self.rows.lengths()

    def __getitems__(self, keys: list[Key]) -> dict[str, Any]:
        """A batch as the Trainer takes it, with no need to be collated."""
        places = [index for _, index, _ in keys]
        return {name: values[places] for name, values in self.columns.items()} | {
            "rows": places,
            "filler": keys[0][2],
        }

    @staticmethod
    def collate(batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as it is."""
        return batch


def once(trainer: Trainer) -> None:
    """Give the trainer its rows as features and its model a forward that takes them, where the run stays the same.

    Otherwise all stays as it was, and the reason is announced. The model's modules and weights are not touched: what is
    optimised, wrapped, saved and loaded is the whole model.
    """
    model, args = trainer.model, trainer.args
    heads = head_modules(model)
    if not all(below(name, heads) for name, parameter in model.named_parameters() if parameter.requires_grad):
        return  # the trunk learns: there is nothing to store
    splits = {"train_dataset": trainer.train_dataset}
    if args.eval_strategy != "no":
        splits["eval_dataset"] = trainer.eval_dataset
    started = time.time()
    try:
        with _untouched(model):
            tail, example, line = _agreed(trainer, lambda: _probe(trainer, list(splits.values())))
            announce(line)
            stored = {name: _stored(trainer, tail, rows, example) for name, rows in splits.items()}
    except Unfit as reason:
        announce(f"features: the frozen trunk runs in every epoch: {reason}")
        return
    for name, rows in stored.items():
        setattr(trainer, name, rows)
    model.forward = _forward(model, tail)
    trainer.seconds_before += time.time() - started


def _agreed(trainer: Trainer, probe: Callable[[], Probed]) -> Probed:
    """What the probe finds in all processes, or Unfit in all."""
    found, reason = None, "another process cannot store it"
    try:
        found = probe()
    except Unfit as error:
        reason = str(error)
    votes = trainer.accelerator.gather(torch.tensor([found is not None], device=trainer.args.device))
    if found is None or not votes.all():
        raise Unfit(reason)
    return found


# ---- may this run use them? -----------------------------------------------------------------------------------------
def _probe(trainer: Trainer, splits: list[EncodedRows]) -> Probed:
    """(what follows the features, a batch of them, what to say), tried: they give the whole model's gradients."""
    _check_arguments(trainer)
    rows, model = trainer.train_dataset, trainer.model
    batch = trainer._collate(rows.__getitems__([(0, i, False) for i in range(min(PROBED, len(rows)))]))
    inputs = trainer.inputs_of(batch)
    tail = _tail(trainer, inputs)
    example = _computed(trainer, tail, batch)
    size = _check_memory(example, sum(map(len, splits)))
    state = rng_state()
    expected = _gradients(trainer, inputs, state)
    model.forward = _forward(model, tail)
    try:
        found = _gradients(trainer, example, state)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Unfit(f"what follows it cannot be run by itself ({first_line(error)})") from error
    finally:
        del model.forward
    for one, other in zip(expected, found, strict=True):
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-4 * one.abs().max().item()):
            raise Unfit("what follows it is no plain chain of layers, or the loss needs more than logits")
    counts = " + ".join(f"{len(rows):,}" for rows in splits)
    why = f"{size}; nothing in it is random; {switch('features')}"
    return tail, example, f"features: the frozen trunk's output of {counts} rows is computed once ({why})"


def _check_arguments(trainer: Trainer) -> None:
    args, rows = trainer.args, trainer.train_dataset
    stream = not isinstance(rows, EncodedRows)
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    epochs = args.num_train_epochs if stream or args.max_steps <= 0 else args.max_steps * step / len(rows)
    reasons = {
        "the rows are a stream": stream,
        "augmentation changes the rows in each epoch": bool(getattr(rows, "augment", ())),
        "something in its rows is drawn anew in each epoch": getattr(rows, "vary", None) is not None,
        "its rows are seen less than twice": epochs < 2,
        "FSDP or DeepSpeed splits the model": trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled,
        "one process drives several GPUs": args.n_gpu > 1,
        "train.neftune_noise_alpha adds noise to its input": args.neftune_noise_alpha is not None,
        "train.include_num_input_tokens_seen counts its tokens": args.include_num_input_tokens_seen != "no",
        "the model's forward has been replaced": "forward" in vars(trainer.model),
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unfit(reason)


def _check_memory(example: dict[str, torch.Tensor], num_rows: int) -> str:
    """The size in words."""
    needed = num_rows * sum(values[0].nbytes for values in example.values())
    free = free_memory()
    if needed > SHARE * free:
        raise Unfit(f"its output would take {_megabytes(needed)} of {_megabytes(free)} of free memory")
    return _megabytes(needed)


def _megabytes(size: float) -> str:
    return f"{math.ceil(size / 1e6):,} MB"


def _tail(trainer: Trainer, inputs: dict[str, Any]) -> list[nn.Module]:
    """The layers from the features on, in the order of their calls.

    The features are the input of the head's first trained layer or, where that is random (dropout before it), of the
    nearest layer before with a constant input, behind the last one with weights.
    """
    called: list[tuple[nn.Module, bool]] = []
    trainer.model.train()
    before = _generators()
    leaves = [module for module in trainer.model.modules() if not any(True for _ in module.children())]
    with _hooked(leaves, lambda module, _: called.append((module, _generators() == before))), torch.no_grad():
        _run(trainer, inputs)
    trained = next((i for i, (module, _) in enumerate(called) if _trains(module)), None)
    if trained is None:
        raise Unfit("its head is no layer of its own")
    behind = max((i + 1 for i, (module, _) in enumerate(called[:trained]) if _has_state(module)), default=0)
    constant = [i for i in range(behind, trained + 1) if called[i][1]]
    if not constant:
        raise Unfit("it is random while it trains (dropout or drop path; model.config can set them to 0)")
    return [module for module, _ in called[constant[-1] :]]


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _has_state(module: nn.Module) -> bool:
    return any(True for _ in chain(module.parameters(), module.buffers()))


def _generators() -> tuple:
    """The state of Python's and torch's generators, to be compared."""
    torch_states = [torch.get_rng_state(), *rng_state().get("cuda", [])]
    return random.getstate(), *(state.numpy().tobytes() for state in torch_states)


def _gradients(trainer: Trainer, inputs: dict[str, Any], state: dict[str, Any]) -> list[torch.Tensor]:
    """Loss and gradients of one training batch, drawn from `state`."""
    set_rng_state(state)
    trainer.model.train()
    with trainer.accelerator.autocast():
        loss, _ = trainer.loss(trainer.model, inputs, trainer.task.items(inputs))
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained, materialize_grads=True)]


# ---- features -------------------------------------------------------------------------------------------------------
def _stored(trainer: Trainer, tail: list[nn.Module], rows: EncodedRows, example: dict[str, torch.Tensor]) -> StoredRows:
    """Features of all rows, each computed by one of the processes and given to all."""
    accelerator, told = trainer.accelerator, time.monotonic()
    columns = {name: torch.empty(len(rows), *each.shape[1:], dtype=each.dtype) for name, each in example.items()}
    loader = trainer.get_eval_dataloader(rows)
    for step, batch in enumerate(loader):
        if time.monotonic() > told + QUIET:
            announce(f"features: {step:,} of {len(loader):,} batches")
            told = time.monotonic()
        found = _computed(trainer, tail, batch)
        places = torch.tensor(batch["rows"], device=trainer.args.device)
        if any(found[name].shape[1:] != values.shape[1:] for name, values in columns.items()):
            found = {name: values[: len(places)].to(places.device) for name, values in columns.items()}
            places = torch.full_like(places, VARIES)
        found = accelerator.gather(accelerator.pad_across_processes(found | {"rows": places}, pad_index=PADDING))
        places = found.pop("rows").cpu()
        if (places == VARIES).any():
            raise Unfit("its output differs in size from row to row")
        for name, values in found.items():
            columns[name][places[places >= 0]] = values.cpu()[places >= 0]
    return StoredRows(rows, columns)


def _computed(trainer: Trainer, tail: list[nn.Module], batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A batch with features under the model's main input name, and with what is no input of the model (labels)."""
    model, inputs, num_rows = trainer.model.eval(), trainer.inputs_of(batch), len(batch["rows"])
    caught: list[tuple] = []
    with _hooked(tail[:1], lambda _, given: caught.append(given)), torch.inference_mode():
        _run(trainer, inputs)
    given = caught[-sum(module is tail[0] for module in tail)]  # the layer may have been used in the trunk too
    columns = {name: values for name, values in inputs.items() if name == "labels" or name not in _parameters(model)}
    if len(given) != 1 or not all(torch.is_tensor(x) and len(x) == num_rows for x in (*given, *columns.values())):
        raise Unfit("its output is not one tensor with a row for each row of the batch")
    return {model.main_input_name: given[0].clone()} | columns


def _parameters(model: nn.Module) -> set[str]:
    return set(signature(type(model).forward).parameters)


def _forward(model: nn.Module, tail: list[nn.Module]) -> Callable[..., SequenceClassifierOutput]:
    """The model's forward from features on: what the tail makes of them."""

    def forward(**inputs):
        values = inputs[str(model.main_input_name)]
        for module in tail:
            values = module(values)
        return SequenceClassifierOutput(logits=values)

    return forward


def _run(trainer: Trainer, inputs: dict[str, Any]) -> None:
    """One call of the model, by the task and in the arithmetic of training."""
    with trainer.accelerator.autocast():
        trainer.task.loss(trainer.model, inputs, 1)


@contextmanager
def _hooked(modules: Iterable[nn.Module], note: Callable[[nn.Module, tuple], None]) -> Iterator[None]:
    """Call `note(module, its inputs)` before each of the modules runs."""
    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Random state and buffers (a trained BatchNorm's statistics) are the same after the block as before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with undisturbed():
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)

"""Levers: what makes a run fast on this machine, chosen by model and hardware, each announced with reason and switch.

`train: {levers: none}` turns all off and leaves the reference arithmetic: fp32, rows in plain random order, the models
as they were loaded. `train: {levers: {channels_last: false}}` turns one off. Measured in docs/performance.md.
"""

import contextlib
import ctypes
import gc
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import MethodType
from typing import Any

import torch
from torch import nn

from hfft import dropout
from hfft.grammar.rules import LEVERS
from hfft.messages import announce

PAYS = 2_000_000  # parameters from which bf16 saves more than its casts cost
CONVOLUTIONS = 8  # spatial convolutions from which a model is a convolutional one (a ViT has one, for its patches)
LOMO = "lomo_optim"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Levers:
    """Which levers a run may use; the default of each is the reference's way."""

    allocator: bool = False
    bf16: bool = False
    buckets: bool = False
    cache: bool = False
    channels_last: bool = False
    dropout: bool = False
    features: bool = False
    uint8: bool = False


assert tuple(field.name for field in fields(Levers)) == LEVERS, "the grammar and the levers have the same names"


def allowed(train: dict[str, Any] | None) -> Levers:
    """The levers that `train.levers` leaves on: all of them, none, or all but those that are false."""
    asked = (train or {}).get("levers", "all")
    if isinstance(asked, dict):
        return Levers(**(dict.fromkeys(LEVERS, True) | asked))
    return Levers(**dict.fromkeys(LEVERS, asked == "all"))


def switch(name: str) -> str:
    """How a person turns one off."""
    return f"train.levers.{name}=false turns it off"


def keep_memory(levers: Levers, device: torch.device) -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back and faulting it in again.

    For the whole process, hence only on a CPU under Linux, where a step's tensors come from malloc.
    """
    if not levers.allocator or device.type != "cpu" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, -1):
        announce(f"allocator: freed memory is kept for the next step (exact; {switch('allocator')})")


def in_parts(trainer, levers: Levers) -> None:
    """Let rows of like length in a batch share a pass: the same rows and gradient in each step, less padding.

    Of texts, in a model that is whole in each process. One more pass costs as much as some tokens: to add its gradient
    to the others' on a CPU, to start its kernels elsewhere.
    """
    if not levers.buckets or trainer.task.lazy or trainer.task.whole_batch or trainer._sharded():
        return
    trainer.part_cost = 100 if trainer.args.device.type == "cpu" else 4096
    announce(f"buckets: rows of like length in a batch share a pass, with less padding (exact; {switch('buckets')})")


@contextlib.contextmanager
def casts_kept() -> Iterator[None]:
    """What autocast has cast the weights to is used by all passes in the block, which must not change the weights."""
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


def arrange(model: nn.Module, args, levers: Levers, asked: dict[str, Any] | None) -> None:
    """bf16 arithmetic, channels_last and quick dropout where they pay; what the recipe `asked` for by itself stays."""
    if levers.channels_last and convolutional(model):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.register_forward_pre_hook(_pictures_too, with_kwargs=True)
        announce(f"channels_last: pictures lie as convolutions read them fastest ({switch('channels_last')})")
    if levers.dropout and args.device.type == "cpu" and dropout.quicken(model):
        announce(f"dropout: drawn from 16 bits an element, which is faster on a CPU ({switch('dropout')})")
    by_hand = {"bf16", "fp16", "bf16_full_eval", "fp16_full_eval"} & (asked or {}).keys()
    if levers.bf16 and not by_hand and args.mixed_precision == "no" and bf16_pays(model, args.device):
        args.bf16, args.mixed_precision = True, "bf16"
        slow = [m for m in model.modules() if args.device.type == "cpu" and _slow_in_bf16(m)]
        for module in slow:
            _in_fp32(module)
        rest = f"; {len(slow)} depthwise convolutions, which it slows down, stay in fp32" if slow else ""
        what = "bf16 arithmetic in linear layers, convolutions, attention; weights, loss, optimizer in fp32"
        announce(f"{what} ({args.device.type} has it{rest}; train.bf16=false turns it off)")


def _slow_in_bf16(module: nn.Module) -> bool:
    """Depthwise with a stride or a large kernel: its backward pass has no bf16 kernel in oneDNN (10 times slower)."""
    if not isinstance(module, nn.Conv2d) or module.groups == 1 or module.groups < module.in_channels:
        return False
    return max(module.stride) > 1 or max(module.kernel_size) > 3


def _in_fp32(module: nn.Module) -> None:
    forward = module.forward

    def in_fp32(pictures: torch.Tensor) -> torch.Tensor:
        with torch.autocast(pictures.device.type, enabled=False):
            return forward(pictures.float())

    module.forward = in_fp32  # of this module alone; the weights, and with them what is saved, stay as they are


def _pictures_too(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """A batch of pictures in the same layout: else the first layers would turn each batch around."""
    pictures = kwargs.get("pixel_values")
    if torch.is_tensor(pictures) and pictures.ndim == 4:
        kwargs = kwargs | {"pixel_values": pictures.contiguous(memory_format=torch.channels_last)}
    return args, kwargs


def convolutional(model: nn.Module) -> bool:
    """Whether most of the model's work is spatial convolutions."""
    return len(_spatial(model)) >= CONVOLUTIONS


def _spatial(model: nn.Module) -> list[nn.Conv2d]:
    return [m for m in model.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]


def bf16_pays(model: nn.Module, device: torch.device) -> bool:
    """Where the hardware multiplies in bf16, and the model is large enough to gain more than the casts cost."""
    if sum(p.numel() for p in model.parameters()) < PAYS:
        return False
    if any(p.dtype != torch.float32 for p in model.parameters() if p.is_floating_point()):
        return False  # the recipe chose another dtype for the weights
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def lean(trainer) -> Iterator[None]:
    """Training without what takes time in every step and gives nothing.

    Garbage is not looked for among the million objects of the imports (0.3 s each time), nor `lomo_optim` on the disk
    (accelerate does, twice a step; None in sys.modules is Python's own way to say that there is none). A model already
    in training mode is not put into it again, module by module, and the optimizer forgets its gradients, not the model.
    """
    model, absent = trainer.model, importlib.util.find_spec(LOMO) is None

    def zero_grad(set_to_none: bool = True) -> None:
        trainer.optimizer.optimizer.zero_grad(set_to_none)

    model.train()  # once for all modules: peft's own say that they are, when those inside are not
    model.train = MethodType(_train_unless_so, model)
    if not trainer._sharded():
        model.zero_grad = zero_grad
    if absent:
        sys.modules[LOMO] = None  # type: ignore[assignment]
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if absent:
            sys.modules.pop(LOMO, None)
        for name in ("train", "zero_grad"):
            model.__dict__.pop(name, None)  # the class's own again


def _train_unless_so(model: nn.Module, mode: bool = True) -> nn.Module:
    return model if mode and model.training else type(model).train(model, mode)

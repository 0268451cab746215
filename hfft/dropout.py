"""Dropout on a CPU at a quarter of its time: what is dropped is drawn from 16 random bits an element, 64 at a time.

torch draws a double an element there, on one core; attention with dropout also falls back to a slow path in fp32. The
bits come from torch's own generator, so seeds, checkpoints and recomputed activations work as they do without.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

LEVELS = 1 << 16  # p is rounded to so many steps, and what is kept is scaled by the rounded one: no bias
NAME = "sdpa_quick_dropout"


def quicken(model: Any) -> bool:
    """Let `model`'s dropout layers, and attention with dropout, draw that way; whether there were any."""
    layers = [module for module in model.modules() if type(module) is nn.Dropout and 0 < module.p < 1]
    for module in layers:
        module.forward = MethodType(_layer, module)  # type: ignore[method-assign]
    net = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(net, "config", None)
    if getattr(config, "_attn_implementation", None) == "sdpa" and _drops_attention(config):
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        net.set_attn_implementation(NAME)
    return bool(layers)


def _drops_attention(config) -> bool:
    names = [name for name in config.to_dict() if "att" in name and ("drop" in name)]
    return any(isinstance(p := getattr(config, name, None), float) and p > 0 for name in names)


def scale(like: torch.Tensor, p: float) -> torch.Tensor:
    """0 with probability `p`, else 1 / (1 - p), for each element; of `like`'s shape and dtype, on the CPU."""
    kept = LEVELS - round(p * LEVELS)
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    numbers = bits[: like.numel()].view(like.shape).float()  # whole ones from -32768 to 32767
    return numbers.sub_(LEVELS // 2 - 1 - kept).clamp_(0, 1).mul_(LEVELS / kept).to(like.dtype)


def _layer(module: nn.Dropout, inputs: torch.Tensor) -> torch.Tensor:
    if not module.training or inputs.device.type != "cpu":
        return type(module).forward(module, inputs)
    return inputs * scale(inputs, module.p)


def attention(module, query, key, value, attention_mask, **options):
    """transformers' sdpa attention; with dropout on a CPU written out: query (batch, heads, tokens, size) and so on.

    What is rarer than a mask of the whole (grouped queries, causal without mask, position biases) is left to sdpa.
    """
    dropout, causal = options.get("dropout", 0.0), options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    rare = key.shape[1] != query.shape[1] or any(options.get(name) is not None for name in ("position_bias", "cache"))
    if not 0 < dropout < 1 or query.device.type != "cpu" or rare or (causal and attention_mask is None):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scaling = query.shape[-1] ** -0.5 if options.get("scaling") is None else options["scaling"]
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights * scale(weights, dropout), value)
    return mixed.transpose(1, 2).contiguous(), None

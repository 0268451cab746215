"""Losses as exact sums: computed from the logits in fp32, divided by the items of the whole accumulation window."""

import torch
import torch.nn.functional as F


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, items=None) -> torch.Tensor:
    """Sum of -log softmax(logits)[label] over the batch, divided by `items` (default: this batch's rows).

    logits (batch, classes) in any float dtype, labels (batch,) int64; returns a scalar in nats per item.
    """
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return total / (labels.numel() if items is None else items)

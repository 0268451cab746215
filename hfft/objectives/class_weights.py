"""Class weights: rare classes count more in the loss.

"balanced" is N / (K · n_c), as in King & Zeng, Logistic Regression in Rare Events Data, Political Analysis 9(2), 2001
(https://doi.org/10.1093/oxfordjournals.pan.a004868) and in scikit-learn's `class_weight="balanced"`.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from hfft.lookup import hint
from hfft.messages import InputError, announce


def class_weights(loss, *, weights: Literal["balanced"] | dict[str, float] = "balanced", task, train):
    """Weighted cross entropy instead of the task's loss: sum of w[label] · -log p[label] over rows, over `items`.

    The weights are scaled to a mean of 1 over the training rows. So the sum is divided by the number of rows and not,
    as torch does, by each batch's sum of weights: accumulated and distributed batches give the same gradient.
    Classes that a dict leaves out weigh 1 before scaling.

    Raises InputError for an unknown class, a weight that is not above 0, several labels a row, or an
    objective before this one, which would be lost.
    """
    if loss != task.loss:
        raise InputError("objectives: class_weights replaces the task's loss: write it first in the list")
    if getattr(task, "truth", "class") == "group":
        raise InputError("objectives: class_weights: the model has no classes; take it out")
    names, counts = _counts(train)
    by_name = dict(zip(names, scaled(weights, names, counts), strict=True))
    announce("class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in by_name.items()))
    order = getattr(task, "names", None) or names  # the model's order of classes, if it is another than the data's
    vector = torch.tensor([by_name.get(str(name), 1.0) for name in order])

    def weighted(model, inputs, items=None):
        _, outputs = loss(model, inputs, items)
        labels, weight = inputs["labels"], vector.to(outputs.logits.device)
        total = functional.cross_entropy(outputs.logits.float(), labels, weight=weight, reduction="sum")
        return total / (len(labels) if items is None else items), outputs

    return weighted


def scaled(weights, names: list[str], counts: np.ndarray) -> list[float]:
    """One weight a class, with a mean of 1 over rows that have `counts` rows of each class."""
    if weights == "balanced":
        raw = np.where(counts > 0, counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
    elif isinstance(weights, dict):
        raw = np.array(_given({str(name): value for name, value in weights.items()}, names))
    else:
        raise InputError(f"objectives: class_weights: {weights!r} is neither balanced nor class names with weights")
    return (raw * counts.sum() / (raw * counts).sum()).tolist()


def _given(weights: dict[str, float], names: list[str]) -> list[float]:
    for name, value in weights.items():
        if name not in names:
            raise InputError(f"objectives: class_weights: the data has no class {name!r}.{hint(name, names)}")
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise InputError(f"objectives: class_weights: {name}: {value!r} is not a number above 0")
    return [float(weights.get(name, 1.0)) for name in names]


def _counts(train) -> tuple[list[str], np.ndarray]:
    feature = train.features.get("label")
    if not hasattr(feature, "names"):
        raise InputError("objectives: class_weights: the data has no single class label a row")
    if hasattr(train, "label_counts"):  # a stream
        counts = train.label_counts()
        return feature.names, np.array([counts.get(name, 0) for name in feature.names])
    return feature.names, np.bincount(np.asarray(train["label"]), minlength=len(feature.names))

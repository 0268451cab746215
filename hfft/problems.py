"""Problems of classification heads: one class, any number of classes, or numbers; each with the same names.

Logits are (rows, outputs) throughout. A problem knows the names of its outputs and turns labels, logits and what was
kept of them into loss, metrics and answers.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from hfft import losses, metrics, models
from hfft.messages import InputError, announce


@dataclass
class SingleLabel:
    """One class a row: cross entropy, the argmax."""

    names: list[str]

    truth: ClassVar[str] = "class"
    metric_names: ClassVar[tuple[str, ...]] = metrics.CLASSIFICATION
    best_metric: ClassVar[str] = "accuracy"

    def labels(self, cells: list) -> torch.Tensor:
        """(rows,) int64."""
        return torch.tensor(cells)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, items=None) -> torch.Tensor:
        """Summed over rows / items."""
        return losses.cross_entropy(logits, labels, items)

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """The argmax and the label of each row."""
        return {"prediction": logits.argmax(-1), "label": labels}

    def metrics(self, kept: dict[str, np.ndarray], tuned: dict[str, float]) -> dict[str, Any]:
        """Accuracy, F1, MCC and per class."""
        return metrics.classification(kept["prediction"], kept["label"], self.names)

    def answers(self, logits: torch.Tensor, tuned: dict[str, float]) -> list[dict]:
        """label, score and scores of each row."""
        return metrics.class_answers(logits, self.names)

    def shown(self, label: torch.Tensor) -> str:
        """The truth of a row for a person."""
        return self.names[int(label)]

    def start(self, net, train, *, fresh: bool) -> None:
        """Nothing to set before the first step."""

    def finished(self, net) -> None:
        """Nothing to undo after the last."""


@dataclass
class MultiLabel(SingleLabel):
    """Any number of classes a row: binary cross entropy of each, those with a probability of `threshold` or more.

    `threshold: tuned` takes the one with the best micro-F1 on the evaluation split, which is kept with the run.
    """

    threshold: float | str = 0.5

    truth: ClassVar[str] = "classes"
    metric_names: ClassVar[tuple[str, ...]] = metrics.MULTI_LABEL
    best_metric: ClassVar[str] = "f1_micro"

    def labels(self, cells: list) -> torch.Tensor:
        """(rows, classes) float32 of 0 and 1, from the indices of each row's classes."""
        found = torch.zeros(len(cells), len(self.names))
        for row, places in enumerate(cells):
            found[row, torch.as_tensor(np.asarray(places, dtype=np.int64))] = 1.0
        return found

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, items=None) -> torch.Tensor:
        """Summed over rows and classes / items."""
        total = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
        return total / (labels.numel() if items is None else items)

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """Probabilities and truth of each row and class."""
        return {"prediction": logits.float().sigmoid(), "label": labels.bool()}

    def metrics(self, kept: dict[str, np.ndarray], tuned: dict[str, float]) -> dict[str, Any]:
        """F1, subset accuracy, mean average precision and per class."""
        if self.threshold == "tuned" and "threshold" not in tuned:
            tuned["threshold"] = metrics.best_threshold(kept["prediction"], kept["label"])
            announce(f"threshold {tuned['threshold']:.2f} (the best micro-F1 on the evaluation split)")
        return metrics.multi_label(kept["prediction"], kept["label"], self.names, self._threshold(tuned))

    def _threshold(self, tuned: dict[str, float]) -> float:
        return tuned.get("threshold", 0.5) if isinstance(self.threshold, str) else self.threshold

    def answers(self, logits: torch.Tensor, tuned: dict[str, float]) -> list[dict]:
        """labels (those above the threshold, the likeliest first) and scores by name."""
        found = []
        for row in logits.float().sigmoid().tolist():
            scores = dict(zip(self.names, row, strict=True))
            chosen = [name for name in self.names if scores[name] >= self._threshold(tuned)]
            found.append({"labels": sorted(chosen, key=lambda name: -scores[name]), "scores": scores})
        return found

    def shown(self, label: torch.Tensor) -> str:
        """The truth of a row for a person."""
        return ", ".join(name for name, there in zip(self.names, label.tolist(), strict=True) if there) or "(none)"

    def start(self, net, train, *, fresh: bool) -> None:
        """Begin a fresh head's bias at each class's log-odds: from 0, rare classes never leave their frequency."""
        layer = models.output_layer(net, len(self.names))
        if not fresh or train is None or layer is None or layer.bias is None or not hasattr(train, "select"):
            return
        counts = np.bincount([i for row in train["label"] for i in row], minlength=len(self.names))
        share = (counts + 0.5) / (len(train) + 1)
        with torch.no_grad():
            layer.bias.copy_(torch.from_numpy(np.log(share / (1 - share))).to(layer.bias))
        announce(
            f"the head's bias starts at the classes' log-odds ({share.min():.2%} to {share.max():.2%} of the rows)"
        )


@dataclass
class Regression(SingleLabel):
    """Numbers: squared error of standardised targets; at the end the head is scaled back to answer in their units."""

    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    truth: ClassVar[str] = "numbers"
    metric_names: ClassVar[tuple[str, ...]] = metrics.REGRESSION
    best_metric: ClassVar[str] = "pearson"

    def labels(self, cells: list) -> torch.Tensor:
        """(rows, targets) float32, in the targets' units."""
        return torch.as_tensor(np.asarray(cells, dtype=np.float64)).float()

    def _scale(self, like: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        if not self.std:
            return 0.0, 1.0
        return like.new_tensor(self.mean), like.new_tensor(self.std)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, items=None) -> torch.Tensor:
        """Summed over rows and targets / items."""
        mean, std = self._scale(labels)
        total = F.mse_loss(logits.float(), (labels - mean) / std, reduction="sum")
        return total / (labels.numel() if items is None else items)

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """Prediction and truth of each row in the targets' units, (rows,) where there is one."""
        mean, std = self._scale(labels)
        found = {"prediction": logits.float() * std + mean, "label": labels}
        return {name: values.squeeze(-1) for name, values in found.items()} if len(self.names) == 1 else found

    def metrics(self, kept: dict[str, np.ndarray], tuned: dict[str, float]) -> dict[str, Any]:
        """Pearson, Spearman, MAE, RMSE, R²; of several targets the means, and each by name."""
        return metrics.regression(kept["prediction"], kept["label"], self.names)

    def answers(self, logits: torch.Tensor, tuned: dict[str, float]) -> list[dict]:
        """score, the number; of several targets scores by name instead."""
        mean, std = self._scale(logits.float())
        rows = (logits.float() * std + mean).tolist()
        if len(self.names) == 1:
            return [{"label": self.names[0], "score": row[0]} for row in rows]
        return [{"scores": dict(zip(self.names, row, strict=True))} for row in rows]

    def shown(self, label: torch.Tensor) -> str:
        """The truth of a row for a person."""
        return ", ".join(f"{value:g}" for value in label.tolist())

    def start(self, net, train, *, fresh: bool) -> None:
        """Standardise the targets by the training rows, where the head can be scaled back."""
        layer = models.output_layer(net, len(self.names))
        if not fresh or train is None or layer is None or not hasattr(train, "select"):
            return
        values = np.array([list(row.values()) for row in train["label"]], dtype=np.float64)
        self.std = [float(std) or 1.0 for std in values.std(axis=0)]
        self.mean = [0.0] * len(self.std) if layer.bias is None else values.mean(axis=0).tolist()
        told = ", ".join(f"{n} {m:.4g} ± {s:.4g}" for n, m, s in zip(self.names, self.mean, self.std, strict=True))
        announce(f"targets are standardised for training ({told}) and undone in the head at the end")

    def finished(self, net) -> None:
        """Put mean and standard deviation into the head's last layer."""
        if not self.std:
            return
        layer = models.output_layer(net, len(self.names))
        assert layer is not None
        if hasattr(layer.weight, "full_tensor"):
            raise InputError("regression in shares (FSDP, ZeRO-3): launch it with accelerate_configs/multi_gpu.yaml")
        with torch.no_grad():
            std = layer.weight.new_tensor(self.std)
            layer.weight.mul_(std[:, None])
            if layer.bias is not None:
                layer.bias.mul_(std).add_(layer.bias.new_tensor(self.mean))
        self.mean, self.std = [], []


Name = Literal["single_label", "multi_label", "regression"]
KINDS: dict[Name, type[SingleLabel]] = {
    "single_label": SingleLabel,
    "multi_label": MultiLabel,
    "regression": Regression,
}
CONFIGS: dict[Name, str] = {name: "regression" if name == "regression" else f"{name}_classification" for name in KINDS}


def of_feature(feature: Any) -> Name:
    """The problem that rows with this feature of their label have."""
    if hasattr(feature, "names"):
        return "single_label"
    return "regression" if isinstance(feature, dict) else "multi_label"


def of_config(config) -> Name:
    """The problem that a checkpoint's config names; one class where it names none."""
    return next((name for name, value in CONFIGS.items() if value == config.problem_type), "single_label")


def encoded(cells: list, label_ids: list[int]) -> list:
    """Labels as numbers: the model's index of a class, of each of several, or the numbers themselves."""
    if cells and isinstance(cells[0], dict):
        return [list(cell.values()) for cell in cells]
    if cells and not isinstance(cells[0], int | np.integer):
        return [[label_ids[i] for i in cell] for cell in cells]
    return [label_ids[cell] for cell in cells]

"""Metrics over a whole split, numpy in, floats out: scikit-learn's, and those of `evaluate` that a recipe names."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_fscore_support,
    r2_score,
)

from hfft.messages import InputError, first_line

CLASSIFICATION = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "mcc")
MULTI_LABEL = ("f1_micro", "f1_macro", "f1_weighted", "accuracy_subset", "map")
REGRESSION = ("pearson", "spearman", "mae", "rmse", "r2")
AVERAGES = ("macro", "micro", "weighted")
LOWER_IS_BETTER = ("loss", "mae", "rmse", "perplexity")


def classification(predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Accuracy, F1, Matthews correlation, and precision, recall, F1 and support by class name.

    `predictions` and `labels` are class indices of shape (rows,). Macro-F1 averages over the classes that occur in
    either, so a class absent from a split divides nothing by zero.
    """
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        **{f"f1_{kind}": float(f1_score(labels, predictions, average=kind, zero_division=0.0)) for kind in AVERAGES},
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "per_class": _per_class(predictions, labels, names),
    }


def _per_class(predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    every = np.arange(len(names))
    columns = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0.0)
    precision, recall, f1, support = (column.tolist() for column in columns)
    return {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": int(support[i])}
        for i, name in enumerate(names)
    }


def multi_label(scores: np.ndarray, labels: np.ndarray, names: list[str], threshold: float) -> dict[str, Any]:
    """F1, the share of rows with exactly the right classes, mean average precision, and each class by name.

    `scores` are probabilities and `labels` bool, both (rows, classes). Macro averages and average precision go over the
    classes that occur (in the truth or, for F1, in the predictions), so an absent one divides nothing by zero.
    """
    chosen = scores >= threshold
    there = (labels | chosen).any(axis=0)
    if not there.any():  # nothing to find, and nothing found
        f1 = dict.fromkeys((f"f1_{kind}" for kind in AVERAGES), 0.0)
    else:
        f1 = {
            f"f1_{kind}": float(f1_score(labels[:, there], chosen[:, there], average=kind, zero_division=0.0))
            for kind in AVERAGES
        }
    ranked = [average_precision_score(labels[:, i], scores[:, i]) for i in np.flatnonzero(labels.any(axis=0))]
    return {
        "f1_micro": f1["f1_micro"],
        "f1_macro": f1["f1_macro"],
        "f1_weighted": f1["f1_weighted"],
        "accuracy_subset": float((chosen == labels).all(axis=1).mean()),
        "map": float(np.mean(ranked)) if ranked else 0.0,
        "per_class": _per_class(chosen, labels, names),
    }


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The one of 0.05, 0.06 … 0.95 with the best micro-F1; of equal ones the nearest to 0.5."""
    steps = sorted(np.arange(5, 96) / 100, key=lambda step: abs(step - 0.5))
    found = [f1_score(labels, scores >= step, average="micro", zero_division=0.0) for step in steps]
    return float(steps[int(np.argmax(found))])


def regression(predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Pearson, Spearman, MAE, RMSE and R²; arrays of (rows,) or (rows, targets): then the means, and each by name.

    A correlation with something that does not vary is 0.
    """
    if predictions.ndim == 1:
        return _of_target(predictions.astype(np.float64), labels.astype(np.float64))
    each = {name: regression(predictions[:, i], labels[:, i], [name]) for i, name in enumerate(names)}
    return {key: float(np.mean([found[key] for found in each.values()])) for key in REGRESSION} | {"per_target": each}


def _of_target(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    varied = len(labels) > 1 and np.ptp(predictions) > 0 and np.ptp(labels) > 0
    return {
        "pearson": float(np.corrcoef(predictions, labels)[0, 1]) if varied else 0.0,
        "spearman": float(np.corrcoef(ranks(predictions), ranks(labels))[0, 1]) if varied else 0.0,
        "mae": float(mean_absolute_error(labels, predictions)),
        "rmse": float(np.sqrt(mean_squared_error(labels, predictions))),
        "r2": float(r2_score(labels, predictions)) if len(labels) > 1 else 0.0,
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value from 1 on; equal ones share the mean of theirs (Spearman's way)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def class_answers(logits, names: list[str]) -> list[dict[str, Any]]:
    """label, score and scores by name of each row; logits (rows, classes) as a tensor."""
    answers = []
    for row in logits.float().softmax(-1).tolist():
        scores = dict(zip(names, row, strict=True))
        best = max(scores, key=scores.__getitem__)
        answers.append({"label": best, "score": scores[best], "scores": scores})
    return answers


def load_named(names: list[str]) -> list:
    """Metrics of the `evaluate` library by `evaluate:NAME` (they run code; the recipe reader asks for --trust-code)."""
    if not names:
        return []
    import evaluate

    found = []
    for name in names:
        try:
            found.append(evaluate.load(name.removeprefix("evaluate:")))
        except Exception as error:
            raise InputError(f"metrics: {name!r} cannot be loaded: {first_line(error)}") from error
    return found


def named(names: list[str], kept: dict[str, Any]) -> dict[str, float]:
    """The values of `load_named`'s metrics on what was kept of every row as `prediction` and `label`."""
    results: dict[str, float] = {}
    for metric in load_named(names):
        if not isinstance(kept.get("prediction"), np.ndarray) or not isinstance(kept.get("label"), np.ndarray):
            raise InputError(f"metrics: {metric.name!r} wants one prediction a row, which this task does not have")
        found = metric.compute(predictions=kept["prediction"].tolist(), references=kept["label"].tolist())
        results.update({key: float(value) for key, value in (found or {}).items()})
    return results

"""Metrics over a whole split, numpy in, floats out: scikit-learn's, and those of `evaluate` that a recipe names."""

from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support

from hfft.messages import InputError, first_line

CLASSIFICATION = ("accuracy", "f1_macro", "mcc")


def classification(predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Accuracy, macro-F1, Matthews correlation, and precision, recall, F1 and support by class name.

    `predictions` and `labels` are class indices of shape (rows,). Macro-F1 averages over the classes that occur in
    either, so a class absent from a split divides nothing by zero.
    """
    every = np.arange(len(names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=every, zero_division=0.0
    )
    per_class = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1_macro": float(f1_score(labels, predictions, average="macro", zero_division=0.0)),
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "per_class": per_class,
    }


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


def named(names: list[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The values of `load_named`'s metrics on class indices of shape (rows,)."""
    results: dict[str, float] = {}
    for metric in load_named(names):
        found = metric.compute(predictions=predictions.tolist(), references=labels.tolist())
        results.update({key: float(value) for key, value in (found or {}).items()})
    return results

from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from torch.nn import functional

from hfft.losses import cross_entropy
from hfft.messages import InputError
from hfft.objectives.class_weights import class_weights, scaled
from hfft.objectives.label_smoothing import label_smoothing

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, -1.0, 0.0]])
LABELS = torch.tensor([0, 2, 2, 1])


def plain(model, inputs, items=None):
    outputs = SimpleNamespace(logits=model(inputs["x"]))
    return cross_entropy(outputs.logits, inputs["labels"], items), outputs


def rows(labels: list[int], names=("cat", "dog", "owl")) -> Dataset:
    return Dataset.from_dict({"label": labels}, features=Features({"label": ClassLabel(names=list(names))}))


TASK = SimpleNamespace(loss=plain, truth="class", whole_batch=False, names=["cat", "dog", "owl"])
TRAIN = rows([0] * 6 + [1] * 3 + [2] * 1)
BATCH = {"x": LOGITS, "labels": LABELS}


def same(x):
    return x


def test_balanced_weights_are_rows_over_classes_times_count():
    weights = scaled("balanced", ["a", "b", "c"], torch.tensor([6, 3, 1]).numpy())
    assert weights == pytest.approx([5 / 9, 10 / 9, 10 / 3])


def test_a_class_without_rows_weighs_one_and_disturbs_no_other():
    assert scaled("balanced", ["a", "b", "c"], torch.tensor([6, 2, 0]).numpy()) == pytest.approx([2 / 3, 2, 1])


def test_given_weights_are_scaled_to_a_mean_of_one_over_the_rows():
    weights = scaled({"c": 5}, ["a", "b", "c"], torch.tensor([6, 3, 1]).numpy())
    assert weights == pytest.approx([1 / 1.4, 1 / 1.4, 5 / 1.4])
    assert 6 * weights[0] + 3 * weights[1] + weights[2] == pytest.approx(10)


def test_class_weights_are_the_weighted_sum_over_items():
    value, outputs = class_weights(plain, task=TASK, train=TRAIN)(same, BATCH, 8)
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    expected = (each * torch.tensor([5 / 9, 10 / 3, 10 / 3, 10 / 9])).sum() / 8
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert outputs.logits is LOGITS


def test_class_weights_follow_the_models_order_of_classes():
    task = SimpleNamespace(loss=plain, names=["owl", "cat", "dog"])
    value, _ = class_weights(plain, weights={"owl": 3.0}, task=task, train=rows([0, 1, 2]))(same, BATCH)
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    assert value.item() == pytest.approx(((each * torch.tensor([3.0, 1, 1, 1])).sum() / 4 * 3 / 5).item(), abs=1e-6)


@pytest.mark.parametrize("part", ["class_weights", "label_smoothing"])
def test_two_half_batches_give_the_gradient_of_the_whole(part):
    loss = (
        class_weights(plain, task=TASK, train=TRAIN) if part == "class_weights" else label_smoothing(plain, task=TASK)
    )
    layer = torch.nn.Linear(3, 3)
    loss(layer, BATCH, 4)[0].backward()
    whole = layer.weight.grad.clone()
    layer.zero_grad()
    for half in (slice(0, 1), slice(1, 4)):
        loss(layer, {"x": LOGITS[half], "labels": LABELS[half]}, 4)[0].backward()
    assert torch.allclose(layer.weight.grad, whole, atol=1e-7)


def test_label_smoothing_is_torchs():
    value, _ = label_smoothing(plain, task=TASK, alpha=0.2)(same, BATCH)
    assert value.item() == pytest.approx(functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.2).item(), abs=1e-6)


def test_label_smoothing_adds_to_class_weights():
    value, _ = label_smoothing(class_weights(plain, task=TASK, train=TRAIN), task=TASK, alpha=0.5)(same, BATCH)
    weighted, _ = class_weights(plain, task=TASK, train=TRAIN)(same, BATCH)
    even = -LOGITS.log_softmax(-1).mean()
    assert value.item() == pytest.approx(0.5 * weighted.item() + 0.5 * even.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (
            lambda: class_weights(plain, weights={"dgo": 2.0}, task=TASK, train=TRAIN),
            "objectives: class_weights: the data has no class 'dgo'. Did you mean 'dog'?",
        ),
        (
            lambda: class_weights(plain, weights={"dog": 0}, task=TASK, train=TRAIN),
            "objectives: class_weights: dog: 0 is not a number above 0",
        ),
        (
            lambda: class_weights(label_smoothing(plain, task=TASK), task=TASK, train=TRAIN),
            "objectives: class_weights replaces the task's loss: write it first in the list",
        ),
        (
            lambda: label_smoothing(plain, task=TASK, alpha=1.0),
            "objectives: label_smoothing: alpha must be in [0, 1), not 1.0",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(build, line):
    with pytest.raises(InputError) as error:
        build()
    assert str(error.value) == line

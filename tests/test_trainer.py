"""The one Trainer: batches by (seed, epoch, global batch), evaluation that touches nothing, non-finite steps."""

import random

import datasets
import numpy as np
import pytest
import tiny
import torch
from transformers import Seq2SeqTrainingArguments

from hfft import batches, kept, lookup
from hfft.batches import EncodedRows, GlobalBatches, bucketed, draw_from, shuffled, undisturbed
from hfft.messages import MachineError
from hfft.recipe import ModelSection, Part
from hfft.trainer import Trainer


def steps_of(layout: tuple[int, int, int], order, num_rows: int, epoch: int = 0, **options) -> list[list[int]]:
    """The rows of every global batch for (rows a batch, processes, accumulation), each step sorted."""
    size, processes, accumulation = layout
    shares = []
    for process in range(processes):
        share = {"process": process, "num_processes": processes, "accumulation": accumulation}
        sampler = GlobalBatches(num_rows, size, order, **share, **options)
        sampler.set_epoch(epoch)
        shares.append([[index for _, index, filler in keys if not filler] for keys in sampler])
    assert len({len(share) for share in shares}) == 1, "processes must stay in step"
    micro = [[i for share in shares for i in share[m]] for m in range(len(shares[0]))]
    return [
        sorted(i for part in micro[at : at + accumulation] for i in part) for at in range(0, len(micro), accumulation)
    ]


@pytest.mark.parametrize("num_rows", [64, 61, 57, 7])
@pytest.mark.parametrize("kind", ["shuffled", "bucketed"])
def test_the_rows_of_each_step_do_not_depend_on_the_layout(num_rows, kind):
    lengths = [(7 * i) % 13 for i in range(num_rows)]
    order = shuffled(num_rows, 3) if kind == "shuffled" else bucketed(lengths, 3, 8)
    layouts = [(8, 1, 1), (4, 1, 2), (1, 1, 8), (4, 2, 1), (2, 2, 2), (1, 4, 2)]
    for epoch in (0, 1):
        whole, *others = [steps_of(layout, order, num_rows, epoch) for layout in layouts]
        assert sorted(i for step in whole for i in step) == list(range(num_rows))
        assert all(other == whole for other in others)
        assert all(
            steps_of(layout, order, num_rows, epoch, drop_last=True) == whole[: num_rows // 8] for layout in layouts
        )
    assert steps_of((8, 1, 1), order, num_rows, 0) != steps_of((8, 1, 1), order, num_rows, 1) or num_rows == 7


def test_buckets_hold_rows_of_like_length():
    lengths = [int(x) for x in np.random.default_rng(0).integers(1, 100, 1000)]
    order = bucketed(lengths, 0, 10)(0)
    spread = np.mean([np.ptp([lengths[i] for i in order[at : at + 10]]) for at in range(0, 1000, 10)])
    assert spread < 5 < np.mean([np.ptp(lengths[at : at + 10]) for at in range(0, 1000, 10)])


def test_what_is_random_in_a_row_is_the_same_for_any_number_of_workers_and_any_batch():
    def noisy(rows):
        return rows | {"label": [float(torch.rand(()) + random.random() + np.random.rand()) for _ in rows["label"]]}

    rows = EncodedRows(datasets.Dataset.from_dict({"label": list(range(6))}), augment=(noisy,), seed=1)
    one = [rows.__getitems__([(0, i, False)])[0]["label"] for i in range(6)]
    together = [row["label"] for row in rows.__getitems__([(0, i, False) for i in range(6)])]
    later = [row["label"] for row in rows.__getitems__([(1, i, False) for i in range(6)])]
    assert one == together and one != later and len(set(one)) == 6


def test_drawing_inside_the_block_leaves_the_generators_as_they_were():
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with undisturbed():
        draw_from(1, 2, 3)
        random.random(), np.random.rand(), torch.rand(3)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def trainer_of(folder, *, dropout: float = 0.0, loss=None, **train) -> Trainer:
    rows = tiny.sentences(24)
    data = datasets.Dataset.from_dict(
        {"text": [r["text"] for r in rows], "label": [int(r["label"] == "pos") for r in rows]}
    ).cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))
    section = ModelSection(name=tiny.build("bert", folder / "base"), config={"hidden_dropout_prob": dropout})
    task = lookup.call("tasks", Part("text_classification", {}))
    torch.manual_seed(0)
    task.setup(section, data)
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder / "out"), per_device_train_batch_size=8, per_device_eval_batch_size=5, max_steps=4,
        report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", logging_nan_inf_filter=False,
        **{"learning_rate": 1e-3, **train},
    )  # fmt: skip
    model = task.load_model(section)
    train_rows = batches.encoded(data, task, split="train", seed=0)
    held_out = batches.encoded(data, task, split="eval", seed=0)
    return Trainer(model, args, task=task, loss=loss or task.loss, train=train_rows, eval=held_out)


def test_weights_are_bitwise_the_same_with_and_without_evaluation(tmp_path):
    weights = []
    for name, strategy in (("with", "steps"), ("without", "no")):
        trainer = trainer_of(tmp_path / name, dropout=0.2, eval_strategy=strategy, eval_steps=1)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_evaluation_loss_is_the_mean_over_rows_whatever_the_batches(tmp_path):
    trainer = trainer_of(tmp_path)
    first = trainer.evaluate()["eval_loss"]
    trainer.args.per_device_eval_batch_size = 24
    assert trainer.evaluate()["eval_loss"] == pytest.approx(first, rel=1e-6)


def test_a_non_finite_step_stops_the_run_before_the_weights_change(tmp_path):
    trainer = trainer_of(tmp_path)
    whole, seen = trainer.task.loss, []

    def broken(model, inputs, items=None):
        loss, outputs = whole(model, inputs, items)
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return (loss * float("nan") if len(seen) == 3 else loss), outputs

    trainer.loss = broken
    with pytest.raises(MachineError, match="step 3: the loss or its gradient is not finite"):
        trainer.train()
    now = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.equal(now, seen[-1]) and torch.isfinite(now).all()


def test_every_row_is_counted_once_or_the_metrics_are_refused():
    assert kept.joined([([1, 0], 2.0, 2, {"x": np.array([11, 10])}), ([], 0.0, 0, {})], 2)[2]["x"].tolist() == [10, 11]
    ragged = kept.joined([([1], 1.0, 1, {"x": [[1, 2]]}), ([0, 2], 1.0, 2, {"x": [[3], []]})], 3)
    assert ragged == (2.0, 3, {"x": [[3], [1, 2], []]})
    with pytest.raises(AssertionError, match="exactly once"):
        kept.joined([([0, 0], 2.0, 2, {"x": np.array([1, 1])})], 2)

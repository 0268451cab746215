"""python -m benchmarks.overhead: what hfft's loop adds to a step, in milliseconds, above a bare PyTorch loop.

The same tiny BERT, the same encoded rows in the same batches, the same optimizer, schedule and clipping; in turns. The
model is so small that the difference is the loop.
"""

import statistics
import sys
import tempfile
import time
from itertools import islice

import datasets
import torch
from transformers import BertConfig, BertForSequenceClassification, Seq2SeqTrainingArguments

from benchmarks.plain.clock import WARM_UP, Clock
from hfft import losses
from hfft.arguments import FIXED
from hfft.batches import EncodedRows
from hfft.tasks import base
from hfft.trainer import Trainer

STEPS, ROWS, TOKENS, BATCH = 400, 8192, 16, 8


class Task(base.Task):
    """The two calls of a task that a step makes, on rows of one length."""

    processor = None

    def collate(self, rows):
        return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}

    def items(self, inputs):
        return inputs["labels"].numel()

    def loss(self, model, inputs, items=None):
        outputs = model(input_ids=inputs["input_ids"])
        return losses.cross_entropy(outputs.logits, inputs["labels"], items), outputs


def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=100)
    )


def rows() -> EncodedRows:
    ids = torch.randint(0, 100, (ROWS, TOKENS)).tolist()
    return EncodedRows(datasets.Dataset.from_dict({"input_ids": ids, "labels": [i % 2 for i in range(ROWS)]}))


def arguments(folder: str) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=folder, max_steps=STEPS, per_device_train_batch_size=BATCH, use_cpu=True, report_to="none",
        disable_tqdm=True, logging_steps=10_000, save_strategy="no", **FIXED,
    )  # fmt: skip


def ours(data: EncodedRows) -> float:
    """Milliseconds a step of the Trainer."""
    task = Task()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model(), arguments(folder), task=task, loss=task.loss, train=data)
        clock = Clock(BATCH)
        trainer.add_callback(clock)
        trainer.train()
        return BATCH / clock.samples_per_second() * 1000


def bare(data: EncodedRows) -> float:
    """Milliseconds a step of the loop, over the very batches of the Trainer's loader."""
    task, net = Task(), model().train()
    with tempfile.TemporaryDirectory() as folder:
        loader = Trainer(net, arguments(folder), task=task, loss=task.loss, train=data).get_train_dataloader()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-5, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    start = 0.0
    for step, batch in enumerate(islice(loader, STEPS)):
        loss, _ = task.loss(net, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step + 1 == WARM_UP:
            start = time.perf_counter()
    return (time.perf_counter() - start) / (STEPS - WARM_UP) * 1000


if __name__ == "__main__":
    data, repeats = rows(), int(sys.argv[1]) if len(sys.argv) > 1 else 5
    bare(data), ours(data)
    pairs = [(bare(data), ours(data)) for _ in range(repeats)]
    print("| bare ms a step | hfft ms a step | above the bare loop | turns |\n|---|---|---|---|")
    first, second = (statistics.median(side) for side in zip(*pairs, strict=True))
    above = statistics.median(mine - theirs for theirs, mine in pairs)
    print(f"| {first:.2f} | {second:.2f} | {above:.2f} | {repeats} |")

"""python -m benchmarks.reliability: what integrity costs: the lock, the guard and the heartbeat a step; a save a GB.

Steps: the tiny BERT of `benchmarks.overhead`, whose step is the shortest there is, with and without them, in turns.
Saves: a model of 10.9 million parameters with AdamW's states, 131 MB a checkpoint, as the Trainer saves it and as plain
files without a manifest and without flushing.
"""

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from benchmarks import overhead
from hfft import checkpoint, lock, saving
from hfft.guard import Guard
from hfft.heartbeat import beating
from hfft.trainer import Trainer

SIZES = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1024}


def step(data, *, kept: bool) -> float:
    """Milliseconds of computing a step, with lock, guard and heartbeat or without them."""
    task = overhead.Task()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trainer = Trainer(overhead.model(), overhead.arguments(folder), task=task, loss=task.loss, train=data)
        if kept:
            guard = stack.enter_context(Guard())
            stack.enter_context(lock.held(folder))
            stack.enter_context(beating(600, lambda: guard.step))
            guard.watch(trainer)
        start = time.process_time()  # of this process alone, whatever else runs on the machine
        trainer.train()
        return (time.process_time() - start) / overhead.STEPS * 1000


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = BertForSequenceClassification(BertConfig(vocab_size=5000, **SIZES))
    optimizer = torch.optim.AdamW(net.parameters())
    for weight in net.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    return net, optimizer


def save(folder: Path, net, optimizer) -> None:
    """What the Trainer does: aside, hashed, flushed, renamed."""
    trainer = SimpleNamespace(optimizer=optimizer, lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer))
    about = {"step": 1, "resumable": True}
    with checkpoint.written(folder / "checkpoint-1", main=True, together=lambda: None, about=about) as place:
        net.save_pretrained(place)
        saving.save_optimizer(trainer, place)


def plain(folder: Path, net, optimizer) -> None:
    """The same files without a manifest, not flushed."""
    place = folder / "plain"
    net.save_pretrained(place)
    states = optimizer.state_dict()["state"]
    tensors = {f"{i}.{name}": value for i, each in states.items() for name, value in each.items()}
    save_file(tensors, place / "optimizer.safetensors")


def seconds(work, *words) -> tuple[float, float]:
    """(by the clock, of computing)."""
    start, computing = time.perf_counter(), time.process_time()
    work(*words)
    return time.perf_counter() - start, time.process_time() - computing


def main(turns: int) -> None:
    data = overhead.rows()
    step(data, kept=True), step(data, kept=False)
    ratios = [step(data, kept=True) / step(data, kept=False) for _ in range(turns)]
    print("| step with lock and guard, share of the step without | smallest | largest | turns |\n|---|---|---|---|")
    print(f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} | {turns} |\n")
    net, optimizer = trained()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        save(folder, net, optimizer)
        found = [(seconds(save, folder, net, optimizer), seconds(plain, folder, net, optimizer)) for _ in range(turns)]
        size = sum(path.stat().st_size for path in (folder / "checkpoint-1").iterdir()) / 1e9
    print("| checkpoint, MB | seconds | plain files | more a GB | turns |\n|---|---|---|---|---|")
    for place, name in enumerate(("by the clock", "of computing")):
        ours, theirs = ([turn[side][place] for turn in found] for side in (0, 1))
        more = statistics.median((mine - other) / size for mine, other in zip(ours, theirs, strict=True))
        shown = f"{statistics.median(ours):.2f} {name} | {statistics.median(theirs):.2f} | {more:.2f}"
        print(f"| {size * 1000:.0f} | {shown} | {turns} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

"""What one process sees and computes of a global batch of 8 rows: gradients, the rows of each step, metrics.

`tests/layouts.py FOLDER` is what several processes run: main leaves all of it in FOLDER/found.pt.
"""

import os
import sys
from pathlib import Path

import tiny
import torch
from test_invariance import gradients, rows_of
from transformers import Seq2SeqTrainingArguments

from hfft import batches, lookup
from hfft.recipe import ModelSection, Part
from hfft.trainer import Trainer

ROWS = 14  # a whole window of 8 rows, and a last one of 6
COUNTS = (1, 3, 11)  # rows to evaluate: none of them divides by 2 processes x 4 rows


def trainer_of(kind: str, folder: Path, num_rows: int, layout: tuple[int, int], buckets: bool = False) -> Trainer:
    rows, section = rows_of(kind, num_rows), ModelSection(name=str(folder / {"text": "bert", "image": "vit"}[kind]))
    task = lookup.call("tasks", Part(f"{kind}_classification", {}))
    torch.manual_seed(0)
    task.setup(section, rows)
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder / "out"), per_device_train_batch_size=layout[0], gradient_accumulation_steps=layout[1],
        per_device_eval_batch_size=4, report_to="none", disable_tqdm=True, use_cpu=True,
        train_sampling_strategy="group_by_length" if buckets else "random",
    )  # fmt: skip
    encoded = batches.encoded(rows, task, split="eval", seed=0)
    return Trainer(task.load_model(section), args, task=task, loss=task.loss, train=encoded, eval=encoded)


def steps_of(folder: Path, layout: tuple[int, int], epochs: int = 2) -> list[list[int]]:
    """The rows that the loader gives this process in each optimizer step, buckets on; no fillers."""
    trainer, found = trainer_of("text", folder, 61, layout, buckets=True), []
    loader = trainer.get_train_dataloader()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        micro = [[] if batch["filler"] else batch["rows"] for batch in loader]
        found += [
            [row for rows in micro[at : at + layout[1]] for row in rows] for at in range(0, len(micro), layout[1])
        ]
    return found


def found_by(folder: Path, layout: tuple[int, int], in_parts: bool = False) -> dict:
    """All of it, for a layout (rows a batch, accumulated batches) of this number of processes."""
    found: dict = {"steps": steps_of(folder, layout)}
    for kind in ("text", "image"):
        for num_rows in COUNTS:
            metrics = trainer_of(kind, folder, num_rows, layout).evaluate()
            found[kind, num_rows] = {k: v for k, v in metrics.items() if "runtime" not in k and "per_second" not in k}
    for name in tiny.NO_BATCHNORM:
        for tuning in ("full", "lora"):
            rows = rows_of(tiny.CONFIGS[name][0], ROWS)
            found[name, tuning] = gradients(name, folder / name, layout, tuning, rows, in_parts)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = found_by(folder, (2, 2), in_parts=True)
    steps: list = [None] * int(os.environ["WORLD_SIZE"])
    torch.distributed.all_gather_object(steps, found["steps"])
    found["steps"] = steps
    norms = torch.stack([torch.cat(found[name, "full"]).norm() for name in tiny.NO_BATCHNORM])
    torch.distributed.all_reduce(norms, torch.distributed.ReduceOp.AVG)
    found["norms"] = norms  # equal to main's only if all processes have the same
    if os.environ["RANK"] == "0":
        torch.save(found, folder / "found.pt")

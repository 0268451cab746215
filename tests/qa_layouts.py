"""What two processes compute of question answering: gradients of a global batch of 8 windows, and metrics.

`tests/qa_layouts.py FOLDER` is what both run: main leaves it in FOLDER/found.pt.
"""

import os
import sys
from pathlib import Path

import torch
from test_question_answering import SHORT, canonical, gradients
from tiny import TEXTS, questions
from transformers import Seq2SeqTrainingArguments

from hfft import batches
from hfft.recipe import ModelSection
from hfft.tasks.question_answering import QuestionAnswering
from hfft.trainer import Trainer


def metrics(folder: Path, num_rows: int) -> dict:
    """Of questions whose windows are parted between the processes."""
    task, section = QuestionAnswering(**SHORT), ModelSection(name=str(folder / "bert"))
    torch.manual_seed(0)
    task.setup(section)
    encoded = batches.encoded(canonical(questions(num_rows, words=60, impossible=True)), task, split="eval", seed=0)
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder / "out"), per_device_eval_batch_size=4, report_to="none", disable_tqdm=True, use_cpu=True
    )
    trainer = Trainer(task.load_model(section), args, task=task, loss=task.loss, eval=encoded)
    return {k: v for k, v in trainer.evaluate().items() if "runtime" not in k and "per_second" not in k}


def found_by(folder: Path, layout: tuple[int, int]) -> dict:
    """All of it, for a layout (windows a batch, accumulated batches) of this number of processes."""
    found: dict = {("metrics", num_rows): metrics(folder, num_rows) for num_rows in (1, 11)}
    for name in TEXTS:
        for tuning in ("full", "lora"):
            found[name, tuning] = gradients(name, folder / name, layout, tuning)
    return found


if __name__ == "__main__":
    found = found_by(Path(sys.argv[1]), (2, 2))
    if os.environ["RANK"] == "0":
        torch.save(found, Path(sys.argv[1]) / "found.pt")

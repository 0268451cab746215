"""What one process sees and computes of a global batch of 8 windows of words: gradients and metrics.

`tests/token_layouts.py FOLDER` is what several processes run: main leaves all of it in FOLDER/found.pt.
"""

import os
import sys
from pathlib import Path

import datasets
import tiny
import torch
import transformers as tf
from test_invariance import caught, trainer_of

from hfft import batches
from hfft.recipe import ModelSection
from hfft.tasks.token_classification import TokenClassification
from hfft.trainer import Trainer

CONFIGS = {name: (tiny.CONFIGS | tiny.MORE)[name][1] for name in tiny.TEXTS}
NAMES = ["O", "B-praise", "I-praise", "B-blame", "I-blame"]
GOOD, BAD = ("good", "fine", "great", "nice"), ("bad", "poor", "awful", "dull")


def sentences(num_rows: int, seed: int = 0, least: int = 3, most: int = 12) -> list[dict]:
    """Rows of tokens and tags, learnable: praise and blame are entities, and so is the film or book after them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num_rows):
        length = int(torch.randint(least, most, (), generator=generator))
        tokens = [tiny.WORDS[int(j)] for j in torch.randint(0, len(tiny.WORDS), (length,), generator=generator)]
        tags: list[str] = []
        for token in tokens:
            kind = "praise" if token in GOOD else "blame" if token in BAD else None
            follows = bool(tags) and tags[-1][:2] == "B-" and token in ("film", "book", "song", "plot")
            tags.append(f"B-{kind}" if kind else f"I-{tags[-1][2:]}" if follows else "O")
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def dataset(rows: list[dict]) -> datasets.Dataset:
    columns = {
        "tokens": [row["tokens"] for row in rows],
        "tags": [[NAMES.index(tag) for tag in row["tags"]] for row in rows],
        "row": list(range(len(rows))),
    }
    return datasets.Dataset.from_dict(columns).cast_column("tags", datasets.List(datasets.ClassLabel(names=NAMES)))


def build(name: str, folder: Path, **options) -> str:
    """Save a tiny `name` with random weights (seed 0); returns the folder."""
    config = CONFIGS[name]()
    config.classifier_dropout = 0.0  # of language models it is 0.1 where nothing is said
    for key, value in options.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    tf.AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def tagger(folder: Path, layout: tuple[int, int], tuning: str = "full", num_rows: int = 14) -> Trainer:
    rows, section = dataset(sentences(num_rows)), ModelSection(name=str(folder))
    task = TokenClassification(max_length=10)  # the longer half of the rows takes two windows
    torch.manual_seed(0)
    task.setup(section, rows)
    model = task.load_model(section)
    encoded = batches.encoded(rows, task, split="train", seed=0)
    return trainer_of(task, model, encoded, folder, layout, tuning, eval=encoded)


def gradients(folder: Path, layout: tuple[int, int], tuning: str, in_parts: bool = False) -> list[torch.Tensor]:
    trainer = tagger(folder, layout, tuning)
    trainer.part_cost = 0.5 if in_parts else None
    return caught(trainer)


def found_by(folder: Path, layout: tuple[int, int]) -> dict:
    """Gradients by (name, tuning), and metrics."""
    found: dict = {
        (name, tuning): gradients(folder / name, layout, tuning) for name in CONFIGS for tuning in ("full", "lora")
    }
    metrics = tagger(folder / "bert", layout, num_rows=11).evaluate()
    found["metrics"] = {k: v for k, v in metrics.items() if "runtime" not in k and "per_second" not in k}
    return found


if __name__ == "__main__":
    found = found_by(Path(sys.argv[1]), (2, 2))
    if os.environ["RANK"] == "0":
        torch.save(found, Path(sys.argv[1]) / "found.pt")

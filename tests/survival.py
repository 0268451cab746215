"""Short runs that are stopped, killed and damaged: their recipes and data, and what they end with."""

import csv
import json
from pathlib import Path

import tiny
import torch
import yaml
from safetensors.torch import load_file

from hfft import checkpoint

STEP = "hfft.trainer:Trainer.training_step"  # one micro-batch
EVAL = "hfft.trainer:Trainer._kept"  # one batch of an evaluation


def files(folder: Path, num_rows: int = 18) -> Path:
    """Models and data: rows to train, of two lengths, and 11 to evaluate."""
    for name in ("bert", "vit"):
        tiny.build(name, folder / name)
    for split, count, seed in (("train", num_rows, 0), ("eval", 11, 1)):
        with open(folder / f"{split}.csv", "w") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            for i, row in enumerate(tiny.sentences(count, seed)):
                words = (row["text"].split() * 3)[: 4 if i % 3 else 8]
                writer.writerow({"text": " ".join(words), "label": row["label"]})
        for i, row in enumerate(tiny.pictures(count, seed)):
            place = folder / "pictures" / split / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            row["image"].save(place / f"{i}.png")
    return folder


def recipe(
    files: Path, folder: Path, kind: str, *, lora: bool = False, processes: int = 1, dropout: float = 0.2, **train
) -> Path:
    """2 epochs of 3 steps, 5 micro-batches; dropout, augmentation, buckets, bf16, loader workers; eval each 2 steps."""
    model = {"text": "bert", "image": "vit"}[kind]
    texts = {"path": {split: str(files / f"{split}.csv") for split in ("train", "eval")}, "eval": "eval"}
    augment = [{"image": {"crop": [0.5, 1.0], "flip": 0.5}}]
    content = {
        "task": f"{kind}_classification",
        "model": {"name": str(files / model), "config": {"hidden_dropout_prob": dropout}},
        "data": texts if kind == "text" else {"path": str(files / "pictures"), "eval": "eval", "augment": augment},
        "tuning": [{"peft": {"peft_type": "LORA", "lora_dropout": 0.1}}] if lora else [],
        "train": {
            "output_dir": str(folder / "run"), "num_train_epochs": 2, "per_device_train_batch_size": 4 // processes,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "bf16": True, "dataloader_num_workers": 2,
            "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 3, **train,
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint or of a run."""
    file = folder / "adapter_model.safetensors"
    return load_file(file if file.exists() else folder / "model.safetensors")


def saved(run: Path) -> list[int]:
    """The steps of its checkpoints."""
    assert not list(run.glob(".tmp-*")) and not list(run.glob(".trash-*"))
    return checkpoint.steps(run)


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights of the last step and of the model that was kept, and the evaluation that a finished run left."""
    last = {f"last.{k}": v for k, v in weights_in(checkpoint.path_of(run, saved(run)[-1])).items()}
    return last | weights_in(run), json.loads((run / "metrics.json").read_text())["eval"]


def equal(one: Path, other: Path) -> bool:
    """Whether two finished runs have bitwise the same weights and the same evaluation."""
    (weights, metrics), (others, other_metrics) = outcome(one), outcome(other)
    return (
        weights.keys() == others.keys()
        and metrics == other_metrics
        and all(torch.equal(weights[name], others[name]) for name in weights)
    )


def log(run: Path) -> list[dict]:
    """What the newest checkpoint knows of the run, without times."""
    state = json.loads((checkpoint.path_of(run, saved(run)[-1]) / "trainer_state.json").read_text())
    return [
        {k: v for k, v in row.items() if "runtime" not in k and "per_second" not in k} for row in state["log_history"]
    ]


def complaint(said: str, *parts: str) -> str:
    """The one error line of a process, which holds these parts, is short, and comes without a traceback."""
    assert "Traceback" not in said, said
    [line] = [line for line in said.splitlines() if line.startswith("hfft: error: ")]
    assert len(line) <= 300 and all(part in line for part in parts), line
    return line

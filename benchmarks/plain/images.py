"""Plain image classification baseline: the core of the official run_image_classification.py example and nothing else.

load_dataset, AutoImageProcessor, AutoModelForImageClassification, torchvision transforms and the stock Trainer in fp32:
AdamW (weight decay 0.01), linear schedule with 10 % warm-up, gradient clipping at 1.0, the weights of the last step.
No special technique, BatchNorm as it comes. Evaluation resizes straight to the input size, without a centre crop.
Prints one JSON line and writes it to --output.

Example:
    python -m benchmarks.plain.images --data flowers5 --model mobilenet-v2-1.0-224 --crop 0.5 --output flowers5.json
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from torchvision import transforms
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, set_seed

from benchmarks.plain.clock import Clock
from benchmarks.plain.common import arguments, find, tell


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--data", required=True, help="a folder, or the name of one in SHARED/data")
    parser.add_argument("--model", required=True, help="a folder, or the name of one in SHARED/models")
    parser.add_argument("--crop", type=float, metavar="MIN", help="RandomResizedCrop of MIN..1 of the area")
    parser.add_argument("--eval-split", default="test", help="one or more, comma-separated; val is called validation")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--official", action="store_true", help="RandomResizedCrop to the size before the centre crop")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early (for a measurement of speed)")
    parser.add_argument("--max-samples", type=int, help="use only this many rows of each split (smoke test)")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def input_size(processor):
    """(height, width) that the model was trained for, without the enlarged edge of a centre crop."""
    size = getattr(processor, "crop_size", None) or processor.size
    return (size["height"], size["width"])


def compute_metrics(prediction):
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def collate(examples):
    images = torch.stack([example["pixel_values"] for example in examples])
    return {"pixel_values": images, "labels": torch.tensor([example["labels"] for example in examples])}


def main():
    args = parse_args()
    set_seed(args.seed)
    eval_splits = args.eval_split.split(",")

    raw = load_dataset(find(args.data, Path(args.shared) / "data"))
    names = raw["train"].features["label"].names  # one list for all splits; every class must occur in train
    assert set(raw["train"]["label"]) == set(range(len(names))), "a class has no training image"

    model_path = find(args.model, Path(args.shared) / "models")
    processor = AutoImageProcessor.from_pretrained(model_path)
    id2label, label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    model = AutoModelForImageClassification.from_pretrained(
        model_path, num_labels=len(names), id2label=id2label, label2id=label2id, ignore_mismatched_sizes=True
    )

    if hasattr(processor, "data_config"):  # a timm checkpoint
        config = processor.data_config
        size, mean, std = config["input_size"][1:], config["mean"], config["std"]
    else:
        size, mean, std = input_size(processor), processor.image_mean, processor.image_std
    to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if args.official:  # the official script crops to the shortest edge, from which the model's own crop would be cut
        edge = processor.size.get("shortest_edge")
        size, args.crop = (edge, edge) if edge else size, 0.08
    resize = transforms.Resize(size)
    crop = transforms.RandomResizedCrop(size, scale=(args.crop, 1.0)) if args.crop else resize
    train_transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *to_tensor])
    eval_transform = transforms.Compose([resize, *to_tensor])

    data = {}
    for split in ["train", *eval_splits]:
        rows = raw[split]
        if args.max_samples:
            rows = rows.shuffle(seed=args.seed).select(range(min(args.max_samples, len(rows))))

        def apply(batch, transform=train_transform if split == "train" else eval_transform):
            pixels = [transform(image.convert("RGB")) for image in batch["image"]]
            return {"pixel_values": pixels, "labels": batch["label"]}

        data[split] = rows.with_transform(apply)

    clock = Clock(args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        training = arguments(args, folder, remove_unused_columns=False)
        trainer = Trainer(model=model, args=training, train_dataset=data["train"], data_collator=collate,
                          compute_metrics=compute_metrics, callbacks=[clock])  # fmt: skip
        trained = trainer.train().metrics
        eval_splits = [] if args.max_steps > 0 else eval_splits
        accuracy = {split: trainer.evaluate(data[split])["eval_accuracy"] for split in eval_splits}

    first = accuracy[eval_splits[0]] if eval_splits else None
    result = {"accuracy": first, "samples_per_second": clock.samples_per_second(),
              "train_seconds": trained["train_runtime"], "train_loss": trained["train_loss"],
              "accuracies": accuracy, "classes": len(names),
              "rows": {split: len(rows) for split, rows in data.items()}}  # fmt: skip
    tell(result, args.output)


if __name__ == "__main__":
    main()

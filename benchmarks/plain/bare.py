"""A bare PyTorch loop with hfft's levers and nothing else: the most that this hardware gives with these levers.

Text: tokenised once, each batch in parts of like length, dropout quickened. Pictures: opened, resized in place, 8-bit
until the batch, channels_last. Both: bf16 autocast (strided depthwise convolutions in fp32), fused AdamW, linear
schedule, clipping at 1.0, and the allocator that its environment sets (benchmarks.pairs).

Example:
    python -m benchmarks.plain.bare text --data SHARED/data/sst2 --model SHARED/models/minilm-l6-v5k --steps 60
"""

import argparse
import json
import time

import numpy as np
import torch
from datasets import load_dataset
from torch.nn.functional import cross_entropy
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

from benchmarks.plain.clock import WARM_UP
from hfft.batches import parts, shuffled
from hfft.dropout import quicken
from hfft.levers import casts_kept

PART = 100  # tokens that one more part costs, as in hfft/levers.py


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["text", "images"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text-columns", default="text")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def text_batches(args):
    """(model, a generator of batches, each a list of (inputs, labels))."""
    rows = load_dataset(args.data)["train"]
    names = sorted(set(rows["label"]))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = [" ".join(map(str, each)) for each in zip(*[rows[c] for c in args.text_columns.split(",")], strict=True)]
    ids = tokenizer(texts, truncation=True, max_length=args.max_length)["input_ids"]
    labels = [names.index(label) for label in rows["label"]]
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=len(names), dtype=torch.float32)

    order = shuffled(len(ids), args.seed)(0)

    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def batches():
        for start in range(0, len(order) - args.batch_size + 1, args.batch_size):
            rows = order[start : start + args.batch_size]
            chosen = [rows[part] for part in parts([len(ids[row]) for row in rows], PART)]
            yield [(padded(columns, part), torch.tensor([labels[row] for row in part])) for part in chosen]

    return model, batches()


def in_fp32(forward):
    """A strided depthwise convolution is slow in bf16."""

    def without_autocast(pictures):
        with torch.autocast("cpu", enabled=False):
            return forward(pictures.float())

    return without_autocast


def image_batches(args):
    """(model, a generator of batches, each a list of one (inputs, labels)); half of the pictures are flipped."""
    rows = load_dataset(args.data)["train"]
    size = (getattr(AutoImageProcessor.from_pretrained(args.model), "crop_size", None) or {"height": 224})["height"]
    classes = rows.features["label"].num_classes
    model = AutoModelForImageClassification.from_pretrained(
        args.model, num_labels=classes, ignore_mismatched_sizes=True, dtype=torch.float32
    )
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1 and max(module.stride) > 1:
            module.forward = in_fp32(module.forward)
    order = shuffled(len(rows), args.seed)(0)

    def batches():
        for start in range(0, len(order) - args.batch_size + 1, args.batch_size):
            batch = rows[order[start : start + args.batch_size].tolist()]
            opened = [np.asarray(image.convert("RGB").resize((size, size), 2)) for image in batch["image"]]
            flipped = [image[:, ::-1] if np.random.rand() < 0.5 else image for image in opened]
            pixels = torch.from_numpy(np.stack(flipped)).permute(0, 3, 1, 2)  # lies as channels_last
            yield [({"pixel_values": pixels.float().div_(127.5).sub_(1)}, torch.tensor(batch["label"]))]

    return model, batches()


def padded(columns, rows):
    """{name: (rows, longest) int64} of lists of numbers, filled with 0 on the right."""
    width = max(len(next(iter(columns.values()))[row]) for row in rows)
    inputs = {name: np.zeros((len(rows), width), np.int64) for name in columns}
    for name, values in columns.items():
        for i, row in enumerate(rows):
            inputs[name][i, : len(values[row])] = values[row]
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def loop(model, batches, backward, *, steps, batch_size, learning_rate=5e-5):
    """Train on `batches`, each given to `backward`, and print the samples per second after the first steps."""
    model.train()
    quicken(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    start = 0.0
    for step, batch in zip(range(steps), batches, strict=False):
        with casts_kept():
            backward(batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step + 1 == WARM_UP:
            start = time.perf_counter()
    rows = (step + 1 - WARM_UP) * batch_size
    print(json.dumps({"samples_per_second": rows / (time.perf_counter() - start)}))


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    model, batches = (text_batches if args.kind == "text" else image_batches)(args)

    def backward(batch):
        for inputs, labels in batch:
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**inputs).logits
            (cross_entropy(logits.float(), labels, reduction="sum") / args.batch_size).backward()

    loop(model, batches, backward, steps=args.steps, batch_size=args.batch_size)


if __name__ == "__main__":
    main()

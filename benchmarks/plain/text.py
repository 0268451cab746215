"""Plain text classification baseline: the core of the official run_glue.py example and nothing else.

load_dataset, AutoTokenizer, AutoModelForSequenceClassification, DataCollatorWithPadding and the stock Trainer in fp32:
AdamW (weight decay 0.01), linear schedule with 10 % warm-up, gradient clipping at 1.0, the weights of the last step.
No special technique. Prints one JSON line and writes it to --output.

Example:
    python -m benchmarks.plain.text --data trec --model minilm-l6-v5k --epochs 5 --learning-rate 2e-4 --output trec.json
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    set_seed,
)

from benchmarks.plain.clock import Clock
from benchmarks.plain.common import arguments, find, tell


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--data", required=True, help="a folder, or the name of one in SHARED/data")
    parser.add_argument("--model", required=True, help="a folder, or the name of one in SHARED/models")
    parser.add_argument("--text-columns", default="text", help="one column, or two joined with a blank: a,b")
    parser.add_argument("--pair", action="store_true", help="give the two text columns as a sentence pair")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--eval-split", default="test", help="one or more, comma-separated; dev is called validation")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pad", action="store_true", help="every row to --max-length, as the official script does")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early (for a measurement of speed)")
    parser.add_argument("--max-samples", type=int, help="use only this many rows of each split (smoke test)")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def compute_metrics(prediction):
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def main():
    args = parse_args()
    set_seed(args.seed)
    eval_splits = args.eval_split.split(",")
    columns = args.text_columns.split(",")

    raw = load_dataset(find(args.data, Path(args.shared) / "data"))
    names = sorted(set(raw["train"][args.label_column]))  # the classes come from train
    label2id = {name: index for index, name in enumerate(names)}
    id2label = {index: str(name) for index, name in enumerate(names)}

    model_path = find(args.model, Path(args.shared) / "models")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        model_path,
        num_labels=len(names),
        id2label=id2label,
        label2id={name: index for index, name in id2label.items()},
        ignore_mismatched_sizes=True,
    )

    def preprocess(batch):
        texts = [[value or "" for value in batch[column]] for column in columns]
        if not args.pair:
            texts = [[" ".join(row) for row in zip(*texts, strict=True)]]
        padding = "max_length" if args.pad else False
        encoded = tokenizer(*texts, truncation=True, max_length=args.max_length, padding=padding)
        encoded["labels"] = [label2id[label] for label in batch[args.label_column]]
        return encoded

    data = {}
    for split in ["train", *eval_splits]:
        rows = raw[split]
        if args.max_samples:
            rows = rows.shuffle(seed=args.seed).select(range(min(args.max_samples, len(rows))))
        data[split] = rows.map(preprocess, batched=True, remove_columns=rows.column_names)

    clock = Clock(args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        training = arguments(args, folder)
        trainer = Trainer(
            model=model, args=training, train_dataset=data["train"], processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=compute_metrics, callbacks=[clock],
        )  # fmt: skip
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

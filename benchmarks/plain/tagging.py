"""Plain token classification baseline: the core of the official run_ner.py example and nothing else.

The conll reader, AutoTokenizer, AutoModelForTokenClassification, DataCollatorForTokenClassification and the stock
Trainer in fp32: AdamW (weight decay 0.01), linear schedule with 10 % warm-up, gradient clipping at 1.0, the weights of
the last step; the first piece of each word is labelled, entities are scored by seqeval. Prints one JSON line.

Example:
    python -m benchmarks.plain.tagging --data wnut17 --model minilm-l6-v5k --epochs 5 --output wnut17.json
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from datasets import load_dataset
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    set_seed,
)

from benchmarks.plain.clock import Clock
from benchmarks.plain.common import arguments, find, tell


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--data", default="wnut17", help="a folder of train, dev and test.conll, or one in SHARED/data")
    parser.add_argument("--model", default="minilm-l6-v5k", help="a folder, or the name of one in SHARED/models")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--eval-split", default="dev,test", help="one or more, comma-separated")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pad", action="store_true", help="every row to --max-length (pad_to_max_length)")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early (for a measurement of speed)")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def aligned(batch, tokenizer, tag2id, options):
    """Token ids, and the tag of each word at its first piece; -100 elsewhere."""
    encoded = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, **options)
    encoded["labels"] = []
    for i, tags in enumerate(batch["ner_tags"]):
        words = encoded.word_ids(i)
        first = [word is not None and word not in words[:at] for at, word in enumerate(words)]
        encoded["labels"].append(
            [tag2id[tags[w]] if is_first else -100 for w, is_first in zip(words, first, strict=True)]
        )
    return encoded


def main():
    args = parse_args()
    set_seed(args.seed)
    eval_splits = args.eval_split.split(",")
    folder = Path(find(args.data, Path(args.shared) / "data"))
    files = {split: str(folder / f"{split}.conll") for split in ["train", *eval_splits]}
    raw = load_dataset("conll", data_files=files, column_names=["tokens", "ner_tags"])
    names = sorted({tag for row in raw["train"]["ner_tags"] for tag in row})
    tag2id = {name: index for index, name in enumerate(names)}

    model_path = find(args.model, Path(args.shared) / "models")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForTokenClassification.from_pretrained(
        model_path, num_labels=len(names), id2label=dict(enumerate(names)), label2id=tag2id
    )
    options = {"max_length": args.max_length, "padding": "max_length" if args.pad else False}
    data = {
        split: rows.map(aligned, batched=True, remove_columns=rows.column_names,
                        fn_kwargs={"tokenizer": tokenizer, "tag2id": tag2id, "options": options})
        for split, rows in raw.items()
    }  # fmt: skip

    def compute_metrics(prediction):
        best, labels = np.argmax(prediction.predictions, axis=2), prediction.label_ids
        said = [[names[p] for p, t in zip(*row, strict=True) if t != -100] for row in zip(best, labels, strict=True)]
        true = [[names[t] for t in row if t != -100] for row in labels]
        strict = {"mode": "strict", "scheme": IOB2}
        return {
            "f1": float(f1_score(true, said, **strict)),
            "precision": float(precision_score(true, said, **strict)),
            "recall": float(recall_score(true, said, **strict)),
            "f1_default": float(f1_score(true, said)),
            "accuracy": float(accuracy_score(true, said)),
        }

    clock = Clock(args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        training = arguments(args, folder)
        trainer = Trainer(
            model=model, args=training, train_dataset=data["train"], processing_class=tokenizer, callbacks=[clock],
            data_collator=DataCollatorForTokenClassification(tokenizer), compute_metrics=compute_metrics,
        )  # fmt: skip
        trained = trainer.train().metrics
        eval_splits = [] if args.max_steps > 0 else eval_splits
        scores = {split: trainer.evaluate(data[split], metric_key_prefix=split) for split in eval_splits}

    result = {"samples_per_second": clock.samples_per_second(), "train_seconds": trained["train_runtime"],
              "train_loss": trained["train_loss"], "scores": scores, "tags": len(names),
              "rows": {split: len(rows) for split, rows in data.items()}}  # fmt: skip
    tell(result, args.output)


if __name__ == "__main__":
    main()

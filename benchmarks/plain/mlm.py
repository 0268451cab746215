"""Plain masked LM baseline: the core of the official run_mlm.py example and nothing else.

load_dataset, AutoTokenizer, AutoModelForMaskedLM, texts with their special tokens joined and cut into blocks (the rest
of each 1,000 texts is dropped), DataCollatorForLanguageModeling (15 %) and the stock Trainer in fp32: AdamW (weight
decay 0.01), linear schedule with 10 % warm-up, gradient clipping at 1.0, the weights of the last step. The perplexity
is over masks of one seed, which are others than hfft's; `--score RUN` gives that of a finished run of either kind on
the same masks, and trains nothing. Prints one JSON line and writes it to --output.

Example:
    python -m benchmarks.plain.mlm --train train.csv --eval test.csv --columns title,description --model minilm-l6-v5k
"""

import argparse
import math
import os
import tempfile
from itertools import chain
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    set_seed,
)

from benchmarks.plain.common import arguments, tell


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--train", required=True, help="a csv file")
    parser.add_argument("--eval", required=True, help="a csv file")
    parser.add_argument("--columns", default="text", help="one column, or several joined with a blank: a,b")
    parser.add_argument("--model", required=True, help="a folder, or the name of one in SHARED/models")
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--score", help="the folder of a finished run: nothing is trained")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def blocks(args, tokenizer):
    """{"train", "validation"} of input_ids in blocks."""
    raw = load_dataset("csv", data_files={"train": args.train, "validation": args.eval})
    columns = args.columns.split(",")

    def tokenize(batch):
        texts = [" ".join(value or "" for value in row) for row in zip(*(batch[name] for name in columns), strict=True)]
        return tokenizer(texts, return_special_tokens_mask=True)

    def group(batch):
        joined = {name: list(chain(*batch[name])) for name in batch}
        total = len(joined["input_ids"]) // args.block_size * args.block_size
        return {
            name: [values[i : i + args.block_size] for i in range(0, total, args.block_size)]
            for name, values in joined.items()
        }

    names = raw["train"].column_names
    return raw.map(tokenize, batched=True, remove_columns=names).map(group, batched=True)


def perplexity(model, rows, collator, batch_size: int) -> tuple[float, float]:
    """(perplexity, accuracy) over masks drawn with one seed."""
    set_seed(0)
    total = asked = found = 0
    model.eval()
    for start in range(0, len(rows), batch_size):
        batch = collator([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
        labels = batch.pop("labels")
        with torch.inference_mode():
            logits = model(**batch).logits[labels != -100]
        labels = labels[labels != -100]
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        asked, found = asked + len(labels), found + (logits.argmax(-1) == labels).sum().item()
    return math.exp(total / asked), found / asked


def main():
    args = parse_args()
    set_seed(args.seed)
    path = args.model if Path(args.model).is_dir() else str(Path(args.shared) / "models" / args.model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    data = blocks(args, tokenizer)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    result = {"rows": {name: len(rows) for name, rows in data.items()}, **{k: v for k, v in vars(args).items() if v}}
    model = AutoModelForMaskedLM.from_pretrained(args.score or path, dtype=torch.float32)
    if not args.score:
        result["perplexity_before"] = perplexity(model, data["validation"], collator, 32)[0]
        with tempfile.TemporaryDirectory() as folder:
            training = arguments(args, folder, use_cpu=True)
            trainer = Trainer(model=model, args=training, data_collator=collator, train_dataset=data["train"])
            result["seconds"] = round(trainer.train().metrics["train_runtime"], 1)
    result["perplexity"], result["accuracy"] = perplexity(model, data["validation"], collator, 32)
    tell(result, args.output)


if __name__ == "__main__":
    main()

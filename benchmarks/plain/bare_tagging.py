"""A bare PyTorch loop for entities with hfft's levers and nothing else, as benchmarks.plain.bare for texts.

Example:
    python -m benchmarks.plain.bare_tagging --data wnut17 --model minilm-l6-v5k --max-steps 60
"""

from pathlib import Path

import torch
from datasets import load_dataset
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification, AutoTokenizer

from benchmarks.plain.bare import PART, loop, padded
from benchmarks.plain.common import find
from benchmarks.plain.tagging import aligned, parse_args
from hfft.batches import parts, shuffled


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    file = Path(find(args.data, Path(args.shared) / "data")) / "train.conll"
    rows = load_dataset("conll", data_files=str(file), column_names=["tokens", "ner_tags"], split="train")
    names = sorted({tag for row in rows["ner_tags"] for tag in row})
    path = find(args.model, Path(args.shared) / "models")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForTokenClassification.from_pretrained(path, num_labels=len(names), dtype=torch.float32)
    options = {"tag2id": {name: i for i, name in enumerate(names)}, "options": {"max_length": args.max_length}}
    encoded = rows.map(
        aligned, batched=True, remove_columns=rows.column_names, fn_kwargs={"tokenizer": tokenizer, **options}
    )
    inputs = {name: encoded[name] for name in tokenizer.model_input_names}
    labels = {"labels": [[label + 1 for label in row] for row in encoded["labels"]]}  # 0 is padding
    order = shuffled(len(rows), args.seed)(0).tolist()

    def backward(rows):
        count = sum(label > 0 for row in rows for label in labels["labels"][row])
        for part in parts([len(inputs["input_ids"][row]) for row in rows], PART):
            chosen = [rows[i] for i in part]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**padded(inputs, chosen)).logits
            truth = (padded(labels, chosen)["labels"] - 1).flatten()
            loss = cross_entropy(logits.float().flatten(0, 1), truth.where(truth >= 0, -100), reduction="sum")
            (loss / count).backward()

    starts = range(0, len(order), args.batch_size)
    loop(model, (order[i : i + args.batch_size] for i in starts), backward,
         steps=args.max_steps, batch_size=args.batch_size, learning_rate=args.learning_rate)  # fmt: skip


if __name__ == "__main__":
    main()

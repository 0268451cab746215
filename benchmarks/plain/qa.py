"""Plain question answering baseline: the core of the official run_qa.py example and nothing else.

AutoTokenizer, AutoModelForQuestionAnswering and the stock Trainer in fp32: AdamW (weight decay 0.01), linear schedule
with 10 % warm-up, gradient clipping at 1.0, the weights of the last step; windows, labels and n-best as in run_qa.py
and utils_qa.py, EM and F1 as in SQuAD 1.1's evaluate script. No special technique. Prints one JSON line.

Example:
    python -m benchmarks.plain.qa --data squad-newwiki --model minilm-l6-v5k --epochs 3 --learning-rate 2e-4
"""

import argparse
import collections
import json
import os
import re
import string
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    default_data_collator,
    set_seed,
)

from benchmarks.plain.clock import Clock
from benchmarks.plain.common import arguments, tell


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--data", required=True, help="the name of a folder in SHARED/data with train.json, dev.json")
    parser.add_argument("--model", required=True, help="a folder, or the name of one in SHARED/models")
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--max-answer-length", type=int, default=30)
    parser.add_argument("--n-best", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pad", action="store_true", help="every window to --max-length, as the official script does")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early (for a measurement of speed)")
    parser.add_argument("--load", action="store_true", help="score --model as it is, without training")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def questions(path):
    """SQuAD's nested json as flat rows."""
    articles = json.loads(Path(path).read_text(encoding="utf-8"))["data"]
    return Dataset.from_list([
        {"id": qa["id"], "question": qa["question"].lstrip(), "context": paragraph["context"],
         "answers": {key: [answer[key] for answer in qa["answers"]] for key in ("text", "answer_start")}}
        for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]
    ])  # fmt: skip


def train_features(tokenizer, args):
    def prepare(examples):
        tokenized = tokenizer(
            examples["question"], examples["context"], truncation="only_second", max_length=args.max_length,
            stride=args.stride, return_overflowing_tokens=True, return_offsets_mapping=True,
            padding="max_length" if args.pad else False,
        )  # fmt: skip
        sample_mapping = tokenized.pop("overflow_to_sample_mapping")
        offset_mapping = tokenized.pop("offset_mapping")
        tokenized["start_positions"], tokenized["end_positions"] = [], []
        for i, offsets in enumerate(offset_mapping):
            cls_index = tokenized["input_ids"][i].index(tokenizer.cls_token_id)
            sequence_ids = tokenized.sequence_ids(i)
            answers = examples["answers"][sample_mapping[i]]
            start_char = answers["answer_start"][0]
            end_char = start_char + len(answers["text"][0])
            token_start = 0
            while sequence_ids[token_start] != 1:
                token_start += 1
            token_end = len(tokenized["input_ids"][i]) - 1
            while sequence_ids[token_end] != 1:
                token_end -= 1
            if not (offsets[token_start][0] <= start_char and offsets[token_end][1] >= end_char):
                tokenized["start_positions"].append(cls_index)
                tokenized["end_positions"].append(cls_index)
                continue
            while token_start < len(offsets) and offsets[token_start][0] <= start_char:
                token_start += 1
            tokenized["start_positions"].append(token_start - 1)
            while offsets[token_end][1] >= end_char:
                token_end -= 1
            tokenized["end_positions"].append(token_end + 1)
        return tokenized

    return prepare


def validation_features(tokenizer, args):
    def prepare(examples):
        tokenized = tokenizer(
            examples["question"], examples["context"], truncation="only_second", max_length=args.max_length,
            stride=args.stride, return_overflowing_tokens=True, return_offsets_mapping=True, padding="max_length",
        )  # fmt: skip
        sample_mapping = tokenized.pop("overflow_to_sample_mapping")
        tokenized["example_id"] = [examples["id"][place] for place in sample_mapping]
        for i in range(len(tokenized["input_ids"])):
            ids = tokenized.sequence_ids(i)
            pairs = enumerate(tokenized["offset_mapping"][i])
            tokenized["offset_mapping"][i] = [(o if ids[k] == 1 else None) for k, o in pairs]
        return tokenized

    return prepare


def postprocess(examples, features, logits, args):
    """The text of each question, by id, as utils_qa.postprocess_qa_predictions finds it."""
    all_start, all_end = logits
    per_example = collections.defaultdict(list)
    for i, example_id in enumerate(features["example_id"]):
        per_example[example_id].append(i)
    offset_mappings, found = features["offset_mapping"], {}
    for example in examples:
        candidates = []
        for i in per_example[example["id"]]:
            start_logits, end_logits, offsets = all_start[i], all_end[i], offset_mappings[i]
            starts = np.argsort(start_logits)[-1 : -args.n_best - 1 : -1].tolist()
            ends = np.argsort(end_logits)[-1 : -args.n_best - 1 : -1].tolist()
            for start in starts:
                for end in ends:
                    if start >= len(offsets) or end >= len(offsets) or not offsets[start] or not offsets[end]:
                        continue
                    if end < start or end - start + 1 > args.max_answer_length:
                        continue
                    place = offsets[start][0], offsets[end][1]
                    candidates.append((float(start_logits[start] + end_logits[end]), place))
        best = max(candidates, key=lambda each: each[0]) if candidates else (0.0, (0, 0))
        found[example["id"]] = example["context"][best[1][0] : best[1][1]]
    return found


def normalize_answer(text):
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1_score(prediction, truth):
    prediction, truth = normalize_answer(prediction).split(), normalize_answer(truth).split()
    same = sum((collections.Counter(prediction) & collections.Counter(truth)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(truth)
    return 2 * precision * recall / (precision + recall)


def score(examples, found):
    exact, f1 = [], []
    for example in examples:
        prediction, truths = found[example["id"]], example["answers"]["text"]
        exact.append(max(normalize_answer(prediction) == normalize_answer(truth) for truth in truths))
        f1.append(max(f1_score(prediction, truth) for truth in truths))
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}


def main():
    args = parse_args()
    set_seed(args.seed)
    folder = Path(args.shared) / "data" / args.data
    model_path = args.model if Path(args.model).is_dir() else str(Path(args.shared) / "models" / args.model)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForQuestionAnswering.from_pretrained(model_path)
    train, dev = questions(folder / "train.json"), questions(folder / "dev.json")
    windows = train.map(train_features(tokenizer, args), batched=True, remove_columns=train.column_names)

    clock = Clock(args.batch_size)
    with tempfile.TemporaryDirectory() as out:
        training = arguments(args, out)
        trainer = Trainer(
            model=model, args=training, train_dataset=windows, processing_class=tokenizer,
            data_collator=default_data_collator if args.pad else DataCollatorWithPadding(tokenizer), callbacks=[clock],
        )  # fmt: skip
        result = {"windows": len(windows)}
        if not args.load:
            trained = trainer.train().metrics
            result |= {"samples_per_second": clock.samples_per_second(), "train_seconds": trained["train_runtime"],
                       "train_loss": trained["train_loss"]}  # fmt: skip
        if args.max_steps <= 0:
            start = time.perf_counter()
            features = dev.map(validation_features(tokenizer, args), batched=True, remove_columns=dev.column_names)
            trainer.data_collator = default_data_collator
            logits = trainer.predict(features.remove_columns(["example_id", "offset_mapping"])).predictions
            result |= score(dev, postprocess(dev, features, logits, args))
            result["eval_seconds"] = time.perf_counter() - start
    tell(result, args.output)


if __name__ == "__main__":
    main()

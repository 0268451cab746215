"""sentence-transformers' own trainer on pairs or scored pairs, as its example scripts have it and nothing else.

SentenceTransformer with mean pooling, MultipleNegativesRankingLoss or CoSENTLoss, SentenceTransformerTrainer in fp32:
AdamW (weight decay 0.01), linear schedule with 10 % warm-up, clipping at 1.0, the weights of the last step; its own
evaluators. Prints one JSON line and writes it to --output.

Example:
    python -m benchmarks.plain.embedding --data stsb --model minilm-l6-v5k --epochs 4 --output stsb.json
"""

import argparse
import os
import tempfile
from pathlib import Path

from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator
from sentence_transformers.models import Normalize, Pooling, Transformer
from transformers import set_seed

from benchmarks.plain.clock import Clock
from benchmarks.plain.common import tell

FILES = {
    "stsb": ("csv", {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"}, ["dev", "test"]),
    "caption-pairs": ("parquet", {"train": "train.parquet", "val": "val.parquet"}, ["val"]),
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default=os.environ.get("HFFT_SHARED", "../shared"), help="holds data/ and models/")
    parser.add_argument("--data", required=True, choices=FILES)
    parser.add_argument("--model", default="minilm-l6-v5k", help="the name of one in SHARED/models")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop early (for a measurement of speed)")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def measured(model, rows, scored):
    if scored:
        scores = [score / 5 for score in rows["score"]]
        found = EmbeddingSimilarityEvaluator(list(rows["sentence1"]), list(rows["sentence2"]), scores)(model)
        return {name.removesuffix("_cosine"): value for name, value in found.items() if name.endswith("_cosine")}
    corpus = {text: str(i) for i, text in enumerate(dict.fromkeys(rows["positive"]))}
    queries = {text: str(i) for i, text in enumerate(dict.fromkeys(rows["anchor"]))}
    right: dict[str, set] = {}
    for anchor, positive in zip(rows["anchor"], rows["positive"], strict=True):
        right.setdefault(queries[anchor], set()).add(corpus[positive])
    evaluator = InformationRetrievalEvaluator(
        {i: text for text, i in queries.items()}, {i: text for text, i in corpus.items()}, right
    )
    wanted = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")
    found = evaluator(model)
    return {name: value for key, value in found.items() for name in wanted if key.endswith("cosine_" + name)}


def main():
    args = parse_args()
    set_seed(args.seed)
    kind, files, held_out = FILES[args.data]
    place = Path(args.shared) / "data" / args.data
    raw = load_dataset(kind, data_files={split: str(place / file) for split, file in files.items()})
    scored = "score" in raw["train"].column_names

    transformer = Transformer(str(Path(args.shared) / "models" / args.model))
    transformer.max_seq_length = args.max_length
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    loss = losses.CoSENTLoss(model) if scored else losses.MultipleNegativesRankingLoss(model)

    clock = Clock(args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        training = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=args.epochs, max_steps=args.max_steps, learning_rate=args.learning_rate,
            per_device_train_batch_size=args.batch_size, seed=args.seed, optim="adamw_torch", weight_decay=0.01,
            lr_scheduler_type="linear", warmup_steps=0.1, max_grad_norm=1.0, save_strategy="no", eval_strategy="no",
            logging_steps=50, report_to="none", disable_tqdm=True, use_cpu=True, bf16=args.bf16,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=training, train_dataset=raw["train"], loss=loss, callbacks=[clock]
        )
        trained = trainer.train().metrics
    metrics = {} if args.max_steps > 0 else {split: measured(model, raw[split], scored) for split in held_out}
    result = {"metrics": metrics, "samples_per_second": clock.samples_per_second(),
              "train_seconds": trained["train_runtime"], "train_loss": trained["train_loss"]}  # fmt: skip
    tell(result, args.output)


if __name__ == "__main__":
    main()

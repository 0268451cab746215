"""python -m benchmarks.features: a probe of ten epochs, with the frozen trunk's features computed once and without.

MobileNetV1 on flowers5 (1,500 pictures of 128 pixels), evaluation after each epoch; both sides have all other levers.
The seconds are those of training, its evaluations and the computing of the features. Needs HFFT_SHARED.
"""

import argparse
import json
import os
import tempfile

import hfft
from benchmarks.pairs import in_turns, tell


def run(use: bool, epochs: int) -> dict[str, float]:
    """Samples per second of a whole run, and its accuracy."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    with tempfile.TemporaryDirectory() as folder:
        train = {
            "output_dir": f"{folder}/run", "num_train_epochs": epochs, "per_device_train_batch_size": 32,
            "learning_rate": 1e-3, "seed": 0, "levers": {"features": use}, "per_device_eval_batch_size": 64,
        }  # fmt: skip
        recipe = {
            "task": "image_classification",
            "model": {"name": f"{shared}/models/mobilenet-v1-0.25-128"},
            "data": {"path": f"{shared}/data/flowers5", "eval": "test"},
            "tuning": ["frozen"],
            "train": train,
        }
        metrics = hfft.finetune(recipe).metrics
    return {
        "samples_per_second": metrics["train"]["samples_per_second"],
        "seconds": metrics["train"]["seconds"],
        "accuracy": metrics["eval"]["accuracy"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--side", choices=("once", "every epoch"), help="run one side, here and now")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run(args.side == "once", args.epochs)))
    else:
        command = ["-m", "benchmarks.features", "--epochs", str(args.epochs), "--side"]
        sides = {name: [*command, name] for name in ("every epoch", "once")}
        found = in_turns(sides, args.repeats)
        tell(f"flowers5, MobileNetV1, head only, {args.epochs} epochs", found, ours="once")
        print({name: [each["accuracy"] for each in turns] for name, turns in found.items()})

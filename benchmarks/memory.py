"""python -m benchmarks.memory: peak memory of evaluating 1,000 and 100,000 short rows, each in a process of its own.

A small model and rows that are tokenised already, so that what grows is what evaluation itself keeps.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from benchmarks import words

ENV = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def one(path: str, model: str) -> dict[str, float]:
    """Peaks before and after the evaluation of a file's rows."""
    from transformers import Seq2SeqTrainingArguments

    from hfft import batches, lookup
    from hfft.data import load_splits
    from hfft.recipe import ModelSection, Part
    from hfft.trainer import Trainer

    task, section = lookup.call("tasks", Part("text_classification", {})), ModelSection(name=model)
    splits = load_splits(SimpleNamespace(path=path, eval_size=0), task, seed=0)
    task.setup(section, splits.train)
    rows = batches.encoded(splits.train, task, split="eval", seed=0, cache=True)
    with tempfile.TemporaryDirectory() as folder:
        args = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_eval_batch_size=64, report_to="none", disable_tqdm=True, use_cpu=True
        )
        trainer = Trainer(task.load_model(section), args, task=task, loss=task.loss, eval=rows)
        before = peak()
        metrics = trainer.evaluate()
    return {"rows": len(rows), "before": before, "after": peak(), "loss": metrics["eval_loss"]}


def main() -> None:
    """Prints a row for each size and the growth."""
    print("| rows | peak before evaluation, MB | peak after it, MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, peaks = words.small(folder / "model"), []
        for size in (1_000, 100_000):
            command = [sys.executable, "-m", "benchmarks.memory", "--one", str(words.write(folder, size, "csv")), model]
            environment = ENV | {"HFFT_CACHE": str(folder / "cache")}
            subprocess.run(command, env=environment, capture_output=True, check=True)  # fills the cache
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.strip().splitlines()[-1])
            peaks.append(found["after"])
            print(f"| {found['rows']:,} | {found['before']:.0f} | {found['after']:.0f} |", flush=True)
    print(f"\nmemory from 1,000 to 100,000 rows: +{peaks[1] - peaks[0]:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "MODEL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
    else:
        main()

"""python -m benchmarks.memory: peak memory of evaluating 1,000 and 100,000 short rows, each in a process of its own.

A small model and rows that are tokenised already, so that what grows is what evaluation itself keeps. `--tasks` names
one or more of TASKS, `--rows` the larger number of rows.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import words

ENV = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def question(text: str) -> dict:
    """A row whose answer is a word of its text."""
    word = text.split()[1]
    answers = {"text": [word], "answer_start": [text.index(" " + word) + 1]}
    return {"question": f"which {word}", "context": text, "answers": answers}


# task -> (task of the recipe, its options, row of a text and the label that was drawn with it)
TASKS: dict[str, tuple[str, dict, Callable[[str, str], dict]]] = {
    "one class": ("text_classification", {}, lambda text, label: {"text": text, "label": label}),
    "several classes": (
        "text_classification",
        {"problem": "multi_label"},
        lambda text, label: {"text": text, "label": [label, *text.split()[:2]]},
    ),
    "a number": ("text_classification", {"problem": "regression"}, lambda text, _: {"text": text, "label": len(text)}),
    "tags": (
        "token_classification",
        {},
        lambda text, _: {
            "tokens": text.split(),
            "tags": ["B-long" if len(word) > 6 else "O" for word in text.split()],
        },
    ),
    "questions": ("question_answering", {}, lambda text, _: question(text)),
    "masks": ("masked_lm", {"packing": False}, lambda text, _: {"text": text}),
    "pairs with a score": (
        "text_embedding",
        {"form": "scored_pair"},
        lambda text, _: {"text": text, "text_pair": text[::-1], "label": len(text) / 100},
    ),
}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def one(task_name: str, path: str, model: str) -> dict[str, float]:
    """Peaks before and after the evaluation of a file's rows."""
    from transformers import Seq2SeqTrainingArguments

    from hfft import batches, lookup
    from hfft.data import load_splits
    from hfft.recipe import DataSection, ModelSection, Part
    from hfft.trainer import Trainer

    name, options, _ = TASKS[task_name]
    task, section = lookup.call("tasks", Part(name, options)), ModelSection(name=model)
    splits = load_splits(DataSection(path=path, eval_size=0), task, seed=0)
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


def growth(task_name: str, sizes: tuple[int, int]) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, peaks = words.small(folder / "model"), []
        for size in sizes:
            path = folder / f"{size}.jsonl"
            make = TASKS[task_name][2]
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(make(*each)) + "\n" for each in words.sentences(size))
            command = [sys.executable, "-m", "benchmarks.memory", "--one", task_name, str(path), model]
            environment = ENV | {"HFFT_CACHE": str(folder / "cache")}
            for _ in range(2):  # the first one fills the cache
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr[-2000:])
            peaks.append(json.loads(done.stdout.strip().splitlines()[-1]))
    grown = peaks[1]["after"] - peaks[0]["after"]
    return f"| {task_name} | {peaks[0]['after']:.0f} | {peaks[1]['after']:.0f} | {grown:+.0f} |"


def main(chosen: list[str], rows: int) -> None:
    """Prints a row for each task."""
    print(f"| task | peak with 1,000 rows, MB | with {rows:,} | growth |\n|---|---|---|---|")
    for name in chosen:
        print(growth(name, (1_000, rows)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--one", nargs=3, metavar=("TASK", "FILE", "MODEL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
    else:
        main(given.tasks, given.rows)

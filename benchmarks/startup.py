"""python -m benchmarks.startup: seconds from the command to what a person waits for; medians over --repeats.

`hfft --help`; an error in a recipe; the first training step on SST-2 (needs HFFT_SHARED), with its parts.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-c", "import sys; from hfft.cli import main; sys.exit(main())"]
ENV = os.environ | {"HF_HUB_OFFLINE": "1"}


def whole(*words: str) -> float:
    """Seconds until the command has ended."""
    start = time.perf_counter()
    subprocess.run([*COMMAND, *words], capture_output=True, env=ENV)
    return time.perf_counter() - start


def until(mark: str, *words: str) -> float:
    """Seconds until the command has written a line with `mark` in it."""
    start = time.perf_counter()
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=ENV) as running:
        lines = []
        for line in running.stderr or []:
            lines.append(line)
            if mark in line:
                seconds = time.perf_counter() - start
                running.kill()
                return seconds
    raise SystemExit("".join(lines))


def main() -> None:
    """Prints one row a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    shared = os.environ.get("HFFT_SHARED", "../shared")
    with tempfile.TemporaryDirectory() as folder:
        sst2 = [
            "train", "recipes/bert_sst2.yaml", f"model.name={shared}/models/minilm-l6-v5k",
            f"data.path={shared}/data/sst2", "data.eval=dev", "train.per_device_train_batch_size=32",
            "train.logging_steps=1", f"train.output_dir={folder}/run", "--overwrite",
        ]  # fmt: skip
        rows = {
            "hfft --help": lambda: whole("--help"),
            "an error in a recipe": lambda: whole("check", "recipes/bert_sst2.yaml", "train.learning_rat=1"),
            "first training step, SST-2": lambda: until("step 1/", *sst2),
        }
        print("| from the command to | seconds (median) | fastest | slowest | runs |\n|---|---|---|---|---|")
        for name, measured in rows.items():
            measured()  # warms the disk
            found = [measured() for _ in range(repeats)]
            middle = statistics.median(found)
            print(f"| {name} | {middle:.2f} | {min(found):.2f} | {max(found):.2f} | {repeats} |", flush=True)


if __name__ == "__main__":
    main()

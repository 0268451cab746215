"""python -m benchmarks.preparation: reading and tokenising 10,000 and 1,000,000 short rows, and finding them again.

Every measurement is a process of its own on made-up sentences: seconds of reading (all checks, a tenth held out),
tokenised rows a second on all cores, seconds until a second start has the tokens, and peak memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from benchmarks import words

ENV = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def one(path: str, model: str) -> dict[str, float]:
    """What one start takes: the pipeline's own steps up to the rows that the Trainer gets."""
    import datasets
    import sklearn.metrics
    import transformers

    from hfft import batches, lookup
    from hfft.data import load_splits
    from hfft.recipe import ModelSection, Part

    assert datasets and sklearn.metrics and transformers  # what a run imports anyway counts for neither
    task = lookup.call("tasks", Part("text_classification", {}))
    start = time.perf_counter()
    splits = load_splits(SimpleNamespace(path=path), task, seed=0)
    reading = time.perf_counter() - start
    task.setup(ModelSection(name=model), splits.train)
    start = time.perf_counter()
    rows = [batches.encoded(part, task, split=split, seed=0, cache=True) for part, split in split_names(splits)]
    tokens = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    return {"rows": sum(map(len, rows)), "reading": reading, "tokens": tokens, "peak": peak}


def split_names(splits) -> list[tuple]:
    """(rows, split) of both splits."""
    return [(splits.train, "train"), (splits.eval, "eval")]


def measured(path: Path, model: str, folder: Path) -> tuple[dict, dict]:
    """(the first start, the second): two processes, the first with an empty cache."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        command = [sys.executable, "-m", "benchmarks.preparation", "--one", str(path), model]
        done = [
            subprocess.run(command, env=ENV | {"HFFT_CACHE": cache}, capture_output=True, text=True) for _ in range(2)
        ]
    for each in done:
        if each.returncode:
            raise SystemExit(each.stderr[-2000:])
    first, second = (json.loads(each.stdout.strip().splitlines()[-1]) for each in done)
    return first, second


def main(repeats: int, kinds: list[str]) -> None:
    """Prints a row for each format and size, medians over the repeats, and how much memory grew."""
    print(
        "| format | rows | reading, s | tokenised rows/s | first start, s | tokens found again, s | peak memory, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, growth = words.model(folder / "model"), {}
        for kind in kinds:
            peaks = []
            for size in (10_000, 1_000_000):
                path = words.write(folder, size, kind)
                turns = [measured(path, model, folder) for _ in range(repeats)]
                first = {key: statistics.median(turn[0][key] for turn in turns) for key in turns[0][0]}
                again = statistics.median(turn[1]["tokens"] for turn in turns)
                peaks.append(max(turn[0]["peak"] for turn in turns))
                speed, whole = first["rows"] / first["tokens"], first["reading"] + first["tokens"]
                print(
                    f"| {kind} | {size:,} | {first['reading']:.2f} | {speed:,.0f} | {whole:.2f} | {again:.2f} "
                    f"| {peaks[-1]:.0f} |",
                    flush=True,
                )
            growth[kind] = peaks[1] - peaks[0]
    print("\nmemory from 10,000 to 1,000,000 rows: " + ", ".join(f"{k} +{grown:.0f} MB" for k, grown in growth.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "MODEL"), help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", nargs="*", default=["csv", "jsonl", "parquet"])
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
    else:
        main(given.repeats, given.formats)

"""Paired measurements: every side in a process of its own, one after the other in turns, medians and ratios printed."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

# Both sides of a pair see the same machine: offline, and where `allocator` is asked for, glibc that keeps freed memory.
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def measure(command: Sequence[str], *, allocator: bool) -> dict:
    """The last line that the command prints, as JSON."""
    env = os.environ | QUIET | (ALLOCATOR if allocator else {})
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turns(
    sides: Mapping[str, Sequence[str]], repeats: int, *, allocator: Sequence[str] = ()
) -> dict[str, list[dict]]:
    """Each side `repeats` times: a b c a b c …, so that what slows the machine for a while slows all of them."""
    found: dict[str, list[dict]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name, command in sides.items():
            found[name].append(measure(command, allocator=name in allocator))
            speed = found[name][-1]["samples_per_second"]
            print(f"  turn {turn + 1} {name}: {speed:.1f} samples/s", file=sys.stderr, flush=True)
    return found


def tell(title: str, found: dict[str, list[dict]], ours: str = "hfft") -> None:
    """A row a side: median samples per second, and the median of ours / theirs in the same turn."""
    print(f"\n{title}\n\n| side | samples/s | hfft is … times as fast | turns |\n|---|---|---|---|")
    speeds = {name: [each["samples_per_second"] for each in turns] for name, turns in found.items()}
    for name, values in speeds.items():
        ratios = [mine / theirs for mine, theirs in zip(speeds[ours], values, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if name != ours else ""
        print(f"| {name} | {statistics.median(values):.1f} | {spread} | {len(values)} |", flush=True)

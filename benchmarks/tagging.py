"""python -m benchmarks.tagging: entities in WNUT-17, hfft against three others on the same machine.

official: every row padded to 256, fp32; plain: the stock Trainer with dynamic padding, fp32; bare: a PyTorch loop with
hfft's levers. Needs HFFT_SHARED and seqeval. Steps are timed after the first five.
"""

import argparse
import os

from benchmarks.pairs import in_turns, tell


def sides(steps: int) -> dict[str, list[str]]:
    """The command of each side."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    plain = ["-m", "benchmarks.plain.tagging", "--max-steps", str(steps)]
    folder = f"{shared}/data/wnut17"
    ours = [
        f"model.name={shared}/models/minilm-l6-v5k", "data.eval=eval",
        f"data.path={{train: '{folder}/train.conll', eval: '{folder}/dev.conll'}}",
        f"train.max_steps={steps}", "train.seed=0", "train.output_dir=runs/benchmark",
        "train.load_best_model_at_end=false",
    ]  # fmt: skip
    recipe = "recipes/minilm_wnut17.yaml"
    return {
        "official": [*plain, "--pad"],
        "plain": plain,
        "bare": ["-m", "benchmarks.plain.bare_tagging", "--max-steps", str(steps)],
        "hfft": ["-m", "benchmarks.ours", recipe, *ours],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--sides", choices=list(sides(1)), nargs="*")
    args = parser.parse_args()
    chosen = {name: words for name, words in sides(args.steps).items() if name in (args.sides or [name])}
    tell("wnut17", in_turns(chosen, args.repeats, allocator=["bare"]))

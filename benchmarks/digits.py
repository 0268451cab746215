"""python -m benchmarks.digits: the three digits_vit recipes over five seeds (weights, drawn pictures, order)."""

import statistics
import sys
import tempfile

import hfft
from hfft.messages import logger

RECIPES = ("lora", "full", "scratch")


def run(name: str, seed: int, *overrides: str) -> tuple[float, float]:
    """(test accuracy, training seconds) on the digits 5 to 9, from ten pictures of each drawn by `seed`."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"train.output_dir={folder}/run", f"train.seed={seed}", f"data.load.seed={seed}", *overrides]
        recipe = hfft.Recipe.read(f"recipes/digits_vit_{name}.yaml", changes)
        metrics = hfft.finetune(recipe).metrics
        return metrics["eval"]["accuracy"], metrics["train"]["seconds"]


if __name__ == "__main__":
    logger.setLevel("ERROR")
    print("| recipe | mean test accuracy | lowest | highest | seeds | training seconds |\n|---|---|---|---|---|---|")
    for name in RECIPES:
        found, seconds = zip(*[run(name, seed, *sys.argv[1:]) for seed in range(5)], strict=True)
        mean, slow = statistics.mean(found), statistics.median(seconds)
        print(f"| digits_vit_{name} | {mean:.3f} | {min(found):.3f} | {max(found):.3f} | {len(found)} | {slow:.1f} |")

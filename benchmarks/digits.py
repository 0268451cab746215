"""python -m benchmarks.digits: the three digits_vit recipes over five seeds (weights, drawn pictures, order)."""

import statistics
import sys
import tempfile

import hfft
from hfft.messages import logger

RECIPES = ("lora", "full", "scratch")


def accuracy(name: str, seed: int, *overrides: str) -> float:
    """Test accuracy on the digits 5 to 9 after training on ten pictures of each, drawn by `seed`."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"train.output_dir={folder}/run", f"train.seed={seed}", f"data.load.seed={seed}", *overrides]
        recipe = hfft.Recipe.read(f"recipes/digits_vit_{name}.yaml", changes)
        return hfft.finetune(recipe).metrics["eval"]["accuracy"]


if __name__ == "__main__":
    logger.setLevel("ERROR")
    print("| recipe | mean test accuracy | lowest | highest | seeds |\n|---|---|---|---|---|")
    for name in RECIPES:
        found = [accuracy(name, seed, *sys.argv[1:]) for seed in range(5)]
        print(
            f"| digits_vit_{name} | {statistics.mean(found):.3f} | {min(found):.3f} | {max(found):.3f} | {len(found)} |"
        )

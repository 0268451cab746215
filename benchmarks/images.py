"""python -m benchmarks.images: CIFAR-10 enlarged to 224 pixels with MobileNetV2, hfft against three others.

official: the official script's settings (random crop to the shortest edge, batch 8, fp32); plain: the stock Trainer,
fp32, batch 32; bare: a PyTorch loop with hfft's levers. The allocator is set on all sides. Needs HFFT_SHARED.
"""

import argparse
import os

from benchmarks.pairs import in_turns, tell


def sides(steps: int) -> dict[str, list[str]]:
    """The command of each side."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    model, path = f"{shared}/models/mobilenet-v2-1.0-224", f"{shared}/data/cifar10-parquet"
    plain = ["-m", "benchmarks.plain.images", "--data", "cifar10-parquet", "--model", "mobilenet-v2-1.0-224"]
    ours = [
        f"model.name={model}", f"data.path={path}", "data.columns={image: image, label: label}", "data.eval=test",
        "data.augment=[{image: {flip: 0.5}}]", "task={image_classification: {crop: false}}", "export=[]", "tuning=[]",
        "train.per_device_train_batch_size=32", f"train.max_steps={steps}", "train.seed=0", "train.learning_rate=1e-3",
        "train.output_dir=runs/benchmark", "train.load_best_model_at_end=false",
    ]  # fmt: skip
    return {
        "official": [*plain, "--official", "--batch-size", "8", "--max-steps", str(2 * steps)],
        "plain": [*plain, "--max-steps", str(steps)],
        "bare": ["-m", "benchmarks.plain.bare", "images", "--data", path, "--model", model, "--steps", str(steps)],
        "hfft": ["-m", "benchmarks.ours", "recipes/vit_cifar.yaml", *ours],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    commands = sides(args.steps)
    tell("cifar10, MobileNetV2", in_turns(commands, args.repeats, allocator=list(commands)))

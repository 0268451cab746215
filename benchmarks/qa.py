"""python -m benchmarks.qa: extractive question answering, hfft against three others on the same machine.

official: the official script's settings (every window padded to 384, fp32); plain: the stock Trainer with dynamic
padding, fp32; bare: a PyTorch loop with hfft's levers. Needs HFFT_SHARED. Steps are timed after the first five, in
windows a second. The same in quality: `python -m benchmarks.plain.qa` and `hfft train` for all epochs.
"""

import argparse
import os

from benchmarks.pairs import in_turns, tell


def sides(steps: int, batch_size: int) -> dict[str, list[str]]:
    """The command of each side."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    data, model = "squad-newwiki", "minilm-l6-v5k"
    common = ["--data", data, "--model", model, "--max-steps", str(steps), "--batch-size", str(batch_size)]
    plain = ["-m", "benchmarks.plain.qa", *common]
    ours = [
        f"model.name={shared}/models/{model}",
        f"data.path={{train: '{shared}/data/{data}/train.json', validation: '{shared}/data/{data}/dev.json'}}",
        f"train.per_device_train_batch_size={batch_size}", f"train.max_steps={steps}", "train.seed=0",
        "train.output_dir=runs/benchmark", "train.load_best_model_at_end=false",
    ]  # fmt: skip
    return {
        "official": [*plain, "--pad"],
        "plain": plain,
        "bare": ["-m", "benchmarks.plain.bare_qa", *common],
        "hfft": ["-m", "benchmarks.ours", "recipes/bert_squad.yaml", *ours],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sides", choices=["official", "plain", "bare", "hfft"], nargs="*")
    args = parser.parse_args()
    chosen = {
        name: words for name, words in sides(args.steps, args.batch_size).items() if name in (args.sides or [name])
    }
    tell("squad-newwiki", in_turns(chosen, args.repeats, allocator=["bare"]))

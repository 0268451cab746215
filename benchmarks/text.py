"""python -m benchmarks.text: short (SST-2) and longer texts (AG News), hfft against three others on the same machine.

official: the official script's settings (every row padded to 128, or 256, fp32); plain: the stock Trainer with dynamic
padding, fp32; bare: a PyTorch loop with hfft's levers, and the same rows in each step. Needs HFFT_SHARED. Steps are
timed after the first five.
"""

import argparse
import os

from benchmarks.pairs import in_turns, tell

SETS = {
    "sst2": ("sentence", 128, "recipes/bert_sst2.yaml"),
    "ag_news": ("title,description", 256, "recipes/bert_sst2.yaml"),
}


def sides(data: str, steps: int) -> dict[str, list[str]]:
    """The command of each side."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    columns, longest, recipe = SETS[data]
    model, path = f"{shared}/models/minilm-l6-v5k", f"{shared}/data/{data}"
    common = ["--text-columns", columns, "--max-length", str(longest)]
    plain = [
        "-m",
        "benchmarks.plain.text",
        "--data",
        data,
        "--model",
        "minilm-l6-v5k",
        *common,
        "--max-steps",
        str(steps),
    ]
    ours = [
        f"model.name={path.replace(f'data/{data}', 'models/minilm-l6-v5k')}", f"data.path={path}", "data.eval=test",
        f"data.columns={{text: [{columns}], label: label}}", f"task={{text_classification: {{max_length: {longest}}}}}",
        "train.per_device_train_batch_size=32", f"train.max_steps={steps}", "train.seed=0",
        "train.output_dir=runs/benchmark", "train.load_best_model_at_end=false",
    ]  # fmt: skip
    return {
        "official": [*plain, "--pad"],
        "plain": plain,
        "bare": [
            "-m",
            "benchmarks.plain.bare",
            "text",
            "--data",
            path,
            "--model",
            model,
            *common,
            "--steps",
            str(steps),
        ],
        "hfft": ["-m", "benchmarks.ours", recipe, *ours],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SETS, nargs="*", default=list(SETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--sides", choices=["official", "plain", "bare", "hfft"], nargs="*")
    args = parser.parse_args()
    for data in args.data:
        chosen = {name: words for name, words in sides(data, args.steps).items() if name in (args.sides or [name])}
        tell(data, in_turns(chosen, args.repeats, allocator=["bare"]))

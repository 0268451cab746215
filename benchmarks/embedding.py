"""python -m benchmarks.embedding: pairs (caption-pairs) and scored pairs (STS-B), hfft against sentence-transformers.

fp32: sentence-transformers' trainer as it comes; bf16: with bf16 arithmetic and glibc that keeps freed memory, as hfft
has them; bare: a PyTorch loop with hfft's levers. Needs HFFT_SHARED and the extra `embed`. Steps are timed after the
first five.
"""

import argparse
import os

from benchmarks.pairs import in_turns, tell

RECIPE = "recipes/minilm_stsb_embedding.yaml"
SETS = {
    "stsb": ("scored_pair", "{text: sentence1, text_pair: sentence2, label: score}", "csv", "dev"),
    "caption-pairs": ("pair", "{text: anchor, positive: positive}", "parquet", "val"),
}


def sides(data: str, steps: int) -> dict[str, list[str]]:
    """The command of each side."""
    shared = os.environ.get("HFFT_SHARED", "../shared")
    form, columns, ending, held_out = SETS[data]
    theirs = ["-m", "benchmarks.plain.embedding", "--data", data, "--max-steps", str(steps)]
    place = f"{shared}/data/{data}"
    ours = [
        f"model.name={shared}/models/minilm-l6-v5k", "data.eval=eval",
        f"data.path={{train: {place}/train.{ending}, eval: {place}/{held_out}.{ending}}}", f"data.columns={columns}",
        f"task={{text_embedding: {{form: {form}, max_length: 128}}}}", f"train.max_steps={steps}", "train.seed=0",
        "train.output_dir=runs/benchmark", "train.load_best_model_at_end=false",
    ]  # fmt: skip
    bare = ["-m", "benchmarks.plain.bare_embedding", "--data", data, "--max-steps", str(steps)]
    return {"fp32": theirs, "bf16": [*theirs, "--bf16"], "bare": bare, "hfft": ["-m", "benchmarks.ours", RECIPE, *ours]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SETS, nargs="*", default=list(SETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    for data in args.data:
        tell(data, in_turns(sides(data, args.steps), args.repeats, allocator=["bf16", "bare"]))

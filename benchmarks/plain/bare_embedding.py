"""A bare PyTorch loop for embeddings with hfft's levers and nothing else, as benchmarks.plain.bare for texts.

Both texts of all pairs in parts of like length, mean pooling, unit length; in-batch negatives, or CoSENT for scores.

Example:
    python -m benchmarks.plain.bare_embedding --data caption-pairs --model minilm-l6-v5k --max-steps 60
"""

from pathlib import Path

import torch
from datasets import load_dataset
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer

from benchmarks.plain.bare import PART, loop, padded
from benchmarks.plain.embedding import FILES, parse_args
from hfft.batches import parts, shuffled

SCALE = 20.0


def cosent(first, second, scores):
    """log(1 + sum over pairs i < j in score of exp(scale (cos_i - cos_j))), the published loss."""
    cosines = (first * second).sum(1) * SCALE
    differences = cosines[:, None] - cosines[None, :]
    wrong = differences[scores[:, None] < scores[None, :]]
    return torch.cat([torch.zeros(1), wrong]).logsumexp(0)


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    kind, files, _ = FILES[args.data]
    place = Path(args.shared) / "data" / args.data / files["train"]
    rows = load_dataset(kind, data_files=str(place), split="train")
    scored = "score" in rows.column_names
    names = ("sentence1", "sentence2") if scored else ("anchor", "positive")
    path = Path(args.shared) / "models" / args.model
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, dtype=torch.float32)
    texts = [text for name in names for text in rows[name]]
    inputs = dict(tokenizer(texts, truncation=True, max_length=args.max_length))
    scores = torch.tensor(rows["score"]) if scored else None
    order = shuffled(len(rows), args.seed)(0).tolist()

    def embedded(places):
        found = torch.zeros(len(places), model.config.hidden_size)
        for part in parts([len(inputs["input_ids"][place]) for place in places], PART):
            given = padded(inputs, [places[i] for i in part])
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model(**given).last_hidden_state.float()
            mask = given["attention_mask"][..., None].float()
            found = found.index_copy(0, torch.tensor(part), (hidden * mask).sum(1) / mask.sum(1))
        return normalize(found)

    def backward(chosen):
        both = embedded([*chosen, *(len(rows) + row for row in chosen)])
        first, second = both[: len(chosen)], both[len(chosen) :]
        if scores is not None:
            cosent(first, second, scores[chosen]).backward()
        else:
            cross_entropy(first @ second.T * SCALE, torch.arange(len(chosen))).backward()

    starts = range(0, len(order), args.batch_size)
    loop(model, (order[i : i + args.batch_size] for i in starts), backward,
         steps=args.max_steps, batch_size=args.batch_size, learning_rate=args.learning_rate)  # fmt: skip


if __name__ == "__main__":
    main()

"""A bare PyTorch loop for question answering with hfft's levers and nothing else, as benchmarks.plain.bare for texts.

Windows tokenised once, each batch in parts of like length, bf16 autocast, quick dropout, fused AdamW, linear schedule,
clipping at 1.0, and the allocator that its environment sets (benchmarks.pairs).

Example:
    python -m benchmarks.plain.bare_qa --data squad-newwiki --model minilm-l6-v5k --max-steps 30
"""

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from benchmarks.plain.bare import PART, loop, padded
from benchmarks.plain.qa import parse_args, questions, train_features
from hfft.batches import parts, shuffled


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    path = Path(args.shared) / "models" / args.model
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForQuestionAnswering.from_pretrained(path)
    rows = questions(Path(args.shared) / "data" / args.data / "train.json")
    windows = rows.map(train_features(tokenizer, args), batched=True, remove_columns=rows.column_names)
    columns = {name: windows[name] for name in windows.column_names}
    inputs = {name: columns[name] for name in tokenizer.model_input_names}
    order = shuffled(len(windows), args.seed)(0).tolist()

    def backward(rows):
        for part in parts([len(columns["input_ids"][row]) for row in rows], PART):
            chosen = [rows[i] for i in part]
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(**padded(inputs, chosen))
            losses = []
            for side in ("start", "end"):
                labels = torch.tensor([columns[f"{side}_positions"][row] for row in chosen])
                losses.append(cross_entropy(outputs[f"{side}_logits"].float(), labels, reduction="sum"))
            (sum(losses) / 2 / args.batch_size).backward()

    starts = range(0, len(order), args.batch_size)
    loop(model, (order[i : i + args.batch_size] for i in starts), backward,
         steps=args.max_steps, batch_size=args.batch_size, learning_rate=args.learning_rate)  # fmt: skip


if __name__ == "__main__":
    main()

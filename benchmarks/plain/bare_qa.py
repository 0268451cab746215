"""A bare PyTorch loop for question answering with hfft's levers and nothing else, as benchmarks.plain.bare for texts.

Windows tokenised once, each batch in parts of like length, bf16 autocast, quick dropout, fused AdamW, linear schedule,
clipping at 1.0, and the allocator that its environment sets (benchmarks.pairs).

Example:
    python -m benchmarks.plain.bare_qa --data squad-newwiki --model minilm-l6-v5k --max-steps 30
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, get_linear_schedule_with_warmup

from benchmarks.plain.bare import PART
from benchmarks.plain.clock import WARM_UP
from benchmarks.plain.qa import parse_args, questions, train_features
from hfft.batches import parts
from hfft.dropout import quicken
from hfft.levers import casts_kept


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    path = Path(args.shared) / "models" / args.model
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForQuestionAnswering.from_pretrained(path)
    rows = questions(Path(args.shared) / "data" / args.data / "train.json")
    windows = rows.map(train_features(tokenizer, args), batched=True, remove_columns=rows.column_names)
    columns = {name: windows[name] for name in windows.column_names}
    order = np.random.default_rng(args.seed).permutation(len(windows)).tolist()

    def padded(places):
        width = max(len(columns["input_ids"][place]) for place in places)
        inputs = {}
        for name in tokenizer.model_input_names:
            values = np.zeros((len(places), width), np.int64)
            for i, place in enumerate(places):
                values[i, : len(columns[name][place])] = columns[name][place]
            inputs[name] = torch.from_numpy(values)
        return inputs, [torch.tensor([columns[f"{side}_positions"][p] for p in places]) for side in ("start", "end")]

    model.train()
    quicken(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, args.max_steps // 10, args.max_steps)
    start = 0.0
    for step in range(args.max_steps):
        chosen = order[step * args.batch_size : (step + 1) * args.batch_size]
        with casts_kept():
            for part in parts([len(columns["input_ids"][place]) for place in chosen], PART):
                inputs, labels = padded([chosen[i] for i in part])
                with torch.autocast("cpu", torch.bfloat16):
                    outputs = model(**inputs)
                logits = outputs.start_logits, outputs.end_logits
                losses = [cross_entropy(x.float(), y, reduction="sum") for x, y in zip(logits, labels, strict=True)]
                (sum(losses) / 2 / args.batch_size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step + 1 == WARM_UP:
            start = time.perf_counter()
    count = (args.max_steps - WARM_UP) * args.batch_size
    print(json.dumps({"samples_per_second": count / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()

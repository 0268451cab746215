"""What the plain scripts share: the arguments of the stock Trainer, shared folders by name, the printed result."""

import json
from pathlib import Path

from transformers import TrainingArguments


def find(name, folder) -> str:
    """NAME itself when it is a folder, else the one of that name in the shared FOLDER."""
    return name if Path(name).is_dir() else str(Path(folder) / name)


def arguments(args, folder: str, **more) -> TrainingArguments:
    """fp32 AdamW (weight decay 0.01), linear schedule with 10 % warm-up, clipping at 1.0, nothing saved."""
    return TrainingArguments(
        output_dir=folder, num_train_epochs=args.epochs, max_steps=args.max_steps, learning_rate=args.learning_rate,
        per_device_train_batch_size=args.batch_size, per_device_eval_batch_size=64, seed=args.seed,
        optim="adamw_torch", weight_decay=0.01, lr_scheduler_type="linear", warmup_steps=0.1, max_grad_norm=1.0,
        save_strategy="no", eval_strategy="no", logging_steps=50, report_to="none", disable_tqdm=True, **more,
    )  # fmt: skip


def tell(result: dict, file: str | None) -> None:
    """One JSON line, printed and, where a file is named, written."""
    print(json.dumps(result))
    if file:
        Path(file).write_text(json.dumps(result) + "\n", encoding="utf-8")

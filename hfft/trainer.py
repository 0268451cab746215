"""The one Trainer: transformers' own loop with the loss from outside, exact under accumulation and processes.

What it changes, and why: the loss is a sum over the items of the whole window (the models' own losses are off by the
number of accumulation steps or processes); batches come from `hfft.batches`; evaluation counts each row once, keeps an
argmax instead of the logits and leaves the random state alone; a non-finite step ends the run before it can touch the
weights; no pickled training arguments are written.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, PrinterCallback, Seq2SeqTrainer, TrainerCallback, TrainerControl
from transformers.trainer_utils import EvalLoopOutput

from hfft import models
from hfft.batches import EncodedRows, EpochLoader, GlobalBatches, bucketed, rng_state, set_rng_state, shuffled
from hfft.messages import MachineError, announce

SPEED = ("_runtime", "_per_second", "_flos", "_preparation_time")
OURS = ("rows", "filler")  # what a batch carries beside the task's inputs
Loss = Callable[..., tuple[torch.Tensor, Any]]


class Progress(TrainerCallback):
    """One line on stderr for every log, in place of the dicts that transformers prints on stdout."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """step 50/300: loss 0.4, ..."""
        shown = ", ".join(
            f"{k} {v:.4g}" for k, v in (logs or {}).items() if isinstance(v, float) and not k.endswith(SPEED)
        )
        announce(f"step {state.global_step}/{state.max_steps}: {shown}")


class Allocation(TrainerCallback):
    """Tells adapters that move their ranks during training (AdaLoRA, AdaMSS) which step it is."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """After the gradient, before the step, as peft asks."""
        update = getattr(getattr(model, "base_model", None), "update_and_allocate", None)
        if update is not None:
            update(state.global_step)


class Trainer(Seq2SeqTrainer):
    """`task` gives collate, items, keep and metrics; `loss(model, inputs, items)` gives (scalar, outputs)."""

    loss_is_scaled_for_ga = True

    def __init__(self, model, args, *, task, loss: Loss, train=None, eval=None, early_stopping: dict | None = None):
        super().__init__(
            model=model,
            args=args,
            data_collator=task.collate,
            train_dataset=train,
            eval_dataset=eval,
            processing_class=task.processor,
            callbacks=[EarlyStoppingCallback(**early_stopping)] if early_stopping else None,
        )
        self.task, self.loss = task, loss
        self.columns: dict[str, Any] = {}  # what the last evaluation kept of every row, in row order
        self.details: dict[str, Any] = {}  # its metrics that are no plain number, such as `per_class`
        self.remove_callback(PrinterCallback)
        self.add_callback(Progress)
        self.add_callback(Allocation)

    # ---- the loss -------------------------------------------------------------------------------------------------
    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """The micro-batches of one window, and the items of all of them in all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        items = torch.tensor([float(sum(self._items(batch) for batch in batches))], device=device)
        return batches, self.accelerator.gather(items).sum()

    def _items(self, batch: dict[str, Any]) -> float:
        return 0 if batch.get("filler") else self.task.items(batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The window's share of this micro-batch; times the processes, because gradients are averaged over them."""
        filler = inputs.get("filler", False)
        inputs = {name: value for name, value in inputs.items() if name not in OURS}
        loss, outputs = self.loss(model, inputs, num_items_in_batch)
        if model.training:
            loss = loss * (0.0 if filler else self.accelerator.num_processes)
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        finite = torch.isfinite(self._tr_loss).item() and bool(np.isfinite(float(norm)))
        if not finite and getattr(self.accelerator, "scaler", None) is None:
            raise MachineError(
                f"step {self.state.global_step + 1}: the loss or its gradient is not finite "
                f"(gradient norm {float(norm):g}); the weights are as before this step; "
                "write a smaller train.learning_rate, or look at the rows of this step"
            )
        return norm

    # ---- batches --------------------------------------------------------------------------------------------------
    def get_train_dataloader(self) -> EpochLoader:
        """This process's share of each global batch."""
        rows, args = self.train_dataset, self.args
        batches = GlobalBatches(
            num_rows=len(rows),
            batch_size=self._train_batch_size,
            order=self._train_order(rows, args.data_seed if args.data_seed is not None else args.seed),
            process=args.process_index,
            num_processes=args.world_size,
            drop_last=args.dataloader_drop_last,
        )
        return self._loader(rows, batches)

    def _train_order(self, rows: EncodedRows, seed: int) -> Callable[[int], list[int]]:
        lengths, args = rows.lengths(), self.args
        if args.train_sampling_strategy == "sequential":
            return lambda epoch: list(range(len(rows)))
        if lengths is None or args.train_sampling_strategy != "group_by_length":
            return shuffled(len(rows), seed)
        return bucketed(lengths, seed, self._train_batch_size * args.world_size * args.gradient_accumulation_steps)

    def get_eval_dataloader(self, eval_dataset=None) -> EpochLoader:
        """This process's share of the rows, longest first where lengths are known, each row once."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        batches = GlobalBatches(
            num_rows=len(rows),
            batch_size=self.args.eval_batch_size,
            order=lambda _: _longest_first(rows),
            process=self.args.process_index,
            num_processes=self.args.world_size,
        )
        return self._loader(rows, batches)

    def _loader(self, rows: EncodedRows, batches: GlobalBatches) -> EpochLoader:
        args = self.args
        workers = {"persistent_workers": args.dataloader_persistent_workers, "prefetch_factor": None}
        if args.dataloader_num_workers:
            workers["prefetch_factor"] = args.dataloader_prefetch_factor
        return EpochLoader(
            rows,
            batches,
            collate_fn=self._collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            **workers,
        )

    def _collate(self, rows: list[dict]) -> dict[str, Any]:
        fillers, places = [row.pop("filler") for row in rows], [row.pop("row") for row in rows]
        return {**self.task.collate(rows), "rows": places, "filler": fillers[0]}

    # ---- evaluation -----------------------------------------------------------------------------------------------
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Metrics of a split; the random state is the same after it as before."""
        state = rng_state()
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        set_rng_state(state)
        return metrics

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """Every row once over all processes; memory grows by what `task.keep` keeps."""
        model = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        kept: list[tuple] = []  # one (row, loss, items, {name: value}) a batch
        with torch.inference_mode():
            for batch in dataloader:
                kept.append(self._kept(model, batch))
                self.control: TrainerControl = self.callback_handler.on_prediction_step(
                    self.args, self.state, self.control
                )
        total, items, self.columns = _joined(gather_object(kept), len(dataloader.dataset))
        metrics = self.task.metrics(self.columns)
        self.details = {name: metrics.pop(name) for name in list(metrics) if isinstance(metrics[name], dict)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in {"loss": total / items, **metrics}.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))

    def _kept(self, model, batch: dict[str, Any]) -> tuple:
        if batch["filler"]:
            return [], 0.0, 0, {}
        inputs = self._prepare_inputs({name: value for name, value in batch.items() if name not in OURS})
        loss, outputs = self.task.loss(model, inputs, 1)
        kept = {name: _numpy(value) for name, value in self.task.keep(outputs, inputs).items()}
        return batch["rows"], loss.item(), self.task.items(batch), kept

    # ---- loading and saving ------------------------------------------------------------------------------------------
    def _load_best_model(self) -> None:
        """The best checkpoint's weights. transformers' own way drops weights whose saved names differ (ViT's do)."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            models.load_weights(self.model, self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """The weights to go on from, by the same way."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            models.load_weights(self.model, resume_from_checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights, config and processor as plain code loads them; no pickled training_args.bin."""
        net = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        folder = output_dir or self.args.output_dir
        models.save(
            net, self.task.processor, folder, state_dict=state_dict, is_main_process=bool(self.args.should_save)
        )


def _numpy(value):
    return (
        value.float().cpu().numpy()
        if torch.is_tensor(value) and value.is_floating_point()
        else (value.cpu().numpy() if torch.is_tensor(value) else value)
    )


def _longest_first(rows: EncodedRows) -> list[int]:
    lengths = rows.lengths()
    if lengths is None:
        return list(range(len(rows)))
    return sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)


def _joined(kept: list[tuple], num_rows: int) -> tuple[float, float, dict[str, Any]]:
    """(sum of losses, items, columns in row order) of every batch of every process."""
    places = [place for rows, _, _, _ in kept for place in rows]
    assert sorted(places) == list(range(num_rows)), "evaluation must see each row exactly once"
    back = np.argsort(places)
    columns: dict[str, Any] = {}
    for name in next(columns for rows, _, _, columns in kept if rows):
        values = [value for rows, _, _, columns in kept if rows for value in columns[name]]
        columns[name] = np.asarray(values)[back] if np.ndim(values[0]) == 0 else [values[i] for i in back]
    return sum(batch[1] for batch in kept), sum(batch[2] for batch in kept), columns

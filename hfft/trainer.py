"""The one Trainer: transformers' own loop with the loss from outside, exact under accumulation and processes.

What it changes, and why: the loss is a sum over the items of the whole window (the models' own losses are off by the
number of accumulation steps or processes); batches come from `hfft.batches`; evaluation counts each row once, keeps an
argmax instead of the logits and leaves the random state alone; a non-finite step ends the run before it can touch the
weights; no pickled training arguments are written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, PrinterCallback, Seq2SeqTrainer, TrainerControl
from transformers.trainer_utils import EvalLoopOutput

from hfft import faults, guard, kept, levers, models, saving, states, together, workers
from hfft.batches import (
    EncodedRows,
    EpochLoader,
    GlobalBatches,
    longest_first,
    parts,
    train_order,
    undisturbed,
    unparted,
)  # fmt: skip
from hfft.callbacks import Allocation, Progress
from hfft.messages import MachineError, Stopped

OURS = ("rows", "filler")  # what a batch carries beside the task's inputs
Loss = Callable[..., tuple[torch.Tensor, Any]]


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
        saving.refuse_no_steps(args, train)
        self.task, self.loss = task, loss
        self.drawn_from: Any = None  # the iterator over training batches, with its worker processes
        self.columns: dict[str, Any] = {}  # what the last evaluation kept of every row, in row order
        self.details: dict[str, Any] = {}  # its metrics that are no plain number, such as `per_class`
        self.seconds_before = 0.0  # of work that spares training some, such as the features of a frozen trunk
        self.guard: guard.Guard | None = None
        self.resumed_from: str | None = None
        self.part_cost: float | None = None  # of one more part of a micro-batch, in tokens; None: it is not parted
        self.contract: dict[str, Any] = {}  # what its checkpoints must have in common with the run that resumes
        self.changed: set[str] = set()  # keys of it that were allowed to change
        self.integrity: dict[str, Any] = {"resumed_from": [], "non_finite_steps": 0}
        self.remove_callback(PrinterCallback)
        self.add_callback(Progress)
        self.add_callback(Allocation)
        self.add_callback(saving.Due(self))

    def train(self, *args, **kwargs):
        """As always, without what costs every step and gives nothing."""
        try:
            with levers.lean(self):
                return super().train(*args, **kwargs)
        finally:
            if hasattr(self.drawn_from, "_shutdown_workers"):  # else they wait for batches that are never asked for
                self.drawn_from._shutdown_workers()

    # ---- the loss -------------------------------------------------------------------------------------------------
    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """The micro-batches of one window, and the items of all of them in all processes."""
        self.drawn_from = epoch_iterator
        batches = [batch for _, batch in zip(range(num_batches), workers.watched(epoch_iterator), strict=False)]
        every = [part for batch in batches for part in unparted(batch)]
        for part in every:
            if "told" in part:
                self.train_dataset.hear(part.pop("told"))
        items = torch.tensor([float(sum(self._items(part) for part in every))], device=device)
        return batches, self.accelerator.gather(items).sum()

    def _items(self, batch: dict[str, Any]) -> float:
        return 0 if batch.get("filler") else self.task.items(batch)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """A micro-batch; one that comes in parts of like length a part at a time, their gradients added up."""
        *first, last = unparted(inputs)
        losses = []
        with levers.casts_kept():
            for part in first:
                with self.accelerator.no_sync(model):
                    losses.append(super().training_step(model, part, num_items_in_batch))
            return sum(losses, super().training_step(model, last, num_items_in_batch))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The window's share of this micro-batch; times the processes, because gradients are averaged over them."""
        filler = inputs.get("filler", False)
        left = OURS if not self.task.whole_batch else ("rows",)  # what compares rows has to know which is none
        inputs = {name: value for name, value in inputs.items() if name not in left}
        loss, outputs = self.loss(model, inputs, num_items_in_batch)
        if model.training:
            loss = loss * (0.0 if filler else self.accelerator.num_processes)
            loss = loss * float("nan") if faults.point("step") else loss
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model):
        """Where nothing is in shares or scaled in one pass: transformers and accelerate look at every weight thrice."""
        if self._sharded() or self.accelerator.scaler is not None:
            return super()._clip_grad_norm(model)
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        return torch.nn.utils.clip_grad_norm_(trained, self.args.max_grad_norm)

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        finite = torch.isfinite(self._tr_loss).item() and bool(np.isfinite(float(norm)))
        if not finite and not saving.skipped(self):
            raise MachineError(
                f"step {self.state.global_step + 1}: the loss or its gradient is not finite "
                f"(gradient norm {float(norm):g}); the weights are as before this step; "
                "write a smaller train.learning_rate, or look at the rows of this step"
            )
        return norm

    def inputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A loader's batch as the task's loss takes it."""
        return self._prepare_inputs({name: value for name, value in batch.items() if name not in OURS})

    def _prepare_inputs(self, inputs):
        """On the device and as the model takes them; with DeepSpeed once more at the end, for its dtype."""
        prepared = self.task.prepare(super()._prepare_inputs(inputs))
        return super()._prepare_inputs(prepared) if self.is_deepspeed_enabled else prepared

    def floating_point_ops(self, inputs) -> int:
        """Not counted: transformers would go through all parameters in every step for a figure nobody reads."""
        return 0

    # ---- batches --------------------------------------------------------------------------------------------------
    def get_train_dataloader(self) -> EpochLoader:
        """This process's share of each global batch."""
        rows, args = self.train_dataset, self.args
        order = train_order(rows, args, self._train_batch_size)
        batches = GlobalBatches(
            num_rows=len(rows),
            batch_size=self._train_batch_size,
            order=order,
            process=args.process_index,
            num_processes=args.world_size,
            accumulation=args.gradient_accumulation_steps,
            drop_last=args.dataloader_drop_last,
        )
        return self._loader(rows, batches, self._parted if self.part_cost is not None else self._collate)

    def get_eval_dataloader(self, eval_dataset=None) -> EpochLoader:
        """This process's share of the rows, longest first where lengths are known, each row once."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        batches = GlobalBatches(
            num_rows=len(rows),
            batch_size=self.args.eval_batch_size,
            order=lambda _: longest_first(rows),
            process=self.args.process_index,
            num_processes=self.args.world_size,
        )
        return self._loader(rows, batches, self._collate)

    def _loader(self, rows: EncodedRows, batches: GlobalBatches, collate) -> EpochLoader:
        args, whole = self.args, getattr(rows, "collate", None)  # stored features: whole batches, from memory
        loading = {
            "num_workers": args.dataloader_num_workers,
            "persistent_workers": args.dataloader_persistent_workers,
            "prefetch_factor": args.dataloader_prefetch_factor if args.dataloader_num_workers else None,
            "worker_init_fn": guard.ignore_signals,
        }
        return EpochLoader(
            rows,
            batches,
            collate_fn=whole or collate,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            **({} if whole else loading),
        )

    def _parted(self, rows: list[dict]) -> list[dict[str, Any]]:
        """A micro-batch in parts of like length: its gradient with less padding."""
        told = {"told": rows[0].pop("told")} if "told" in rows[0] else {}
        if told and not rows[0]:
            return [told]
        chosen = parts([len(row["input_ids"]) for row in rows], self.part_cost or 0.0)
        first, *rest = [self._collate([rows[i] for i in part]) for part in chosen]
        return [{**first, **told}, *rest]

    def _collate(self, rows: list[dict]) -> dict[str, Any]:
        told = {"told": rows[0].pop("told")} if "told" in rows[0] else {}  # by a stream
        if told and not rows[0]:
            return told  # of a mistake, in place of rows
        fillers, places = [row.pop("filler") for row in rows], [row.pop("row") for row in rows]
        return {**self.task.collate(rows), "rows": places, "filler": fillers[0], **told}

    # ---- evaluation -----------------------------------------------------------------------------------------------
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Metrics of a split; the random state is the same after it as before. What training tunes, it tunes anew."""
        if self.train_dataset is not None and getattr(self.task, "tuned", None):
            self.task.tuned = {}
        with undisturbed():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """Every row once over all processes; memory grows by what `task.keep` keeps."""
        model = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        found: list[tuple] = []  # one (row, loss, items, {name: value}) a batch
        # Shares are gathered into buffers that training uses too, which must not be inference tensors.
        with torch.no_grad() if self._sharded() else torch.inference_mode():
            for batch in workers.watched(iter(dataloader)):
                found.append(self._kept(model, batch))
                faults.point("eval")
                self.control: TrainerControl = self.callback_handler.on_prediction_step(
                    self.args, self.state, self.control
                )
        total, items, self.columns = kept.joined(gather_object(found), len(dataloader.dataset))
        metrics = self.task.metrics(self.columns)
        self.details = {name: metrics.pop(name) for name in list(metrics) if isinstance(metrics[name], dict)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in {"loss": total / items, **metrics}.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))

    def _kept(self, model, batch: dict[str, Any]) -> tuple:
        nothing: tuple = ([], 0.0, 0, {})
        if batch["filler"] and not self._sharded():
            return nothing
        inputs = self.inputs_of(batch)
        loss, outputs = self.task.loss(model, inputs, 1)
        if batch["filler"]:  # the other processes needed this one's share of the weights
            return nothing
        columns = {name: kept.numpy(value) for name, value in self.task.keep(outputs, inputs).items()}
        return np.array(batch["rows"]), loss.item(), self.task.items(batch), columns

    # ---- saving and going on ---------------------------------------------------------------------------------------
    def _maybe_log_save_evaluate(self, *args, **kwargs):
        """As always; an evaluation that a signal ends is left to the run that resumes."""
        due = self.control.should_save
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except Stopped:
            self.state.stateful_callbacks[saving.DUE] = {"save": due}
            self._save_checkpoint(self.model_wrapped, None)
            self.control.should_evaluate, self.control.should_training_stop = False, True
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _save_checkpoint(self, model, trial) -> None:
        saving.save(self)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._sharded():
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            saving.save_optimizer(self, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._sharded():
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint is not None:
            saving.load_optimizer(self, Path(checkpoint))

    def _save_scaler(self, output_dir: str) -> None:
        if self.args.should_save and self.accelerator.scaler is not None:
            states.write(Path(output_dir) / saving.SCALER, self.accelerator.scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(states.read(Path(checkpoint) / saving.SCALER))

    def _save_rng_state(self, output_dir: str) -> None:
        saving.save_random(self, Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            saving.load_random(self, Path(checkpoint))

    def _prepare_for_training(self, *args):
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = models.blocks(self.net())
        return super()._prepare_for_training(*args)

    def _init_training_state(self, *args):
        found = super()._init_training_state(*args)
        saving.restore(self)
        return found

    def _run_epoch(self, *args, **kwargs) -> None:
        if saving.nothing_left(self):
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args):
        if self.guard is not None:
            self.guard.check(self)  # before the best weights take the place of the last
        saving.refuse_non_finite(self)
        self.args.save_total_limit = None  # else the last checkpoint would be gone before the model is written
        return super()._finalize_training(*args)

    def _load_best_model(self) -> None:
        """The best checkpoint's weights. transformers' own way drops weights whose saved names differ (ViT's do)."""
        saving.best_is_whole(self)
        if self._sharded():
            super()._load_best_model()
        else:
            best = together.readable(self.state.best_model_checkpoint, without=[saving.OPTIMIZER])
            saving.load_weights(self, best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """The weights to go on from, by the same way."""
        self.resumed_from, self.integrity = resume_from_checkpoint, saving.integrity_of(resume_from_checkpoint)
        if self._sharded():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saving.load_weights(self, resume_from_checkpoint)

    def net(self):
        """The model itself, out of whatever accelerate has put around it."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def _sharded(self) -> bool:
        """Whether each process holds a share of the model (FSDP, DeepSpeed)."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def gathered(self) -> dict[str, Any] | None:
        """All weights, where each process holds a share of them; every process must call it."""
        return self.accelerator.get_state_dict(self.model_wrapped) if self._sharded() else None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights, config and processor as plain code loads them; no pickled training_args.bin."""
        if self.args.should_save:
            folder = output_dir or self.args.output_dir
            models.save(self.net(), self.task.processor, folder, state_dict=state_dict)

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

from hfft import guard, models, saving, together
from hfft.batches import EncodedRows, EpochLoader, GlobalBatches, bucketed, rng_state, set_rng_state, shuffled
from hfft.messages import MachineError, Stopped, announce

SPEED = ("_runtime", "_per_second", "_flos", "_preparation_time")
OURS = ("rows", "filler")  # what a batch carries beside the task's inputs
Loss = Callable[..., tuple[torch.Tensor, Any]]


class Progress(TrainerCallback):
    """One line on stderr for every log, in place of the dicts that transformers prints on stdout."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """step 50/300: loss 0.4, ..."""
        rows = getattr(kwargs.get("train_dataloader"), "dataset", None)
        hidden = ("epoch",) if hasattr(rows, "arrange") else ()  # of a stream it would be the share of max_steps
        shown = ", ".join(
            f"{k} {v:.4g}"
            for k, v in (logs or {}).items()
            if isinstance(v, float) and not k.endswith(SPEED) and k not in hidden
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
        self.drawn_from: Any = None  # the iterator over training batches, with its worker processes
        self.columns: dict[str, Any] = {}  # what the last evaluation kept of every row, in row order
        self.details: dict[str, Any] = {}  # its metrics that are no plain number, such as `per_class`
        self.seconds_before = 0.0  # of work that spares training some, such as the features of a frozen trunk
        self.guard: guard.Guard | None = None
        self.resumed_from: str | None = None
        self.remove_callback(PrinterCallback)
        self.add_callback(Progress)
        self.add_callback(Allocation)
        self.add_callback(saving.Due(self))

    # ---- the loss -------------------------------------------------------------------------------------------------
    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """The micro-batches of one window, and the items of all of them in all processes."""
        self.drawn_from = epoch_iterator
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        for batch in batches:
            if "told" in batch:
                self.train_dataset.hear(batch.pop("told"))
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

    def inputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A loader's batch as the task's loss takes it."""
        return self._prepare_inputs({name: value for name, value in batch.items() if name not in OURS})

    def _prepare_inputs(self, inputs):
        """On the device and as the model takes them; once more at the end, for DeepSpeed's dtype."""
        return super()._prepare_inputs(self.task.prepare(super()._prepare_inputs(inputs)))

    def floating_point_ops(self, inputs) -> int:
        """Not counted: transformers would go through all parameters in every step for a figure nobody reads."""
        return 0

    # ---- batches --------------------------------------------------------------------------------------------------
    def get_train_dataloader(self) -> EpochLoader:
        """This process's share of each global batch."""
        rows, args = self.train_dataset, self.args
        order = self._train_order(rows, args.data_seed if args.data_seed is not None else args.seed)
        batches = GlobalBatches(
            num_rows=len(rows),
            batch_size=self._train_batch_size,
            order=order,
            process=args.process_index,
            num_processes=args.world_size,
            accumulation=args.gradient_accumulation_steps,
            drop_last=args.dataloader_drop_last,
        )
        return self._loader(rows, batches)

    def _train_order(self, rows: EncodedRows, seed: int) -> Callable[[int], np.ndarray | range]:
        lengths, args = rows.lengths(), self.args
        global_batch = self._train_batch_size * args.world_size * args.gradient_accumulation_steps
        if hasattr(rows, "arrange"):  # a stream, which orders its rows as it reads them
            return rows.arrange(seed, global_batch, args.max_steps, args.train_sampling_strategy)
        if args.train_sampling_strategy == "sequential":
            return lambda epoch: np.arange(len(rows))
        if lengths is None or args.train_sampling_strategy != "group_by_length":
            return shuffled(len(rows), seed)
        return bucketed(lengths, seed, global_batch)

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
        args, whole = self.args, getattr(rows, "collate", None)  # stored features: whole batches, from memory
        workers = {
            "num_workers": args.dataloader_num_workers,
            "persistent_workers": args.dataloader_persistent_workers,
            "prefetch_factor": args.dataloader_prefetch_factor if args.dataloader_num_workers else None,
            "worker_init_fn": guard.ignore_signals,
        }
        return EpochLoader(
            rows,
            batches,
            collate_fn=whole or self._collate,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            **({} if whole else workers),
        )

    def _collate(self, rows: list[dict]) -> dict[str, Any]:
        told = {"told": rows[0].pop("told")} if "told" in rows[0] else {}  # by a stream
        if told and not rows[0]:
            return told  # of a mistake, in place of rows
        fillers, places = [row.pop("filler") for row in rows], [row.pop("row") for row in rows]
        return {**self.task.collate(rows), "rows": places, "filler": fillers[0], **told}

    # ---- evaluation -----------------------------------------------------------------------------------------------
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Metrics of a split; the random state is the same after it as before."""
        state = rng_state()
        try:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            set_rng_state(state)

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
        # Shares are gathered into buffers that training uses too, which must not be inference tensors.
        with torch.no_grad() if self._sharded() else torch.inference_mode():
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
        nothing: tuple = ([], 0.0, 0, {})
        if batch["filler"] and not self._sharded():
            return nothing
        inputs = self.inputs_of(batch)
        loss, outputs = self.task.loss(model, inputs, 1)
        if batch["filler"]:  # the other processes needed this one's share of the weights
            return nothing
        kept = {name: _numpy(value) for name, value in self.task.keep(outputs, inputs).items()}
        return np.array(batch["rows"]), loss.item(), self.task.items(batch), kept

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

    def _save_rng_state(self, output_dir: str) -> None:
        saving.save_together(super()._save_rng_state, output_dir, bool(self.args.should_save))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            saving.reseed(self, checkpoint)

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
        try:
            super()._run_epoch(*args, **kwargs)
        except BaseException:
            if hasattr(self.drawn_from, "_shutdown_workers"):  # else they wait for batches that are never asked for
                self.drawn_from._shutdown_workers()
            raise

    def _finalize_training(self, *args):
        if self.guard is not None:
            self.guard.check(self)  # before the best weights take the place of the last
        return super()._finalize_training(*args)

    def _load_best_model(self) -> None:
        """The best checkpoint's weights. transformers' own way drops weights whose saved names differ (ViT's do)."""
        if self._sharded():
            super()._load_best_model()
        else:
            best = together.readable(self.state.best_model_checkpoint, without=[r"optimizer\.pt"])
            models.load_weights(self.model, best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """The weights to go on from, by the same way."""
        self.resumed_from = resume_from_checkpoint
        if self._sharded():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            models.load_weights(self.model, resume_from_checkpoint)

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


def _numpy(value):
    return (
        value.float().cpu().numpy()
        if torch.is_tensor(value) and value.is_floating_point()
        else (value.cpu().numpy() if torch.is_tensor(value) else value)
    )


def _longest_first(rows: EncodedRows) -> np.ndarray:
    lengths = rows.lengths()
    if lengths is None:
        return np.arange(len(rows))
    return np.argsort(-lengths, kind="stable")


def _joined(kept: list[tuple], num_rows: int) -> tuple[float, float, dict[str, Any]]:
    """(sum of losses, items, columns in row order) of every batch of every process."""
    seen = [(rows, columns) for rows, _, _, columns in kept if len(rows)]
    places = np.concatenate([rows for rows, _ in seen])
    back = np.argsort(places)
    assert np.array_equal(places[back], np.arange(num_rows)), "evaluation must see each row exactly once"
    columns: dict[str, Any] = {}
    for name, first in seen[0][1].items():
        if np.ndim(first[0]) == 0:  # one number a row; anything else stays a list of what each row has
            columns[name] = np.concatenate([found[name] for _, found in seen])[back]
        else:
            values = [value for _, found in seen for value in found[name]]
            columns[name] = [values[i] for i in back]
    return sum(batch[1] for batch in kept), sum(batch[2] for batch in kept), columns

"""What the Trainer does beside training: a line for every log, and the news that adapters need."""

from transformers import TrainerCallback

from hfft.messages import announce

SPEED = ("_runtime", "_per_second", "_flos", "_preparation_time")


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

"""The clock of all sides: samples per second over the steps after the first few."""

import time

from transformers import TrainerCallback

WARM_UP = 5  # steps that are not counted: memory is found, threads start


class Clock(TrainerCallback):
    """Times a Trainer's steps; a step's rows come from `batch_size`."""

    def __init__(self, batch_size: int):
        self.batch_size, self.start, self.steps, self.end = batch_size, 0.0, 0, 0.0

    def on_step_end(self, args, state, control, **kwargs):
        """After the optimizer's step."""
        if state.global_step == WARM_UP:
            self.start = time.perf_counter()
        self.steps, self.end = state.global_step - WARM_UP, time.perf_counter()

    def samples_per_second(self) -> float:
        """Rows of the counted steps over their seconds."""
        return self.steps * self.batch_size / (self.end - self.start)

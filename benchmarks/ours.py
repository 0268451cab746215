"""hfft's side of a pair: `python -m benchmarks.ours RECIPE [key=value …]` trains and prints samples per second."""

import json
import logging
import sys

from benchmarks.plain.clock import Clock
from hfft import arguments, levers, lookup, pipeline
from hfft.recipe import Recipe


def main() -> None:
    """The pipeline up to the last step, timed by the same clock as the plain Trainer."""
    recipe = Recipe.read(sys.argv[1], [*sys.argv[2:], "train.eval_strategy=no", "train.save_strategy=no"])
    logging.getLogger("hfft").addHandler(logging.StreamHandler(sys.stderr))
    task = lookup.call("tasks", recipe.task)
    args = arguments.training_arguments(recipe, task)
    levers.keep_memory(levers.allowed(recipe.train), args.device)
    trainer, _ = pipeline.prepare(recipe, task, args)
    clock = Clock(args.per_device_train_batch_size)
    trainer.add_callback(clock)
    trainer.train()
    print(json.dumps({"samples_per_second": clock.samples_per_second()}))


if __name__ == "__main__":
    main()

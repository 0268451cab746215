"""Task: what one kind of problem needs. It knows columns, tensors, truth and answers, and nothing of how it is tuned.

A task is a keyword-only dataclass whose fields are its options in a recipe; inheritance depth is exactly one.
`rows` is a batch as `datasets` gives it to a batched map: a dict of column name -> list.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

Rows = dict[str, list]
Inputs = dict[str, Any]


@dataclass(kw_only=True)
class Task:
    """The interface. Shapes are in the docstring of each task's `collate`."""

    columns: ClassVar[tuple[str, ...]]  # canonical names: ("image", "label"); a trailing "?" marks an optional one
    answered: ClassVar[tuple[str, ...] | None] = None  # the columns that an answer is made from; None: all but truth
    truth: ClassVar[str | None] = "class"  # the kind of right answers, one of reading/truths.py; None: there are none
    auto_model: ClassVar[str]  # "AutoModelForImageClassification"
    pipeline_tag: ClassVar[str]  # what the Hub calls the task: "image-classification"
    best_metric: ClassVar[str]  # what "better" means when a checkpoint is chosen
    metric_names: ClassVar[tuple[str, ...]]  # the numbers that `metrics` gives, without "loss"
    trains: ClassVar[bool] = True  # False: `train: null`, each row is answered once (hfft/extract.py)
    lazy: ClassVar[bool] = False  # encode on access (images), or once and cached (text)
    trainer_args: ClassVar[dict] = {}  # what the Trainer must be told for this task, e.g. label_names
    windows: ClassVar[bool] = False  # whether `encode` may give several rows for one, or none
    whole_batch: ClassVar[bool] = False  # whether the loss of a batch is more than a sum over its rows
    vary: ClassVar[Any] = None  # a method, encoded row -> row, that draws what is random in it each time it is seen
    uint8: ClassVar[bool] = False  # set on a task before `setup`: pictures stay in 8 bits up to `prepare`

    @property
    def truth_options(self) -> dict[str, Any]:
        """How the truth is written in the data, for its reader in reading/."""
        return {}

    def meet(self, source, data) -> None:
        """Settle what the recipe left open, by the training split's `source` of the data set's own columns."""

    def setup(self, model, train=None) -> None:
        """Learn the label names from `train` (a Dataset, or None: from the checkpoint); load tokenizer or processor."""
        raise TypeError(f"{type(self).__name__} has no setup")

    def accept(self, rows) -> None:
        """Match the classes of other rows than the training split's to the model's, by name."""

    def data_report(self, split: str) -> dict[str, int]:
        """Announce and count what encoding `split` cut off; called once after it was encoded whole."""
        return {}

    def cut_off(self) -> int:
        """Rows that encoding has cut since the last `data_report`; nothing is told."""
        return 0

    def load_model(self, model):
        """The model of the recipe's `model` section with this task's head."""
        raise TypeError(f"{type(self).__name__} has no load_model")

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """Columns -> model inputs, a batch of rows; also rows without truth.

        The column `row` names the rows; where `windows`, each encoded row says in `source_row` whose it is.
        Unless `lazy`, what it reads of the task are options, `processor` and plain attributes (numbers, strings, lists,
        dicts), for these name the rows in the cache; what it counts it keeps in `lengths`, a `text.Lengths`.
        """
        raise TypeError(f"{type(self).__name__} has no encode")

    def collate(self, rows: list[dict]) -> Inputs:
        """Encoded rows -> tensors, and lists of what no model sees."""
        raise TypeError(f"{type(self).__name__} has no collate")

    def prepare(self, inputs: Inputs) -> Inputs:
        """What is left to do on the device, before any model or loss sees the inputs; also of inputs prepared before.

        8-bit pictures become normalised floats here, a batch at a time.
        """
        return inputs

    def opened(self, rows: Rows) -> Rows:
        """Training rows read for augmentation, put before it where speed counts: large JPEGs decoded at a part."""
        return rows

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """What the model sees of each row, for a person: RGB array (height, width, 3) uint8, or text; and its truth.

        `inputs` as the model takes them, `rows` the columns that they were made of.
        """
        raise TypeError(f"{type(self).__name__} has no view")

    def forward(self, model, inputs: Inputs) -> Any:
        """The model's outputs for these inputs, with or without truth among them."""
        return model(**{name: value for name, value in inputs.items() if name != "labels" and torch.is_tensor(value)})

    def items(self, inputs: Inputs) -> int:
        """How many units this batch's loss sums over: rows, label tokens, boxes."""
        raise TypeError(f"{type(self).__name__} has no items")

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """(sum over units / items, outputs). Without `items` the batch's own count divides."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """What evaluation remembers of a batch: name -> array or list, one entry a row (an argmax, not logits)."""
        raise TypeError(f"{type(self).__name__} has no keep")

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, float]:
        """`keep`'s columns over the whole split, in row order -> {name: float}."""
        raise TypeError(f"{type(self).__name__} has no metrics")

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """Answers a person reads, one dict per row of `rows`; `inputs` are what `collate` made of them."""
        raise TypeError(f"{type(self).__name__} has no decode")

    def finished(self, net) -> None:
        """Change the trained model before it is saved, such as a head of scaled targets."""

    def save(self, folder) -> None:
        """Write what other libraries read beside the saved model, in the main process."""

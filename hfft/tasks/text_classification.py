"""Text classification: one text, or a pair of texts, in; one class, any number of classes, or numbers out."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from hfft import configs, models, problems, text
from hfft.messages import InputError
from hfft.reading import truths
from hfft.tasks.base import Inputs, Rows, Task

EVERY = tuple(dict.fromkeys(name for kind in problems.KINDS.values() for name in kind.metric_names))


@dataclass(kw_only=True)
class TextClassification(Task):
    """A text or a pair in; one class (single_label), any number (multi_label) or numbers (regression) out.

    `problem` is found from the labels where they leave no doubt. `max_length` cuts above so many tokens (default: the
    model's limit). `separator` parts classes joined in a string, `decimal` is the mark in numbers written as text.
    Classes of a probability of `threshold` or more are answered; "tuned" takes the best one on the evaluation split.
    """

    problem: Literal["single_label", "multi_label", "regression"] | None = None
    max_length: int | None = None
    separator: str | None = None
    decimal: Literal[".", ","] = "."
    threshold: float | Literal["tuned"] = 0.5

    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair?", "label")
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline_tag: ClassVar[str] = "text-classification"

    def __post_init__(self):
        if not isinstance(self.threshold, str) and not 0 < self.threshold < 1:
            raise InputError(f"task: threshold: {self.threshold!r} is no probability between 0 and 1")
        if self.separator == "":
            raise InputError("task: separator: is empty; write the mark between classes, such as ','")
        self.tuned: dict[str, float] = {}

    @property
    def _kind(self) -> type[problems.SingleLabel]:
        return problems.KINDS[self.problem or "single_label"]

    @property
    def truth(self) -> str:  # type: ignore[override]
        """The kind of right answers."""
        return self._kind.truth

    @property
    def best_metric(self) -> str:  # type: ignore[override]
        """What "better" means when a checkpoint is chosen."""
        return self._kind.best_metric

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """What `metrics` gives; of any problem as long as it is not known."""
        return self._kind.metric_names if self.problem else EVERY

    @property
    def truth_options(self) -> dict[str, Any]:
        """How labels are written."""
        return {"separator": self.separator, "decimal": self.decimal}

    def meet(self, source, data) -> None:
        """Find the problem from the training split's labels."""
        if self.problem is None:
            self.problem = truths.problem_of(source, data, self.columns)

    def setup(self, model, train=None) -> None:
        """Label names by `train`'s feature (or the checkpoint's), and the checkpoint's tokenizer."""
        self.config = configs.load_config(model, self.auto_model)
        feature = None if train is None else train.features["label"]
        self.problem = problems.of_config(self.config) if feature is None else problems.of_feature(feature)
        self.names, self.label_ids, self.head_kept = configs.match_labels(self.config, train)
        if train is not None and self.problem != problems.of_config(self.config):
            self.head_kept = False
        configs.set_labels(self.config, self.names, problems.CONFIGS[self.problem])
        options = {"threshold": self.threshold} if self.problem == "multi_label" else {}
        self.answering = self._kind(self.names, **options)
        self.train = train
        self.processor = text.load_tokenizer(model)
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        self.limit = text.max_length(self.processor, self.config, self.max_length)
        self.lengths = text.Lengths()

    def accept(self, rows) -> None:
        """The model's index of each class of `rows`, by name."""
        self.label_ids = configs.places(self.names, rows)

    def data_report(self, split: str) -> dict[str, int]:
        """Rows cut at the limit, with the length quantiles announced."""
        self.lengths.tell(split, self.limit)
        counted, self.lengths = self.lengths, text.Lengths()
        return {"truncated": counted.truncated}

    def cut_off(self) -> int:
        """Rows cut at the limit since the last report."""
        return self.lengths.truncated

    def load_model(self, model):
        """The checkpoint's backbone with a head for these outputs."""
        net = models.load(self.auto_model, model, self.config, keep_head=self.head_kept)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        self.answering.start(net, self.train, fresh=not self.head_kept)
        self.train = None
        return net

    def finished(self, net) -> None:
        """Answers in the targets' own units."""
        self.answering.finished(net)

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """text (and text_pair) -> token ids, unpadded; label -> labels, by name."""
        encoded = text.encode(self.processor, rows["text"], rows.get("text_pair"), self.limit, self.lengths)
        if "label" in rows:
            encoded["labels"] = problems.encoded(rows["label"], self.label_ids)
        return encoded

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids): (batch, tokens) int64, padded to the longest row of the batch.

        labels where the rows have them: (batch,) int64, or (batch, outputs) float32 of several classes or numbers.
        """
        inputs = text.collate(self.processor, rows)
        if "labels" in rows[0]:
            inputs["labels"] = self.answering.labels([row["labels"] for row in rows])
        return inputs

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens without padding, special ones included, with a note where the text was cut; the truth."""
        whole = self.processor(rows["text"], rows.get("text_pair"), truncation=False, verbose=False)["input_ids"]
        shown = []
        for ids, mask, label, full in zip(
            inputs["input_ids"], inputs["attention_mask"], inputs["labels"], whole, strict=True
        ):
            tokens = self.processor.convert_ids_to_tokens(ids[mask.bool()].tolist())
            cut = f" … cut here: {len(tokens)} of {len(full)} tokens" if len(full) > len(tokens) else ""
            shown.append((" ".join(tokens) + cut, self.answering.shown(label)))
        return shown

    def items(self, inputs: Inputs) -> int:
        """Rows; of several classes or numbers a row, all of them."""
        return inputs["labels"].numel()

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """The problem's loss, summed over items / items."""
        outputs = self.forward(model, inputs)
        return self.answering.loss(outputs.logits, inputs["labels"], items), outputs

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """Prediction and label of each row."""
        return self.answering.keep(outputs.logits, inputs["labels"])

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, Any]:
        """The problem's metrics, those that `metric_names` names and details."""
        return self.answering.metrics(kept, self.tuned)

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """label, score and scores of each row; labels of several; score of a number."""
        return self.answering.answers(outputs.logits, self.tuned)

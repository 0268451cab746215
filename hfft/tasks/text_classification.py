"""Text classification, single label: one text, or a pair of texts, in; one of the data's classes out."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from hfft import configs, losses, metrics, models, text
from hfft.tasks.base import Inputs, Rows, Task


@dataclass(kw_only=True)
class TextClassification(Task):
    """A text or a pair in, one class out; `max_length` cuts above so many tokens (default: the model's limit)."""

    max_length: int | None = None

    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair?", "label")
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    best_metric: ClassVar[str] = "accuracy"
    metric_names: ClassVar[tuple[str, ...]] = metrics.CLASSIFICATION

    def setup(self, model, train=None) -> None:
        """Label names by `train`'s ClassLabel (or the checkpoint's), and the checkpoint's tokenizer."""
        self.config = configs.load_config(model, self.auto_model)
        self.names, self.label_ids, self.head_kept = configs.match_labels(self.config, train)
        configs.set_labels(self.config, self.names)
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
        """The checkpoint's backbone with a head for these classes."""
        net = models.load(self.auto_model, model, self.config, keep_head=self.head_kept)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        return net

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """text (and text_pair) -> token ids, unpadded; label -> labels, by name."""
        encoded = text.encode(self.processor, rows["text"], rows.get("text_pair"), self.limit, self.lengths)
        if "label" in rows:
            encoded["labels"] = [self.label_ids[label] for label in rows["label"]]
        return encoded

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids): (batch, tokens) int64, padded to the longest row of the batch.

        labels (batch,) int64 where the rows have them.
        """
        inputs = text.collate(self.processor, rows)
        if "labels" in rows[0]:
            inputs["labels"] = torch.tensor([row["labels"] for row in rows])
        return inputs

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens without padding, special ones included, with a note where the text was cut; the class."""
        whole = self.processor(rows["text"], rows.get("text_pair"), truncation=False, verbose=False)["input_ids"]
        shown = []
        for ids, mask, label, full in zip(
            inputs["input_ids"], inputs["attention_mask"], inputs["labels"], whole, strict=True
        ):
            tokens = self.processor.convert_ids_to_tokens(ids[mask.bool()].tolist())
            cut = f" … cut here: {len(tokens)} of {len(full)} tokens" if len(full) > len(tokens) else ""
            shown.append((" ".join(tokens) + cut, self.names[label]))
        return shown

    def items(self, inputs: Inputs) -> int:
        """Rows."""
        return inputs["labels"].numel()

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Cross entropy summed over rows / items."""
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        return losses.cross_entropy(outputs.logits, inputs["labels"], items), outputs

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """The argmax and the label of each row."""
        return {"prediction": outputs.logits.argmax(-1), "label": inputs["labels"]}

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, Any]:
        """Accuracy, macro-F1, MCC and per class."""
        return metrics.classification(kept["prediction"], kept["label"], self.names)

    def decode(self, outputs, rows: Rows) -> list[dict]:
        """label, score and every class's score of each row."""
        return metrics.class_answers(outputs.logits, self.names)

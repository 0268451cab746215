"""Image classification, single label: a picture in, one of the data's classes out."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from hfft import image, losses, metrics, models
from hfft.tasks.base import Inputs, Rows, Task


@dataclass(kw_only=True)
class ImageClassification(Task):
    """A picture in, one class out; `crop: false` squeezes all of it to the input size, without the centre crop."""

    crop: bool = True

    columns: ClassVar[tuple[str, ...]] = ("image", "label")
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    best_metric: ClassVar[str] = "accuracy"
    metric_names: ClassVar[tuple[str, ...]] = metrics.CLASSIFICATION
    lazy: ClassVar[bool] = True

    def setup(self, model, train=None) -> None:
        """Label names by `train`'s ClassLabel (or the checkpoint's), and the checkpoint's image processor."""
        self.config = models.load_config(model)
        self.names, self.label_ids, self.head_kept = models.match_labels(self.config, train)
        models.set_labels(self.config, self.names)
        self.processor = image.load_processor(model, self.config, crop=self.crop)

    def accept(self, rows) -> None:
        """The model's index of each class of `rows`, by name."""
        self.label_ids = models.places(self.names, rows)

    def load_model(self, model):
        """The checkpoint's backbone with a head for these classes."""
        return models.load(self.auto_model, model, self.config, keep_head=self.head_kept)

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """image -> pixel_values (channels, height, width) float32; label -> labels, by name."""
        pictures = [image.open_rgb(value) for value in rows["image"]]
        encoded: Rows = {"pixel_values": list(image.pixels(self.processor, pictures))}
        if "label" in rows:
            encoded["labels"] = [self.label_ids[label] for label in rows["label"]]
        return encoded

    def collate(self, rows: list[dict]) -> Inputs:
        """pixel_values (batch, channels, height, width) float32, labels (batch,) int64 where the rows have them."""
        inputs = {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
        if "labels" in rows[0]:
            inputs["labels"] = torch.tensor([row["labels"] for row in rows])
        return inputs

    def items(self, inputs: Inputs) -> int:
        """Rows."""
        return inputs["labels"].numel()

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Cross entropy summed over rows / items."""
        outputs = model(pixel_values=inputs["pixel_values"])
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

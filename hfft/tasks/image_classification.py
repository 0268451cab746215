"""Image classification, single label: a picture in, one of the data's classes out."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from hfft import configs, image, losses, metrics, models, pixels
from hfft.messages import announce
from hfft.tasks.base import Inputs, Rows, Task


@dataclass(kw_only=True)
class ImageClassification(Task):
    """A picture in, one class out; `crop: false` squeezes all of it to the input size, without the centre crop."""

    crop: bool = True

    columns: ClassVar[tuple[str, ...]] = ("image", "label")
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    pipeline_tag: ClassVar[str] = "image-classification"
    best_metric: ClassVar[str] = "accuracy"
    metric_names: ClassVar[tuple[str, ...]] = metrics.CLASSIFICATION
    lazy: ClassVar[bool] = True

    def setup(self, model, train=None) -> None:
        """Label names by `train`'s ClassLabel (or the checkpoint's), and the checkpoint's image processor."""
        self.config = configs.load_config(model, self.auto_model)
        self.names, self.label_ids, self.head_kept = configs.match_labels(self.config, train)
        configs.set_labels(self.config, self.names)
        self.processor = image.load_processor(model, self.config, crop=self.crop)
        self.eight_bit = pixels.eight_bit(self.processor) if self.uint8 else None
        if self.eight_bit is not None:
            announce(
                "pictures: in 8 bits until the batch is on the device (exact), JPEGs of 8 times the input size or more "
                "decoded smaller for augmentation (train.levers.uint8=false turns both off)"
            )

    def accept(self, rows) -> None:
        """The model's index of each class of `rows`, by name."""
        self.label_ids = configs.places(self.names, rows)

    def load_model(self, model):
        """The checkpoint's backbone with a head for these classes."""
        return models.load(self.auto_model, model, self.config, keep_head=self.head_kept)

    def opened(self, rows: Rows) -> Rows:
        """RGB pictures, large JPEGs decoded at a half, a quarter or an eighth, never below 4 times the input size."""
        return rows | {"image": [image.open_rgb(value, at_least=4 * self._edge) for value in rows["image"]]}

    @cached_property
    def _edge(self) -> int:
        return max(image.pixels(self.processor, [Image.new("RGB", (64, 64))]).shape[-2:])

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """image -> pixel_values (channels, height, width): float32, with `uint8` 8-bit; label -> labels, by name."""
        pictures = [image.open_rgb(value) for value in rows["image"]]
        tensor = image.pixels(self.processor, pictures) if self.eight_bit is None else self.eight_bit.pixels(pictures)
        encoded: Rows = {"pixel_values": list(tensor)}
        if "label" in rows:
            encoded["labels"] = [self.label_ids[label] for label in rows["label"]]
        return encoded

    def collate(self, rows: list[dict]) -> Inputs:
        """pixel_values (batch, channels, height, width) as encoded, labels (batch,) int64 where the rows have them."""
        inputs = {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
        if "labels" in rows[0]:
            inputs["labels"] = torch.tensor([row["labels"] for row in rows])
        return inputs

    def prepare(self, inputs: Inputs) -> Inputs:
        """pixel_values float32, normalised as the checkpoint's processor does."""
        if self.eight_bit is None or inputs["pixel_values"].dtype != torch.uint8:
            return inputs
        return inputs | {"pixel_values": self.eight_bit.normalised(inputs["pixel_values"])}

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The 8-bit pictures that became these pixel_values, and their classes."""
        halves = self.eight_bit or pixels.eight_bit(self.processor)
        values = inputs["pixel_values"]
        pictures = pixels.stretched(values) if halves is None else halves.restored(values)
        names = [self.names[label] for label in inputs["labels"].tolist()]
        return list(zip(pictures.permute(0, 2, 3, 1).cpu().numpy(), names, strict=True))

    def items(self, inputs: Inputs) -> int:
        """Rows."""
        return inputs["labels"].numel()

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Cross entropy summed over rows / items."""
        outputs = self.forward(model, inputs)
        return losses.cross_entropy(outputs.logits, inputs["labels"], items), outputs

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """The argmax and the label of each row."""
        return {"prediction": outputs.logits.argmax(-1), "label": inputs["labels"]}

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, Any]:
        """Accuracy, macro-F1, MCC and per class."""
        return metrics.classification(kept["prediction"], kept["label"], self.names)

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """label, score and every class's score of each row."""
        return metrics.class_answers(outputs.logits, self.names)

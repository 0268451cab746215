"""Pixels: pictures kept in 8 bits until they are on the model's device, and normalised there, a batch at a time.

A checkpoint's image processor is cut in two: what it does up to 8-bit pixels (resize, crop) runs where pictures are
loaded; the rest, `(pixels / divisor - mean) / deviation`, runs once per batch. Four times less memory moves between the
two, and the result is the processor's own: both halves together are compared with it on a few pictures first.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfft.messages import announce, first_line

TOLERANCE = 1e-6  # of the range of normalised values: rounding of float32; a grey level is 4e-3
PROBE = ((64, 64), (301, 200), (97, 240))  # width, height: smaller and larger than the input, wide and tall


@dataclass
class EightBit:
    """The two halves of an image processor."""

    processor: Any  # without its normalisation
    divisor: float
    mean: torch.Tensor  # (channels, 1, 1) float32, in units of pixels / divisor
    deviation: torch.Tensor

    def pixels(self, images: list[Image.Image]) -> torch.Tensor:
        """(batch, channels, height, width) uint8: resized and cropped as the processor does."""
        if isinstance(self.processor, list):  # timm's transforms
            return torch.stack([self._transformed(image) for image in images])
        return self.processor(images, return_tensors="pt")["pixel_values"]

    def _transformed(self, image: Any) -> torch.Tensor:
        for transform in self.processor:
            image = transform(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 of the same shape: what the whole processor gives."""
        self._move(pixels.device)
        found = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        if self.divisor != 1:
            found = found.div_(self.divisor)
        return found.sub_(self.mean).div_(self.deviation)

    def restored(self, values: torch.Tensor) -> torch.Tensor:
        """The uint8 pixels that `normalised` made these values of."""
        self._move(values.device)
        found = (values.float() * self.deviation + self.mean) * self.divisor
        return found.round().clamp(0, 255).to(torch.uint8)

    def _move(self, device: torch.device) -> None:
        if self.mean.device != device:
            self.mean, self.deviation = self.mean.to(device), self.deviation.to(device)


def stretched(values: torch.Tensor) -> torch.Tensor:
    """uint8 pictures for a person where no exact way back is known: each spread over 0..255."""
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    return ((values - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)


def eight_bit(processor) -> EightBit | None:
    """The processor in two halves, or None, announced, where together they would not be the processor."""
    found = _timm(processor) if hasattr(processor, "val_transforms") else _halves(processor)
    try:
        why = "it names no mean and deviation" if found is None else _difference(processor, found)
    except (TypeError, ValueError, RuntimeError, LookupError) as error:  # EfficientNet's second normalisation
        why = f"without its normalisation it stops with: {first_line(error)}"
    if why:
        announce(f"pictures: normalised one by one as floats, for {type(processor).__name__} is not separable: {why}")
    return None if why else found


def _halves(processor) -> EightBit | None:
    """Of transformers' processors: the same one without rescaling and normalising, which it does in one step."""
    if not hasattr(processor, "do_rescale") or not hasattr(processor, "do_normalize"):
        return None
    resizing = type(processor).from_dict({**processor.to_dict(), "do_rescale": False, "do_normalize": False})
    scale = 1 / processor.rescale_factor if processor.do_rescale else 1.0
    if not processor.do_normalize:
        return EightBit(resizing, 1.0, _column([0.0] * 3), _column([1.0] * 3) * scale)
    return EightBit(resizing, 1.0, _column(processor.image_mean) * scale, _column(processor.image_std) * scale)


def _timm(processor) -> EightBit | None:
    """Of timm's: its transforms up to the tensor, and the mean and deviation of the one that normalises."""
    transforms = list(processor.val_transforms.transforms)
    names = [type(transform).__name__ for transform in transforms]
    if names[-1] != "Normalize" or names[-2] not in ("ToTensor", "MaybeToTensor"):
        return None
    last = transforms[-1]
    return EightBit(copy.deepcopy(transforms[:-2]), 255.0, _column(last.mean), _column(last.std))


def _column(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)


def _difference(processor, halves: EightBit) -> str:
    """Why the halves are not the whole, on noise of several sizes; empty where they are."""
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in PROBE]
    whole = [processor([image], return_tensors="pt")["pixel_values"] for image in images]
    parts = [halves.pixels([image]) for image in images]
    if len({tuple(part.shape) for part in parts}) > 1:
        return "its pictures differ in size"
    if any(part.dtype != torch.uint8 for part in parts):
        return "its pixels are no 8-bit numbers before they are normalised"
    expected, found = torch.cat(whole), halves.normalised(torch.cat(parts))
    if expected.shape != found.shape:
        return "it changes the size after it has normalised"
    allowed = TOLERANCE * max(1.0, (expected.max() - expected.min()).item())
    difference = (expected - found).abs().max().item()
    return "" if difference <= allowed else f"values differ by {difference:.2g}"

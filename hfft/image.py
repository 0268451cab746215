"""Pictures: one stated way from any file or array to RGB, and the checkpoint's own preprocessing.

The policy, the same in training and in `predict`: EXIF orientation applied; 16-bit gray scaled by 1/257 (65535 -> 255);
float pictures in 0..1 scaled by 255; transparency composited on white; palette, gray, 1-bit and CMYK converted by
Pillow; of an animation the first frame.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from hfft.messages import InputError, announce

MAX_PIXELS = 100_000_000


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB picture by the policy above. Raises InputError for float values outside 0..255."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if image.mode == "F" and high <= 1:
        values = values * 255
    elif high > 255:
        values = values / 257
    if low < 0 or high > 65535:
        raise InputError(f"picture of mode {image.mode} has values {low:g} to {high:g}; write it with 8 or 16 bits")
    return Image.fromarray(np.round(values).astype(np.uint8), mode="L")


def open_rgb(value: Any, *, at_least: int | None = None) -> Image.Image:
    """RGB picture from a PIL image, a path, bytes, {bytes, path}, or an array (height, width[, channels]).

    `at_least` lets a JPEG be decoded at a half, a quarter or an eighth, with both sides still of so many pixels: two to
    four times as fast, grey levels one or two off.
    """
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    if isinstance(value, Image.Image):
        return to_rgb(value)
    if isinstance(value, np.ndarray):
        return to_rgb(from_array(value))
    if isinstance(value, bytes | bytearray):
        value = io.BytesIO(value)
    elif not isinstance(value, str | Path):
        raise InputError(f"a picture is a path, bytes, a PIL image or an array, not {type(value).__name__}")
    with Image.open(value) as image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"picture of {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are decoded")
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        return to_rgb(image)


def from_array(array: Any) -> Image.Image:
    """A picture of an array (height, width[, 1, 3 or 4]), or of a torch tensor ([1, 3 or 4,] height, width).

    Bytes, 16 bits, true and false, or numbers in 0..1 or 0..255. Raises InputError for other shapes and values.
    """
    if hasattr(array, "detach"):
        tensor = array.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or not array.size:
        shapes = "(height, width[, 3 or 4]) or, as a tensor, ([3 or 4,] height, width)"
        raise InputError(f"an array picture has the shape {shapes}, not {array.shape}; reshape it")
    if array.dtype == np.uint16:
        return Image.fromarray(array if array.ndim == 2 else np.round(array / 257).astype(np.uint8))
    if array.dtype.kind not in "buif":
        raise InputError(f"an array picture holds numbers, not {array.dtype}; cast it")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):
        found = f"{low:g} to {high:g}"
        raise InputError(f"an array picture has values in 0..1 or 0..255, not {found}; undo its normalisation")
    scale = 255 if array.dtype.kind == "b" or (array.dtype.kind == "f" and high <= 1) else 1
    return Image.fromarray(np.round(array * scale).astype(np.uint8))


def load_processor(model, config, *, crop: bool):
    """The checkpoint's image processor, or a plain one for a model made from a config.

    `model` is the recipe's section (`.name`, `.revision`, `.image_size`); `crop=False` squeezes the whole picture to
    the input size instead of the checkpoint's centre crop. The saved processor has both, so `predict` does the same.
    """
    from transformers import AutoImageProcessor, ViTImageProcessor

    if model.name is None:
        size = model.image_size or _square(config.image_size)
        announce(f"pictures: squeezed to {size}x{size}, mean 0.5, deviation 0.5 (no checkpoint to follow)")
        return ViTImageProcessor(size={"height": size, "width": size})
    try:
        processor = AutoImageProcessor.from_pretrained(model.name, revision=model.revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"model {model.name!r}: no image processor can be loaded; for pictures a model has a "
            "preprocessor_config.json beside its weights, or pretrained_cfg in a timm config.json"
        ) from error
    if crop and model.image_size is None:
        return processor
    if hasattr(processor, "data_config"):
        return _resized_timm(processor, config, model.image_size, crop)
    return _resized(processor, model.image_size, crop)


def _square(size) -> int:
    return size if isinstance(size, int) else size[0]


def _resized(processor, size: int | None, crop: bool):
    """The processor for another input size, or without its centre crop."""
    cropped = bool(getattr(processor, "do_center_crop", False))
    old = dict(processor.crop_size if cropped else processor.size)
    height, width = size or _edge(old, "height"), size or _edge(old, "width")
    changes: dict[str, Any] = {"size": {"height": height, "width": width}, "do_center_crop": False}
    if crop and cropped:
        grown = round(_edge(dict(processor.size), "height") * height / _edge(old, "height"))
        changes = {"crop_size": changes["size"], "size": {"shortest_edge": grown}}
    return type(processor).from_dict({**processor.to_dict(), **changes})


def _edge(size: dict[str, int], name: str) -> int:
    found = size.get(name) or size.get("shortest_edge")
    if found is None:
        raise InputError(f"model.image_size: this image processor's size is {size}; set model.image_size")
    return found


def _resized_timm(processor, config, size: int | None, crop: bool):
    changes: dict[str, Any] = {} if crop else {"crop_pct": 1.0, "crop_mode": "squash"}
    if size:
        changes["input_size"] = [3, size, size]
    config.pretrained_cfg = {**config.pretrained_cfg, **changes}
    return type(processor)(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)


def pixels(processor, images: list[Image.Image]):
    """float32 tensor (batch, channels, height, width), normalised as the processor says."""
    return processor(images, return_tensors="pt")["pixel_values"]

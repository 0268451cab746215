"""Pictures: one stated way from any file or array to RGB, and the checkpoint's own preprocessing.

The policy, the same in training and in `predict`: EXIF orientation applied; 16-bit gray scaled by 1/257 (65535 -> 255);
float pictures in 0..1 scaled by 255; transparency composited on white; palette, gray, 1-bit and CMYK converted by
Pillow; of an animation the first frame.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from hfft import origin
from hfft.messages import InputError, announce, first_line

MAX_PIXELS = 100_000_000
MAX_SIDE = 8192  # of the model's input


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
    if not (low >= 0 and high <= 65535):  # nor NaN
        raise InputError(f"picture of mode {image.mode} has values {low:g} to {high:g}; write it with 8 or 16 bits")
    if image.mode == "F" and high <= 1:
        values = values * 255
    elif high > 255 or image.mode.startswith("I;16"):
        values = values / 257
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
    folder = origin.folder(model)
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # each kind of processor checks its options in its own way
        raise InputError(
            f"model {model.name!r}: no image processor can be loaded; for pictures a model has a "
            "preprocessor_config.json beside its weights, or pretrained_cfg in a timm config.json "
            f"({first_line(error)[:100]})"
        ) from error
    if hasattr(processor, "data_config"):
        if model.image_size is not None or not crop:
            processor = _resized_timm(processor, config, model.image_size, crop)
    else:
        _check_normalisation(folder, processor, model.name)
        if model.image_size is not None or not crop:
            processor = _resized(processor, model.image_size, crop)
    _try(processor, model.name)
    return processor


def _check_normalisation(folder: Path, processor, name: str) -> None:
    """Raises InputError where mean and deviation are not the checkpoint's but transformers' default for the class."""
    given: dict[str, Any] = {}
    for file in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        given |= known.get("image_processor") or known
    if getattr(processor, "do_normalize", False):
        for key in [key for key in ("image_mean", "image_std") if not given.get(key)]:
            raise InputError(
                f"model {name!r}: preprocessor_config.json has no {key}; write the one that the model was trained "
                "with, or do_normalize: false"
            )


def _try(processor, name: str) -> None:
    """Raises InputError where a picture does not become finite numbers of one colour picture."""
    what = f"model {name!r}: its image processor"
    for key in ("size", "crop_size"):
        sides = getattr(processor, key, None) or {}
        if any(isinstance(side, int) and not 0 < side <= MAX_SIDE for side in dict(sides).values()):
            raise InputError(f"{what} has {key} {dict(sides)}; a side has 1 to {MAX_SIDE:,} pixels")
    try:
        found = pixels(processor, [Image.fromarray(np.arange(3 * 96 * 64, dtype=np.uint8).reshape(64, 96, 3))])
    except Exception as error:  # as above
        raise InputError(f"{what} fails on a picture ({first_line(error)[:120]}); mend its config") from error
    if not hasattr(found, "shape") or len(found.shape) != 4 or not bool(found.isfinite().all()):
        raise InputError(f"{what} gives numbers that are not finite, or no picture; mend image_mean and image_std")


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

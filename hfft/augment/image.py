"""Random changes of training pictures: crop, flip, colour, a policy of many, erasing. Each is off unless named.

In this order: `crop` (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842), `flip`, `policy` by timm's strings
(RandAugment, Cubuk et al. 2019, https://arxiv.org/abs/1909.13719; AutoAugment, Cubuk et al. 2018,
https://arxiv.org/abs/1805.09501; 3-Augment, Touvron et al. 2022, https://arxiv.org/abs/2204.07118), `color_jitter` by
torchvision, `erase` (Zhong et al. 2017, https://arxiv.org/abs/1708.04896). All work on 8-bit RGB pictures of the size
they have, before the checkpoint's own resizing.
"""

import math
import random
import re
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from hfft.image import open_rgb
from hfft.lookup import hint
from hfft.messages import InputError

Step = Callable[[Image.Image], Image.Image]
WORDS = {"randaugment": "rand-m9-mstd0.5-inc1", "autoaugment": "original", "3augment": "3a"}
LISTED = ("original", "originalr", "v0", "v0r", "3a")  # the policies that are lists of operations
FORMS = {  # what may follow each key of timm's rand-…; timm itself passes over what it does not know
    "m": r"\d+",
    "n": r"[1-9]|10",
    "p": r"0(\.\d+)?|1(\.0+)?",
    "mstd": r"\d+(\.\d+)?",
    "mmax": r"[1-9]\d?",
    "inc": "[01]",
    "t": "weights|3aw?",
}
ALLOWED = (
    f"write {', '.join([*WORDS, *LISTED])} (these also with -mstd0.5), or rand with any of m0 to m10, n1 to n10, "
    "p0.5, mstd0.5, inc1, mmax20, tweights, t3a, t3aw: rand-m9-mstd0.5-inc1"
)


def image(
    rows: dict[str, list],
    *,
    crop: list[float] | None = None,
    flip: float = 0.5,
    color_jitter: float | list[float] | None = None,
    policy: str | None = None,
    erase: float = 0.0,
) -> dict[str, list]:
    """rows with the pictures of column `image` opened and changed at random (Python's, NumPy's and torch's generator).

    `crop` [low, high]: the share of the area that is kept, aspect 3/4 to 4/3. `flip`, `erase`: probabilities; a
    rectangle of 2 to 33 % of the area becomes noise. `color_jitter`: how far brightness, contrast and saturation move,
    0 to 1, one number or [brightness, contrast, saturation] or these and [hue], 0 to 0.5. `policy`: timm's string, or
    randaugment (rand-m9-mstd0.5-inc1), autoaugment (original), 3augment (3a; its authors add color_jitter 0.3).

    Raises InputError for what none of them can be.
    """
    steps = _steps(_hashable(crop), flip, _hashable(color_jitter), policy, erase)
    return rows | {"image": [_changed(open_rgb(picture), steps) for picture in rows["image"]]}


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def _changed(picture: Image.Image, steps: list[Step]) -> Image.Image:
    for step in steps:
        picture = step(picture)
    return picture


@cache
def _steps(crop, flip: float, color_jitter, policy: str | None, erase: float) -> list[Step]:
    """The steps that are asked for, in order; checked and made once."""
    for name, value in (("flip", flip), ("erase", erase)):
        if not 0 <= value <= 1:
            raise InputError(f"data.augment: image: {name} {value} is no probability; write a number from 0 to 1")
    if crop is not None and not (len(crop) == 2 and 0 < crop[0] <= crop[1] <= 1):
        raise InputError(
            f"data.augment: image: crop {list(crop)} is no range of area shares; write [0.5, 1.0] or the like"
        )
    steps: list[Step] = [partial(_cropped, scale=list(crop))] if crop is not None else []
    steps += [partial(_flipped, probability=flip)] if flip else []
    steps += [_policy(policy)] if policy is not None else []
    steps += [_jitter(color_jitter)] if color_jitter is not None else []
    return steps + ([partial(_erased, probability=erase)] if erase else [])


def _cropped(picture: Image.Image, scale: list[float]) -> Image.Image:
    top, left, height, width = v2.RandomResizedCrop.get_params(picture, scale, [3 / 4, 4 / 3])
    return picture.crop((left, top, left + width, top + height))


def _flipped(picture: Image.Image, probability: float) -> Image.Image:
    return v2.functional.horizontal_flip(picture) if torch.rand(()).item() < probability else picture


def _jitter(strength) -> Step:
    given = (strength,) * 3 if isinstance(strength, int | float) else strength
    if len(given) not in (3, 4) or not all(0 <= value <= 1 for value in given[:3]) or not 0 <= (*given, 0)[3] <= 0.5:
        raise InputError(
            f"data.augment: image: color_jitter {strength if given is not strength else list(given)}: write a number "
            "from 0 to 1, or [brightness, contrast, saturation] of such, with a hue from 0 to 0.5 as the fourth"
        )
    return v2.ColorJitter(*given)


def _erased(picture: Image.Image, probability: float) -> Image.Image:
    """timm's rectangles: 2 to 33 % of the area, aspect 0.3 to 3.3, ten attempts; the paper's fill: uniform noise."""
    if random.random() >= probability:
        return picture
    for _ in range(10):
        area = random.uniform(0.02, 1 / 3) * picture.width * picture.height
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < picture.height and 0 < width < picture.width:
            corner = random.randint(0, picture.width - width), random.randint(0, picture.height - height)
            noise = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
            picture = picture.copy()
            picture.paste(Image.fromarray(noise), corner)
            break
    return picture


def _policy(text: str) -> Step:
    name, *sections = WORDS.get(text, text).split("-")
    if name != "rand" and name not in LISTED:
        raise InputError(f"data.augment: image: policy {text!r} is unknown.{hint(text, [*WORDS, *LISTED])} {ALLOWED}")
    _check_sections(text, sections, list(FORMS) if name == "rand" else ["mstd"])
    from timm.data.auto_augment import auto_augment_transform, posterize, rand_augment_transform

    made = (rand_augment_transform if name == "rand" else auto_augment_transform)("-".join([name, *sections]), None)
    for operation in made.ops if name == "rand" else [each for pair in made.policy for each in pair]:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterized
    return made


def _posterized(picture: Image.Image, bits: int, **_) -> Image.Image:
    """timm's strongest is 0 bits, a black picture, which Pillow refuses: 1 is kept."""
    return ImageOps.posterize(picture, min(max(bits, 1), 8))


def _check_sections(text: str, sections: list[str], keys: list[str]) -> None:
    found: dict[str, str] = {}
    for section in sections:
        key = next((key for key in keys if re.fullmatch(f"{key}({FORMS[key]})", section)), None)
        if key is None or key in found:
            raise InputError(f"data.augment: image: policy {text!r}: {section!r} cannot be meant; {ALLOWED}")
        found[key] = section.removeprefix(key)
    given, top = found.get("m", "0"), found.get("mmax", "10")
    if int(given) > int(top):  # timm would take it for the highest, in silence
        raise InputError(
            f"data.augment: image: policy {text!r}: m{given} is above {top}; write m{top}, or mmax{given} too"
        )

"""Random crop and flip of training pictures, the two that every recipe of this field starts from.

`crop: [low, high]` keeps a random share of the area (aspect 3/4 to 4/3), as Inception's crop does (Szegedy et al. 2015,
https://arxiv.org/abs/1409.4842); `flip` is the probability of a horizontal flip. Both by torchvision v2.
"""

import torch
from PIL import Image
from torchvision.transforms import v2

from hfft.image import open_rgb
from hfft.messages import InputError


def image(rows: dict[str, list], *, crop: list[float] | None = None, flip: float = 0.5) -> dict[str, list]:
    """rows with the pictures of column `image` opened, cropped and flipped; draws from torch's generator."""
    if crop is not None and not (len(crop) == 2 and 0 < crop[0] <= crop[1] <= 1):
        raise InputError(f"augment image: crop {crop} is no range of area shares; write [0.5, 1.0] or the like")
    return rows | {"image": [_augmented(open_rgb(picture), crop, flip) for picture in rows["image"]]}


def _augmented(picture: Image.Image, crop: list[float] | None, flip: float) -> Image.Image:
    if crop is not None:
        top, left, height, width = v2.RandomResizedCrop.get_params(picture, crop, [3 / 4, 4 / 3])
        picture = picture.crop((left, top, left + width, top + height))
    if flip and torch.rand(()).item() < flip:
        picture = v2.functional.horizontal_flip(picture)
    return picture

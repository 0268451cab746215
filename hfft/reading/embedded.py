"""Data that needs no download: `data.path: sklearn:digits`, the 1,797 handwritten digits that scikit-learn carries.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (https://doi.org/10.24432/C50P49).
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from hfft.messages import InputError

PREFIX = "sklearn:"


def read(path: str, *, classes: list[int] | None = None, per_class: int | None = None, seed: int = 0) -> dict[str, Any]:
    """{"train", "test"}: two thirds and one third of the digits, as 8x8 gray PNG `image` and ClassLabel `label`.

    `classes` keeps these digits only; `per_class` keeps so many training pictures of each, drawn by `seed`.
    """
    if path != "sklearn:digits":
        raise InputError(f"data.path: {path!r} is not carried by hfft; write sklearn:digits")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pictures, digits = load_digits(return_X_y=True)
    kept = np.flatnonzero(np.isin(digits, range(10) if classes is None else classes))
    if not len(kept):
        raise InputError(f"data.load: classes {classes} are none of the digits 0 to 9")
    train, test = train_test_split(kept, test_size=1 / 3, stratify=digits[kept], random_state=0)
    if per_class is not None:
        order = np.random.default_rng(seed).permutation(train)
        train = np.concatenate([order[digits[order] == digit][:per_class] for digit in np.unique(digits[kept])])
    return {"train": _dataset(pictures, digits, train), "test": _dataset(pictures, digits, test)}


def _dataset(pictures: np.ndarray, digits: np.ndarray, places: np.ndarray) -> Any:
    import datasets

    names = [str(digit) for digit in np.unique(digits[places])]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)})
    columns = {
        "image": [{"bytes": _png(pictures[i]), "path": None} for i in places],
        "label": [names.index(str(digits[i])) for i in places],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((values.reshape(8, 8) * 255 / 16).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()

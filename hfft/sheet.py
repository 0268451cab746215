"""Sheet: what the model will see in training, as a file for a person: a contact sheet of pictures, or texts as tokens.

Everything is taken from the tensors that reach the model: the rows of the first batch as they are without augmentation
and as the first epochs will draw them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hfft.messages import InputError, announce

PICTURES, TEXTS = "training_pictures.png", "training_texts.txt"
ROWS, EPOCHS = 8, 6
GAP, TEXT = 4, 14  # pixels between pictures; height of letters


def claim(folder: str | Path) -> Path:
    """Make the folder. Raises InputError where it holds something else than an earlier sheet."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--show: {str(folder)!r} is a file; name a folder")
    foreign = (
        sorted(path.name for path in folder.iterdir() if path.name not in (PICTURES, TEXTS)) if folder.is_dir() else []
    )
    if foreign:
        raise InputError(
            f"--show: {str(folder)!r} holds {foreign[0]!r}; name an empty folder, or one that is not there"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(trainer, rows, folder: str | Path) -> Path:
    """Write the file of the training split `rows` (canonical columns) and announce its path."""
    batch = [index for _, index, _ in next(iter(trainer.get_train_dataloader().batches))]
    places = batch[:: max(1, len(batch) // ROWS)][:ROWS]  # in length buckets the first ones are all short
    encoded = trainer.train_dataset
    if hasattr(encoded, "held"):  # a stream's first rows
        encoded = encoded.held(places)
        rows, places = encoded.rows, list(encoded.rows.rows)
    canonical = rows[_sources(encoded, rows, places)]
    views = [_view(trainer, replace(encoded, augment=()), places, canonical, 0)]
    if encoded.augment:
        views += [_view(trainer, encoded, places, canonical, epoch) for epoch in range(EPOCHS)]
    names = [f"row {row}" for row in canonical["row"]]
    if isinstance(views[0][0][0], str):
        path = Path(folder) / TEXTS
        blocks = [f"{name}, label {label}\n{text}\n" for name, (text, label) in zip(names, views[-1], strict=True)]
        path.write_text("\n".join(blocks), encoding="utf-8")
    else:
        path = Path(folder) / PICTURES
        heads = ["original", *[f"epoch {epoch + 1}" for epoch in range(len(views) - 1)]]
        sides = [f"{name}\n{label}" for name, (_, label) in zip(names, views[0], strict=True)]
        contact_sheet([[picture for picture, _ in view] for view in views], heads, sides).save(path)
    announce(f"check: what the model will see of {len(places)} training rows: {path}")
    return path


def _sources(encoded, rows, places: list[int]) -> list[int]:
    """The canonical rows that these encoded ones were made of: others where a long row was cut into several."""
    found = {} if encoded.encode is not None else encoded.rows[places]
    if "source_row" not in found:
        return places
    where = {row: place for place, row in enumerate(rows["row"])}
    return [where[int(row)] for row in found["source_row"]]


def _view(trainer, encoded, places: list[int], canonical: dict[str, list], epoch: int) -> list[tuple[Any, str]]:
    batch = trainer._collate(encoded.__getitems__([(epoch, place, False) for place in places]))
    return trainer.task.view(trainer.inputs_of(batch), canonical)


def contact_sheet(columns: list[list[np.ndarray]], heads: list[str], sides: list[str]) -> Image.Image:
    """Pictures of one size (height, width, 3) uint8, unscaled: `heads` above the columns, `sides` left of the rows."""
    font = ImageFont.load_default(TEXT)
    margin = 2 * GAP + round(max(font.getlength(line) for side in sides for line in side.split("\n")))
    height, width = columns[0][0].shape[:2]
    cell = max(width, round(max(font.getlength(head) for head in heads))) + GAP, max(height, 2 * TEXT + GAP) + GAP
    top = TEXT + 2 * GAP
    found = Image.new("RGB", (margin + len(columns) * cell[0], top + len(sides) * cell[1]), "white")
    draw = ImageDraw.Draw(found)
    for i, side in enumerate(sides):
        draw.multiline_text((GAP, top + i * cell[1]), side, fill="black", font=font)
    for j, (head, column) in enumerate(zip(heads, columns, strict=True)):
        draw.text((margin + j * cell[0], GAP), head, fill="black", font=font)
        for i, picture in enumerate(column):
            found.paste(Image.fromarray(picture), (margin + j * cell[0], top + i * cell[1]))
    return found

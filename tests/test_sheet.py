"""`hfft check --show`: the file holds exactly what reaches the model, and no other file is lost for it."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image

import hfft
from hfft import pipeline, preflight, sheet
from hfft.cli import main
from hfft.messages import InputError


def image_recipe(folder, **data) -> dict:
    return {
        "task": "image_classification",
        "model": {"name": tiny.build("vit", folder / "base")},
        "data": {"augment": [{"image": {"crop": [0.5, 1.0], "policy": "randaugment"}}], **data},
        "train": {"output_dir": str(folder / "run"), "per_device_train_batch_size": 4, "use_cpu": True},
    }


def places(whole: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Where `part` lies in `whole`, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)[:, :, 0]
    return [(int(y), int(x)) for y, x in np.argwhere((windows == part).all((-3, -2, -1)))]


@pytest.mark.parametrize("levers", ["all", "none"])
def test_the_pixels_of_the_sheet_are_those_of_the_tensors_that_reach_the_model(levers, tmp_path, monkeypatch):
    batches_seen, fitted = [], pipeline.fitted

    def kept(*args):
        batches_seen.append(fitted(*args))
        return batches_seen[-1]

    monkeypatch.setattr(preflight, "fitted", kept)
    recipe = image_recipe(tmp_path)
    recipe["train"]["levers"] = levers
    found = preflight.check(recipe, data=tiny.pictures(30, size=20), show=tmp_path / "show")
    whole = np.asarray(Image.open(found["shown"]))
    trainer = batches_seen[0]
    batch = next(iter(trainer.get_train_dataloader()))
    values = trainer._prepare_inputs(batch)["pixel_values"]
    pixels = ((values * 0.5 + 0.5) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    corners = [places(whole, picture) for picture in pixels]
    assert all(corners), "an augmented picture of the first batch is missing"
    assert len({x for found in corners for _, x in found[:1]}) == 1, "the first epoch has a column of its own"
    plain = replace(trainer.train_dataset, augment=())
    original = trainer._prepare_inputs(trainer._collate(plain.__getitems__([(0, i, False) for i in batch["rows"]])))
    first = ((original["pixel_values"][0] * 0.5 + 0.5) * 255).round().byte().permute(1, 2, 0).numpy()
    assert places(whole, first)[0][1] < corners[0][0][1], "the original stands left of it"


def test_a_text_shows_its_tokens_its_special_ones_and_where_it_is_cut(tmp_path):
    recipe = {
        "task": {"text_classification": {"max_length": 6}},
        "model": {"name": tiny.build("bert", tmp_path / "base")},
        "train": {"output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 20, "use_cpu": True},
    }
    rows = [{"text": "good film" if i % 2 else "bad plot and very dull actor", "label": i % 2} for i in range(24)]
    preflight.check(recipe, data={"train": rows, "validation": rows[:2]}, show=tmp_path / "show")
    text = (tmp_path / "show" / sheet.TEXTS).read_text()
    assert "[CLS] good film [SEP]\n" in text
    assert "[CLS] bad plot and very [SEP] … cut here: 6 of 8 tokens\n" in text
    assert "[PAD]" not in text and text.count("row ") == 8
    number, label = text.split("\n")[0].removeprefix("row ").split(", label ")
    assert rows[int(number)]["label"] == int(label)


def test_a_folder_with_other_files_is_refused_before_any_work(tmp_path):
    (tmp_path / "show").mkdir()
    (tmp_path / "show" / "holiday.png").write_bytes(b"dear to me")
    with pytest.raises(InputError, match="--show: .* holds 'holiday.png'; name an empty folder"):
        preflight.check(image_recipe(tmp_path), data=[], show=tmp_path / "show")
    with pytest.raises(InputError, match="is a file; name a folder"):
        sheet.claim(tmp_path / "show" / "holiday.png")
    (tmp_path / "show" / "holiday.png").rename(tmp_path / "show" / sheet.PICTURES)
    assert sheet.claim(tmp_path / "show") == tmp_path / "show"


def test_the_command_writes_the_sheet_and_says_where(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "eval"):
        with open(f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label"])
            for i, row in enumerate(tiny.pictures(8, seed=len(split))):
                row["image"].save(f"{split}{i}.png")
                writer.writerow([f"{split}{i}.png", row["label"]])
    recipe = image_recipe(tmp_path, path={"train": "train.csv", "eval": "eval.csv"}, eval="eval")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["check", "recipe.yaml", "--show", "seen", "train.per_device_train_batch_size=3"]) == 0
    said = capsys.readouterr().err
    assert "check: what the model will see of 3 training rows: seen/training_pictures.png" in said
    assert Image.open("seen/training_pictures.png").size[1] > 3 * 16


def test_without_augmentation_the_sheet_has_one_column(tmp_path):
    recipe = image_recipe(tmp_path, augment=[])
    wide, narrow = [
        Image.open(hfft.check(each, data=tiny.pictures(30), show=tmp_path / name)["shown"]).width
        for name, each in (("a", image_recipe(tmp_path)), ("b", recipe))
    ]
    assert wide > 3 * narrow / 2


def test_a_stream_shows_the_rows_that_it_draws_first(tmp_path):
    rows = [{"text": f"good film {'and ' * i}", "label": "pos" if i % 2 else "neg"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    recipe = {
        "task": "text_classification",
        "model": {"name": tiny.build("bert", tmp_path / "base")},
        "data": {"path": str(tmp_path / "rows.jsonl"), "load": {"streaming": True}, "eval_size": 4},
        "train": {"output_dir": str(tmp_path / "run"), "max_steps": 2, "use_cpu": True},
    }
    preflight.check(recipe, show=tmp_path / "show")
    for block in (tmp_path / "show" / sheet.TEXTS).read_text().split("\n\n"):
        number, label, words = re.match(r"row (\d+), label (\w+)\n\[CLS\] good film (.*)\[SEP\]", block).groups()
        assert int(number) >= 4, "the first rows are held out"
        assert (words.split(), label) == (["and"] * int(number), rows[int(number)]["label"])

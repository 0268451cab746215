"""Pictures in 8 bits up to the device: the same numbers as the checkpoint's processor gives, or its own way, said."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from PIL import Image

import hfft
from hfft import image, lookup, pixels
from hfft.recipe import ModelSection, Part
from hfft.tasks.image_classification import ImageClassification

CROP = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
PROCESSORS = {
    "vit": lambda: tf.ViTImageProcessor(size={"height": 16, "width": 16}),
    "mobilenet_v2": lambda: tf.MobileNetV2ImageProcessor(**CROP),
    "convnext": lambda: tf.ConvNextImageProcessor(size={"shortest_edge": 32}),
    "clip": lambda: tf.CLIPImageProcessor(**CROP),
    "bit": lambda: tf.BitImageProcessor(**CROP),
    "levit": lambda: tf.LevitImageProcessor(**CROP),
    "no rescaling": lambda: tf.ViTImageProcessor(size={"height": 16, "width": 16}, do_rescale=False),
    "another scale": lambda: tf.ViTImageProcessor(size={"height": 16, "width": 16}, rescale_factor=1 / 127.5),
}
NEARLY = {  # which multiply where we divide, or divide twice
    "no normalising": lambda: tf.ViTImageProcessor(size={"height": 16, "width": 16}, do_normalize=False),
    "flipped channels": lambda: tf.MobileViTImageProcessor(**CROP),
    "vit without torchvision": lambda: tf.ViTImageProcessorPil(size={"height": 16, "width": 16}),
    "clip without torchvision": lambda: tf.CLIPImageProcessorPil(**CROP),
}


def photos(num_rows: int = 5) -> list[Image.Image]:
    """Noise of several sizes and shapes."""
    noise = np.random.default_rng(1)
    sizes = [(16, 16), (40, 61), (61, 40), (300, 200), (33, 32)]
    return [Image.fromarray(noise.integers(0, 256, (*sizes[i], 3), dtype=np.uint8)) for i in range(num_rows)]


@pytest.mark.parametrize("name", [*PROCESSORS, *NEARLY])
def test_both_halves_together_are_the_processor(name):
    processor = (PROCESSORS | NEARLY)[name]()
    halves = pixels.eight_bit(processor)
    early = halves.pixels(photos())
    late, whole = halves.normalised(early), image.pixels(processor, photos())
    assert early.dtype == torch.uint8 and late.dtype == torch.float32 and late.is_contiguous()
    if name in PROCESSORS:
        assert torch.equal(late, whole)
    assert (late - whole).abs().max() <= 1e-6 * (whole.max() - whole.min())
    assert torch.equal(halves.restored(whole), early)


@pytest.mark.parametrize(
    ("name", "image_size", "crop"),
    [
        ("vit", None, True), ("vit", 32, True), ("mobilenet_v2", None, True), ("mobilenet_v2", None, False),
        ("mobilenet_v2", 48, True), ("timm", None, True), ("timm", None, False), ("timm_resnet", 48, True),
    ],
)  # fmt: skip
def test_a_task_with_uint8_gives_the_model_what_it_gives_without(name, image_size, crop, tmp_path):
    base = tiny.build(name, tmp_path)
    if name == "mobilenet_v2":
        tf.MobileNetV2ImageProcessor(**CROP).save_pretrained(base)
    section = ModelSection(name=base, image_size=image_size)
    inputs = []
    for uint8 in (False, True):
        task = lookup.call("tasks", Part("image_classification", {"crop": crop}))
        task.uint8 = uint8
        task.setup(section)
        rows = task.encode({"image": photos(), "label": [1] * 5})
        batch = task.collate([{"pixel_values": p, "labels": y} for p, y in zip(*rows.values(), strict=True)])
        assert batch["pixel_values"].dtype == (torch.uint8 if uint8 else torch.float32)
        inputs.append(task.prepare(batch)["pixel_values"])
        assert task.prepare({"pixel_values": inputs[-1]})["pixel_values"] is inputs[-1], "prepared twice"
        again = pickle.loads(pickle.dumps(task)).encode({"image": photos(1)})["pixel_values"][0]
        assert torch.equal(again, batch["pixel_values"][0]), "a spawned loader process pickles the task"
    assert torch.equal(*inputs)
    assert image_size is None or inputs[0].shape[-2:] == (image_size, image_size)


@pytest.mark.parametrize(
    ("processor", "why"),
    [
        (tf.EfficientNetImageProcessor, "stops with"),
        (tf.DINOv3ViTImageProcessor, "values differ by"),
        (tf.DetrImageProcessor, "differ in size"),
        (lambda: SimpleNamespace(), "names no mean and deviation"),
    ],
)
def test_a_processor_that_cannot_be_cut_in_two_is_used_whole_and_said_so(processor, why, caplog):
    with caplog.at_level("INFO", "hfft"):
        assert pixels.eight_bit(processor()) is None
    assert "normalised one by one as floats" in caplog.text and why in caplog.text


def finetune(folder, uint8: bool, monkeypatch, name: str = "vit") -> hfft.Result:
    monkeypatch.setattr(ImageClassification, "uint8", uint8)
    recipe = {
        "task": "image_classification",
        "model": {"name": tiny.build(name, folder / "base")},
        "data": {"augment": [{"image": {"crop": [0.5, 1.0], "policy": "randaugment"}}]},
        "train": {
            "output_dir": str(folder / "run"), "max_steps": 3, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "use_cpu": True, "levers": "none",
        },
    }  # fmt: skip
    return hfft.finetune(recipe, data=tiny.pictures(24, size=24))


def test_a_run_in_8_bits_ends_with_the_same_weights_metrics_and_answers(tmp_path, monkeypatch):
    plain, early = [finetune(tmp_path / str(uint8), uint8, monkeypatch) for uint8 in (False, True)]
    for a, b in zip(plain.model.parameters(), early.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert plain.metrics["eval"] == early.metrics["eval"]
    assert early.task.eight_bit is not None
    new = [row["image"] for row in tiny.pictures(6, seed=1, size=30)]
    answers = early.predict(new)
    monkeypatch.setattr(ImageClassification, "uint8", False)
    assert hfft.load(early.folder).predict(new) == answers == plain.predict(new)
    saved = [(result.folder / "preprocessor_config.json").read_text() for result in (plain, early)]
    assert saved[0] == saved[1] and '"do_normalize": true' in saved[1]


def test_metrics_are_those_of_the_answers(tmp_path, monkeypatch):
    from hfft.data import read_rows
    from hfft.evaluation import evaluate

    result, rows = finetune(tmp_path, True, monkeypatch), tiny.pictures(20, seed=2, size=20)
    answers = result.predict([{"image": row["image"]} for row in rows])
    accuracy = sum(a["label"] == row["label"] for a, row in zip(answers, rows, strict=True)) / 20
    found = evaluate(result, read_rows(rows, result.task, None, need_truth=True))
    truth = np.array([answer["scores"][row["label"]] for answer, row in zip(answers, rows, strict=True)])
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["loss"] == pytest.approx(-np.log(truth).mean(), abs=1e-6)


def test_a_large_jpeg_is_opened_at_a_part_of_its_size_and_looks_the_same(tmp_path):
    across, down = np.meshgrid(np.linspace(0, 255, 900), np.linspace(0, 255, 700))
    picture = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
    picture.save(tmp_path / "large.jpg", quality=95)
    picture.save(tmp_path / "large.png")
    task = ImageClassification()
    task.setup(ModelSection(name=tiny.build("vit", tmp_path / "base")))  # 16 x 16: from 64 pixels on
    small, whole = task.opened({"image": [tmp_path / "large.jpg", tmp_path / "large.png"]})["image"]
    assert small.size == (113, 88) and whole.size == (900, 700)
    both = [task.encode({"image": [each]})["pixel_values"][0] for each in (small, tmp_path / "large.jpg")]
    assert (both[0] - both[1]).abs().max() < 0.05  # of the range -1 to 1
    assert task.opened({"image": [small.resize((100, 100))]})["image"][0].size == (100, 100)

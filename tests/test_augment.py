"""augment/image: each option does what it says, wrong ones stop before training, and every row draws for itself."""

import random
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import hfft
from hfft.augment.image import LISTED, WORDS, image
from hfft.batches import EncodedRows, EpochLoader, GlobalBatches, shuffled
from hfft.messages import InputError

ALL = {"crop": [0.4, 1.0], "flip": 0.5, "policy": "randaugment", "color_jitter": [0.4, 0.4, 0.4, 0.1], "erase": 0.5}
NAMED = ["rand", "rand-m5-n3-p0.5-mstd0.5-inc1", "rand-m12-mmax20", "rand-tweights", "rand-t3aw-n2", "original-mstd0.5"]


def photo(size: tuple[int, int] = (48, 40)) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))


def drawn(times: int, **options) -> list[np.ndarray]:
    random.seed(0)
    torch.manual_seed(0)
    np.random.seed(0)
    return [np.asarray(image({"image": [photo()]}, **options)["image"][0]) for _ in range(times)]


def test_without_options_only_the_flip_is_on():
    pixels, plain = drawn(40), np.asarray(photo())
    flipped = [np.array_equal(each, plain[:, ::-1]) for each in pixels]
    assert 10 < sum(flipped) < 30
    assert all(np.array_equal(each, plain) for each, turned in zip(pixels, flipped, strict=True) if not turned)
    assert all(np.array_equal(each, plain) for each in drawn(5, flip=0.0))


def test_a_crop_keeps_the_share_of_the_area_that_it_names():
    areas = [each.shape[0] * each.shape[1] / (48 * 40) for each in drawn(60, crop=[0.3, 0.5], flip=0.0)]
    assert min(areas) < 0.36 < 0.44 < max(areas) and all(0.27 < area < 0.53 for area in areas)


def test_erasing_turns_a_rectangle_of_2_to_33_percent_into_noise_as_often_as_it_says():
    plain, shares = np.asarray(photo()), []
    for each in drawn(200, erase=0.4, flip=0.0):
        changed = (each != plain).any(-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert changed.sum() > 0.95 * box, "it is no rectangle"
            shares.append(box / changed.size)
    assert 60 < len(shares) < 100 and 0.01 < min(shares) < 0.1 and 0.25 < max(shares) < 0.36


def test_colour_moves_as_far_as_it_says_and_hue_only_when_named():
    means = [each.mean() for each in drawn(60, color_jitter=[0.5, 0, 0], flip=0.0)]
    assert min(means) < 0.7 * 127 and max(means) > 1.1 * 127
    gray = {"image": [Image.new("RGB", (8, 8), (90, 90, 90))]}
    assert np.ptp(np.asarray(image(gray, color_jitter=0.5, flip=0.0)["image"][0]), axis=-1).max() == 0
    turned = drawn(5, color_jitter=[0, 0, 0, 0.5], flip=0.0)
    assert any(abs(each.astype(int) - np.asarray(photo())).max() > 40 for each in turned)


@pytest.mark.parametrize("policy", [*WORDS, *LISTED, *NAMED])
def test_every_policy_that_is_allowed_changes_pictures(policy):
    assert sum(not np.array_equal(each, np.asarray(photo())) for each in drawn(20, policy=policy, flip=0.0)) > 5


@pytest.mark.parametrize("policy", ["rand-m99-mmax99-n10-p1", "rand-m10-inc1-n10-p1", "rand-m10-t3aw-n10-p1", "v0"])
def test_no_policy_stops_at_its_strongest(policy):
    """Pillow 13 refuses the 0 bits that timm asks posterize for."""
    assert all(each.shape == (40, 48, 3) for each in drawn(150, policy=policy))


def test_a_plain_word_is_the_policy_that_the_page_names():
    both = [drawn(10, policy=name, flip=0.0) for name in ("randaugment", "rand-m9-mstd0.5-inc1")]
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"policy": "tandaugment"}, "'tandaugment' is unknown. Did you mean 'randaugment'\\? write randaugment, "),
        ({"policy": "augmix-m3"}, "'augmix-m3' is unknown. write "),
        ({"policy": ""}, "'' is unknown"),
        ({"policy": "rand-x3"}, "'x3' cannot be meant; write .*rand-m9-mstd0.5-inc1"),
        ({"policy": "rand-m9.5"}, "'m9.5' cannot be meant"),
        ({"policy": "rand-mstdinf"}, "'mstdinf' cannot be meant"),
        ({"policy": "rand-tbig"}, "'tbig' cannot be meant"),
        ({"policy": "rand-m9-m8"}, "'m8' cannot be meant"),
        ({"policy": "rand-inc2"}, "'inc2' cannot be meant"),
        ({"policy": "original-m9"}, "'m9' cannot be meant"),
        ({"policy": "rand-m12"}, "m12 is above 10; write m10, or mmax12 too"),
        ({"flip": 1.5}, "flip 1.5 is no probability"),
        ({"erase": -0.1}, "erase -0.1 is no probability"),
        ({"crop": [0.0, 1.0]}, "is no range of area shares; write"),
        ({"crop": [0.5]}, "is no range of area shares; write"),
        ({"color_jitter": 1.5}, "color_jitter 1.5: write a number from 0 to 1"),
        ({"color_jitter": [0.1, 0.1]}, "write a number from 0 to 1, or"),
        ({"color_jitter": [0.1, 0.1, 0.1, 0.6]}, "with a hue from 0 to 0.5"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_is_allowed(options, what):
    with pytest.raises(InputError, match=what) as caught:
        image({"image": []}, **options)
    assert len(caught.value.lines) == 1 and str(caught.value).startswith("data.augment: image: ")


def test_a_wrong_policy_stops_before_training_and_before_the_old_run_is_removed(tmp_path):
    recipe = {
        "task": "image_classification",
        "model": {"name": tiny.build("vit", tmp_path / "base")},
        "train": {"output_dir": str(tmp_path / "run"), "max_steps": 1, "use_cpu": True},
    }
    hfft.finetune(recipe, data=tiny.pictures(12))
    recipe["data"] = {"augment": [{"image": {"policy": "rand-x9"}}]}
    with pytest.raises(InputError, match="'x9' cannot be meant"):
        hfft.finetune(recipe, data=tiny.pictures(12), overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def encode(rows: dict[str, list], *, train: bool = False) -> dict[str, list]:
    """Pictures as 16 x 16 tensors."""
    return {"pixels": [torch.from_numpy(np.array(each.resize((16, 16)))) for each in rows["image"]]}


def epochs(path: Path, num_workers: int, batch_size: int) -> list[dict[int, torch.Tensor]]:
    """row -> pixels of two epochs over 12 pictures with every option on."""
    values = {"image": [{"bytes": None, "path": str(path)}] * 12}
    rows = EncodedRows(datasets.Dataset.from_dict(values), encode, (partial(image, **ALL),), seed=3, train=True)
    loader = EpochLoader(rows, GlobalBatches(12, batch_size, shuffled(12, 3)), num_workers=num_workers, collate_fn=list)
    found = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        found.append({row["row"]: row["pixels"] for batch in loader for row in batch})
    return found


def test_each_row_draws_for_itself_whatever_the_workers_and_the_batches(tmp_path):
    path = tmp_path / "photo.png"
    photo((64, 48)).save(path)
    alone, *others = [epochs(path, workers, size) for workers, size in ((0, 4), (2, 4), (0, 5), (1, 12))]
    for other in others:
        assert all(torch.equal(other[epoch][row], alone[epoch][row]) for epoch in (0, 1) for row in range(12))
    pictures = [each.numpy().tobytes() for epoch in alone for each in epoch.values()]
    assert len(set(pictures)) == 24, "rows and epochs must differ"


def test_augmenting_leaves_the_random_generators_as_they_were():
    rows = EncodedRows(
        datasets.Dataset.from_list([{"image": row["image"]} for row in tiny.pictures(2)]), encode,
        (partial(image, **ALL),),
    )  # fmt: skip
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    rows.__getitems__([(0, 0, False), (0, 1, False)])
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()

"""Pictures that are wrong or odd, row V01 to V33 of the catalogue of faults: what `hfft check` says of a folder of each.

Refused ones name their file; the others are used as they are meant, with the warning that belongs to them.
"""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image
from test_wrong_data import DIRECTORY, IMAGE, Link, animation, header_only, noise, picture, write
from verdict import one_a_row, told

from hfft.data import load_splits, read_rows
from hfft.image import open_rgb

BAD = "replace or remove the picture, or set data.on_bad_row: skip"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny vision transformer for pictures of 16 x 16."""
    folder = tmp_path_factory.mktemp("base")
    tiny.build("vit", folder / "vit")
    return folder


def folders(files: dict | None = None) -> dict:
    """Two classes of three pictures to train, two of each to evaluate, with files added, replaced or (None) taken away."""
    usual = {
        f"{split}/{name}/{i}.jpg": noise(i + 10 * (name == "dog") + 100 * (split == "val"))
        for split, count in (("train", 3), ("val", 2))
        for name in ("cat", "dog")
        for i in range(count)
    }
    return {name: content for name, content in (usual | (files or {})).items() if content is not None}


def table(*rows: str, files: dict | None = None) -> dict:
    """train.csv and val.csv of pictures beside them."""
    usual = {f"{i}.jpg": noise(i) for i in range(6)}
    head = ["image,label", "0.jpg,cat", "1.jpg,dog", "2.jpg,cat", "3.jpg,dog"]
    val = "image,label\n4.jpg,cat\n5.jpg,dog\n"
    return usual | {"train.csv": "\n".join([*head, *rows]) + "\n", "val.csv": val} | (files or {})


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def of_floats(values: np.ndarray) -> bytes:
    return as_file(Image.fromarray(values.astype(np.float32)), "TIFF")


SIXTEEN = Image.fromarray(np.full((16, 16), 20_000, dtype=np.uint16))
HALF = np.full((16, 16), 0.5)
FIRST = "train/cat/0.jpg"
FLAT = {f"{split}/{i}.jpg": noise(i) for split in ("train", "val") for i in range(3)}

# row and what is wrong -> (files, the recipe's data section, part of the one line)
REFUSED = {
    "V01 garbage after a JPEG's first bytes": (
        folders({FIRST: b"\xff\xd8\xff\xe0" + b"garbage" * 9}), {}, f"{FIRST}: is damaged (Truncated File Read); {BAD}",
    ),
    "V01 garbage after a PNG's first bytes": (
        folders({"train/cat/0.png": b"\x89PNG\r\n\x1a\n" + b"garbage" * 9}), {}, "train/cat/0.png: is ",
    ),
    "V02 a truncated JPEG": (
        folders({FIRST: noise(1)[:-60]}), {}, f"{FIRST}: is damaged (image file is truncated (89 bytes not processed)); {BAD}",
    ),
    "V02 a JPEG of which half is there": (folders({FIRST: noise(1)[:400]}), {}, f"{FIRST}: is damaged ("),
    "V03 a truncated PNG": (
        folders({"val/cat/9.png": picture("PNG", (64, 64))[:-30]}), {}, f"val/cat/9.png: is damaged (image file is truncated); {BAD}",
    ),
    "V03 a truncated WebP": (folders({"train/cat/9.webp": picture("WEBP", (64, 64))[:-9]}), {}, "train/cat/9.webp: is "),
    "V03 a truncated GIF": (folders({"train/cat/9.gif": picture("GIF", (64, 64), "L", 9)[:-40]}), {}, "train/cat/9.gif: is "),
    "V04 an empty file": (folders({FIRST: b""}), {}, f"{FIRST}: is an empty file (0 bytes); {BAD}"),
    "V05 a web page": (
        folders({FIRST: b"<!DOCTYPE html><html>404</html>"}), {}, f"{FIRST}: is a web page, not a picture; {BAD}",
    ),
    "V05 a JSON answer": (folders({FIRST: b'{"error": 404}'}), {}, f"{FIRST}: is no picture that can be decoded; {BAD}"),
    "V10 floats below zero": (
        folders({"train/cat/9.tif": of_floats(HALF - 1)}), {},
        "train/cat/9.tif: is damaged (picture of mode F has values -0.5 to 0; write it with 8 or 16 bits)",
    ),
    "V10 floats that are no numbers": (
        folders({"train/cat/9.tif": of_floats(HALF * float("nan"))}), {}, "train/cat/9.tif: is damaged (picture of mode F has values nan",
    ),
    "V15 a bomb": (
        folders({"train/cat/9.png": header_only(20_000, 20_000)}), {}, "train/cat/9.png: has more than 100,000,000 pixels;",
    ),
    "V16 more than 100 megapixels": (
        folders({"train/cat/9.png": header_only(13_000, 13_000)}), {}, "train/cat/9.png: has 13000x13000 pixels, more than 100,000,000;",
    ),
    "V22 a class only in validation": (
        folders({"val/owl/0.jpg": noise(8)}), {}, "val/owl/0.jpg: 'owl' is no class of train (cat, dog); write a class",
    ),
    "V24 a link to a file outside": (
        folders({FIRST: Link("/etc/hostname")}), {}, f"{FIRST}: is a link to a file outside the data's folder; put the file",
    ),
    "V24 a link to a folder outside": (
        folders({"train/owl": Link("/etc")}), {}, "train/owl: is a link to a folder, which is not followed; put the folder",
    ),
    "V25 a link to the folder above": (
        folders({"train/owl": Link("..")}), {}, "train/owl: is a link to a folder, which is not followed; put the folder",
    ),
    "V27 a table that leads outside": (
        table("../out.jpg,cat"), {}, "train.csv line 6, column 'image': '../out.jpg' leads out of the data's folder;",
    ),
    "V27 metadata that lead outside": (
        {f"train/{i}.jpg": noise(i) for i in range(4)}
        | {"train/metadata.csv": "file_name,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,cat\n../../out.jpg,dog\n"},
        {"path": "DATA/train"}, "metadata.csv line 5, column 'file_name': '../../out.jpg' leads out of the data's folder;",
    ),
    "V28 metadata that name a missing file": (
        {f"train/{i}.jpg": noise(i) for i in range(4)}
        | {"train/metadata.csv": "file_name,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,cat\ngone.jpg,dog\n"},
        {"path": "DATA/train"}, "metadata.csv line 5, column 'file_name': 'gone.jpg' is not there;",
    ),
    "V28 a table that names a missing file": (
        table("gone.jpg,cat"), {}, "train.csv line 6, column 'image': 'gone.jpg' is not there; give a path relative to",
    ),
    "V28 a table that names a folder": (
        table("sub,cat", files={"sub/1.txt": "x"}), {}, "train.csv line 6, column 'image': 'sub' is not there;",
    ),
    "V29 no class folders": (FLAT, {}, "DATA/train: 3 pictures but no class folders; sort them into <class>/<picture>"),
    "V31 an absolute path": (
        table("/etc/hostname,cat"), {}, "train.csv line 6, column 'image': '/etc/hostname' is an absolute path; give paths relative",
    ),
    "V31 a URL": (
        table("http://127.0.0.1:9/a.jpg,cat"), {}, "train.csv line 6, column 'image': 'http://127.0.0.1:9/a.jpg' is a URL, which is not fetched;",
    ),
    "V31 a URL of a file": (
        table("file:///etc/hostname,cat"), {}, "train.csv line 6, column 'image': 'file:///etc/hostname' is a URL, which is not",
    ),
    "V31 a picture in the path itself": (
        table('"data:image/png;base64,AAAA",cat'), {}, "train.csv line 6, column 'image': 'data:image/png;base64,AAAA' is a URL,",
    ),
}  # fmt: skip

# row and what it is -> (files, the recipe's data section, the warnings, training rows)
USED = {
    "V06 a PNG named .jpg": (folders({FIRST: picture("PNG", (20, 20), colour="red")}), {}, [], 6),
    "V08 CMYK": (
        folders({FIRST: picture("JPEG", (32, 32), "CMYK")}), {},
        [f"train: 1 picture in CMYK: converted without a colour profile (first: {FIRST})"], 6,
    ),
    "V09 16 bits": (folders({"train/cat/9.png": as_file(SIXTEEN, "PNG")}), {}, [], 7),
    "V09 16 bits, nearly black": (
        folders({"train/cat/9.png": as_file(Image.fromarray(np.full((16, 16), 200, dtype=np.uint16)), "PNG")}), {},
        ["train: 1 picture of 16 bits with values below 256, so nearly black (first: train/cat/9.png)"], 7,
    ),
    "V10 floats from 0 to 1": (folders({"train/cat/9.tif": of_floats(HALF)}), {}, [], 7),
    "V11 an animation": (
        folders({"train/cat/9.gif": animation()}), {},
        ["train: 1 picture animated: the first frame is used (first: train/cat/9.gif)"], 7,
    ),
    "V12 palette, transparency, gray with alpha, one bit": (
        folders({f"train/cat/{mode}.png": picture("PNG", (20, 20), mode) for mode in ("P", "RGBA", "LA", "1")}), {}, [], 10,
    ),
    "V13 one pixel": (
        folders({"train/cat/9.png": picture("PNG", (1, 1))}), {},
        ["train: 1 picture with a side below 8 pixels (first: train/cat/9.png)"], 7,
    ),
    "V13 a line": (
        folders({"train/cat/9.png": picture("PNG", (1, 5000))}), {},
        [
            "train: 1 picture with a side below 8 pixels (first: train/cat/9.png)",
            "train: 1 picture more than 20 times as long as wide (first: train/cat/9.png)",
        ], 7,
    ),
    "V18 files of the system and a read-me": (
        folders({f"train/cat/{name}": "x" for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "README.md")}), {}, [], 6,
    ),
    "V18 other files": (
        folders({"train/cat/notes.xml": "x"}), {}, ["DATA: 1 file without a picture's ending not read (train/cat/notes.xml)"], 6,
    ),
    "V19 a hidden folder": (
        folders({"train/.ipynb_checkpoints/1.jpg": noise(7), "__MACOSX/train/cat/1.jpg": noise(8)}), {}, [], 6,
    ),
    "V20 endings in capitals": (folders({"train/cat/A.JPG": noise(40), "train/dog/B.JPEG": noise(41)}), {}, [], 8),
    "V21 an empty class folder": (
        folders({"train/owl": DIRECTORY}), {}, ["DATA/train/owl: an empty class folder, no class comes of it"], 6,
    ),
    "V23 a class that validation lacks": (
        folders({"val/dog/0.jpg": None, "val/dog/1.jpg": None}), {},
        ["val: 1 class ('dog') of train without rows here, so not measured"], 6,
    ),
    "V25 a broken link": (
        folders({"train/cat/9.jpg": Link("gone.jpg")}), {}, ["train/cat/9.jpg: a broken link, not read"], 6,
    ),
    "V25 a link to itself": (
        folders({"train/cat/9.jpg": Link("9.jpg")}), {}, ["train/cat/9.jpg: a broken link, not read"], 6,
    ),
    "V24 a link to a file inside": (folders({"train/cat/9.jpg": Link("../dog/0.jpg")}), {"labels": None}, None, 7),
    "V26 odd letters in names": (
        folders({f"train/cat/{name}.jpg": noise(60 + i) for i, name in enumerate(["a b", "ü#%?&", "c\nd", "e'\"f", "\u202eg", "'"])}),
        {}, [], 12,
    ),
    "V30 the same picture in training and validation": (
        folders({"val/cat/0.jpg": noise(0)}), {}, ["val: 1 row (25.0 %) also in train, so its score is too good"], 6,
    ),
    "V17 a bad one, skipped": (
        folders({FIRST: b""}), {"on_bad_row": "skip"},
        [f"train: 1 bad row of 6 dropped (data.on_bad_row: skip); first: {FIRST}: is an empty file (0 bytes); {BAD}"], 5,
    ),
}  # fmt: skip

# row and what is done to the model's folder -> (recipe's model section, part of the one line)
PROCESSORS = {
    "V32 pictures of another size than the model's": (
        lambda model: edit(model / "preprocessor_config.json", size={"height": 24, "width": 24}), {},
        "a training step fails: Input image size (24*24) doesn't match model (16*16)",
    ),
    "V32 a size in the recipe that is not the model's": (
        lambda model: None, {"image_size": 32}, "a training step fails: Input image size (32*32) doesn't match model (16*16)",
    ),
    "V32 a size of nothing": (
        lambda model: edit(model / "preprocessor_config.json", size={"height": 0, "width": 16}), {},
        "model 'MODEL': its image processor has size {'height': 0, 'width': 16}; a side has 1 to 8,192 pixels",
    ),
    "V32 a size beyond all": (
        lambda model: edit(model / "preprocessor_config.json", size={"height": 10**6, "width": 10**6}), {},
        "model 'MODEL': its image processor has size",
    ),
    "V33 no processor": (
        lambda model: (model / "preprocessor_config.json").unlink(), {},
        "model 'MODEL': no image processor can be loaded; for pictures a model has a preprocessor_config.json",
    ),
    "V33 an unknown processor": (
        lambda model: edit(model / "preprocessor_config.json", image_processor_type="FooImageProcessor"), {},
        "model 'MODEL': no image processor can be loaded; for pictures a model has a preprocessor_config.json",
    ),
    "V33 a processor that is no JSON": (
        lambda model: (model / "preprocessor_config.json").write_text("{"), {},
        "model 'MODEL': no image processor can be loaded; for pictures a model has a preprocessor_config.json",
    ),
}  # fmt: skip


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def recipe(folder: Path, model: Path, files: dict, data: dict, **options) -> Path:
    write(folder / "DATA", files)
    given = {
        key: value.replace("DATA", str(folder / "DATA")) if key == "path" else value for key, value in data.items()
    }
    content = {
        "task": "image_classification",
        "model": {"name": str(model), **options},
        "data": {"path": str(folder / "DATA"), **given},
        "train": {"output_dir": str(folder / "run"), "use_cpu": True, "max_steps": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def of_kind(lines: list[str], kind: str, folder: Path) -> list[str]:
    start = f"hfft: {kind}: "
    found = [
        line.removeprefix(start).replace(str(folder / "model"), "MODEL") for line in lines if line.startswith(start)
    ]
    return [line.replace(str(folder / "DATA"), "DATA") for line in found]


@pytest.mark.parametrize("case", one_a_row(REFUSED))
def test_a_wrong_picture_is_refused_with_its_file(case, forks, base, tmp_path):
    files, data, expected = REFUSED[case]
    lines = told(forks, "check", recipe(tmp_path, base / "vit", files, data), code=2)
    [line] = of_kind(lines, "error", tmp_path)
    assert expected in line


@pytest.mark.parametrize("case", one_a_row(USED))
def test_an_odd_picture_is_used_as_it_is_meant_with_its_warning(case, forks, base, tmp_path):
    files, data, warnings, rows = USED[case]
    lines = told(forks, "check", recipe(tmp_path, base / "vit", files, data), code=0)
    assert warnings is None or of_kind(lines, "warning", tmp_path) == warnings
    assert any(f"check: {rows} rows to train on" in line for line in lines)


@pytest.mark.parametrize("case", one_a_row(PROCESSORS))
def test_a_picture_processor_that_does_not_fit_is_refused(case, forks, base, place):
    change, options, expected = PROCESSORS[case]
    shutil.copytree(base / "vit", place / "model")
    change(place / "model")
    lines = told(forks, "check", recipe(place, place / "model", folders(), {}, **options), code=2)
    [line] = of_kind(lines, "error", place)
    assert expected in line


def test_v32_training_says_so_too(forks, base, tmp_path):
    lines = told(forks, "train", recipe(tmp_path, base / "vit", folders(), {}, image_size=32), code=2)
    [line] = of_kind(lines, "error", tmp_path)
    assert "the first training step fails: Input image size (32*32) doesn't match model (16*16)" in line


def test_v17_one_bad_picture_of_a_thousand_is_found_before_training(forks, base, tmp_path):
    files = {f"train/{('cat', 'dog')[i % 2]}/{i}.jpg": noise(i % 50) for i in range(1000)}
    files["train/dog/777.jpg"] = files["train/dog/777.jpg"][:-60]
    lines = told(forks, "train", recipe(tmp_path, base / "vit", files, {}), code=2)
    [line] = of_kind(lines, "error", tmp_path)
    assert line.startswith("train/dog/777.jpg: is damaged (image file is truncated")


def test_v07_a_flipped_bit_changes_the_fingerprint_of_the_data(tmp_path):
    prints = []
    for name, content in (("a", noise(0)), ("b", flipped(noise(0), 700)), ("c", noise(0))):
        write(tmp_path / name, folders({FIRST: content}))
        prints.append(load_splits(SimpleNamespace(path=str(tmp_path / name)), IMAGE, seed=0).report["fingerprint"])
    assert prints[0] == prints[2] != prints[1]


SHADES = {  # what is in the file -> the gray of its first pixel
    "V09 16 bits": (as_file(SIXTEEN, "PNG"), 78),
    "V09 16 bits, dark": (as_file(Image.fromarray(np.full((9, 9), 514, dtype=np.uint16)), "PNG"), 2),
    "V10 floats from 0 to 1": (of_floats(HALF), 128),
    "V10 floats from 0 to 255": (of_floats(HALF * 80), 40),
    "V12 transparent black": (as_file(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"), 255),
    "V12 half transparent black": (as_file(Image.new("LA", (9, 9), (0, 128)), "PNG"), 127),
    "V12 a transparent colour of the palette": (as_file(Image.new("P", (9, 9), 0), "PNG", transparency=0), 255),
    "V12 one bit": (as_file(Image.new("1", (9, 9), 1), "PNG"), 255),
    "V08 CMYK white": (as_file(Image.new("CMYK", (9, 9), (0, 0, 0, 0)), "TIFF"), 255),
}


@pytest.mark.parametrize("case", SHADES)
def test_every_kind_of_picture_becomes_rgb_as_it_is_meant(case):
    content, expected = SHADES[case]
    assert open_rgb(content).getpixel((0, 0)) == (expected,) * 3


def test_v14_a_turned_picture_is_set_upright_in_training_and_in_prediction(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = as_file(Image.new("RGB", (60, 30)), "JPEG", exif=exif)
    write(tmp_path / "DATA", folders({FIRST: turned}))
    splits = load_splits(SimpleNamespace(path=str(tmp_path / "DATA")), IMAGE, seed=0)
    [trained] = [row["image"] for row in splits.train if row["image"]["path"].endswith(FIRST)]
    asked = read_rows(Path(trained["path"]), IMAGE)[0]["image"]
    assert open_rgb(trained).size == open_rgb(asked).size == open_rgb(turned).size == (30, 60)

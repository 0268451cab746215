"""What Result.predict takes: each form gives the same answer in the same order, and anything else is one line."""

import io
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image

import hfft
from hfft.messages import InputError
from hfft.reading.inputs import named

DATASET = datasets.Dataset
PAIR = ("bad", "good film")


def run_of(folder: Path, name: str, rows: list[dict], **sections) -> hfft.Result:
    recipe = {
        "task": f"{tiny.CONFIGS[name][0]}_classification",
        "model": {"name": tiny.build(name, folder / "base")},
        "train": {"output_dir": str(folder / "run"), "use_cpu": True, "max_steps": 2, "learning_rate": 1e-2},
    }
    return hfft.finetune(recipe | sections, data=rows)


@pytest.fixture(scope="module")
def text_run(tmp_path_factory) -> hfft.Result:
    rows = [{"utterance": row["text"], "mood": row["label"]} for row in tiny.sentences(24)]
    return run_of(tmp_path_factory.mktemp("text"), "bert", rows, data={"columns": {"text": "utterance"}})


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory) -> hfft.Result:
    rows = [{"premise": row["text"], "hypothesis": "good film", "label": row["label"]} for row in tiny.sentences(24)]
    return run_of(tmp_path_factory.mktemp("pair"), "bert", rows)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory) -> hfft.Result:
    rows = [{"img": row["image"], "kind": row["label"]} for row in tiny.pictures(24)]
    columns = {"image": "img", "label": "kind"}
    return run_of(tmp_path_factory.mktemp("image"), "vit", rows, data={"columns": columns})


def scores(answers: list[dict]) -> np.ndarray:
    return np.array([list(answer["scores"].values()) for answer in answers])


def same(run: hfft.Result, given, expected: list) -> None:
    """`given` has the answers of `expected`, a list of single inputs, in its order and with its row numbers."""
    found = run.predict(given)
    assert [answer["row"] for answer in found] == list(range(len(expected)))
    alone = np.concatenate([scores(run.predict([one])) for one in expected])
    assert np.abs(scores(found) - alone).max() < 1e-6


TEXTS = ["good film", "a very bad plot and a dull scene", "bad film"]
TEXT_FORMS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "array": np.array(TEXTS),
    "series": pd.Series(TEXTS, index=[7, 5, 3]),
    "dicts, the task's name": [{"text": text} for text in TEXTS],
    "dicts, the recipe's name": [{"utterance": text, "mood": "pos", "id": i} for i, text in enumerate(TEXTS)],
    "dict of columns": {"utterance": TEXTS, "id": [1, 2, 3]},
    "frame": pd.DataFrame({"id": [1, 2, 3], "utterance": TEXTS}, index=[2, 1, 0]),
    "data set": DATASET.from_dict({"text": TEXTS}),
    "data set, the recipe's names": DATASET.from_dict({"mood": [0, 0, 1], "utterance": TEXTS}),
    "data set in another order": DATASET.from_dict({"utterance": TEXTS[::-1]}).select([2, 1, 0]),
    "column": DATASET.from_dict({"x": TEXTS})["x"],
}


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_texts_in_every_form_are_answered_in_order(text_run, form):
    same(text_run, TEXT_FORMS[form], TEXTS)


@pytest.mark.parametrize("one", ["good film", {"text": "good film"}, {"utterance": "good film", "mood": "neg"}])
def test_a_single_text_gives_a_list_of_one(text_run, one):
    same(text_run, one, ["good film"])


def test_files_of_texts_are_read_by_their_path(text_run, tmp_path):
    (tmp_path / "a.csv").write_text("utterance,mood\n" + "".join(f"{text},pos\n" for text in TEXTS))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "c.txt").write_text("\n".join(TEXTS) + "\n")
    for name in ("a.csv", "b.jsonl", "c.txt"):
        same(text_run, tmp_path / name, TEXTS)


def test_a_string_that_could_be_a_file_or_a_text_is_asked_about(text_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("text\ngood film\nbad film\n")
    line = (
        "input: is 'data.csv' a text or a file? give ['data.csv'] for the text, pathlib.Path('data.csv') for the file"
    )
    with pytest.raises(InputError) as caught:
        text_run.predict("data.csv")
    assert str(caught.value) == line
    assert len(text_run.predict(Path("data.csv"))) == 2
    assert len(text_run.predict(["data.csv"])) == 1
    with pytest.raises(InputError, match="is 'gone.csv' a text or a file"):
        text_run.predict("gone.csv")
    assert len(text_run.predict("data csv")) == 1


def test_a_word_of_the_command_line_is_a_file_where_one_can_be_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("text\ngood film\n")
    assert named("data.csv", False) == Path("data.csv") and named("gone.csv", False) == Path("gone.csv")
    assert named("a good film", False) == ["a good film"]
    assert named("cat", True) == Path("cat")
    assert named("-", False) is named("-", True) is sys.stdin


@pytest.mark.slow
def test_the_command_takes_such_a_word_for_the_file(text_run, tmp_path):
    (tmp_path / "data.csv").write_text("text\ngood film\nbad film\n")
    code = "import sys; from hfft.cli import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", code, "predict", str(text_run.folder), "data.csv"]
    out = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    answers = [json.loads(line) for line in out.stdout.splitlines()]
    assert [answer["row"] for answer in answers] == [0, 1]


PAIR_FORMS = {
    "one tuple": PAIR,
    "tuples": [PAIR],
    "tuple of tuples": (PAIR,),
    "dict": {"premise": PAIR[0], "hypothesis": PAIR[1]},
    "dicts, the task's names": [{"text": PAIR[0], "text_pair": PAIR[1]}],
    "columns": {"hypothesis": [PAIR[1]], "premise": [PAIR[0]]},
    "frame": pd.DataFrame({"id": [4], "hypothesis": [PAIR[1]], "premise": [PAIR[0]], "label": ["pos"]}),
    "data set": DATASET.from_dict({"text": [PAIR[0]], "text_pair": [PAIR[1]]}),
}


@pytest.mark.parametrize("form", PAIR_FORMS)
def test_pairs_in_every_form(pair_run, form):
    same(pair_run, PAIR_FORMS[form], [PAIR])
    other = scores(pair_run.predict([PAIR[::-1]]))
    assert np.abs(scores(pair_run.predict(PAIR_FORMS[form])) - other).max() > 1e-6, "the order in a pair counts"


@pytest.mark.parametrize("given", ["bad", ["bad", "good film"], [("bad",)], [("a", "b", "c")], [["bad", "good"]]])
def test_a_run_on_pairs_takes_no_single_texts(pair_run, given):
    with pytest.raises(
        InputError, match=r"^input row 0: is of type \w+; this run takes \(text, text_pair\) as a tuple"
    ):
        pair_run.predict(given)


@pytest.mark.parametrize("given", [{"premise": "bad"}, {"text": ["bad"]}, pd.DataFrame({"hypothesis": ["bad"]})])
def test_a_row_without_its_pair_is_told(pair_run, given):
    with pytest.raises(InputError, match=r"none is left; .*Or call the input's column by that name\.$"):
        pair_run.predict(given)


def test_a_loaded_run_knows_that_it_was_trained_on_pairs(pair_run, text_run):
    with pytest.raises(InputError, match="this run takes"):
        hfft.load(pair_run.folder).predict("bad")
    with pytest.raises(InputError, match="is of type tuple; this run takes a text,"):
        hfft.load(text_run.folder).predict([PAIR])


ARRAYS = [np.asarray(row["image"]) for row in tiny.pictures(2, seed=3)]
PICTURES = [Image.fromarray(array) for array in ARRAYS]


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


BYTES = [png(picture) for picture in PICTURES]
TENSORS = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in ARRAYS]
DECODED = DATASET.from_dict({"img": [{"bytes": data} for data in BYTES], "kind": ["dark", "light"]})
DECODED = DECODED.cast_column("img", datasets.Image())
IMAGE_FORMS = {
    "pictures": PICTURES,
    "tuple": tuple(PICTURES),
    "bytes": BYTES,
    "arrays": ARRAYS,
    "one array of both": np.stack(ARRAYS),
    "floats to 1": [array / 255 for array in ARRAYS],
    "floats to 255": [array.astype(np.float32) for array in ARRAYS],
    "integers": [array.astype(np.int64) for array in ARRAYS],
    "tensors": TENSORS,
    "one tensor of both": torch.stack(TENSORS),
    "float tensors": [tensor / 255 for tensor in TENSORS],
    "mixed": [ARRAYS[0], BYTES[1]],
    "series": pd.Series(PICTURES),
    "dicts": [{"image": picture, "label": "x"} for picture in PICTURES],
    "dict of columns": {"img": ARRAYS},
    "frame": pd.DataFrame({"img": BYTES, "kind": ["dark", "light"]}),
    "data set": DECODED,
    "data set, not decoded": DECODED.cast_column("img", datasets.Image(decode=False)),
    "data set, the task's name": DECODED.remove_columns("kind").rename_column("img", "image"),
    "column": DECODED["img"],
}


@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_pictures_in_every_form_are_answered_in_order(image_run, form):
    same(image_run, IMAGE_FORMS[form], PICTURES)


@pytest.mark.parametrize("one", [PICTURES[0], ARRAYS[0], TENSORS[0], BYTES[0], {"image": ARRAYS[0]}], ids=type)
def test_a_single_picture_gives_a_list_of_one(image_run, one):
    same(image_run, one, PICTURES[:1])


def test_pictures_by_path_one_by_one_in_a_folder_and_in_a_table(image_run, tmp_path):
    paths = [tmp_path / "in" / f"{i}.png" for i in range(2)]
    paths[0].parent.mkdir()
    for path, data in zip(paths, BYTES, strict=True):
        path.write_bytes(data)
    (tmp_path / "table.csv").write_text("img,kind\n" + "".join(f"in/{path.name},dark\n" for path in paths))
    every = (paths, [str(path) for path in paths], tmp_path / "in", str(tmp_path / "in"), tmp_path / "table.csv")
    for given in every:
        same(image_run, given, PICTURES)
    same(image_run, str(paths[0]), PICTURES[:1])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (np.array([[0, 255], [255, 0]], dtype=np.uint8), "L"),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), "L"),
        (np.array([[False, True], [True, False]]), "L"),
        (np.array([[0, 65535], [65535, 0]], dtype=np.uint16), "I;16"),
        (torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.bfloat16), "L"),
        (np.array([[0, 255], [255, 0]], dtype=np.uint8)[..., None].repeat(3, -1), "RGB"),
        (np.array([[0, 65535], [65535, 0]], dtype=np.uint16)[..., None].repeat(3, -1), "RGB"),
    ],
)
def test_a_chequered_array_is_the_same_picture_in_every_type(given, kind):
    from hfft.image import from_array, open_rgb, to_rgb

    picture = from_array(given)
    assert picture.mode == kind
    grey = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    assert np.array_equal(np.asarray(to_rgb(picture)), grey[..., None].repeat(3, -1))
    if isinstance(given, np.ndarray):
        assert np.array_equal(np.asarray(open_rgb(given)), grey[..., None].repeat(3, -1))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            np.zeros((9, 9, 7)),
            "has the shape (height, width[, 3 or 4]) or, as a tensor, ([3 or 4,] height, width), not",
        ),
        (np.zeros((9, 9, 3)) - 1.5, "has values in 0..1 or 0..255, not -1.5 to -1.5; undo its normalisation"),
        (np.full((9, 9), np.nan), "has values in 0..1 or 0..255, not nan to nan"),
        (np.full((9, 9), 300), "has values in 0..1 or 0..255, not 300 to 300"),
        (np.zeros((9, 9), dtype=complex), "holds numbers, not complex128; cast it"),
        (b"no picture", "is no picture that can be decoded; replace or remove the picture"),
        ("gone.png", "file not found: 'gone.png'"),
        (["gone.png"], "'gone.png' is not there"),
        ("https://example.org/a.png", "is a URL, which is not fetched"),
    ],
)
def test_a_wrong_picture_is_one_line_with_its_row(image_run, given, line):
    with pytest.raises(InputError) as caught:
        image_run.predict(given)
    assert line in str(caught.value) and len(caught.value.lines) == 1
    assert "on_bad_row" not in str(caught.value) and "Hub" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [7, None, 1.5, object(), [7], [None], [[]], iter([]), {1, 2}, {"a": 1}.items()], ids=type
)
@pytest.mark.parametrize("run", ["text_run", "image_run", "pair_run"])
def test_what_is_no_input_is_one_line_that_names_what_is(request, run, given):
    with pytest.raises(InputError) as caught:
        request.getfixturevalue(run).predict(given)
    (line,) = caught.value.lines
    assert line.startswith("input row 0: is of type ") and "this run takes " in line
    for form in ("a list of them", "dicts with", "a Dataset", "a DataFrame", "file"):
        assert form in line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["good", None], "input row 1: is of type NoneType; this run takes a text,"),
        (["good", " "], "input row 1, column 'text': holds only blanks; write a text"),
        ("", "input row 0, column 'text': is empty; write a text"),
        ({"text": ["a", 7]}, "input row 1, column 'text': is 7 (number), no text; write it as a string"),
        ({"text": ["a"], "x": [1, 2]}, "input: columns of different lengths (text 1, x 2); give each column a cell"),
        ({"mood": "pos"}, "input: has labels only ('mood'); give the columns that are answered"),
        (
            datasets.DatasetDict(a=DATASET.from_dict({"text": ["a"]})),
            "input: a DatasetDict of a; give one of its splits",
        ),
        (b"good", "input row 0: is of type bytes; this run takes a text,"),
        (Path("gone.csv"), "file not found: 'gone.csv'"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_wrong_text_is_one_line_with_its_row(text_run, given, line):
    with pytest.raises(InputError) as caught:
        text_run.predict(given)
    assert str(caught.value).startswith(line) and len(caught.value.lines) == 1
    assert "on_bad_row" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [[], (), {}, {"text": []}, pd.DataFrame({"text": []}), DATASET.from_dict({"text": []})]
)
def test_no_rows_have_no_answers(text_run, given):
    assert text_run.predict(given) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_at_least_one_row(text_run, size):
    with pytest.raises(InputError, match=rf"^predict: batch_size {size}; write 1 or more$"):
        text_run.predict(TEXTS, batch_size=size)


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "llama", "vit", "convnext", "timm_resnet", "resnet"])
def test_answers_depend_neither_on_the_batch_nor_on_the_order(name, tmp_path):
    text = tiny.CONFIGS[name][0] == "text"
    make, column = (tiny.sentences, "text") if text else (tiny.pictures, "image")
    result = run_of(tmp_path, name, make(24))
    rows = [row[column] for row in make(21, seed=9)]
    expected = scores(result.predict(rows))
    assert np.ptp(expected[:, 0]) > 1e-5, "rows that differ are answered differently"
    for size in (1, 4, 21, 1000):
        assert np.abs(scores(result.predict(rows, batch_size=size)) - expected).max() < 1e-6
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = result.predict([rows[i] for i in order], batch_size=5)
    assert np.abs(scores(shuffled) - expected[order]).max() < 1e-6
    assert [answer["row"] for answer in shuffled] == list(range(21))

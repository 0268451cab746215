"""Every format, encoding and layout gives the same rows, and every cell stays the text it is."""

import io
import json
import logging
import os
import sys
from types import SimpleNamespace

import datasets
import pandas
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import standin
from PIL import Image

from hfft.data import load_splits, read_rows
from hfft.messages import HubError, InputError

TEXT = standin.task("text", "text_pair?", "label")
IMAGE = standin.task("image", "label")
ODD = ['say "hi", all', "über naïve", "two\nlines", "NA", "null", "None", "01", "1.0", "a;b", "tab\there"]
ROWS = [{"text": f"{ODD[i % 10]} {i}" if i >= 10 else ODD[i], "label": ("neg", "pos")[i % 2]} for i in range(20)]
FLAT = [{**row, "text": row["text"].replace("\n", " ").replace("\t", " ").replace('"', "'")} for row in ROWS]


def split(**data):
    """All rows in one split: nothing is held out."""
    return load_splits(
        SimpleNamespace(**{"eval_size": 0, **data}), TEXT, seed=0, data_in_memory=data.get("memory")
    ).train


def content(rows):
    names = rows.features["label"].names
    return [(row["text"], names[row["label"]], row["row"]) for row in rows]


EXPECTED = [(row["text"], row["label"], i) for i, row in enumerate(ROWS)]


def csv_text(sep=",", rows=ROWS, end="\n", header=True) -> str:
    def cell(value):
        return '"' + value.replace('"', '""') + '"' if any(c in value for c in (sep, '"', "\n")) else value

    body = [f"text{sep}label"] if header else []
    return end.join(body + [sep.join(map(cell, row.values())) for row in rows]) + end


def write_parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_stream(path):
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


FILES = {
    "a.csv": csv_text(),
    "no_end.csv": csv_text().rstrip("\n"),
    "crlf.csv": csv_text(end="\r\n"),
    "bom.csv": b"\xef\xbb\xbf" + csv_text().encode(),
    "utf16.csv": csv_text().encode("utf-16"),
    "utf16_without_mark.csv": csv_text().encode("utf-16-le"),
    "latin.csv": csv_text().encode("latin-1"),
    "semicolons.csv": csv_text(";"),
    "tabs.csv": csv_text("\t"),
    "bars.csv": csv_text("|"),
    "quoted.tsv": csv_text("\t"),
    "UPPER.CSV": csv_text(),
    "array.json": json.dumps(ROWS),
    "object.json": json.dumps({"version": 1, "data": ROWS}, ensure_ascii=False, indent=1),
    "lines.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "lines.ndjson": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "lines.json": "".join(json.dumps(row) + "\r\n" for row in ROWS),
    "a.parquet": write_parquet,
    "a.arrow": write_stream,
    "a.feather": lambda path: pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), str(path)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_format_gives_the_same_rows(name, tmp_path):
    written = FILES[name]
    if callable(written):
        written(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(written if isinstance(written, bytes) else written.encode())
    rows = split(path=str(tmp_path / name))
    assert content(rows) == EXPECTED
    assert rows.features["label"].names == ["neg", "pos"]
    assert rows.column_names == ["text", "label", "row"]


MEMORY = {
    "a Dataset": lambda: datasets.Dataset.from_list(ROWS),
    "a Dataset with selected rows": lambda: datasets.Dataset.from_list(ROWS[::-1]).select(range(19, -1, -1)),
    "a DatasetDict": lambda: datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
    "a DataFrame": lambda: pandas.DataFrame(ROWS),
    "a DataFrame with categories": lambda: pandas.DataFrame(ROWS).astype({"label": "category"}),
    "a list of dicts": lambda: ROWS,
    "a dict of splits": lambda: {"train": pandas.DataFrame(ROWS)},
}


@pytest.mark.parametrize("form", MEMORY)
def test_rows_in_memory_of_any_form_are_the_same_rows(form):
    assert content(split(memory=MEMORY[form]())) == EXPECTED


def test_a_saved_data_set_gives_the_same_rows(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    assert content(split(path=str(tmp_path / "one"))) == EXPECTED
    assert content(split(path=str(tmp_path / "splits"))) == EXPECTED


def test_the_fingerprint_is_of_the_rows_not_of_the_format(tmp_path):
    (tmp_path / "a.csv").write_text(csv_text())
    (tmp_path / "b.jsonl").write_text(FILES["lines.jsonl"])
    prints = [
        load_splits(SimpleNamespace(path=str(tmp_path / name)), TEXT, seed=0).report["fingerprint"]
        for name in ("a.csv", "b.jsonl")
    ]
    assert prints == ["9bf6585f5a3458b72984784eefa99750"] * 2


def test_a_file_changed_at_equal_size_and_time_is_read_anew(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\naaa,x\nbbb,y\nccc,x\n")
    os.utime(path, (1, 1))
    before = split(path=str(path))
    path.write_text("text,label\naaa,x\nbbb,y\nddd,x\n")
    os.utime(path, (1, 1))
    after = split(path=str(path))
    assert after["text"][:] == ["aaa", "bbb", "ddd"]
    assert before._fingerprint != after._fingerprint


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"a.csv": csv_text(";")}, "a.csv: separated by semicolon (the first line says so; set data.load.sep)"),
        ({"a.csv": csv_text().encode("utf-16")}, "a.csv: read as UTF-16 (byte order mark; set data.load.encoding)"),
        (
            {"a.csv": csv_text().encode("latin-1")},
            "a.csv: read as Windows-1252 (Latin-1), for line 3 (byte 33) is not UTF-8 (set data.load.encoding)",
        ),
        ({"a.csv": "text,label\na,x\n\nb,y\nc,y\n"}, "a.csv: 1 blank line between the rows not read as rows"),
        ({"a.jsonl": '{"text": "a", "label": 1}\n\n{"text": "b", "label": 2}\n{"text": "c", "label": 2}\n'},
         "a.jsonl: 1 blank line between the rows not read as rows"),
        ({"a.json": FILES["lines.json"]}, "a.json: read as JSON lines (one object a line; rename it to .jsonl)"),
        ({"a.csv": ",text,label\n0,a,x\n1,b,y\n2,c,y\n"}, "a.csv: 1 column without a name called unnamed_1"),
    ],
)  # fmt: skip
def test_what_the_reader_finds_out_by_itself_is_announced(files, line, tmp_path, caplog):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with caplog.at_level(logging.INFO, "hfft"):
        split(path=str(tmp_path / next(iter(files))))
    assert line in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_ordinary_file_says_nothing_of_its_form(name, tmp_path, caplog):
    text = csv_text() if name == "a.csv" else FILES["lines.jsonl"]
    (tmp_path / name).write_text(text + "\n")
    with caplog.at_level(logging.INFO, "hfft"):
        split(path=str(tmp_path / name))
    assert [record.getMessage() for record in caplog.records] == ["data: train 20 rows"]


def test_tab_files_with_unpaired_quotes_are_read_without_quoting(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n" he said\t1\nfine "so\t0\nno\t1\n')
    assert split(path=str(tmp_path / "a.tsv"))["text"][:] == ['" he said', 'fine "so', "no"]


def test_csv_options_are_honoured(tmp_path):
    (tmp_path / "a.csv").write_bytes("# a comment\n'é;1'^x\nb^y\nc^y\n".encode("cp1252"))
    load = {
        "sep": "^",
        "encoding": "cp1252",
        "quotechar": "'",
        "header": None,
        "column_names": ["text", "label"],
        "skiprows": 1,
    }
    assert content(split(path=str(tmp_path / "a.csv"), load=load)) == [("é;1", "x", 0), ("b", "y", 1), ("c", "y", 2)]
    (tmp_path / "b.csv").write_text('text,label\n"a,x\nb,y\nc",y\n')
    assert split(path=str(tmp_path / "b.csv"), load={"quoting": "none"})["text"][:] == ['"a', "b", 'c"']


def test_lines_are_counted_as_an_editor_does(tmp_path):
    (tmp_path / "a.csv").write_text('skip me\ntext,label\n"two\nlines",x\nb,y\nc,\n')
    with pytest.raises(InputError, match=r"^a\.csv line 6, column 'label': is empty"):
        split(path=str(tmp_path / "a.csv"), load={"skiprows": 1})


def test_a_text_of_five_megabytes_is_one_row(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,label\n{'word ' * 1_000_000},x\nb,y\nc,y\n")
    assert len(split(path=str(tmp_path / "a.csv"))[0]["text"]) == 5_000_000


LAYOUTS = {
    "files": ["train.csv", "val.csv"],
    "upper case": ["TRAIN.CSV", "Val.csv"],
    "in a folder": ["data/train.csv", "data/val.csv"],
    "by folder": ["train/all.csv", "val/all.csv"],
    "shards": ["train-00000-of-00001.csv", "val-00000-of-00001.csv"],
    "among other files": [
        "train.csv",
        "val.csv",
        "README.md",
        ".hidden.csv",
        "._train.csv",
        "LICENSE.txt",
        "notes.txt",
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_split_by_the_names_in_it(layout, tmp_path):
    for name in LAYOUTS[layout]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(csv_text() if "train" in name.lower() else "text,label\nx,pos\ny,neg\n")
    splits = load_splits(SimpleNamespace(path=str(tmp_path)), TEXT, seed=0)
    assert (len(splits.train), len(splits.eval)) == (20, 2)


def test_shards_lists_and_patterns_are_one_split_in_order(tmp_path):
    for i in range(2):
        pq.write_table(pa.Table.from_pylist(ROWS[10 * i : 10 * i + 10]), tmp_path / f"train-{i}.parquet")
    files = [str(tmp_path / f"train-{i}.parquet") for i in range(2)]
    for path in (str(tmp_path), files, {"train": files}, str(tmp_path / "*.parquet")):
        assert content(split(path=path)) == EXPECTED


def test_a_row_of_a_shard_is_named_by_its_own_file(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train-0.parquet")
    pq.write_table(pa.Table.from_pylist([ROWS[0], {"text": "  ", "label": "pos"}]), tmp_path / "train-1.parquet")
    with pytest.raises(InputError, match=r"^train-1\.parquet row 1, column 'text': holds only blanks"):
        split(path=str(tmp_path))


def test_a_column_can_say_the_split(tmp_path):
    rows = [{**row, "fold": "train" if i % 4 else "dev"} for i, row in enumerate(ROWS)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_splits(SimpleNamespace(path=str(tmp_path / "all.jsonl"), split_column="fold"), TEXT, seed=0)
    assert splits.eval["row"][:] == [0, 4, 8, 12, 16]
    assert len(splits.train) == 15


def test_stored_features_keep_the_order_of_their_classes(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["z", "a"]))
    rows = datasets.Dataset.from_dict({"text": list("abcd"), "label": [0, 1, 1, 0]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    assert split(path=str(tmp_path / "a.parquet")).features["label"].names == ["z", "a"]
    assert split(memory=rows).features["label"].names == ["z", "a"]


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError) as error:
        split(path="nobody-here/no-such-set")
    assert error.value.lines[0].startswith(
        "data.path: 'nobody-here/no-such-set' is no file or folder here, and the Hub cannot"
    )
    assert len(error.value.lines) == 1


@pytest.mark.parametrize("key", ["trust_remote_code", "token", "split", "streaming"])
def test_the_hub_takes_no_code_and_no_token(key, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^data.load.{key}: "):
        split(path="org/name", load={key: True})


def jpeg(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path, "PNG")


def picture_bytes(colour) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, "PNG")
    return stream.getvalue()


COLOURS = {"red": "cat", "blue": "dog", "green": "cat", "black": "dog"}


def pictures(path=None, memory=None, **data):
    rows = load_splits(SimpleNamespace(path=path, eval_size=0, **data), IMAGE, seed=0, data_in_memory=memory).train
    names = rows.features["label"].names
    found = []
    for row in rows:
        assert set(row["image"]) == {"bytes", "path"}
        source = io.BytesIO(row["image"]["bytes"]) if row["image"]["bytes"] else row["image"]["path"]
        found.append((Image.open(source).convert("RGB").getpixel((0, 0)), names[row["label"]]))
    return sorted(found)


SAME = sorted(
    [((255, 0, 0), "cat"), ((0, 0, 255), "dog"), ((0, 128, 0), "cat"), ((0, 0, 0), "dog")]
)  # fmt: skip


@pytest.mark.parametrize("top", ["", "train/", "Train/", "TRAINING/"])
def test_class_folders_are_read_with_and_without_split_folders(top, tmp_path):
    for colour, name in COLOURS.items():
        jpeg(tmp_path / f"{top}{name}" / f"{colour}.PNG", colour)
    assert pictures(str(tmp_path)) == SAME


def test_hidden_and_system_files_are_no_pictures_and_no_classes(tmp_path):
    for colour, name in COLOURS.items():
        jpeg(tmp_path / name / f"{colour}.png", colour)
    jpeg(tmp_path / ".ipynb_checkpoints" / "red.png", "red")
    jpeg(tmp_path / "__MACOSX" / "cat" / "red.png", "red")
    jpeg(tmp_path / "cat" / "._red.png", "red")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "cat/Thumbs.db"):
        (tmp_path / name).write_text("x")
    assert pictures(str(tmp_path)) == SAME


def test_nested_class_folders_are_named_by_their_path_and_digits_stay_names(tmp_path):
    for name in ("animals/cat", "animals/dog", "10", "7"):
        for i in range(2):
            jpeg(tmp_path / name / f"{i}.png", (i * 9, len(name), 7))
    rows = load_splits(SimpleNamespace(path=str(tmp_path)), IMAGE, seed=0).train
    assert rows.features["label"].names == ["10", "7", "animals/cat", "animals/dog"]


def test_odd_names_of_files_are_read(tmp_path):
    for i, name in enumerate(("a b#%?.png", "ü\n.png", "'\".png")):
        jpeg(tmp_path / "cat" / name, (i, 0, 0))
        jpeg(tmp_path / "dog" / name, (i, 9, 0))
    assert len(pictures(str(tmp_path))) == 6


def test_tables_of_paths_and_of_bytes_give_the_same_pictures(tmp_path):
    for colour in COLOURS:
        jpeg(tmp_path / "img" / f"{colour}.png", colour)
    paths = [{"image": f"img/{colour}.png", "label": name} for colour, name in COLOURS.items()]
    (tmp_path / "train.csv").write_text("image,label\n" + "".join(f"{row['image']},{row['label']}\n" for row in paths))
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in paths))
    pq.write_table(pa.Table.from_pylist(paths), tmp_path / "paths.parquet")
    cells = [{"image": picture_bytes(colour), "label": name} for colour, name in COLOURS.items()]
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "bytes.parquet")
    table = datasets.Dataset.from_list(cells).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "features.parquet")
    for name in ("train.csv", "metadata.jsonl", "paths.parquet", "bytes.parquet", "features.parquet"):
        assert pictures(str(tmp_path / name)) == SAME, name
    open_pictures = [{"image": Image.new("RGB", (16, 16), colour), "label": name} for colour, name in COLOURS.items()]
    for memory in (cells, table, pandas.DataFrame(cells), open_pictures):
        assert pictures(memory=memory) == SAME


def test_a_folder_with_a_table_of_its_pictures_is_read_by_the_table(tmp_path):
    for colour in COLOURS:
        jpeg(tmp_path / f"{colour}.png", colour)
    (tmp_path / "labels.csv").write_text("file,kind\n" + "".join(f"{c}.png,{name}\n" for c, name in COLOURS.items()))
    assert pictures(str(tmp_path)) == SAME


def test_class_folders_keep_paths_and_no_bytes(tmp_path):
    for colour, name in COLOURS.items():
        jpeg(tmp_path / name / f"{colour}.png", colour)
    rows = load_splits(SimpleNamespace(path=str(tmp_path), eval_size=0), IMAGE, seed=0).train
    assert [cell["bytes"] for cell in rows["image"][:]] == [None] * 4
    assert rows.features["image"] == datasets.Image(decode=False)


def test_rows_to_predict_need_no_label(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "a.csv").write_text("sentence,other\none,1\ntwo,2\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    trained = SimpleNamespace(columns={"text": "sentence", "label": "klass"})
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "one"}\n{"text": "two"}\n'))
    inputs = [
        tmp_path / "a.txt",
        tmp_path / "a.csv",
        tmp_path / "a.jsonl",
        sys.stdin,
        ["one", "two"],
        [{"text": "one"}, {"text": "two"}],
    ]
    for given in [
        *inputs,
        pandas.DataFrame({"sentence": ["one", "two"]}),
        datasets.Dataset.from_dict({"text": ["one", "two"]}),
    ]:
        assert read_rows(given, TEXT, trained)[:] == {"text": ["one", "two"], "row": [0, 1]}
    assert read_rows("a single text", TEXT)[:] == {"text": ["a single text"], "row": [0]}
    assert read_rows([("a", "b")], TEXT)[:] == {"text": ["a"], "text_pair": ["b"], "row": [0]}


def test_pictures_to_predict_are_a_file_a_folder_or_in_memory(tmp_path):
    jpeg(tmp_path / "b.png", "red")
    jpeg(tmp_path / "a" / "c.png", "blue")
    assert [os.path.basename(cell["path"]) for cell in read_rows(tmp_path, IMAGE)["image"][:]] == ["b.png", "c.png"]
    assert len(read_rows(str(tmp_path / "b.png"), IMAGE)) == 1
    assert len(read_rows([Image.new("RGB", (9, 9)), str(tmp_path / "b.png")], IMAGE)) == 2
    assert len(read_rows(Image.new("L", (9, 9)), IMAGE)) == 1


def test_rows_with_truth_have_the_classes_of_the_model(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\none,pos\ntwo,pos\n")
    assert read_rows(tmp_path / "a.csv", TEXT, need_truth=True).features["label"].names == ["pos"]
    rows = read_rows(tmp_path / "a.csv", TEXT, need_truth=True, label_names=["pos", "neg"])
    assert (rows.features["label"].names, rows["label"][:]) == (["pos", "neg"], [0, 0])
    with pytest.raises(InputError, match=r"^a\.csv line 2, column 'label': 'pos' is no class of the model"):
        read_rows(tmp_path / "a.csv", TEXT, need_truth=True, label_names=["good", "bad"])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"a.csv": "title,body\na,b\n"}, "data.columns: which column of a.csv is the text? 2 could be (title, body); "
         "write data.columns: {text: …}, one of title, body. Or call the input's column by that name."),
        ({"a.csv": "text\none\n  \n"},
         "a.csv line 3, column 'text': holds only blanks; write a text"),
    ],
)  # fmt: skip
def test_a_wrong_input_to_predict_is_one_line(given, line, tmp_path):
    for name, text in given.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_rows(tmp_path / "a.csv", TEXT)
    assert str(error.value) == line

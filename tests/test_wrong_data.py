"""A table of wrong data: each file or folder is refused with its one line, or warned of, before anything is trained."""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import io
import json
import logging
import struct
import zlib
from types import SimpleNamespace

import pytest
import standin
from PIL import Image

from hfft.data import load_splits
from hfft.messages import InputError

TEXT = standin.task("text", "text_pair?", "label")
IMAGE = standin.task("image", "label")
GOOD = "text,label\ngood,pos\nbad,neg\nfine,pos\npoor,neg\n"
CSV = {"train.csv": GOOD}


def picture(kind="JPEG", size=(32, 32), mode="RGB", colour=None) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, kind)
    return stream.getvalue()


def noise(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = bytes((seed * 7919 + i * i * 31 + i) % 256 for i in range(24 * 24 * 3))
    Image.frombytes("RGB", (24, 24), pixels).save(stream, "JPEG")
    return stream.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG whose header promises a huge picture: what a bomb looks like before it is decoded."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def classes(files=None) -> dict:
    """Two classes of three pictures, with files added or replaced (None takes one away)."""
    usual = {f"train/{name}/{i}.jpg": noise(i + 10 * (name == "dog")) for name in ("cat", "dog") for i in range(3)}
    return {name: content for name, content in (usual | (files or {})).items() if content is not None}


def write(folder, files: dict) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is DIRECTORY:
            path.mkdir()
        elif isinstance(content, Link):
            path.symlink_to(content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("L", (16, 16), shade) for shade in (0, 200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


class Link(str):
    """The target of a symbolic link."""


DIRECTORY = object()


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows(*labels, text="word {}") -> str:
    return lines(*[{"text": text.format(i), "label": label} for i, label in enumerate(labels)])


def read(folder, files, task, options):
    write(folder, files)
    data = SimpleNamespace(**{**options, "path": str(folder / options.get("path", ""))})
    return load_splits(data, task, seed=0)


WRONG_TEXT = {
    "an empty text": (
        {"train.csv": GOOD + ",pos\n"},
        {},
        "train.csv line 6, column 'text': is empty; write a text, or set data.on_bad_row: skip",
    ),
    "a text of blanks": (
        {"train.csv": GOOD + "  ,pos\n"},
        {},
        "train.csv line 6, column 'text': holds only blanks; write a text, or set data.on_bad_row: skip",
    ),
    "an empty label": (
        {"train.csv": GOOD + "great,\n"},
        {},
        "train.csv line 6, column 'label': is empty; write a class, or set data.on_bad_row: skip",
    ),
    "two spellings of a label": (
        {"train.csv": GOOD + "great,Pos\n"},
        {},
        "train.csv line 6, column 'label': 'Pos' is another spelling of 'pos' (1 row against 2); write 'pos', or data.labels: {'Pos': 'pos'}",
    ),
    "a label with a blank before it": (
        {"train.csv": GOOD + "great, pos\n"},
        {},
        "train.csv line 6, column 'label': ' pos' is another spelling of 'pos' (1 row against 2); write 'pos', or data.labels: {' pos': 'pos'}",
    ),
    "a label only in eval": (
        {"train.csv": GOOD, "val.csv": GOOD + "so so,neutral\n"},
        {},
        "val.csv line 6, column 'label': 'neutral' is no class of train (neg, pos); write a class, or set data.on_bad_row: skip",
    ),
    "a label misspelt in eval": (
        {"train.csv": GOOD, "val.csv": GOOD + "so so,poss\n"},
        {},
        "val.csv line 6, column 'label': 'poss' is no class of train (neg, pos); write 'pos', or set data.on_bad_row: skip",
    ),
    "labels of -1": (
        {"train.csv": GOOD.replace("pos", "1").replace("neg", "0"), "test.csv": "text,label\nwhat,-1\n"},
        {"eval": "test"},
        "test.csv line 2, column 'label': is -1, which means 'no label' in test sets; write a class, or set data.on_bad_row: skip",
    ),
    "a label of -100": (
        {"train.jsonl": rows(0, 1, 0, 1, -100)},
        {},
        "train.jsonl line 5, column 'label': is -100, which the loss ignores; write a class, or set data.on_bad_row: skip",
    ),
    "one class": (
        {"train.csv": "text,label\na b,pos\nc d,pos\n"},
        {},
        "train.csv: the one label of 2 rows is 'pos'; a classifier needs two classes",
    ),
    "every row its own class": (
        {"train.csv": "text,label\na b,1\nc d,2\ne f,3\n"},
        {},
        "train.csv: 3 rows, each with a label of its own; name the class column in data.columns",
    ),
    "no label column in eval": (
        {"train.csv": GOOD, "val.csv": "text\nfine\n"},
        {},
        "val.csv: split 'val' has no column 'label', which 'train' has; it has text. Give all splits the same columns",
    ),
    "an empty file": (
        {"train.csv": ""},
        {},
        "train.csv: the file is empty (0 bytes); give a file with rows, or take it out of data.path",
    ),
    "a header only": (
        {"train.csv": GOOD, "val.csv": "text,label\n"},
        {},
        "val.csv: there are no rows below the header; give a file with rows",
    ),
    "a text column that is not there": (
        CSV,
        {"columns": {"text": "txet"}},
        "data.columns.text: train.csv has no column 'txet'. Did you mean 'text'? It has text, label.",
    ),
    "a label column that is not there": (
        CSV,
        {"columns": {"label": "klass"}},
        "data.columns.label: train.csv has no column 'klass'. It has text, label.",
    ),
    "a column that the task does not have": (
        CSV,
        {"columns": {"sentence": "text"}},
        "data.columns.sentence: the task has no such column. It has text, text_pair, label",
    ),
    "two columns that could be the text": (
        {"train.csv": "title,body,label\na,b,x\nc,d,y\n"},
        {},
        "data.columns: which column of train.csv is the text? 2 could be (title, body); write data.columns: {text: …}, one of title, body, label.",
    ),
    "no header": (
        {"train.csv": "good,1\nbad,0\nfine,1\n"},
        {"columns": {"text": "text", "label": "label"}},
        "data.columns.text: train.csv has no column 'text'. It has good, 1. The first line looks like a row: without a header, write load: {header: null, column_names: [name1, name2]}",
    ),
    "a name twice in the header": (
        {"train.csv": "text,label,text\na,pos,b\n"},
        {},
        "train.csv: the header has 'text' 2 times; give every column its own name",
    ),
    "a row with too many cells": (
        {"train.csv": GOOD + "good, really,pos\n"},
        {},
        "train.csv line 6: 3 cells where the header has 2; quote cells that hold a comma",
    ),
    "a truncated last line": (
        {"train.csv": GOOD + "goo"},
        {},
        "train.csv line 6: 1 cell where the header has 2; complete the line or remove it",
    ),
    "an unclosed quote": (
        {"train.csv": GOOD + '"never closed,pos\nmore,neg\n'},
        {},
        "train.csv line 6: a quote is opened here and not closed rightly (read up to line 7); close it, write quotes inside a field twice, or set data.load.quoting: none",
    ),
    "text after a closing quote": (
        {"train.csv": GOOD + '"good" he said,pos\n'},
        {},
        "train.csv line 6: text follows a closing quote; close it, write quotes inside a field twice, or set data.load.quoting: none",
    ),
    "a NUL character": (
        {"train.csv": GOOD + "a\0b,pos\n"},
        {},
        "train.csv line 6: holds a NUL character, so the file is damaged or in another encoding; repair it, or set data.load.encoding (utf-16?)",
    ),
    "a damaged UTF-8 file": (
        {"train.csv": GOOD.encode() + "é,pos\n".encode() + b"\xff,neg\n"},
        {},
        "train.csv line 7 (byte 53): byte 0xff is not UTF-8, though the rest is; repair the file, or set data.load.encoding",
    ),
    "the wrong encoding": (
        {"train.csv": GOOD + "é,pos\n"},
        {"load": {"encoding": "ascii"}},
        "train.csv line 6 (byte 46): byte 0xc3 is not ascii; set data.load.encoding to the file's own",
    ),
    "an encoding that does not exist": (
        CSV,
        {"load": {"encoding": "utf-88"}},
        "data.load.encoding: there is no encoding 'utf-88'; write utf-8, utf-16, cp1252 …",
    ),
    "a misspelt reading option": (
        CSV,
        {"load": {"seperator": ";"}},
        "data.load.seperator: is no option for csv files (it takes sep, encoding, quotechar, quoting, header, column_names, skiprows).",
    ),
    "a csv option for json lines": (
        {"train.jsonl": rows(0, 1, 0)},
        {"load": {"sep": ";"}},
        "data.load.sep: is no option for jsonl files (it takes encoding, field).",
    ),
    "half a surrogate pair": (
        {"train.jsonl": rows("a", "b", "a") + '{"text": "x\\ud800", "label": "b"}\n'},
        {},
        "train.jsonl line 4: holds half a surrogate pair (\\ud800–\\udfff), which is no character; repair the line or remove it",
    ),
    "a malformed json line": (
        {"train.jsonl": rows("a", "b", "a") + '{"text": \n'},
        {},
        "train.jsonl line 4: is not JSON (Expecting value, column 10); repair the line or remove it",
    ),
    "a json line that is a list": (
        {"train.jsonl": rows("a", "b", "a") + "[1]\n"},
        {},
        'train.jsonl line 4: [1] is not an object; write {"column": value, …}',
    ),
    "a key twice in one object": (
        {"train.jsonl": rows("a", "b", "a") + '{"text": "x", "text": "y", "label": "a"}\n'},
        {},
        "train.jsonl line 4: the key 'text' stands twice in one object; repair the line or remove it",
    ),
    "a json document without a list": (
        {"train.json": '{"text": "a"}'},
        {},
        "train.json: an object with no list of rows; write an array of objects, or set data.load.field",
    ),
    "a json document with two lists": (
        {"train.json": '{"a": [], "b": []}'},
        {},
        "train.json: an object with 2 lists (a, b); write an array of objects, or set data.load.field",
    ),
    "a malformed json document": (
        {"train.json": '[{"text": "a",}]'},
        {},
        "train.json line 1: is not JSON (Expecting property name enclosed in double quotes, column 15); repair it",
    ),
    "a label that changes its type": (
        {"train.jsonl": rows("1", "2", "1", 2)},
        {},
        "train.jsonl line 4, column 'label': is 2, though most labels are text; write all labels in one type",
    ),
    "a null text": (
        {"train.jsonl": rows("a", "b", "a") + lines({"text": None, "label": "a"})},
        {},
        "train.jsonl line 4, column 'text': is empty; write a text, or set data.on_bad_row: skip",
    ),
    "a missing key": (
        {"train.jsonl": rows("a", "b", "a") + lines({"label": "a"})},
        {},
        "train.jsonl line 4, column 'text': is empty; write a text, or set data.on_bad_row: skip",
    ),
    "a text that is a list": (
        {"train.jsonl": rows("a", "b", "a") + lines({"text": ["x"], "label": "a"})},
        {},
        "train.jsonl line 4, column 'text': is ['x'] (list), no text; write it as a string, or set data.on_bad_row: skip",
    ),
    "a text that is a number": (
        {"train.jsonl": rows("a", "b", "a") + lines({"text": 7, "label": "a"})},
        {},
        "train.jsonl line 4, column 'text': is 7 (number), no text; write it as a string, or set data.on_bad_row: skip",
    ),
    "a NaN label": (
        {"train.jsonl": rows("a", "b", "a", float("nan"))},
        {},
        "train.jsonl line 4, column 'label': is empty; write a class, or set data.on_bad_row: skip",
    ),
    "float labels": (
        {"train.jsonl": rows(0.0, 1.0, 0.0)},
        {},
        "train.jsonl line 1, column 'label': is the number 0.0 with a decimal point (3 rows so); cast the column to integers or text",
    ),
    "labels of a regression": (
        {"train.csv": "text,label\na b,0.5\nc d,1\ne f,0.5\n"},
        {},
        "train.csv line 2, column 'label': is '0.5', a number with decimals (2 rows so); this task needs classes; a number to predict is another task (regression)",
    ),
    "lists of labels": (
        {"train.jsonl": rows(["a"], "b", "b", "a")},
        {},
        "train.jsonl line 1, column 'label': is a list of several labels; one class a row is needed here; several are another task",
    ),
    "a damaged parquet file": (
        {"train.parquet": b"PAR1 and more"},
        {},
        "train.parquet: is damaged or no parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file); write it again",
    ),
    "a packed file": (
        {"train.csv.gz": b"1"},
        {"path": "train.csv.gz"},
        "train.csv.gz: packed files (.gz) are not read, so that a small file cannot unpack to any size; unpack it",
    ),
    "an unknown ending": (
        {"train.xlsx": b"1"},
        {"path": "train.xlsx"},
        "train.xlsx: files ending in '.xlsx' are not read; give one of csv, tsv, json, jsonl, ndjson, parquet, arrow, feather, txt, conll, bio, iob, iob2",
    ),
    "a missing file": (
        CSV,
        {"path": "trian.csv"},
        "data.path: file not found: 'DATA/trian.csv' (no 'trian.csv' in 'DATA'; a Hub id is org/name). Did you mean 'train.csv'?",
    ),
    "a missing folder": (
        {"corpus/train.csv": GOOD},
        {"path": "corpse"},
        "data.path: folder not found: 'DATA/corpse' (no 'corpse' in 'DATA'; a Hub id is org/name). Did you mean 'corpus'?",
    ),
    "a folder named like a file": (
        {"train.csv/notes.md": "x"},
        {"path": "train.csv"},
        "DATA/train.csv: only files of other kinds (.md) in this folder; give files of rows (csv, tsv, json, jsonl, ndjson, parquet, arrow, feather, txt, conll, bio, iob, iob2)",
    ),
    "an empty folder": (
        {"README.md": "x"},
        {},
        "DATA: nothing in this folder; give files of rows (csv, tsv, json, jsonl, ndjson, parquet, arrow, feather, txt, conll, bio, iob, iob2)",
    ),
    "files that name no split": (
        {"a.csv": GOOD, "b.csv": GOOD},
        {},
        "DATA: which file is which split? a.csv, b.csv; write data.path: {train: …, eval: …}",
    ),
    "one split in two forms": (
        {"train.csv": GOOD, "train.jsonl": rows(0, 1, 0)},
        {},
        "DATA: split 'train' is there in several forms (train.csv, train.jsonl); name one in data.path",
    ),
    "parts with other columns": (
        {"train-1.csv": GOOD, "train-2.csv": "text,klass\na,b\n"},
        {},
        "train-2.csv: lacks the column 'label', which train-1.csv has; give all files the same columns",
    ),
    "a misspelt split": (CSV, {"eval": "tets"}, "data.eval: there is no split 'tets'. There are train"),
    "training rows as eval": (
        CSV,
        {"eval": "train"},
        "data.eval: 'train' is the training split, whose score says nothing of new rows; name another split, or none to hold some rows out. If it is meant: data.path: {train: FILE, eval: FILE}",
    ),
    "a split column that is not there": (
        CSV,
        {"path": "train.csv", "split_column": "spilt"},
        "data.split_column: there is no column 'spilt'. There are text, label",
    ),
    "a row without a split": (
        {"all.csv": "text,label,split\na,x,train\nb,y,\n"},
        {"path": "all.csv", "split_column": "split"},
        "all.csv line 3, column 'split': is empty; write the row's split",
    ),
    "a class that data.labels lacks": (
        CSV,
        {"labels": ["pos", "negative"]},
        [
            "train.csv line 3, column 'label': 'neg' is no class of data.labels (pos, negative); write a class, or set data.on_bad_row: skip",
            "train.csv line 5, column 'label': 'neg' is no class of data.labels (pos, negative); write a class, or set data.on_bad_row: skip",
        ],
    ),
    "a class twice in data.labels": (
        CSV,
        {"labels": ["pos", "neg", "pos"]},
        "data.labels: 'pos' stands twice; name every class once",
    ),
    "a rename of no class": (
        CSV,
        {"labels": {"posi": "positive"}},
        "data.labels: no row has the label 'posi'. Did you mean 'pos'? There are neg, pos",
    ),
    "names without a header switch": (
        CSV,
        {"load": {"header": None}},
        "data.load.header: null needs the names; add column_names: [text, label]",
    ),
    "the wrong number of names": (
        CSV,
        {"load": {"header": None, "column_names": ["text"]}},
        "data.load.column_names: 1 name for 2 columns in train.csv; name every column",
    ),
    "names for a file with a header": (
        CSV,
        {"load": {"column_names": ["text", "label"]}},
        "train.csv line 1: is the header, not a row; take column_names out of data.load, or add header: 0",
    ),
    "two characters as separator": (
        CSV,
        {"load": {"sep": "||"}},
        "data.load.sep: '||' is not one character; write ',', ';', '|' or tab",
    ),
    "only bad rows": (
        {"train.csv": "text,label\n,pos\n,neg\n"},
        {"on_bad_row": "skip"},
        "split 'train': no row is left, all 2 are bad; first: train.csv line 2, column 'text': is empty; write a text, or set data.on_bad_row: skip",
    ),
    "too few rows to hold any out": (
        {"train.csv": "text,label\na b,pos\na b,pos\nc d,neg\nc d,neg\n"},
        {},
        "data.eval_size: too few rows to hold any out; give an eval split in data.path",
    ),
}

WRONG_PICTURES = {
    "an empty picture file": (
        classes(files={"train/cat/0.jpg": b""}),
        {},
        "train/cat/0.jpg: is an empty file (0 bytes); replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "garbage after a JPEG's first bytes": (
        classes(files={"train/cat/0.jpg": b"\xff\xd8\xff\xe0" + b"garbage" * 9}),
        {},
        "train/cat/0.jpg: is damaged (Truncated File Read); replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "a truncated JPEG": (
        classes(files={"train/cat/0.jpg": noise(1)[:-60]}),
        {},
        "train/cat/0.jpg: is damaged (image file is truncated (89 bytes not processed)); replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "a truncated PNG": (
        classes(files={"train/cat/0.png": picture("PNG", (64, 64))[:-30]}),
        {},
        "train/cat/0.png: is damaged (image file is truncated); replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "a web page as a picture": (
        classes(files={"train/cat/0.jpg": b"<!DOCTYPE html><html>404</html>"}),
        {},
        "train/cat/0.jpg: is a web page, not a picture; replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "a bomb": (
        classes(files={"train/cat/0.png": header_only(20000, 20000)}),
        {},
        "train/cat/0.png: has more than 100,000,000 pixels; replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "more than 100 megapixels": (
        classes(files={"train/cat/0.png": header_only(13000, 8000)}),
        {},
        "train/cat/0.png: has 13000x8000 pixels, more than 100,000,000; replace or remove the picture, or set data.on_bad_row: skip",
    ),
    "a class only in eval": (
        classes(files={"val/cat/0.jpg": noise(7), "val/owl/0.jpg": noise(8)}),
        {},
        "val/owl/0.jpg: 'owl' is no class of train (cat, dog); write a class, or set data.on_bad_row: skip",
    ),
    "pictures without class folders": (
        {"train/0.jpg": noise(1), "train/1.jpg": noise(2)},
        {},
        "DATA/train: 2 pictures but no class folders; sort them into <class>/<picture>.jpg, or give a csv with the columns image and label",
    ),
    "a flat folder": (
        {"0.jpg": noise(1), "1.jpg": noise(2)},
        {},
        "DATA: 2 pictures but no class folders; sort them into <class>/<picture>.jpg, or give a csv with the columns image and label",
    ),
    "a picture beside the class folders": (
        classes(files={"train/0.jpg": noise(1)}),
        {},
        "train/0.jpg: lies in no class folder; move it into one",
    ),
    "one class of pictures": (
        classes(files={f"train/dog/{i}.jpg": None for i in range(3)}),
        {},
        "train: the one label of 3 rows is 'cat'; a classifier needs two classes",
    ),
    "a link out of the folder": (
        classes(files={"train/cat/0.jpg": Link("/etc/hostname")}),
        {},
        "train/cat/0.jpg: is a link to a file outside the data's folder; put the file itself there",
    ),
    "a link to a folder": (
        classes(files={"train/owl": Link("cat")}),
        {},
        "train/owl: is a link to a folder, which is not followed; put the folder itself there",
    ),
    "a folder without pictures": (
        {"train/cat/a.xml": "x"},
        {},
        "DATA: no pictures are in it; give a folder train/<class>/<picture>.jpg",
    ),
    "a table that names a file outside": (
        {"train.csv": "image,label\n../a.jpg,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1)},
        {},
        "train.csv line 2, column 'image': '../a.jpg' leads out of the data's folder; put the picture below it",
    ),
    "a table with an absolute path": (
        {"train.csv": "image,label\n/etc/hostname,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1)},
        {},
        "train.csv line 2, column 'image': '/etc/hostname' is an absolute path; give paths relative to the folder of the file that names them",
    ),
    "a table of URLs": (
        {"train.csv": "image,label\nhttp://127.0.0.1/a.jpg,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1)},
        {},
        "train.csv line 2, column 'image': 'http://127.0.0.1/a.jpg' is a URL, which is not fetched; download the pictures and give their paths",
    ),
    "a table that names a missing file": (
        {"train.csv": "image,label\na.jpg,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1)},
        {},
        "train.csv line 2, column 'image': 'a.jpg' is not there; give a path relative to the folder of the file that names it",
    ),
    "a table without a path": (
        {"train.csv": "image,label\n,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1)},
        {},
        "train.csv line 2, column 'image': is empty; give a picture's path",
    ),
    "a table whose link leads outside": (
        {"train.csv": "image,label\na.jpg,x\nb.jpg,y\nb.jpg,x\n", "b.jpg": noise(1), "a.jpg": Link("/etc/hostname")},
        {},
        "a.jpg: is a link to a file outside the data's folder; put the file itself there",
    ),
    "reading options for pictures": (
        classes(),
        {"load": {"sep": ","}},
        "data.load.sep: does not apply to a folder of pictures; take it out",
    ),
}

DOUBTFUL_TEXT = {
    "a class with one row": (
        {"train.csv": GOOD + "meh,neutral\n", "val.csv": GOOD},
        [
            "train.csv: 1 class ('neutral') with 1 row",
            "val: 1 class ('neutral') of train without rows here, so not measured",
            "val: 4 rows (100.0 %) also in train, so its score is too good",
        ],
    ),
    "copies between train and eval": (
        {"train.csv": GOOD, "val.csv": "text,label\ngood,pos\nnew,neg\n"},
        "val: 1 row (50.0 %) also in train, so its score is too good",
    ),
    "equal texts with other labels": (
        {"train.csv": GOOD + "good,neg\n", "val.csv": "text,label\nnew,pos\nold,neg\n"},
        "train: 2 rows with equal inputs but different labels (1 input)",
    ),
    "a class without eval rows": (
        {"train.csv": GOOD, "val.csv": "text,label\nnew,pos\nnewer,pos\n"},
        "val: 1 class ('neg') of train without rows here, so not measured",
    ),
    "a file that is no split": (
        {"train.csv": GOOD, "val.csv": "text,label\nnew,pos\nold,neg\n", "more.csv": GOOD},
        "more.csv: not read, its name says no split (train, test, val …)",
    ),
    "a very long text": (
        {"train.csv": GOOD + "x" * 1_000_001 + ",pos\n", "val.csv": "text,label\nnew,pos\nold,neg\n"},
        "train.csv line 6: a text of 1,000,001 characters; is it one row?",
    ),
}

DOUBTFUL_PICTURES = {
    "an empty class folder": (
        classes(files={"train/owl": DIRECTORY, "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}),
        "DATA/train/owl: an empty class folder, no class comes of it",
    ),
    "a broken link": (
        classes(files={"train/cat/9.jpg": Link("gone.jpg"), "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}),
        "train/cat/9.jpg: a broken link, not read",
    ),
    "a picture of one pixel": (
        classes(
            files={"train/cat/9.png": picture("PNG", (1, 1)), "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}
        ),
        "train: 1 picture with a side below 8 pixels (first: train/cat/9.png)",
    ),
    "a picture of a line": (
        classes(
            files={"train/cat/9.png": picture("PNG", (10, 500)), "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}
        ),
        "train: 1 picture more than 20 times as long as wide (first: train/cat/9.png)",
    ),
    "a CMYK picture": (
        classes(
            files={
                "train/cat/9.jpg": picture("JPEG", (32, 32), "CMYK"),
                "val/cat/9.jpg": noise(50),
                "val/dog/9.jpg": noise(60),
            }
        ),
        "train: 1 picture in CMYK: converted without a colour profile (first: train/cat/9.jpg)",
    ),
    "an animated GIF": (
        classes(files={"train/cat/9.gif": animation(), "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}),
        "train: 1 picture animated: the first frame is used (first: train/cat/9.gif)",
    ),
    "the same picture in train and eval": (
        classes(files={"val/cat/9.jpg": noise(1), "val/dog/9.jpg": noise(60)}),
        "val: 1 row (50.0 %) also in train, so its score is too good",
    ),
    "other files among the pictures": (
        classes(files={"train/cat/notes.xml": "x", "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}),
        "DATA: 1 file without a picture's ending not read (train/cat/notes.xml)",
    ),
    "a folder that is no split": (
        classes(files={"extra/cat/9.jpg": noise(3), "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)}),
        "DATA: not read, for beside split folders these are no splits: extra",
    ),
    "images and masks": (
        {
            f"{split}/{kind}/{i}.png": noise(i + (kind == "masks") * 30 + (split == "val") * 60)
            for split in ("train", "val")
            for kind in ("images", "masks")
            for i in range(3)
        },
        [
            "DATA/train: images and masks are read as classes; this looks like another task's data",
            "DATA/val: images and masks are read as classes; this looks like another task's data",
        ],
    ),
}


def plain(message: str, folder) -> str:
    return message.replace(str(folder), "DATA")


@pytest.mark.parametrize("case", WRONG_TEXT)
def test_a_wrong_text_file_is_refused_with_its_line(case, tmp_path):
    files, options, expected = WRONG_TEXT[case]
    with pytest.raises(InputError) as error:
        read(tmp_path, files, TEXT, options)
    lines = [expected] if isinstance(expected, str) else expected
    assert plain(str(error.value), tmp_path).split("\n") == lines


@pytest.mark.parametrize("case", WRONG_PICTURES)
def test_a_wrong_folder_of_pictures_is_refused_with_its_line(case, tmp_path):
    files, options, expected = WRONG_PICTURES[case]
    with pytest.raises(InputError) as error:
        read(tmp_path, files, IMAGE, options)
    assert plain(str(error.value), tmp_path) == expected


@pytest.mark.parametrize("case", {**DOUBTFUL_TEXT, **DOUBTFUL_PICTURES})
def test_doubtful_data_are_used_with_a_warning(case, tmp_path, caplog):
    task = TEXT if case in DOUBTFUL_TEXT else IMAGE
    files, expected = (DOUBTFUL_TEXT | DOUBTFUL_PICTURES)[case]
    with caplog.at_level(logging.WARNING, "hfft"):
        read(tmp_path, files, task, {})
    warned = [plain(record.getMessage(), tmp_path).removeprefix("warning: ") for record in caplog.records]
    assert warned == ([expected] if isinstance(expected, str) else expected)


def test_bad_rows_are_skipped_counted_and_listed_when_the_recipe_says_so(tmp_path):
    files = {"train.csv": GOOD + ",pos\ngreat,\nnice,Pos\n", "val.csv": GOOD + "new,other\n"}
    splits = read(tmp_path, files, TEXT, {"on_bad_row": "skip"})
    assert (len(splits.train), len(splits.eval), splits.report["dropped"]) == (4, 4, 4)
    assert [(row["file"], row["line"], row["row"], row["column"], row["reason"]) for row in splits.dropped] == [
        ("train.csv", 6, 4, "text", "is empty"),
        ("train.csv", 7, 5, "label", "is empty"),
        ("train.csv", 8, 6, "label", "'Pos' is another spelling of 'pos' (1 row against 5)"),
        ("val.csv", 6, 4, "label", "'other' is no class of train (neg, pos)"),
    ]
    json.dumps(splits.dropped)


def test_an_unreadable_picture_is_skipped_when_the_recipe_says_so(tmp_path):
    files = classes({"train/cat/0.jpg": b"", "val/cat/9.jpg": noise(50), "val/dog/9.jpg": noise(60)})
    splits = read(tmp_path, files, IMAGE, {"on_bad_row": "skip"})
    assert splits.train["row"][:] == [1, 2, 3, 4, 5]
    assert splits.dropped == [
        {
            "split": "train",
            "file": "train/cat/0.jpg",
            "row": 0,
            "column": "image",
            "value": "0.jpg",
            "reason": "is an empty file (0 bytes)",
        }
    ]


def test_at_most_twenty_lines_tell_of_many_bad_rows(tmp_path):
    files = {"train.jsonl": rows("a", "b", "a") + lines(*[{"text": i, "label": "a"} for i in range(30)])}
    with pytest.raises(InputError) as error:
        read(tmp_path, files, TEXT, {})
    assert len(error.value.lines) == 21
    assert error.value.lines[20] == "… and 10 more"


def test_many_rows_with_the_same_mistake_are_one_line(tmp_path):
    files = {"train.jsonl": rows("a", "b", "a") + lines(*[{"text": "", "label": "a"} for _ in range(30)])}
    with pytest.raises(InputError) as error:
        read(tmp_path, files, TEXT, {})
    assert error.value.lines == [
        "train.jsonl line 4, column 'text': is empty; write a text, or set data.on_bad_row: skip "
        "(30 rows so: 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, …)"
    ]


def test_the_tables_are_as_long_as_promised():
    assert len(WRONG_TEXT) >= 30 and len(WRONG_PICTURES) >= 12

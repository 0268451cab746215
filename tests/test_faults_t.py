"""Texts and tables that are wrong, row T01 to T46 of the catalogue of faults: what `hfft check` says of each.

Refused ones name the file with its line or row and column, or the recipe's line; the others are used as they are meant,
with the warning that belongs to them. Some rows of the catalogue stand here in several formats.
"""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import io
import json
from types import SimpleNamespace

import pytest
import standin
import tiny
import yaml
from verdict import told

from hfft.data import load_splits
from hfft.messages import InputError

TEXT = standin.task("text", "text_pair?", "label")
GOOD = [
    ("good film", "pos"),
    ("bad film", "neg"),
    ("fine book", "pos"),
    ("poor book", "neg"),
    ("great song", "pos"),
    ("awful song", "neg"),
    ("nice plot and a scene", "pos"),
    ("dull plot and a scene", "neg"),
]
OTHERS = [("a fine actor", "pos"), ("a poor actor", "neg"), ("a great scene", "pos"), ("the awful scene", "neg")]
NUMBERED = [(text, str(int(label == "pos"))) for text, label in GOOD]


def csv(*more, rows=GOOD, head="text,label", sep=",") -> str:
    """A header and rows; the first of `more` is line 10."""
    lines = [sep.join(row) if isinstance(row, tuple) else row for row in (*rows, *more)]
    return "\n".join([head.replace(",", sep), *lines]) + "\n"


def jsonl(*more, rows=GOOD) -> str:
    """One object a line; the first of `more` is line 9."""
    given = [*[{"text": text, "label": label} for text, label in rows], *more]
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given)


def parquet(write_page_checksum: bool = False, **columns) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, write_page_checksum=write_page_checksum)
    return stream.getvalue()


TEXTS, LABELS = [text for text, _ in GOOD], [label for _, label in GOOD]
PARQUET = parquet(text=TEXTS, label=LABELS)
VAL = {"val.csv": csv(rows=OTHERS)}
SKIP, HALF = "{path: DATA, on_bad_row: skip}", "{path: DATA, eval_size: 0.5}"

# row of the catalogue and what is wrong -> (files, the recipe's data section, the error lines from "hfft: error: " on)
REFUSED = {
    "T01 a label only in validation": (
        {"train.csv": csv(), "val.csv": csv("a nice film,neutral")},
        "{path: DATA}",
        [
            "val.csv line 10, column 'label': 'neutral' is no class of train (neg, pos); write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T01 a label only in validation, JSON lines": (
        {"train.jsonl": jsonl(), "val.jsonl": jsonl({"text": "a nice film", "label": "neutral"})},
        "{path: DATA}",
        [
            "val.jsonl line 9, column 'label': 'neutral' is no class of train (neg, pos); write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T01 a label only in validation, parquet": (
        {"train.parquet": PARQUET, "val.parquet": parquet(text=["a nice film", "a film"], label=["pos", "neutral"])},
        "{path: DATA}",
        [
            "val.parquet row 1, column 'label': 'neutral' is no class of train (neg, pos); write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T02 a label only in test": (
        {"train.csv": csv(), "test.csv": csv("a nice film,poss")},
        "{path: DATA, eval: test}",
        [
            "test.csv line 10, column 'label': 'poss' is no class of train (neg, pos); write 'pos', or set data.on_bad_row: skip"
        ],
    ),
    "T03 no label column in test": (
        {"train.csv": csv(), "test.csv": "text\na nice film\n"},
        "{path: DATA, eval: test}",
        [
            "test.csv: split 'test' has no column 'label', which 'train' has; it has text. Give all splits the same columns"
        ],
    ),
    "T04 an empty label among integers": (
        {"train.csv": csv("a nice film,", rows=NUMBERED)},
        "{path: DATA}",
        ["train.csv line 10, column 'label': is empty; write a class, or set data.on_bad_row: skip"],
    ),
    "T04 a null label among integers": (
        {"train.parquet": parquet(text=TEXTS, label=[0, 1, 0, 1, 0, 1, 0, None])},
        "{path: DATA}",
        ["train.parquet row 7, column 'label': is empty; write a class, or set data.on_bad_row: skip"],
    ),
    "T05 an empty label among texts": (
        {"train.csv": csv("a nice film,", "a nice song, ")},
        "{path: DATA}",
        [
            "train.csv line 10, column 'label': is empty; write a class, or set data.on_bad_row: skip",
            "train.csv line 11, column 'label': is empty; write a class, or set data.on_bad_row: skip",
        ],
    ),
    "T06 float labels": (
        {"train.jsonl": jsonl(rows=[(text, float(label == "pos")) for text, label in GOOD])},
        "{path: DATA}",
        [
            "train.jsonl line 1, column 'label': is the number 1.0 with a decimal point (8 rows so); cast the column to integers or text"
        ],
    ),
    "T06 float labels in parquet": (
        {"train.parquet": parquet(text=TEXTS, label=[0.0, 1.0] * 4)},
        "{path: DATA}",
        [
            "train.parquet row 0, column 'label': is the number 0.0 with a decimal point (8 rows so); cast the column to integers or text"
        ],
    ),
    "T06 labels of a regression": (
        {"train.csv": csv(rows=[(text, "0.5" if label == "pos" else "2") for text, label in GOOD])},
        "{path: DATA}",
        [
            "train.csv line 2, column 'label': is '0.5', a number with decimals (4 rows so); this task needs classes; a number to predict is another task (regression)"
        ],
    ),
    "T07 train has integers, validation texts": (
        {"train.csv": csv(rows=NUMBERED), "val.csv": csv(rows=OTHERS[:1])},
        "{path: DATA}",
        [
            "val.csv line 2, column 'label': 'pos' is no class of train (0, 1); write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T08 train has integers, validation floats": (
        {"train.csv": csv(rows=NUMBERED), "val.csv": csv(rows=[("a film", "0.0")])},
        "{path: DATA}",
        [
            "val.csv line 2, column 'label': '0.0' is no class of train (0, 1); write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T08 train has integers, validation floats, JSON lines": (
        {
            "train.jsonl": jsonl(rows=[(text, int(label == "pos")) for text, label in GOOD]),
            "val.jsonl": jsonl(rows=[("a film", 0.0)]),
        },
        "{path: DATA}",
        [
            "val.jsonl line 1, column 'label': is the number 0.0 with a decimal point (1 row so); cast the column to integers or text"
        ],
    ),
    "T09 labels that differ in capitals and blanks": (
        {"train.csv": csv("a nice film,Pos", "a nice song, pos")},
        "{path: DATA}",
        [
            "train.csv line 10, column 'label': 'Pos' is another spelling of 'pos' (1 row against 4); write 'pos', or data.labels: {'Pos': 'pos'}",
            "train.csv line 11, column 'label': ' pos' is another spelling of 'pos' (1 row against 4); write 'pos', or data.labels: {' pos': 'pos'}",
        ],
    ),
    "T13 the label -100": (
        {"train.csv": csv("a nice film,-100", rows=NUMBERED)},
        "{path: DATA}",
        [
            "train.csv line 10, column 'label': is -100, which the loss ignores; write a class, or set data.on_bad_row: skip"
        ],
    ),
    "T14 test labels of -1": (
        {"train.csv": csv(rows=NUMBERED), "test.csv": csv(rows=[("a film", "-1"), ("a song", "-1")])},
        "{path: DATA, eval: test}",
        [
            "test.csv line 2, column 'label': is -1, which means 'no label' in test sets; write a class, or set data.on_bad_row: skip",
            "test.csv line 3, column 'label': is -1, which means 'no label' in test sets; write a class, or set data.on_bad_row: skip",
        ],
    ),
    "T15 one class": (
        {"train.csv": csv(rows=[(text, "pos") for text in TEXTS])},
        "{path: DATA}",
        ["train.csv: the one label of 8 rows is 'pos'; a classifier needs two classes"],
    ),
    "T15 one class with characters that steer a terminal": (
        {"train.csv": csv(rows=[(text, '"p\x1b[2Jq\nr"') for text in TEXTS])},
        "{path: DATA}",
        ["train.csv: the one label of 8 rows is 'p\\x1b[2Jq\\nr'; a classifier needs two classes"],
    ),
    "T16 every row its own class": (
        {"train.csv": csv(rows=[(text, str(i)) for i, text in enumerate(TEXTS)])},
        "{path: DATA}",
        ["train.csv: 8 rows, each with a label of its own; name the class column in data.columns"],
    ),
    "T18 an empty training file": (
        {"train.csv": ""},
        "{path: DATA/train.csv}",
        ["train.csv: the file is empty (0 bytes); give a file with rows, or take it out of data.path"],
    ),
    "T18 an empty file for validation": (
        {"train.jsonl": jsonl(), "val.jsonl": ""},
        "{path: DATA}",
        ["val.jsonl: the file is empty (0 bytes); give a file with rows, or take it out of data.path"],
    ),
    "T18 training data of a header only": (
        {"train.csv": "text,label\n"},
        "{path: DATA}",
        ["train.csv: there are no rows below the header; give a file with rows"],
    ),
    "T18 validation data of a header only": (
        {"train.csv": csv(), "val.csv": "text,label\n"},
        "{path: DATA}",
        ["val.csv: there are no rows below the header; give a file with rows"],
    ),
    "T18 a parquet file without rows": (
        {"train.parquet": parquet(text=[], label=[])},
        "{path: DATA}",
        ["train.parquet: there are no rows in it; give a file with rows"],
    ),
    "T19 one training row": (
        {"train.csv": csv(rows=GOOD[:1])},
        "{path: DATA}",
        ["train.csv: the one label of 1 row is 'pos'; a classifier needs two classes"],
    ),
    "T20 a text column that is not there": (
        {"train.csv": csv()},
        "{columns: {text: txet}, path: DATA}",
        [
            "recipe.yaml:3:18: data.columns.text: train.csv has no column 'txet'. Did you mean 'text'? It has text, label."
        ],
    ),
    "T21 a label column that is not there": (
        {"train.csv": csv()},
        "{columns: {label: klass}, path: DATA}",
        ["recipe.yaml:3:18: data.columns.label: train.csv has no column 'klass'. It has text, label."],
    ),
    "T22 other columns in validation": (
        {"train.csv": csv(), "val.csv": csv(rows=OTHERS, head="sentence,label")},
        "{path: DATA}",
        [
            "val.csv: split 'val' has no column 'text', which 'train' has; it has sentence, label. Give all splits the same columns"
        ],
    ),
    "T22 other columns in a second file of a split": (
        {"train-1.jsonl": jsonl(), "train-2.jsonl": jsonl({"text": "a nice film", "label": "pos", "more": 1})},
        "{path: DATA}",
        ["train-1.jsonl: lacks the column 'more', which train-2.jsonl has; give all files the same columns"],
    ),
    "T23 no header": (
        {"train.csv": csv(head="a nice film,pos")},
        "{path: DATA}",
        [
            "recipe.yaml:3:1: data.columns: which column of train.csv is the text? 2 could be (a nice film, pos); write data.columns: {text: …}, one of a nice film, pos. The first line looks like a row: without a header, write load: {header: null, column_names: [name1, name2]}"
        ],
    ),
    "T24 a name twice in the header": (
        {"train.csv": csv(rows=[(*row, "x") for row in GOOD], head="text,label,text")},
        "{path: DATA}",
        ["train.csv: the header has 'text' 2 times; give every column its own name"],
    ),
    "T27 a damaged UTF-8 file": (
        {"train.csv": csv("a nice café,pos").encode() + b"a nice \xff,neg\n"},
        "{path: DATA}",
        [
            "train.csv line 11 (byte 172): byte 0xff is not UTF-8, though the rest is; repair the file, or set data.load.encoding"
        ],
    ),
    "T27 another encoding than the recipe says": (
        {"train.csv": csv("a nice café,pos")},
        "{path: DATA, load: {encoding: ascii}}",
        ["train.csv line 10 (byte 158): byte 0xc3 is not ascii; set data.load.encoding to the file's own"],
    ),
    "T28 a row with more cells than the header": (
        {"train.csv": csv("nice, really,pos")},
        "{path: DATA}",
        ["train.csv line 10: 3 cells where the header has 2; quote cells that hold a comma"],
    ),
    "T28 a row with fewer cells than the header": (
        {"train.tsv": csv("nice", sep="\t")},
        "{path: DATA}",
        ["train.tsv line 10: 1 cell where the header has 2; complete the line or remove it"],
    ),
    "T29 a quote that is never closed": (
        {"train.csv": csv('"a nice film,pos', "a dull film,neg")},
        "{path: DATA}",
        [
            "train.csv line 10: a quote is opened here and not closed rightly (read up to line 11); close it, write quotes inside a field twice, or set data.load.quoting: none"
        ],
    ),
    "T30 a last line that breaks off before the label": (
        {"train.csv": csv(rows=NUMBERED) + "a nice"},
        "{path: DATA}",
        ["train.csv line 10: 1 cell where the header has 2; complete the line or remove it"],
    ),
    "T30 a last line that breaks off at the label": (
        {"train.csv": csv(rows=NUMBERED) + "a nice film,"},
        "{path: DATA}",
        ["train.csv line 10, column 'label': is empty; write a class, or set data.on_bad_row: skip"],
    ),
    "T30 a last object that breaks off": (
        {"train.jsonl": jsonl() + '{"text": "a nice film", "lab'},
        "{path: DATA}",
        ["train.jsonl line 9: is not JSON (Unterminated string starting at, column 25); repair the line or remove it"],
    ),
    "T31 NUL bytes": (
        {"train.csv": csv("a\0nice film,pos", "\0,neg")},
        "{path: DATA}",
        [
            "train.csv line 10: holds a NUL character (2 in the file), so the file is damaged or in another encoding; repair it, or set data.load.encoding (utf-16?)"
        ],
    ),
    "T32 an empty text": (
        {"train.csv": csv(",pos"), **VAL},
        "{path: DATA}",
        ["train.csv line 10, column 'text': is empty; write a text, or set data.on_bad_row: skip"],
    ),
    "T33 texts of blanks": (
        {"train.csv": csv("  ,pos", "\u200b\u00a0,neg")},
        "{path: DATA}",
        [
            "train.csv line 10, column 'text': holds only blanks; write a text, or set data.on_bad_row: skip",
            "train.csv line 11, column 'text': holds only blanks; write a text, or set data.on_bad_row: skip",
        ],
    ),
    "T33 many texts of blanks": (
        {"train.csv": csv(*["  ,pos"] * 30)},
        "{path: DATA}",
        [
            "train.csv line 10, column 'text': holds only blanks; write a text, or set data.on_bad_row: skip (30 rows so: 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, …)"
        ],
    ),
    "T37 half a surrogate pair": (
        {"train.jsonl": jsonl('{"text": "a nice \\ud83d film", "label": "pos"}')},
        "{path: DATA}",
        [
            "train.jsonl line 9: holds half a surrogate pair (\\ud800–\\udfff), which is no character; repair the line or remove it"
        ],
    ),
    "T38 a line that is not JSON": (
        {"train.jsonl": jsonl('{"text": "a nice film", label: "pos"}')},
        "{path: DATA}",
        [
            "train.jsonl line 9: is not JSON (Expecting property name enclosed in double quotes, column 25); repair the line or remove it"
        ],
    ),
    "T38 a document that is not JSON": (
        {"train.json": '[\n{"text": "a", "label": "b"},\n{"text": "c" "label": "d"}\n]'},
        "{path: DATA}",
        ["train.json line 3: is not JSON (Expecting ',' delimiter, column 14); repair it"],
    ),
    "T38 a number of five thousand digits": (
        {"train.json": '[{"text": "a", "label": ' + "9" * 5000 + "}]"},
        "{path: DATA}",
        ["train.json: holds a number of thousands of digits; repair it"],
    ),
    "T39 a label that changes its type": (
        {"train.jsonl": jsonl({"text": "a nice film", "label": 1})},
        "{path: DATA}",
        ["train.jsonl line 9, column 'label': is 1, though most labels are text; write all labels in one type"],
    ),
    "T39 a text that changes its type": (
        {"train.jsonl": jsonl({"text": 7, "label": "pos"})},
        "{path: DATA}",
        [
            "train.jsonl line 9, column 'text': is 7 (number), no text; write it as a string, or set data.on_bad_row: skip"
        ],
    ),
    "T40 a null text": (
        {"train.jsonl": jsonl({"text": None, "label": "pos"})},
        "{path: DATA}",
        ["train.jsonl line 9, column 'text': is empty; write a text, or set data.on_bad_row: skip"],
    ),
    "T40 a missing key": (
        {"train.jsonl": jsonl({"text": "a nice film"})},
        "{path: DATA}",
        ["train.jsonl line 9, column 'label': is empty; write a class, or set data.on_bad_row: skip"],
    ),
    "T40 a text that is a list": (
        {"train.jsonl": jsonl({"text": ["a nice", "film"], "label": "pos"})},
        "{path: DATA}",
        [
            "train.jsonl line 9, column 'text': is ['a nice', 'film'] (list), no text; write it as a string, or set data.on_bad_row: skip"
        ],
    ),
    "T40 every text a list": (
        {"train.parquet": parquet(text=[[text] for text in TEXTS[:2]], label=LABELS[:2])},
        "{path: DATA}",
        [
            "train.parquet row 0, column 'text': is ['good film'] (list), no text; write it as a string, or set data.on_bad_row: skip",
            "train.parquet row 1, column 'text': is ['bad film'] (list), no text; write it as a string, or set data.on_bad_row: skip",
        ],
    ),
    "T41 a NaN label": (
        {"train.jsonl": jsonl('{"text": "a nice film", "label": NaN}')},
        "{path: DATA}",
        ["train.jsonl line 9, column 'label': is empty; write a class, or set data.on_bad_row: skip"],
    ),
    "T42 a truncated parquet file": (
        {"train.parquet": PARQUET[: len(PARQUET) // 2]},
        "{path: DATA}",
        [
            "train.parquet: is damaged or no parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file); write it again"
        ],
    ),
    "T45 a file that is not there": (
        {"train.csv": csv()},
        "{path: DATA/trian.csv}",
        [
            "recipe.yaml:3:8: data.path: file not found: 'DATA/trian.csv' (no 'trian.csv' in 'DATA'; a Hub id is org/name). Did you mean 'train.csv'?"
        ],
    ),
    "T45 a folder called like a file": (
        {"train.csv/notes.md": "x"},
        "{path: DATA/train.csv}",
        [
            "DATA/train.csv: only files of other kinds (.md) in this folder; give files of rows (csv, tsv, json, jsonl, ndjson, parquet, arrow, feather, txt, conll, bio, iob, iob2)"
        ],
    ),
}

# row and what is odd -> (files, the recipe's data section, what is said of it, the classes, texts that must be there)
USED = {
    "T10 labels called NA, null, yes and no": (
        {"train.csv": csv(rows=[(text, ["NA", "null", "yes", "no"][i % 4]) for i, text in enumerate(TEXTS)]), "val.csv": csv(rows=[("a film", "NA"), ("a song", "null"), ("a plot", "yes"), ("a book", "no")])},
        "{path: DATA}", [], ["NA", "no", "null", "yes"], [],
    ),
    "T11 labels called true and false": (
        {"train.csv": csv(rows=[(text, str(label == "pos").lower()) for text, label in GOOD])},
        HALF, [], ["false", "true"], [],
    ),
    "T11 labels that are true and false": (
        {"train.jsonl": jsonl(rows=[(text, label == "pos") for text, label in GOOD])},
        HALF, [], ["false", "true"], [],
    ),
    "T06 labels written 0.0 and 1.0": (
        {"train.csv": csv(rows=[(text, f"{label}.0") for text, label in NUMBERED])},
        HALF, [], ["0.0", "1.0"], [],
    ),
    "T12 labels from 1": (
        {"train.csv": csv(rows=[(text, str(int(label) + 1)) for text, label in NUMBERED])},
        HALF, ["classes, in the order of the model's outputs: 1, 2"], ["1", "2"], [],
    ),
    "T13 labels with gaps": (
        {"train.csv": csv(rows=[(text, "900" if label == "1" else "5") for text, label in NUMBERED])},
        HALF, ["classes, in the order of the model's outputs: 5, 900"], ["5", "900"], [],
    ),
    "T15 one class in validation": (
        {"train.csv": csv(), "val.csv": csv(rows=[("a fine actor", "pos"), ("a great actor", "pos")])},
        "{path: DATA}", ["warning: val: 1 class ('neg') of train without rows here, so not measured"], ["neg", "pos"], [],
    ),
    "T17 labels that are texts": ({"train.csv": csv(), **VAL}, "{path: DATA}", [], ["neg", "pos"], []),
    "T19 one row in validation": (
        {"train.csv": csv(), "val.csv": csv(rows=OTHERS[:1])},
        "{path: DATA}", ["warning: val: 1 class ('neg') of train without rows here, so not measured", "warning: val: only 1 row, so its score says nothing"], ["neg", "pos"], [],
    ),
    "T25 semicolons in a csv file": (
        {"train.csv": csv(sep=";")}, HALF, ["train.csv: separated by semicolon (the first line says so; set data.load.sep)"], ["neg", "pos"], TEXTS[:1],
    ),
    "T25 tabs in a csv file": (
        {"train.csv": csv(sep="\t")}, HALF, ["train.csv: separated by tab (the first line says so; set data.load.sep)"], ["neg", "pos"], TEXTS[:1],
    ),
    "T26 a byte order mark and Windows line ends": (
        {"train.csv": b"\xef\xbb\xbf" + csv().replace("\n", "\r\n").encode()}, HALF, [], ["neg", "pos"], TEXTS[:1],
    ),
    "T27 Latin-1": (
        {"train.csv": csv("a nice café,pos").encode("latin-1")},
        HALF, ["train.csv: read as Windows-1252 (Latin-1), for line 10 (byte 158) is not UTF-8 (set data.load.encoding)"], ["neg", "pos"], ["a nice café"],
    ),
    "T27 UTF-16": (
        {"train.csv": csv("a nice café,pos").encode("utf-16")},
        HALF, ["train.csv: read as UTF-16 (byte order mark; set data.load.encoding)"], ["neg", "pos"], ["a nice café"],
    ),
    "T31 NUL characters in JSON": (
        {"train.jsonl": jsonl({"text": "a\0nice film", "label": "pos"}, {"text": "a\0dull film", "label": "neg"})},
        HALF, ["warning: train.jsonl line 9, column 'text': NUL characters in 2 texts"], ["neg", "pos"], [],
    ),
    "T32 empty texts, to be skipped": (
        {"train.csv": csv(",pos", "  ,neg"), **VAL},
        SKIP, ["warning: train: 2 bad rows of 10 dropped (data.on_bad_row: skip); first: train.csv line 10, column 'text': is empty; write a text, or set data.on_bad_row: skip"], ["neg", "pos"], [],
    ),
    "T34 texts that are numbers": (
        {"train.csv": csv("007,pos", "1.50,neg"), **VAL}, "{path: DATA}", [], ["neg", "pos"], ["007", "1.50"],
    ),
    "T34 every text a number": (
        {"train.jsonl": jsonl(rows=[(i, label) for i, label in enumerate(LABELS)]), "val.jsonl": jsonl(rows=[(9, "pos"), (10, "neg")])},
        "{path: DATA}", ["train.jsonl, column 'text': whole numbers, read as text"], ["neg", "pos"], ["0", "7"],
    ),
    "T34 every text a number, parquet": (
        {"train.parquet": parquet(text=range(8), label=LABELS)},
        HALF, ["train.parquet, column 'text': whole numbers, read as text"], ["neg", "pos"], [],
    ),
    "T35 texts called NA, null and None": (
        {"train.csv": csv("NA,pos", "null,neg", "None,pos", "nan,neg"), **VAL}, "{path: DATA}", [], ["neg", "pos"], ["NA", "None", "nan", "null"],
    ),
    "T36 a text of a megabyte": (
        {"train.csv": csv("good " * 250_000 + ",pos"), **VAL},
        "{path: DATA}", ["warning: train.csv line 10: a text of 1,250,000 characters; is it one row?", "warning: train: 9 rows of 4 tokens (median), 150003 (95 %), 250002 (longest); 1 (11.1%) are cut at 256 tokens"], ["neg", "pos"], [],
    ),
    "T43 rows of train in validation": (
        {"train.csv": csv(), "val.csv": csv(rows=[*GOOD[:1], *OTHERS[1:2]])},
        "{path: DATA}", ["warning: val: 1 row (50.0 %) also in train, so its score is too good"], ["neg", "pos"], [],
    ),
    "T44 the same text with another label": (
        {"train.csv": csv("good film,neg"), **VAL},
        "{path: DATA}", ["warning: train: 2 rows with equal inputs but different labels (1 input)"], ["neg", "pos"], [],
    ),
    "T46 texts of unknown words": (
        {"train.csv": csv(rows=[(f"mot{i} inconnu{i}", label) for i, label in enumerate(LABELS)]), **VAL},
        "{path: DATA}", ["warning: train: 16 of 16 tokens (100%) are unknown to the tokenizer; is it the model's, and of the texts' language?"], ["neg", "pos"], [],
    ),
    "T46 some unknown words": (
        {"train.csv": csv("mot inconnu,pos"), **VAL},
        "{path: DATA}", ["warning: train: 2 of 24 tokens (8%) are unknown to the tokenizer; is it the model's, and of the texts' language?"], ["neg", "pos"], [],
    ),
    "T46 texts that are cut": (
        {"train.csv": csv("good " * 300 + ",pos"), **VAL},
        "{path: DATA}", ["warning: train: 9 rows of 4 tokens (median), 183 (95 %), 302 (longest); 1 (11.1%) are cut at 256 tokens"], ["neg", "pos"], [],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny.build("bert", tmp_path_factory.mktemp("model") / "bert")


def written(folder, files: dict, section: str, model: str) -> str:
    """The files below DATA and the recipe that reads them."""
    for name, content in files.items():
        path = folder / "DATA" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "recipe.yaml").write_text(
        f"task: text_classification\nmodel: {{name: {model}}}\ndata: {section}\n"
        "train: {output_dir: run, max_steps: 1, use_cpu: true}\n"
    )
    return "recipe.yaml"


def errors(lines: list[str]) -> list[str]:
    return [line.removeprefix("hfft: error: ") for line in lines if line.startswith("hfft: error: ")]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_training(case, forks, model, tmp_path):
    files, section, expected = REFUSED[case]
    lines = told(forks, "check", written(tmp_path, files, section, model), code=2, FOLDER=str(tmp_path))
    assert errors(lines) == expected


def test_a_line_about_a_long_label_keeps_its_place_and_its_remedy(forks, model, tmp_path):
    recipe = written(tmp_path, {"train.csv": csv(), "val.csv": csv("a nice film," + "x" * 5000)}, "{path: DATA}", model)
    (line,) = errors(told(forks, "check", recipe, code=2, FOLDER=str(tmp_path)))
    assert line.startswith("val.csv line 10, column 'label': 'xxx") and " … " in line
    assert line.endswith("xxx' is no class of train (neg, pos); write a class, or set data.on_bad_row: skip")


@pytest.mark.parametrize("case", USED)
def test_what_can_be_meant_is_used_as_it_stands_and_told(case, forks, model, tmp_path):
    files, section, expected, classes, texts = USED[case]
    lines = told(forks, "check", written(tmp_path, files, section, model), code=0, FOLDER=str(tmp_path))
    for line in expected:
        assert any(line in found for found in lines), lines
    # the tiny tokenizer knows few words
    known = [line for line in lines if "T46" in case or "unknown to the tokenizer" not in line]
    odd = [line for line in known if line.startswith("hfft: warning: ")]
    assert len(odd) == sum("warning: " in line for line in expected), odd
    given = yaml.safe_load(section) | {"path": str(tmp_path / "DATA")}
    splits = load_splits(SimpleNamespace(**given), TEXT, seed=0)
    assert splits.train.features["label"].names == classes
    assert set(texts) <= {*splits.train["text"], *splits.eval["text"]}


@pytest.mark.parametrize("case", ["T01 a label only in validation", "T32 an empty text", "T38 a line that is not JSON"])
def test_training_refuses_the_same_and_leaves_nothing_behind(case, forks, model, tmp_path):
    files, section, expected = REFUSED[case]
    lines = told(forks, "train", written(tmp_path, files, section, model), code=2, FOLDER=str(tmp_path))
    assert errors(lines) == expected
    assert not list((tmp_path / "run").glob("[!.]*"))


def test_a_flipped_bit_of_a_parquet_file_with_checksums_changes_no_row(tmp_path):
    """T42, at every seventh byte."""
    path, whole = tmp_path / "train.parquet", parquet(write_page_checksum=True, text=TEXTS, label=LABELS)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = load_splits(SimpleNamespace(path=str(path)), TEXT, seed=0)
        except InputError as error:
            assert all("train.parquet" in line for line in error.lines), error
        else:
            pairs = [
                (row["text"], ["neg", "pos"][row["label"]]) for split in (found.train, found.eval) for row in split
            ]
            assert sorted(pairs) == sorted(GOOD), place


@pytest.fixture(scope="module")
def run(forks, model, tmp_path_factory) -> str:
    """A finished run on GOOD."""
    folder = tmp_path_factory.mktemp("run")
    recipe = written(folder, {"train.csv": csv(), **VAL}, "{path: DATA}", model)
    told(forks, "train", recipe, code=0, FOLDER=str(folder))
    return str(folder / "run")


NO_TRUTH = {
    "T03 no label column": ("text\na nice film\n", "data.columns: which column of new.csv is the label? none is left"),
    "T14 labels of -1": (csv(rows=[("a film", "-1")]), "new.csv line 2, column 'label': is -1, which means 'no label'"),
    "T02 a label that is no class": (
        csv("a film,ok"),
        "new.csv line 10, column 'label': 'ok' is no class of the model",
    ),
}


@pytest.mark.parametrize("case", NO_TRUTH)
def test_rows_without_truth_are_answered_but_not_measured(case, forks, run, tmp_path):
    text, expected = NO_TRUTH[case]
    (tmp_path / "new.csv").write_text(text)
    (line,) = errors(told(forks, "eval", run, "--data", tmp_path / "new.csv", code=2))
    assert line.startswith(expected)
    answers = told(forks, "predict", run, tmp_path / "new.csv", code=0)
    assert json.loads(answers[-1])["row"] == len(text.splitlines()) - 2

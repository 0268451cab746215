"""Large tables: read in blocks with the result of reading them whole, and memory that grows with the data alone."""

import json
import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import standin

from hfft.data import load_splits
from hfft.messages import InputError
from hfft.reading import delimited, fingerprint, holdout, jsonrows, labels, source, tables, textfile

TEXT = standin.task("text", "text_pair?", "label")
ROWS = [(f"word {i} é漢" if i % 3 else f'say "{i}", or\nnot', "ab"[i % 2]) for i in range(40)]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def csv_text(rows=ROWS, sep: str = ",") -> str:
    return "text" + sep + "label\n" + "".join(f"{quoted(text)}{sep}{label}\n" for text, label in rows)


FILES = {
    "cells over several lines.csv": csv_text().encode(),
    "a mark.csv": b"\xef\xbb\xbf" + csv_text().encode(),
    "another encoding.csv": csv_text().encode("utf-16"),
    "old Mac's lines.csv": csv_text([("a", "x"), ("b", "y")] * 9).replace("\n", "\r").encode(),
    "blank lines.csv": csv_text(ROWS[1:3] * 9).replace("\n", "\n\n").encode(),
    "quotes that are text.tsv": "\n".join(["text\tlabel", *(f'a "{i} b\t{"xy"[i % 2]}' for i in range(20))]).encode(),
    "quotes that are quotes.tsv": csv_text(sep="\t").encode(),
    "ragged.csv": csv_text().replace('",a', '",a,b').encode(),
    "an open quote.csv": (csv_text() + '"never closed,a\nb,a\n').encode(),
    "half a character.csv": csv_text().encode()[:-30] + b"\xe6\n",
    "a NUL.csv": csv_text().replace("word 31", "word\0").encode(),
    "lines.jsonl": "\n".join(json.dumps({"text": t, "label": c}) for t, c in ROWS).encode(),
    "late keys.jsonl": "\n".join(
        json.dumps({"text": t, "label": i % 2} | ({"more": i} if i > 20 else {})) for i, (t, _) in enumerate(ROWS)
    ).encode(),
    "numbers late.jsonl": "\n".join(
        json.dumps({"text": t, "label": c if i < 30 else 1}) for i, (t, c) in enumerate(ROWS)
    ).encode(),
    "nulls.jsonl": "\n".join(
        json.dumps({"text": t if i % 7 else None, "label": "ab"[i % 2]}) for i, (t, _) in enumerate(ROWS)
    ).encode(),
    "mistakes.jsonl": ('{"text": "a", "label": "x"}\n\n{bad\n[1]\n' * 9 + "{}").encode(),
    "no objects.jsonl": b'{"text": "a", "label": "x"}\n\n5\n[1]\n' * 9,
}  # fmt: skip


def outcome(path, caplog, **data):
    """Everything that reading a file gives or says."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "hfft"):
        try:
            splits = load_splits(SimpleNamespace(path=str(path), eval_size=0.2, **data), TEXT, seed=0)
        except InputError as error:
            return error.lines, [record.getMessage() for record in caplog.records]
    told = [record.getMessage() for record in caplog.records]
    return splits.train[:], splits.eval[:], str(splits.train.features), splits.report, splits.dropped, told


@pytest.mark.parametrize("bad_rows", ["error", "skip"])
@pytest.mark.parametrize("name", [*FILES, "table.parquet"])
def test_the_size_of_the_blocks_changes_nothing(name, bad_rows, tmp_path, caplog, monkeypatch):
    path = tmp_path / name
    if name in FILES:
        path.write_bytes(FILES[name])
    else:
        texts, classes = zip(*ROWS, strict=True)
        pq.write_table(pa.table({"text": [*texts[:-1], None], "label": classes}), path, row_group_size=11)
    whole = outcome(path, caplog, on_bad_row=bad_rows)
    for module in (delimited, jsonrows, holdout, fingerprint, tables):
        monkeypatch.setattr(module, "ROWS", 3)
    monkeypatch.setattr(textfile, "BLOCK", 5)
    assert outcome(path, caplog, on_bad_row=bad_rows) == whole


def test_lines_are_counted_from_the_file_s_beginning_when_some_are_skipped(tmp_path):
    (tmp_path / "a.csv").write_text("# about\n" + csv_text(ROWS[1:3] * 9) + '"never closed,a\nb,a\n')
    with pytest.raises(InputError, match=r"^a\.csv line 21: a quote is opened here .* \(read up to line 22\)"):
        load_splits(SimpleNamespace(path=str(tmp_path / "a.csv"), load={"skiprows": 1}), TEXT, seed=0)


def test_a_source_is_parted_as_it_is_taken_and_loses_its_cells():
    numbers = random.Random(0).sample(range(50), 20)
    mask = np.isin(np.arange(50), numbers)
    blocks = pa.chunked_array([pa.array([str(i) for i in range(at, at + 10)]) for at in range(0, 50, 10)])
    whole = source.one_file({"text": blocks, "label": list(range(50))}, "x", range(100, 150), "line")
    expected = [whole.take(np.flatnonzero(side)) for side in (mask, ~mask)]
    for part, taken in zip(whole.parted(mask), expected, strict=True):
        assert part.values("text") == taken.values("text") == [str(i) for i in part.index]
        assert part.columns["label"] == part.index.tolist() and part.where(0) == f"x line {100 + part.index[0]}"
    assert whole.columns == {}


def test_rows_are_taken_in_the_order_asked_for():
    whole = source.one_file({"text": pa.chunked_array([["a", "b"], ["c"]]), "label": [0, 1, 2]}, "x")
    assert (whole.take([2, 0, 2]).values("text"), whole.take([2, 0, 2]).columns["label"]) == (
        ["c", "a", "c"],
        [2, 0, 2],
    )


@pytest.mark.parametrize("seed", range(5))
def test_copies_and_classes_are_counted_as_by_hand(seed, caplog):
    draw = random.Random(seed)
    texts = [f"text {draw.randrange(40)}" for _ in range(60)]
    names = [draw.choice("abc") for _ in texts]
    keys = holdout.text_keys(source.one_file({"text": texts, "label": names}, "x"), ["label"])
    assert holdout.first_copies(keys).tolist() == [texts.index(text) for text in texts]
    heads = np.array([i for i, text in enumerate(texts) if texts.index(text) == i])
    groups = {name: rows.tolist() for name, rows in holdout.by_class(heads, names).items()}
    assert groups == {name: [i for i in heads if names[i] == name] for name in set(names[i] for i in heads)}
    others = [f"text {i}" for i in range(30, 60)]
    other_keys = holdout.text_keys(source.one_file({"text": pa.chunked_array([others])}, "x"), ["label"])
    holdout.warn_of_copies({"train": (keys, names), "eval": (other_keys, None)}, "train")
    copies = sum(text in texts for text in others)
    torn = {text for text in texts if len({n for t, n in zip(texts, names, strict=True) if t == text}) > 1}
    rows = sum(count for text, count in Counter(texts).items() if text in torn)
    share = f"{100 * copies / 30:.1f} %"
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: eval: {copies} rows ({share}) also in train, so its score is too good",
        f"warning: train: {rows} rows with equal inputs but different labels ({len(torn)} inputs)",
    ]


@pytest.mark.parametrize(
    "values", [["a", None, "", " ", "-1", "b", "a"], [1, None, -1, -100, 7], ["1.5", "2", "3"], [0, 1, 2, 5]]
)
@pytest.mark.parametrize("classes", [None, ["x", "y", "z"]])
def test_labels_in_arrow_are_read_as_labels_in_a_list(values, classes):
    feature = {} if classes is None else {"label": SimpleNamespace(names=classes)}
    found = []
    for column in (values, pa.chunked_array([values[:2], values[2:]])):
        read = source.one_file({"label": column}, "x")
        read.features = feature
        found.append(labels.read_names(read))
    assert found[0] == found[1]


def test_texts_in_arrow_have_the_problems_of_texts_in_a_list(tmp_path, caplog):
    odd = ["\u00a0", "\u2003\x1c", "é", "漢", "x", "", None, "\u200b", "  \n", "🙂", "!"] * 2
    table = {"text": [*odd, *"defg"], "label": ["a", "b"] * 13}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    listed = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    section = SimpleNamespace(on_bad_row="skip", eval_size=0)
    one = load_splits(SimpleNamespace(**vars(section), path=str(tmp_path / "a.parquet")), TEXT, seed=0)
    other = load_splits(section, TEXT, seed=0, data_in_memory=listed)
    assert one.train[:] == other.train[:] and len(one.train) == 14
    assert [(d["row"], d["reason"]) for d in one.dropped] == [(d["row"], d["reason"]) for d in other.dropped]


PEAK = """
import resource, sys
sys.path.insert(0, "tests")
from types import SimpleNamespace
import test_cache, tiny
from hfft.data import load_splits
from hfft.recipe import ModelSection
task = test_cache.task_of(sys.argv[1])
splits = load_splits(SimpleNamespace(path=sys.argv[2]), task, seed=0)
rows = [test_cache.encoded(task, part, name) for part, name in ((splits.train, "train"), (splits.eval, "eval"))]
assert sum(map(len, rows)) == int(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_grows_by_little_more_than_the_texts(kind, tmp_path, monkeypatch):
    """Whole lists of Python's strings took 100 MB for these; `benchmarks.preparation` has a million rows."""
    import tiny

    monkeypatch.syspath_prepend(Path(__file__).resolve().parent.parent)  # benchmarks/ is not installed
    from benchmarks import words

    model, peaks = tiny.build("bert", tmp_path / "model"), []
    for size in (2_000, 100_000):
        command = [sys.executable, "-c", PEAK, model, str(words.write(tmp_path, size, kind)), str(size)]
        environment = os.environ | {"HFFT_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 45

"""Tags as files hold them: CoNLL columns, lists, spans, in any scheme; and a table of files that are refused."""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import json
import logging
from types import SimpleNamespace

import datasets
import pytest

from hfft import entities, words
from hfft.data import load_splits, read_rows
from hfft.messages import InputError
from hfft.recipe import Recipe
from hfft.tasks.token_classification import TokenClassification

CONLL = "EU\tB-ORG\nrejects\tO\nGerman\tB-MISC\ncall\tO\n\nPeter\tB-PER\nBlackburn\tI-PER\n\nBRUSSELS\tB-LOC\n1996\tO\n"
TAGS = [["B-ORG", "O", "B-MISC", "O"], ["B-PER", "I-PER"], ["B-LOC", "O"]]


def read(folder, files: dict, **options):
    for name, content in files.items():
        path = folder / name
        if isinstance(content, datasets.Dataset):
            content.to_parquet(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    names = {name.split(".")[0]: str(folder / name) for name in files}
    data = SimpleNamespace(**{"path": names, "eval_size": 0, **options})
    return load_splits(data, TokenClassification(), seed=0)


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tags_of(rows) -> list[list[str]]:
    names = rows.features["tags"].feature.names
    return [[names[tag] for tag in row] for row in rows["tags"][:]]


# ---- CoNLL ----------------------------------------------------------------------------------------------------------
FORMS = {
    "tabs": ("train.conll", CONLL, {}),
    "blanks": ("train.bio", CONLL.replace("\t", " "), {}),
    "several blanks": ("train.iob2", CONLL.replace("\t", "  "), {}),
    "CRLF": ("train.iob", CONLL.replace("\n", "\r\n"), {}),
    "no final line end": ("train.conll", CONLL.rstrip("\n"), {}),
    "blank lines of blanks, and several": ("train.conll", "\n\n" + CONLL.replace("\n\n", "\n  \n\n"), {}),
    "documents": ("train.conll", "-DOCSTART-\tO\n\n" + CONLL, {}),
    "documents without a blank line": ("train.conll", CONLL.replace("\n\nBRUSSELS", "\n-DOCSTART-\tO\nBRUSSELS"), {}),
    "comments": ("train.conll", "# text = EU rejects\n" + CONLL.replace("\n\nP", "\n\n# sent_id 2\n# x\nP"), {}),
    "a byte order mark": ("train.conll", b"\xef\xbb\xbf" + CONLL.encode(), {}),
    ".txt": ("train.txt", CONLL, {"load": {"format": "conll"}}),
    ".tsv": ("train.tsv", CONLL, {"load": {"format": "conll"}}),
    "four columns": ("train.conll", CONLL.replace("\t", "\tNNP\tB-NP\t"), {}),
    "four columns in another order": (
        "train.conll", "\n".join("\t".join(["X", *line.split("\t")[::-1]]) if line else "" for line in CONLL.split("\n")),
        {"columns": {"tokens": "2", "tags": "1"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_conll_file_of_any_form_gives_the_same_sentences(form, tmp_path):
    name, content, options = FORMS[form]
    rows = read(tmp_path, {name: content}, **options).train
    assert [len(row) for row in rows["tokens"][:]] == [4, 2, 2] and tags_of(rows) == TAGS
    assert rows["tokens"][1] == ["Peter", "Blackburn"]
    assert rows.features["tags"].feature.names == [
        "O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER",
    ]  # fmt: skip


def test_tokens_are_read_as_they_stand(tmp_path):
    odd = ['"', "'", "#", "#tag", "http://t.co/a?b=c#d", "😀", "a\u2028b", "a\xa0b", "\x0b", "1,5", "\\n", "x y"]
    tokens = [word for word in odd if word.strip()]
    content = "\n".join(f"{word}\tO" for word in tokens) + "\nParis\tB-LOC\n"
    rows = read(tmp_path, {"train.conll": content}).train
    assert rows["tokens"][0] == [*tokens, "Paris"]


def test_wnut17_is_read_whole(shared):
    folder = shared / "data" / "wnut17"
    data = SimpleNamespace(path={name: str(folder / f"{name}.conll") for name in ("train", "dev", "test")})
    splits = load_splits(data, TokenClassification(), seed=0, splits=["test"])
    every = (splits.train, splits.eval, splits.others["test"])
    assert [len(rows) for rows in every] == [3394, 1009, 1287]
    assert [sum(map(len, rows["tokens"][:])) for rows in every] == [62730, 15733, 23394]
    assert len(splits.train.features["tags"].feature.names) == 13


# ---- schemes --------------------------------------------------------------------------------------------------------
SCHEMES = {
    "IOB2": ["O B-A I-A B-A O B-B", "B-B I-B I-B", "O O"],
    "IOB1": ["O I-A I-A B-A O I-B", "I-B I-B I-B", "O O"],
    "BIOES": ["O B-A E-A S-A O S-B", "B-B I-B E-B", "O O"],
    "BILOU": ["O B-A L-A U-A O U-B", "B-B I-B L-B", "O O"],
    "BMES": ["O B-A E-A S-A O S-B", "B-B M-B E-B", "O O"],
    "with an underscore": ["O B_A I_A B_A O B_B", "B_B I_B I_B", "O O"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_found_and_read_as_iob2(scheme, tmp_path, caplog):
    content = "\n\n".join("\n".join(f"w{i} {tag}" for i, tag in enumerate(row.split())) for row in SCHEMES[scheme])
    with caplog.at_level(logging.INFO, "hfft"):
        rows = read(tmp_path, {"train.conll": content}).train
    assert tags_of(rows) == [row.split() for row in SCHEMES["IOB2"]]
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("tags: ")]
    name = {"BILOU": "BIOES", "BMES": "BIOES", "with an underscore": "IOB2"}.get(scheme, scheme)
    assert told == [f"tags: {name} (by their prefixes){'' if name == 'IOB2' else ', read as IOB2'}; 2 kinds of entity"]


def test_tags_without_prefixes_stand_by_themselves(tmp_path):
    rows = read(tmp_path, {"train.conll": "the DT\ndog NN\nruns VBZ\n\na DT\ncat NN\n"}).train
    assert rows.features["tags"].feature.names == ["DT", "NN", "VBZ"]
    assert tags_of(rows) == [["DT", "NN", "VBZ"], ["DT", "NN"]]


def test_tags_of_b_i_and_o_alone_have_one_kind(tmp_path):
    rows = read(tmp_path, {"train.conll": "a B\nb I\nc O\n\nd O\ne B\n"}).train
    assert tags_of(rows) == [["B-entity", "I-entity", "O"], ["O", "B-entity"]]


# ---- lists and spans ------------------------------------------------------------------------------------------------
TOKENS = [["EU", "rejects", "German", "call"], ["Peter", "Blackburn"], ["BRUSSELS", "1996"]]
NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
IDS = [[NAMES.index(tag) for tag in row] for row in TAGS]
CLASSES = datasets.Features(
    {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=NAMES))}
)
LISTS = {
    "strings": ({"train.jsonl": lines(*[{"tokens": a, "tags": b} for a, b in zip(TOKENS, TAGS, strict=True)])}, {}),
    "usual names": ({"train.jsonl": lines(*[{"id": 1, "words": a, "ner_tags": b} for a, b in zip(TOKENS, TAGS, strict=True)])}, {}),
    "numbers with names": (
        {"train.jsonl": lines(*[{"tokens": a, "tags": b} for a, b in zip(TOKENS, IDS, strict=True)])}, {"labels": NAMES},
    ),
    "numbers of a feature": ({"train.parquet": datasets.Dataset.from_dict({"tokens": TOKENS, "ner_tags": IDS}, features=CLASSES)}, {}),
    "kinds renamed": (
        {"train.jsonl": lines(*[{"tokens": a, "tags": [t.replace("PER", "P") for t in b]} for a, b in zip(TOKENS, TAGS, strict=True)])},
        {"labels": {"P": "PER"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", LISTS)
def test_lists_of_tokens_and_tags(form, tmp_path):
    files, options = LISTS[form]
    rows = read(tmp_path, files, **options).train
    assert rows["tokens"][:] == TOKENS and tags_of(rows) == TAGS
    if form.startswith("numbers"):
        assert rows.features["tags"].feature.names == NAMES


TEXT = "EU rejects German call, Peter Blackburn said."


@pytest.mark.parametrize("form", ["objects", "lists", "doccano", "unsorted"])
def test_spans_of_a_text_become_tags_of_its_words(form, tmp_path):
    spans = [(0, 2, "ORG"), (11, 17, "MISC"), (24, 39, "PER")]
    cells = {
        "objects": [{"start": a, "end": b, "label": c, "text": TEXT[a:b]} for a, b, c in spans],
        "lists": [list(span) for span in spans],
        "doccano": [{"id": 7, "start_offset": a, "end_offset": b, "label": c} for a, b, c in spans],
        "unsorted": [list(span) for span in spans[::-1]],
    }
    rows = read(
        tmp_path, {"train.jsonl": lines({"text": TEXT, "spans": cells[form]}, {"text": "nothing", "spans": []})}
    ).train
    assert rows["tokens"][0] == TEXT
    assert tags_of(rows) == [["B-ORG", "O", "B-MISC", "O", "O", "B-PER", "I-PER", "O", "O"], ["O"]]


def test_words_of_a_text():
    found = [text[a:b] for text in ["Don't, naïve e\u0301t 👩‍💻x 東京 हिन्दी #a_b"] for a, b in words.bounds(text)]
    assert found == ["Don", "'", "t", ",", "naïve", "e\u0301t", "👩‍💻", "x", "東", "京", "हिन्दी", "#", "a_b"]


# ---- what is refused ------------------------------------------------------------------------------------------------
SKIP = "or set data.on_bad_row: skip"
GOOD = {"tokens": ["Peter", "Blackburn", "said"], "tags": ["B-PER", "I-PER", "O"]}
SPAN = {"text": "Peter Blackburn said", "spans": [[0, 15, "PER"]]}


def one(**row) -> dict:
    return {"train.jsonl": lines(GOOD, GOOD | row)}


def span(*spans, text="Peter Blackburn said") -> dict:
    return {"train.jsonl": lines(SPAN, {"text": text, "spans": list(spans)})}


def offsets(what: str) -> str:
    return f"train.jsonl line 2, column 'spans': {what}"


WRONG = {
    "a line with a column too few": (
        {"train.conll": "a\tO\nb\nc\tB-X\n"}, {}, "train.conll line 2: has 1 column ('b' …), where other lines have 2; write 2",
    ),
    "an empty tag in a column": (
        {"train.conll": "a\tO\nb\t\nc\tB-X\n"}, {}, "train.conll line 2: column 1 is empty; write a token and its tag, O for none",
    ),
    "no sentences": ({"train.conll": "\n \n\n"}, {}, "train.conll: there are no sentences in it; give a file with a token a line"),
    "no tags": (
        {"train.conll": "a\nb\n\nc\n"}, {},
        "data.columns: which column of train.conll is the tags? none is left; write data.columns: {tags: …}, one of tokens.",
    ),
    "a column that is not there": (
        {"train.conll": CONLL}, {"columns": {"tags": "3"}}, "data.columns.tags: train.conll has no column '3'. Did you mean '0' or '1'? It has tokens, tags, 0, 1. Of a",
    ),
    "I without B in IOB2": (
        {"train.conll": CONLL + "\nJohn\tO\nSmith\tI-PER\n"}, {},
        f"train.conll line 12, column 'tags': word 1 ('Smith') has 'I-PER' after 'O', so the entity has no beginning (IOB2); write B-PER, {SKIP}",
    ),
    "I of another kind": (
        {"train.conll": CONLL + "\nJohn\tB-PER\nSmith\tI-LOC\n"}, {},
        f"train.conll line 12, column 'tags': word 1 ('Smith') has 'I-LOC' after 'B-PER', so the entity has no beginning (IOB2); write B-LOC, {SKIP}",
    ),
    "no end in BIOES": (
        {"train.conll": "a S-X\n\nb B-X\nc I-X\nd O\n"}, {},
        f"train.conll line 3, column 'tags': word 1 ('c') has 'I-X', but after it comes 'O', so the entity has no end; write E-X, {SKIP}",
    ),
    "no beginning in BIOES": (
        {"train.conll": "a S-X\n\nb O\nc E-X\nd O\n\ne B-X\nf E-X\n"}, {},
        f"train.conll line 3, column 'tags': word 1 ('c') has 'E-X' after 'O', so the entity has no beginning; write B-X or S-X, {SKIP}",
    ),
    "a tag without prefix": (
        {"train.conll": CONLL + "\nJohn\tPER\n"}, {},
        f"train.conll line 12, column 'tags': word 0 ('John') has 'PER', no tag of IOB2; write O, or a prefix and a kind such as 'B-PER', {SKIP}",
    ),
    "a scheme that is not read": (
        {"train.conll": "a I-X\nb E-X\nc O\n"}, {},
        "train.conll, column 'tags': tags with the prefixes E, I are of no scheme that is read; write them as IOB2",
    ),
    "every tag O": (
        {"train.conll": "a O\nb O\n\nc O\n"}, {}, "train.conll: every tag is O, so there is nothing to learn; name the column of tags in data.columns",
    ),
    "two spellings": (
        {"train.conll": CONLL + "\nParis\tB-Loc\n\nRome\tB-LOC\n"}, {},
        "train.conll line 12, column 'tags': 'Loc' is another spelling of 'LOC' (1 row against 2); write 'LOC', or data.labels: {'Loc': 'LOC'}",
    ),
    "a kind only in eval": (
        {"train.conll": CONLL, "eval.conll": "x B-ORG\ny B-FOO\n"}, {},
        f"eval.conll line 1, column 'tags': 'B-FOO' is no tag of train; write one of its tags, {SKIP}",
    ),
    "numbers without names": (
        one(tags=[1, 2, 0]), {},
        "train.jsonl line 2, column 'tags': tags are numbers (1, 2, 0 …) without names; write data.labels: [O, B-…, I-…, …], the name of each number from 0 on",
    ),
    "a number outside the names": (
        {"train.jsonl": lines({"tokens": ["a", "b"], "tags": [1, 3]}, {"tokens": ["a", "b"], "tags": [1, 2]})}, {"labels": ["O", "B-X", "I-X"]},
        f"train.jsonl line 1, column 'tags': word 1 ('b') has the tag 3, outside the 3 names; write its tag, O for none, {SKIP}",
    ),
    "fewer tags than tokens": (one(tags=["O"]), {}, f"train.jsonl line 2, column 'tags': has 1 tag for 3 tokens; write one tag for each token, {SKIP}"),
    "a tag that is null": (
        one(tags=["O", None, "O"]), {}, f"train.jsonl line 2, column 'tags': word 1 ('Blackburn') has None, no tag; write its tag, O for none, {SKIP}",
    ),
    "tags in a string": (
        one(tags="B-PER I-PER O"), {}, f"train.jsonl line 2, column 'tags': is 'B-PER I-PER O', no list of tags; write a list with a tag for each token, {SKIP}",
    ),
    "no tokens": (one(tokens=[], tags=[]), {}, f"train.jsonl line 2, column 'tokens': has no tokens; write a list of tokens, {SKIP}"),
    "a blank token": (one(tokens=["a", " ", "b"]), {}, f"train.jsonl line 2, column 'tokens': word 1 is blank; write a token, {SKIP}"),
    "a token that is a number": (one(tokens=["a", 5, "b"]), {}, f"train.jsonl line 2, column 'tokens': word 1 is 5, no text; write it as a string, {SKIP}"),
    "a text among lists": (
        one(tokens="Peter Blackburn said"), {},
        "train.jsonl line 2, column 'tokens': is the text 'Peter Blackburn said', though other rows are lists of tokens; write all rows in one form",
    ),
    "a label that data.labels lacks": (
        {"train.conll": CONLL}, {"labels": ["O", "B-PER", "I-PER", "B-ORG", "B-LOC"]},
        f"train.conll line 1, column 'tags': 'B-MISC' is no tag of data.labels; write one of its tags, {SKIP}",
    ),
    "a rename of what is not there": ({"train.conll": CONLL}, {"labels": {"PERS": "PER"}}, "data.labels: no row has the label 'PERS'. Did you mean 'PER'? There are"),
    "a span outside the text": (span([16, 30, "PER"]), {}, offsets(f"span 0 (16 to 30, 'PER') lies outside the text of 20 characters; mend its offsets, {SKIP}")),
    "an empty span": (span([3, 3, "PER"]), {}, offsets(f"span 0 (3 to 3, 'PER') is empty; mend its offsets, {SKIP}")),
    "a span backwards": (span([5, 3, "PER"]), {}, offsets(f"span 0 (5 to 3, 'PER') ends before it begins; mend its offsets, {SKIP}")),
    "overlapping spans": (
        span([0, 15, "PER"], [6, 15, "LOC"]), {}, offsets(f"spans 0 to 15 ('PER') and 6 to 15 ('LOC') overlap; keep one of them, {SKIP}"),
    ),
    "a span that cuts a word": (
        span([0, 9, "PER"]), {}, offsets(f"span 0 to 9 ('PER', 'Peter Bla') cuts the word 'Blackburn'; let it begin and end with words, {SKIP}"),
    ),
    "a span of blanks": (span([5, 6, "PER"]), {}, offsets(f"span 0 (5 to 6, 'PER') holds only blanks; mend its offsets, {SKIP}")),
    "a span that quotes something else": (
        span({"start": 0, "end": 5, "label": "PER", "text": "Blackburn"}), {},
        offsets(f"span 0 (0 to 5, 'PER') says 'Blackburn', where the text has 'Peter'; mend its offsets, {SKIP}"),
    ),
    "a span without a label": (span({"start": 0, "end": 5}), {}, offsets("span 0 is {'start': 0, 'end': 5}, no span; write a list of {start, end, label}, [] for none, " + SKIP)),
    "no spans at all": (
        {"train.jsonl": lines(SPAN, {"text": "Peter"})}, {}, offsets("is empty; write a list of {start, end, label}, [] for none, " + SKIP),
    ),
    "an unknown format": ({"train.txt": CONLL}, {"load": {"format": "conl"}}, "data.load.format: 'conl' is not read; write conll, or take it out"),
    "a stream": (
        {"train.conll": CONLL}, {"load": {"streaming": True}}, "train.conll: CoNLL files are not streamed; take out data.load.streaming, or write jsonl",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line_that_says_what_to_write(case, tmp_path):
    files, options, expected = WRONG[case]
    with pytest.raises(InputError) as caught:
        if "streaming" in options.get("load", {}):
            from hfft.streams import load_splits as streamed

            (tmp_path / "train.conll").write_text(files["train.conll"])
            data = SimpleNamespace(path=str(tmp_path / "train.conll"), **options)
            streamed(data, TokenClassification(), seed=0)
        read(tmp_path, files, **options)
    (line,) = caught.value.lines
    assert line == expected or (line.startswith(expected) and not expected.endswith("skip"))


def test_rows_in_are_rows_trained_and_rows_listed(tmp_path):
    rows = [
        GOOD,
        GOOD | {"tags": ["O"]},
        GOOD | {"tokens": []},
        GOOD | {"tags": ["O", "I-PER", "O"]},
        GOOD,
        {"tokens": ["x"], "tags": ["O"]},
    ]
    splits = read(tmp_path, {"train.jsonl": lines(*rows)}, on_bad_row="skip")
    assert len(splits.train) + len(splits.dropped) == len(rows) and len(splits.train) == 3
    assert [(row["line"], row["column"]) for row in splits.dropped] == [(2, "tags"), (3, "tokens"), (4, "tags")]
    assert splits.dropped[2]["reason"].startswith("word 1 ('Blackburn') has 'I-PER' after 'O'")


def test_the_table_is_as_long_as_promised():
    assert len(WRONG) >= 30


def test_a_recipe_may_name_columns_by_their_places():
    recipe = Recipe.from_dict(
        {
            "task": "token_classification",
            "data": {"path": "x.conll", "columns": {"tokens": 0, "tags": 3}},
            "train": {"output_dir": "runs/x"},
        }
    )
    assert recipe.data.columns == {"tokens": "0", "tags": "3"}


def test_rows_with_truth_are_read_by_the_names_of_a_model(tmp_path):
    (tmp_path / "new.conll").write_text("a I-PER\nb I-PER\nc O\n")
    rows = read_rows(tmp_path / "new.conll", TokenClassification(), need_truth=True, label_names=NAMES)
    assert tags_of(rows) == [["B-PER", "I-PER", "O"]]
    (tmp_path / "new.conll").write_text("a B-PERS\nc O\n")
    with pytest.raises(InputError, match="line 1, column 'tags': 'B-PERS' is no tag of the model"):
        read_rows(tmp_path / "new.conll", TokenClassification(), need_truth=True, label_names=NAMES)


def test_a_held_out_split_has_each_kind(tmp_path):
    content = "\n\n".join(f"w{i}\tB-{'RARE' if i % 10 == 0 else 'USUAL'}\nx\tO" for i in range(40))
    splits = read(tmp_path, {"train.conll": content}, eval_size=0.25)
    kinds = [{tag for row in tags_of(rows) for tag in row} for rows in (splits.train, splits.eval)]
    assert kinds[0] == kinds[1] == {"B-RARE", "B-USUAL", "O"} and entities.is_whole(
        splits.train.features["tags"].feature.names
    )

"""Token classification: scores as seqeval's, windows, exact gradients, reload by plain code, resume, answers."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import token_layouts as layouts
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import hfft
from hfft import entities, windows
from hfft.data import read_rows
from hfft.evaluation import evaluate
from hfft.export.merge import merge
from hfft.messages import InputError
from hfft.recipe import ModelSection
from hfft.tasks.token_classification import TokenClassification

ROOT = Path(__file__).resolve().parent.parent
LORA = [{"peft": {"peft_type": "LORA", "r": 4}}]


# ---- scores ---------------------------------------------------------------------------------------------------------
def ids(rows: list[str], names: list[str]) -> list[np.ndarray]:
    return [np.array([names.index(tag) for tag in row.split()]) for row in rows]


def test_scores_of_a_few_sentences_by_hand():
    names = entities.names_of(["A", "B"])
    true = ids(["B-A I-A O B-B", "O B-A O", "B-B B-B"], names)
    said = ids(["B-A I-A O I-B", "O O B-A", "B-B I-B"], names)
    found = entities.scores(said, true, names)
    # strict: A 0-2 right; "I-B" is none; A at 2 wrong; one B of two words, where there are two of one
    assert (found["precision"], found["recall"], found["f1"]) == (1 / 3, 1 / 5, 2 / 8)
    assert found["f1_default"] == 2 * 2 / (4 + 5)  # "I-B" after O counts as an entity, and is right
    assert found["accuracy"] == 5 / 9
    assert found["per_entity"]["A"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    nothing = entities.scores(ids(["O O"], names), ids(["O O"], names), names)
    assert (nothing["f1"], nothing["precision"], nothing["accuracy"]) == (0.0, 0.0, 1.0)


def test_scores_are_seqevals():
    seqeval = pytest.importorskip("seqeval.metrics", reason="needs seqeval: pip install 'hfft[text]'")
    from seqeval.scheme import IOB2

    names, draw = entities.names_of(["LOC", "creative-work", "x"]), random.Random(0)
    for _ in range(300):
        true = [[draw.choice(names) for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 5))]
        said = [[draw.choice(names) if draw.random() < 0.4 else tag for tag in row] for row in true]
        found = entities.scores(ids(map(" ".join, said), names), ids(map(" ".join, true), names), names)
        strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
        assert found["f1"] == pytest.approx(seqeval.f1_score(true, said, **strict), abs=1e-12)
        assert found["precision"] == pytest.approx(seqeval.precision_score(true, said, **strict), abs=1e-12)
        assert found["recall"] == pytest.approx(seqeval.recall_score(true, said, **strict), abs=1e-12)
        assert found["f1_default"] == pytest.approx(seqeval.f1_score(true, said, zero_division=0), abs=1e-12)
        assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(true, said))
        report = seqeval.classification_report(true, said, output_dict=True, **strict)
        for kind, each in found["per_entity"].items():
            theirs = report.get(kind, {"f1-score": 0.0, "support": 0})
            assert each["f1"] == pytest.approx(theirs["f1-score"], abs=1e-12) and each["support"] == theirs["support"]


def test_tags_that_are_words_are_counted_by_word():
    names = ["DT", "NN", "VB"]
    found = entities.scores(ids(["DT NN NN"], names), ids(["DT NN VB"], names), names)
    assert found["f1"] == found["accuracy"] == 2 / 3 and found["per_entity"]["NN"]["precision"] == 0.5


# ---- tokens and windows ---------------------------------------------------------------------------------------------
def wordpiece() -> BertTokenizerFast:
    letters = [f"{lead}{letter}" for lead in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [*tiny.SPECIAL, "[MASK]", *letters, ".", "-", "the", "##ing", "paris"]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)})


def byte_level() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    inner.train_from_iterator(["the plot of the film was the best of the year"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<s>", pad_token="<s>")


SENTENCES = [["The", "going-on", "in", "PARIS", "."], ["a", "\u200d", "thé", "ing"], ["the", "plot", "a", "the"]]


def test_pieces_are_those_of_the_tokenizers_own_call():
    tokenizer = wordpiece()
    for words, found in zip(SENTENCES, windows.pieces(tokenizer, SENTENCES), strict=True):
        theirs = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
        assert [i for piece in found for i in piece] == theirs["input_ids"]
        assert [i for i, piece in enumerate(found) for _ in piece] == theirs.word_ids(0)
    assert windows.frame(tokenizer) == ([2], [3])


def test_byte_level_tokenizers_get_the_blank_before_a_word():
    tokenizer = byte_level()
    assert windows.leading(tokenizer) == " " and windows.leading(wordpiece()) == "" == windows.leading(tiny.tokenizer())
    found = windows.pieces(tokenizer, [["the", "plot"]])[0]
    ids_of = [i for piece in found for i in piece]
    assert ids_of == tokenizer(" the plot")["input_ids"] != tokenizer("the plot")["input_ids"]


def test_every_word_is_judged_once_where_most_is_seen():
    draw = random.Random(0)
    for _ in range(2000):
        room = draw.randint(1, 12)
        stride, sizes = draw.randint(0, room - 1), [min(draw.choice([0, 1, 1, 2, 3, 12]), room) for _ in range(30)]
        found = windows.windows(sizes, room, stride)
        assert [word for _, (first, last) in found for word in range(first, last)] == list(range(30))
        ends = np.cumsum([0, *sizes])
        for (start, end), (first, last) in found:
            assert ends[end] - ends[start] <= room
            for word in range(first, last):
                sides = [min(ends[word] - ends[a], ends[b] - ends[word + 1]) for (a, b), _ in found if a <= word < b]
                assert min(ends[word] - ends[start], ends[end] - ends[word + 1]) == max(sides)


def test_windows_share_a_stride_and_the_last_reaches_back():
    assert windows.windows([1] * 10, 4, 2) == [((0, 4), (0, 3)), ((2, 6), (3, 5)), ((4, 8), (5, 7)), ((6, 10), (7, 10))]
    assert windows.windows([1] * 5, 4, 0) == [((0, 4), (0, 3)), ((1, 5), (3, 5))]
    assert windows.windows([1] * 4, 4, 2) == [((0, 4), (0, 4))]


def prepared(folder: Path, rows: list[dict], **options) -> tuple[TokenClassification, dict]:
    task = TokenClassification(**options)
    task.setup(ModelSection(name=layouts.build("bert", folder)), layouts.dataset(rows))
    return task, task.encode(layouts.dataset(rows)[:])


def test_the_first_piece_of_a_word_has_its_tag(tmp_path):
    task = TokenClassification()
    layouts.build("bert", tmp_path)
    wordpiece().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": 200}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = layouts.dataset([{"tokens": ["a", "going", "\u200d", "paris"], "tags": ["O", "B-blame", "I-blame", "O"]}])
    task.setup(ModelSection(name=str(tmp_path)), rows)
    encoded = task.encode(rows[:])
    assert encoded["places"] == [[1, 2, -1, 5]] and encoded["tags"] == [[0, 3, 4, 0]]
    inputs = task.collate([{name: cells[0] for name, cells in encoded.items()}])
    assert inputs["labels"].tolist() == [[-100, 0, 3, -100, -100, 0, -100]] and task.items(inputs) == 3
    assert task.lengths.notes == {"words are nothing to the tokenizer and answered with no tag": 1}
    assert task.encode({"tokens": [["\u200d"]], "tags": [[0]], "row": [0]}, train=True)["input_ids"] == []
    assert len(task.encode({"tokens": [["\u200d"]], "tags": [[0]], "row": [0]})["input_ids"]) == 1


def test_padding_on_the_left_moves_the_places(tmp_path):
    rows = layouts.sentences(4)
    task, encoded = prepared(tmp_path, rows)
    batch = [{name: cells[i] for name, cells in encoded.items()} for i in range(4)]
    task.processor.padding_side = "left"
    inputs = task.collate(batch)
    for i, row in enumerate(rows):
        tokens = task.processor.convert_ids_to_tokens(inputs["input_ids"][i][inputs["places"][i]].tolist())
        assert tokens == row["tokens"]
        assert [layouts.NAMES[t] for t in inputs["labels"][i][inputs["places"][i]]] == row["tags"]


def test_long_rows_are_read_in_windows_and_scored_whole(tmp_path):
    rows = layouts.sentences(6, least=30, most=90)
    task, encoded = prepared(tmp_path, rows, max_length=16, stride=4)
    assert len(encoded["input_ids"]) > 20 and max(map(len, encoded["input_ids"])) == 16
    batch = [{name: cells[i] for name, cells in encoded.items()} for i in range(len(encoded["input_ids"]))]
    inputs = task.collate(batch)
    kept = {"prediction": inputs["tags"], "label": inputs["tags"], "source_row": np.array(inputs["source_row"])}
    found = task.metrics(kept)
    whole = [np.array([layouts.NAMES.index(tag) for tag in row["tags"]]) for row in rows]
    assert found == entities.scores(whole, whole, layouts.NAMES) and found["f1"] == 1.0
    assert task.lengths.notes == {"rows are longer than the model takes and read in several windows": 6}


def test_wrong_windows_are_one_line(tmp_path):
    with pytest.raises(InputError, match="^task: stride 14: windows hold 14 tokens of words; write 0 to 13$"):
        prepared(tmp_path, layouts.sentences(2), max_length=16, stride=14)
    with pytest.raises(InputError, match="^task: max_length 2 holds only special tokens; write more$"):
        prepared(tmp_path, layouts.sentences(2), max_length=2)


def test_evaluation_keeps_two_small_numbers_a_word(tmp_path):
    trainer = layouts.tagger(Path(layouts.build("bert", tmp_path)), (8, 1))
    trainer.evaluate()
    assert {cell.dtype.name for name in ("prediction", "label") for cell in trainer.columns[name]} == {"int16"}
    assert sum(map(len, trainer.columns["label"])) == sum(len(row["tags"]) for row in layouts.sentences(14))


# ---- the loss -------------------------------------------------------------------------------------------------------
def test_the_loss_is_the_models_own_over_the_words(tmp_path):
    rows = layouts.sentences(5)
    task, encoded = prepared(tmp_path, rows)
    net = task.load_model(ModelSection(name=str(tmp_path))).eval()
    inputs = task.collate([{name: cells[i] for name, cells in encoded.items()} for i in range(5)])
    ours, outputs = task.loss(net, inputs)
    theirs = net(**{k: inputs[k] for k in ("input_ids", "attention_mask", "labels")}).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert task.loss(net, inputs, 100)[0].item() == pytest.approx(theirs.item() * task.items(inputs) / 100, abs=1e-6)
    assert outputs.logits.shape == (*inputs["input_ids"].shape, 5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.few_fast(layouts.CONFIGS))
def test_gradient_is_the_same_for_every_layout_of_the_global_batch(name, tuning, tmp_path):
    folder = Path(layouts.build(name, tmp_path))
    whole, *others = [layouts.gradients(folder, layout, tuning) for layout in ((8, 1), (4, 2), (1, 8))]
    others.append(layouts.gradients(folder, (8, 1), tuning, in_parts=True))
    assert len(whole) == 3  # of some 20 windows
    for other in others:
        for a, b in zip(whole, other, strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()


@pytest.mark.slow
def test_two_processes_have_the_gradient_and_the_metrics_of_one(forks, tmp_path):
    for name in layouts.CONFIGS:
        layouts.build(name, tmp_path / name)
    codes, said = forks.run(ROOT / "tests" / "token_layouts.py", tmp_path, processes=2)
    assert codes == [0, 0], said
    two, one = torch.load(tmp_path / "found.pt", weights_only=False), layouts.found_by(tmp_path, (8, 1))
    assert two.pop("metrics") == pytest.approx(one.pop("metrics"), rel=1e-6)
    for key, whole in one.items():
        for a, b in zip(whole, two[key], strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm(), key


# ---- a run ----------------------------------------------------------------------------------------------------------
def recipe_for(folder: Path, name: str = "bert", tuning=(), **train) -> dict:
    return {
        "task": {"token_classification": {"max_length": 24}},
        "model": {"name": layouts.build(name, folder / "base")},
        "tuning": list(tuning),
        "train": {
            "output_dir": str(folder / "run"), "max_steps": 20, "per_device_train_batch_size": 8,
            "learning_rate": 1e-2, "use_cpu": True, **train,
        },
    }  # fmt: skip


def splits() -> dict[str, list[dict]]:
    return {"train": layouts.sentences(40), "eval": layouts.sentences(20, seed=1, least=20, most=40)}


def test_a_run_learns_and_says_how_well_by_kind(tmp_path):
    result = hfft.finetune(recipe_for(tmp_path, max_steps=60), data=splits())
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["eval"]
    assert found["f1"] > 0.5 and found["rows"] == 20
    assert set(found["per_entity"]) == {"praise", "blame"}
    assert found["per_entity"]["praise"]["support"] == sum(row["tags"].count("B-praise") for row in splits()["eval"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert list(config["id2label"].values()) == entities.names_of(["blame", "praise"])
    assert "pipeline_tag: token-classification" in (tmp_path / "run" / "README.md").read_text()
    again = evaluate(hfft.load(tmp_path / "run"), read_rows(splits()["eval"], result.task, need_truth=True))
    assert again["f1"] == pytest.approx(found["f1"])


PLAIN = """
import json, sys, torch
from transformers import AutoModelForTokenClassification as Auto, AutoTokenizer
found = []
for folder, rows in json.load(open(sys.argv[1])):
    model, tokenizer = Auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    answers = []
    for words in rows:
        inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        names, places = inputs.word_ids(0), {}
        for place, word in enumerate(names):
            places.setdefault(word, place)
        inputs = {name: inputs[name] for name in tokenizer.model_input_names if name in inputs}
        with torch.no_grad():
            chances = model(**inputs).logits[0].softmax(-1)
        best = [chances[places[i]].max(-1) for i in range(len(words))]
        answers.append([[model.config.id2label[int(each.indices)], float(each.values)] for each in best])
    found.append(answers)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_plain_transformers_give_the_tags_and_scores_of_predict(tmp_path):
    rows = [row["tokens"] for row in layouts.sentences(12, seed=2)]
    jobs, ours, runs = [], [], []
    for name, tuning in (("bert", []), ("bert", LORA), ("llama", []), ("llama", LORA), ("roberta", [])):
        folder = tmp_path / f"{name}{len(jobs)}"
        result = hfft.finetune(recipe_for(folder, name, tuning), data=splits())
        found = hfft.load(folder / "run").predict(rows)
        places = [folder / "run", *([merge(result, folder / "merged")] if tuning else [])]
        jobs += [(str(place), rows) for place in places]
        ours += [found] * len(places)
        runs.append(result)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    (tmp_path / "plain.py").write_text(PLAIN)
    out = subprocess.run(
        [sys.executable, tmp_path / "plain.py", tmp_path / "jobs.json"], capture_output=True, text=True, cwd=tmp_path
    )
    assert out.returncode == 0, out.stderr[-800:]
    for answers, plain in zip(ours, json.loads(out.stdout.splitlines()[-1]), strict=True):
        for answer, words in zip(answers, plain, strict=True):
            assert answer["tags"] == [tag for tag, _ in words]
            for entity in answer["entities"]:
                score = np.mean([score for _, score in words[entity["start"] : entity["end"]]])
                assert entity["score"] == pytest.approx(score, abs=1e-5)
    # the figures of the run are those of its answers
    told = runs[0].metrics["eval"]
    answers = hfft.load(runs[0].folder).predict([row["tokens"] for row in splits()["eval"]])
    tags = [[layouts.NAMES.index(tag) for tag in answer["tags"]] for answer in answers]
    true = [[layouts.NAMES.index(tag) for tag in row["tags"]] for row in splits()["eval"]]
    found = entities.scores(list(map(np.array, tags)), list(map(np.array, true)), layouts.NAMES)
    assert {name: told[name] for name in entities.METRICS} == pytest.approx(
        {name: found[name] for name in entities.METRICS}
    )


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    recipe = recipe_for(
        tmp_path, max_steps=9, eval_strategy="steps", eval_steps=2, save_total_limit=9, load_best_model_at_end=False,
        gradient_accumulation_steps=2, per_device_train_batch_size=4,
    )  # fmt: skip
    recipe["model"]["config"] = {"hidden_dropout_prob": 0.2}
    hfft.finetune(recipe, data=splits())
    whole = load_file(tmp_path / "run" / "model.safetensors")
    for name in ("model.safetensors", "metrics.json"):
        (tmp_path / "run" / name).unlink()
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 4:
            shutil.rmtree(folder)
    hfft.finetune(recipe, data=splits(), resume=True)
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> hfft.Result:
    folder = tmp_path_factory.mktemp("trained")
    return hfft.finetune(recipe_for(folder, max_steps=60), data=splits())


def test_a_text_is_answered_with_places_in_it(trained):
    text = "the good film,  a bad\nbook"
    by_tokens = trained.predict([["the", "good", "film", ",", "a", "bad", "book"]])[0]
    (answer,) = trained.predict(text)
    assert answer["row"] == 0 and "tags" not in answer
    assert [e["entity_group"] for e in answer["entities"]] == [e["entity_group"] for e in by_tokens["entities"]]
    assert {e["entity_group"] for e in answer["entities"]} == {"praise", "blame"}
    for entity in answer["entities"]:
        assert list(entity) == ["entity_group", "word", "start", "end", "score"]
        assert text[entity["start"] : entity["end"]] == entity["word"] and 0 < entity["score"] <= 1


def test_tokens_are_answered_with_their_numbers_and_tags(trained):
    tokens = ["the", "good", "film"]
    forms = [[tokens], [{"tokens": tokens}], {"tokens": tokens}, {"tokens": [tokens]}]
    (first,), *others = [trained.predict(form) for form in forms]
    assert all(answer == [first] for answer in others)
    assert len(first["tags"]) == 3 and first["tags"][1] == "B-praise"
    for entity in first["entities"]:
        assert " ".join(tokens[entity["start"] : entity["end"]]) == entity["word"]


def test_a_long_text_is_answered_to_its_end(trained):
    text = "the film was a plot " * 40 + "good"
    (answer,) = trained.predict([text])
    assert answer["entities"][-1]["end"] == len(text) and answer["entities"][-1]["word"] == "good"


def test_texts_and_tokens_are_not_mixed(trained):
    with pytest.raises(InputError, match="is the text 'good', though other rows are lists of tokens"):
        trained.predict(["good", ["bad", "film"]])


def test_a_run_on_spans_answers_with_spans(tmp_path):
    rows = []
    for row in layouts.sentences(40):
        text, spans, at = " ".join(row["tokens"]), [], 0
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            if tag.startswith("B-"):
                spans.append({"start": at, "end": at + len(token), "label": tag[2:]})
            elif tag != "O":
                spans[-1]["end"] = at + len(token)
            at += len(token) + 1
        rows.append({"text": text, "spans": spans})
    result = hfft.finetune(recipe_for(tmp_path, max_steps=60), data={"train": rows, "eval": rows[:10]})
    assert result.metrics["eval"]["f1"] > 0.5
    (answer,) = result.predict([{"text": "good film"}])
    assert answer["entities"][0]["start"] == 0 and answer["entities"][0]["entity_group"] == "praise"


def test_a_checkpoint_with_the_same_tags_in_another_order_keeps_its_head(tmp_path):
    recipe = recipe_for(tmp_path, max_steps=1, learning_rate=1e-12)
    names = layouts.NAMES[::-1]
    layouts.build("bert", tmp_path / "base", num_labels=5, id2label=dict(enumerate(names)))
    before = load_file(tmp_path / "base" / "model.safetensors")["classifier.weight"]
    hfft.finetune(recipe, data=splits())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert list(config["id2label"].values()) == names
    assert (load_file(tmp_path / "run" / "model.safetensors")["classifier.weight"] - before).abs().max() < 1e-6


def test_a_frozen_trunk_trains_its_head(tmp_path):
    result = hfft.finetune(recipe_for(tmp_path, tuning=["frozen"]), data=splits())
    assert result.metrics["train"]["steps"] == 20

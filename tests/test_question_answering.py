"""question_answering: SQuAD's scores and formats, windows, gradients, reload, resume, wrong files, answers."""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import collections
import json
import logging
import re
import string
import subprocess
import sys
from itertools import product
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
from test_invariance import LAYOUTS, caught, trainer_of
from tiny import questions

import hfft
from hfft import batches, lookup, spans, squad_metric
from hfft.data import load_splits, read_rows
from hfft.evaluation import evaluate
from hfft.messages import InputError
from hfft.recipe import DataSection, ModelSection, Part
from hfft.tasks.question_answering import QuestionAnswering

SHORT = {"max_length": 32, "stride": 8}


def nested(rows: list[dict], **more) -> dict:
    """The rows as SQuAD's json, a paragraph each."""
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "question": row["question"],
                    "id": f"q{i}",
                    "answers": [
                        {"text": text, "answer_start": start}
                        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
                    ],
                    **more,
                }
            ],
        }
        for i, row in enumerate(rows)
    ]
    return {"version": "1.1", "data": [{"title": "Films", "paragraphs": paragraphs}]}


def canonical(rows: list[dict]) -> datasets.Dataset:
    return load_splits(DataSection(eval_size=0), QuestionAnswering(), seed=0, data_in_memory=rows).train


def finetune(folder: Path, rows=None, *, task=SHORT, name: str = "bert", tuning=(), **train) -> hfft.Result:
    recipe = {
        "task": {"question_answering": dict(task)},
        "model": {"name": tiny.build(name, folder / "base")},
        "tuning": list(tuning),
        "train": {
            "output_dir": str(folder / "run"), "max_steps": 30, "per_device_train_batch_size": 8,
            "learning_rate": 1e-2, "use_cpu": True, "eval_strategy": "no", "save_strategy": "no", **train,
        },
    }  # fmt: skip
    data = rows or {"train": questions(60), "validation": questions(20, 1)}
    return hfft.finetune(recipe, data=data)


# ---- scores ---------------------------------------------------------------------------------------------------------
def official(text: str) -> str:
    """normalize_answer of evaluate-v1.1.py and evaluate-v2.0.py."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def by_version_1(prediction: str, truths: list[str]) -> tuple[float, float]:
    def f1(truth: str) -> float:
        found, right = official(prediction).split(), official(truth).split()
        num_same = sum((collections.Counter(found) & collections.Counter(right)).values())
        if num_same == 0:
            return 0
        precision, recall = 1.0 * num_same / len(found), 1.0 * num_same / len(right)
        return (2 * precision * recall) / (precision + recall)

    return float(max(official(prediction) == official(truth) for truth in truths)), max(map(f1, truths))


def by_version_2(prediction: str, truths: list[str]) -> tuple[float, float]:
    def tokens(text: str) -> list[str]:
        return official(text).split() if text else []

    def f1(truth: str) -> float:
        right, found = tokens(truth), tokens(prediction)
        num_same = sum((collections.Counter(right) & collections.Counter(found)).values())
        if len(right) == 0 or len(found) == 0:
            return int(right == found)
        if num_same == 0:
            return 0
        precision, recall = 1.0 * num_same / len(found), 1.0 * num_same / len(right)
        return (2 * precision * recall) / (precision + recall)

    gold = [truth for truth in truths if official(truth)] or [""]
    return max(int(official(truth) == official(prediction)) for truth in gold), max(map(f1, gold))


EDGES = [
    "", " ", "the", "The The", "a", "an apple", "An Apple.", "apple", "apples", "U.S.A.", "USA", "the U.S. of A", "$5.00", "500",
    "naïve", "naive", "“quoted”", "quoted", "10–20", "1020", "re-do", "redo", "Ünïcode  \t text\n", "ünïcode text", "theatre a an",
    "theatre", "a_b", "ab", "İstanbul", "don't", "dont", "...", "the cat sat on the mat", "the mat sat on a cat",
]  # fmt: skip


def test_scores_of_two_hundred_edge_cases_and_more_are_the_published_scripts():
    generator, cases = np.random.default_rng(0), [(a, [b]) for a, b in product(EDGES, EDGES)]
    cases += [
        (str(generator.choice(EDGES)), generator.choice(EDGES, generator.integers(2, 5)).tolist()) for _ in range(200)
    ]
    for prediction, truths in cases:
        first, second = squad_metric.scores(prediction, truths)
        assert first == pytest.approx(by_version_1(prediction, truths), abs=1e-12), (prediction, truths)
        assert second == pytest.approx(by_version_2(prediction, truths), abs=1e-12), (prediction, truths)
    for prediction in EDGES:
        assert squad_metric.scores(prediction, [])[1] == by_version_2(prediction, [])


@pytest.mark.parametrize(
    ("prediction", "right", "exact", "f1"),
    [
        ("北京大学", "北京", 0, 2 / 3), ("北京。", "北京", 1, 1), ("「北京」", "北京", 1, 1), ("1998年", "1998 年", 1, 1),
        ("กรุงเทพ", "กรุงเทพ", 1, 1), ("서울 대학", "서울", 0, 2 / 3), ("東京", "大阪", 0, 0),
    ],
)  # fmt: skip
def test_without_blanks_between_words_characters_are_compared(prediction, right, exact, f1):
    assert squad_metric.scores(prediction, [right])[0] == pytest.approx((exact, f1))


def test_the_null_threshold_is_the_best_one_of_all():
    generator = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        margins = generator.integers(-3, 4, size) + 0.0
        answered, unanswered = generator.random(size).round(1), generator.integers(0, 2, size) + 0.0
        found = squad_metric.null_threshold(margins, answered, unanswered)

        def total(threshold, m=margins, a=answered, u=unanswered):
            return np.where(m > threshold, u, a).sum()

        assert total(found) == pytest.approx(max(total(each) for each in np.arange(-5, 5, 0.25)))


# ---- formats --------------------------------------------------------------------------------------------------------
FORMS = {
    "lists": lambda row: {"answers": row["answers"]},
    "objects": lambda row: {"answers": [dict(zip(("text", "answer_start"), each, strict=True)) for each in pairs(row)]},
    "columns": lambda row: {"answer_text": pairs(row)[0][0], "answer_start": pairs(row)[0][1]},
    "columns and flag": lambda row: {"answer_text": pairs(row)[0][0], "answer_start": str(pairs(row)[0][1]), "is_impossible": False},
    "lists and flag": lambda row: {"answers": row["answers"], "is_impossible": not row["answers"]["text"]},
}  # fmt: skip


def pairs(row: dict) -> list[tuple]:
    found = list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True))
    return found or [(None, None)]


@pytest.mark.parametrize("form", FORMS)
def test_answers_of_any_form_are_the_same_rows(form, tmp_path):
    rows = questions(9, impossible=form not in ("columns and flag", "objects"))
    made = [
        {"id": i, "question": row["question"], "context": row["context"], **FORMS[form](row)}
        for i, row in enumerate(rows)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    section = DataSection(path=str(tmp_path / "a.jsonl"), eval_size=0)
    found = load_splits(section, QuestionAnswering(), seed=0).train
    count = 1 if form.startswith("columns") else 2
    assert [row["answers"]["text"] for row in found] == [row["answers"]["text"][:count] for row in rows]
    assert [row["answers"]["answer_start"] for row in found] == [row["answers"]["answer_start"][:count] for row in rows]
    assert found["context"] == [row["context"] for row in rows]


def test_nested_json_is_the_same_rows_and_says_so(tmp_path, caplog):
    rows = questions(9, impossible=True)
    content = nested(rows)
    for paragraph, row in zip(content["data"][0]["paragraphs"], rows, strict=True):
        paragraph["qas"][0]["is_impossible"] = not row["answers"]["text"]
    (tmp_path / "dev.json").write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, "hfft"):
        found = load_splits(
            DataSection(path=str(tmp_path / "dev.json"), eval_size=0), QuestionAnswering(), seed=0
        ).train
    assert found.remove_columns("row").to_list() == canonical(rows).remove_columns("row").to_list()
    assert (
        "dev.json: SQuAD's nested form, read as 9 questions of 1 article, 9 paragraphs, 3 of them without an answer"
        in caplog.text
    )
    assert "train: 3 of 9 questions without an answer in the context" in caplog.text


GOOD = {"question": "who", "context": "Ada met Bob. Bob left.", "answers": {"text": ["Ada"], "answer_start": [0]}}
WRONG = {  # what differs from GOOD in line 2 -> the line's end
    "offset": ({"answers": {"text": ["met"], "answer_start": [5]}}, "answer 'met' is not at 5, there is 'et '; write answer_start: 4, where it is, or set data.on_bad_row: skip"),
    "several": ({"answers": {"text": ["Bob"], "answer_start": [9]}}, "answer 'Bob' is not at 9, there is 'ob.'; it is at 8 and in 1 other place; write the right one, or set data.on_bad_row: skip"),
    "nowhere": ({"answers": {"text": ["Eve"], "answer_start": [0]}}, "answer 'Eve' is not at 0, there is 'Ada'; the context does not hold it; write it as it stands there, or set data.on_bad_row: skip"),
    "beyond": ({"answers": {"text": ["Ada"], "answer_start": [99]}}, "answer 'Ada' is not at 99, nothing is there; write answer_start: 0, where it is, or set data.on_bad_row: skip"),
    "negative": ({"answers": {"text": ["left."], "answer_start": [-5]}}, "answer 'left.' is not at -5, nothing is there; write answer_start: 17, where it is, or set data.on_bad_row: skip"),
    "second": ({"answers": {"text": ["Ada", "ada"], "answer_start": [0, 0]}}, "answer 'ada' is not at 0, there is 'Ada'; the context does not hold it; write it as it stands there, or set data.on_bad_row: skip"),
    "lengths": ({"answers": {"text": ["Ada", "Bob"], "answer_start": [0]}}, "has 2 texts and 1 answer_start; give each text its own, or set data.on_bad_row: skip"),
    "no start": ({"answers": [{"text": "Ada"}]}, "has no answer_start of 'Ada'; write where in the context it begins, or set data.on_bad_row: skip"),
    "no text": ({"answers": [{"answer_start": 0}]}, "has no text; write the answer's, or set data.on_bad_row: skip"),
    "half a start": ({"answers": {"text": ["Ada"], "answer_start": [0.5]}}, "has the answer_start 0.5; write a number of characters, or set data.on_bad_row: skip"),
    "a text alone": ({"answers": "Ada"}, "is 'Ada', without its place in the context; write {\"text\": […], \"answer_start\": […]}, empty lists where there is no answer, or set data.on_bad_row: skip"),
    "texts alone": ({"answers": ["Ada"]}, "holds 'Ada', no answer with its place; write {\"text\": […], \"answer_start\": […]}, empty lists where there is no answer, or set data.on_bad_row: skip"),
    "nothing": ({"answers": None}, "is empty; write {\"text\": […], \"answer_start\": […]}, empty lists where there is no answer, or set data.on_bad_row: skip"),
    "blanks": ({"answers": {"text": [" "], "answer_start": [3]}}, "has an answer of blanks; write [] where there is no answer, or set data.on_bad_row: skip"),
    "no context": ({"context": None}, "column 'context': is empty; write a text, or set data.on_bad_row: skip"),
    "blank question": ({"question": "  "}, "column 'question': holds only blanks; write a text, or set data.on_bad_row: skip"),
}  # fmt: skip


def write_lines(path: Path, rows: list[dict]) -> DataSection:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSection(path=str(path), eval_size=0)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_refused_with_its_line_or_listed(case, tmp_path):
    change, end = WRONG[case]
    section = write_lines(tmp_path / "train.jsonl", [GOOD, {**GOOD, **change}, GOOD])
    with pytest.raises(InputError) as caught:
        load_splits(section, QuestionAnswering(), seed=0)
    line = f"train.jsonl line 2, {end}" if end.startswith("column") else f"train.jsonl line 2, column 'answers': {end}"
    assert caught.value.lines == [line]
    section.on_bad_row = "skip"
    splits = load_splits(section, QuestionAnswering(), seed=0)
    assert splits.train["row"] == [0, 2] and [each["row"] for each in splits.dropped] == [1]


NESTED = {
    "flag": ({"is_impossible": True}, "dev.json question q0, column 'answers': has an answer though is_impossible is true; change one of them, or set data.on_bad_row: skip"),
    "no flag": ({"is_impossible": False, "answers": []}, "dev.json question q0, column 'answers': has no answer though is_impossible is false; change one of them, or set data.on_bad_row: skip"),
    "odd flag": ({"is_impossible": "perhaps"}, "dev.json question q0, column 'answers': has is_impossible 'perhaps'; write true or false, or set data.on_bad_row: skip"),
    "no question": ({"question": None}, "dev.json question q0, column 'question': is empty; write a text, or set data.on_bad_row: skip"),
    "no answers": ({"answers": None}, "dev.json question q0, column 'answers': is empty; write {\"text\": […], \"answer_start\": […]}, empty lists where there is no answer, or set data.on_bad_row: skip"),
}  # fmt: skip


@pytest.mark.parametrize("case", NESTED)
def test_a_wrong_question_of_nested_json_is_named_by_its_id(case, tmp_path):
    change, line = NESTED[case]
    content = nested(questions(1), **change)
    content["data"].append(nested(questions(3, 1))["data"][0])
    (tmp_path / "dev.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_splits(DataSection(path=str(tmp_path / "dev.json"), eval_size=0), QuestionAnswering(), seed=0)
    assert caught.value.lines == [line]


FRAMES = {
    "an article": ({"data": [{"paragraphs": []}, 3]}, "dev.json article 1: has no list of paragraphs, which other articles have; write one, or remove it"),
    "a paragraph": ({"data": [{"paragraphs": ["text"]}]}, "dev.json article 0, paragraph 0: is no object; write context and qas"),
    "a context": ({"data": [{"paragraphs": [{"qas": []}]}]}, "dev.json article 0, paragraph 0: has no context (a text) or no qas (a list); write both"),
    "a question": ({"data": [{"paragraphs": [{"context": "a", "qas": [1]}]}]}, "dev.json article 0, paragraph 0, question 0: is no object; write question, id and answers"),
    "nothing": ({"data": [{"paragraphs": []}]}, "dev.json: there are no rows in it; give a file with rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMES)
def test_nested_json_of_another_form_is_refused_with_the_place(case, tmp_path):
    content, line = FRAMES[case]
    (tmp_path / "dev.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_splits(DataSection(path=str(tmp_path / "dev.json"), eval_size=0), QuestionAnswering(), seed=0)
    assert caught.value.lines == [line]


def test_a_set_without_any_answer_is_refused(tmp_path):
    section = write_lines(tmp_path / "train.jsonl", [{**GOOD, "answers": []}] * 3)
    with pytest.raises(InputError, match=r"train.jsonl: no question has an answer, so there is nothing to learn"):
        load_splits(section, QuestionAnswering(), seed=0)


# ---- windows --------------------------------------------------------------------------------------------------------
def ready(folder: Path, name: str = "bert", **options) -> QuestionAnswering:
    task = QuestionAnswering(**options)
    task.setup(ModelSection(name=tiny.build(name, folder / name)))
    return task


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_cover_the_context_and_point_to_the_answer(side, tmp_path):
    task, rows = ready(tmp_path, **SHORT), canonical(questions(40, words=90))
    task.processor.truncation_side = side
    found = task.encode(rows[:])
    assert max(map(len, found["input_ids"])) == 32 and len(found["input_ids"]) > 80
    seen, answered = collections.defaultdict(set), collections.defaultdict(int)
    tokens = task.processor.convert_ids_to_tokens
    for ids, place, (first, stop), label, null, offsets in zip(
        *(found[n] for n in ("input_ids", "source_row", "context", "labels", "null", "offsets")), strict=True
    ):
        assert tokens(ids[:5]) == ["[CLS]", "the", "film", "was", "[SEP]"] and null == 0
        context = rows["context"][place]
        for token, (start, end) in zip(tokens(ids[first:stop]), offsets.reshape(-1, 2), strict=True):
            assert context[start:end] == token
            seen[place].update(range(start, end))
        if label != [null, null]:
            answered[place] += 1
            assert tokens(ids[label[0] : label[1] + 1]) == ["good", "film"]
        else:
            assert "good film" not in " ".join(tokens(ids[first:stop]))
    for place in rows["row"]:
        assert answered[place] >= 1
        assert len(seen[place]) == len(rows["context"][place].replace(" ", ""))


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_either_side_changes_no_answer(side, tmp_path):
    result = finetune(tmp_path, name="llama")  # BERT counts positions from the padding on
    rows = questions(7, 3, words=60)
    alone = [result.predict([row])[0] for row in rows]
    result.task.processor.padding_side = side
    for one, other in zip(result.predict(rows), alone, strict=True):
        assert one["answer"] == other["answer"] and one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_question_that_leaves_no_room_is_refused_with_its_row(tmp_path):
    task, rows = ready(tmp_path, **SHORT), questions(3, words=60)
    rows[1]["question"] = "the film was " * 7
    with pytest.raises(InputError) as caught:
        task.encode(canonical(rows)[:])
    assert caught.value.lines == [
        "row 1, column 'question': has 21 tokens; more than 20 leave no room for the context (max_length 32, stride 8); "
        "shorten it, or change one of them"
    ]
    short = {"context": "good film nice", "answers": {"text": ["good"], "answer_start": [0]}}  # all of it fits
    rows[1] |= short
    assert len(task.encode(canonical(rows)[1:2])["input_ids"]) == 1
    with pytest.raises(InputError, match=r"task: stride: 40 of 32 tokens \(max_length\) leave no room for a question"):
        ready(tmp_path, max_length=32, stride=40)


def test_the_best_spans_are_those_of_a_search_through_all():
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(5, 12, generator=generator), torch.randn(5, 12, generator=generator)
    inside = torch.rand(5, 12, generator=generator) > 0.4
    inside[4] = False
    scores, first, last = spans.best(start, end, inside, longest=4, count=6)
    for row in range(5):
        every = sorted(
            ((start[row, i] + end[row, j]).item(), i, j)
            for i in range(12)
            for j in range(i, min(12, i + 4))
            if inside[row, i] and inside[row, j]
        )[::-1][:6]
        found = zip(scores[row].tolist(), first[row].tolist(), last[row].tolist(), strict=True)
        assert [each for each in found if np.isfinite(each[0])] == every


# ---- training -------------------------------------------------------------------------------------------------------
def gradients(
    name: str, folder: Path, layout: tuple[int, int], tuning: str, in_parts: bool = False
) -> list[torch.Tensor]:
    """Of a window of 8 rows and a last one of 6, as `test_invariance` has them."""
    task, section = QuestionAnswering(**SHORT), ModelSection(name=str(folder))
    torch.manual_seed(0)
    task.setup(section)
    model = task.load_model(section)
    encoded = batches.encoded(canonical(questions(10, 7, words=30)), task, split="train", seed=0)
    assert len(encoded) == 14
    trainer = trainer_of(task, model, encoded, folder, layout, tuning)
    trainer.part_cost = 0.5 if in_parts else None
    return caught(trainer)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.few_fast(tiny.TEXTS))
def test_gradient_is_the_same_for_every_layout_of_the_global_batch(name, tuning, tmp_path):
    tiny.build(name, tmp_path)
    whole, *others = [gradients(name, tmp_path, layout, tuning) for layout in LAYOUTS]
    others.append(gradients(name, tmp_path, (8, 1), tuning, in_parts=True))
    assert len(whole) == 2
    for other in others:
        for a, b in zip(whole, other, strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()


@pytest.mark.slow
def test_two_processes_have_the_gradients_and_metrics_of_one(forks, tmp_path):
    import qa_layouts

    for name in tiny.TEXTS:
        tiny.build(name, tmp_path / name)
    codes, said = forks.run(Path(__file__).parent / "qa_layouts.py", tmp_path, processes=2)
    assert codes == [0, 0], said
    two, one = torch.load(tmp_path / "found.pt", weights_only=False), qa_layouts.found_by(tmp_path, (8, 1))
    for key, whole in one.items():
        if key[0] == "metrics":
            assert two[key] == pytest.approx(whole, rel=1e-5) and "eval_f1" in whole
            continue
        for a, b in zip(whole, two[key], strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm(), key


@pytest.mark.parametrize("method", ["PROMPT_TUNING", "PREFIX_TUNING", "IA3", "head only"])
def test_other_ways_of_tuning_train_and_are_read_back(method, tmp_path):
    tuning = [{"frozen": {"last": 0}}] if method == "head only" else [{"peft": {"peft_type": method}}]
    result = finetune(tmp_path, tuning=tuning, max_steps=3)
    rows = questions(4, 2)
    assert hfft.load(tmp_path / "run").predict(rows) == result.predict(rows)


def test_the_loss_is_that_of_transformers_where_nothing_is_padded(tmp_path):
    task = ready(tmp_path, **SHORT)
    model = task.load_model(ModelSection(name=str(tmp_path / "bert"))).eval()
    encoded = task.encode(canonical(questions(40, words=60))[:], train=True)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    inputs = task.collate([row for row in rows if len(row["input_ids"]) == 32])
    loss, _ = task.loss(model, inputs)
    start, end = inputs["labels"].T
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert loss.item() == pytest.approx(model(**given, start_positions=start, end_positions=end).loss.item(), abs=1e-6)


def test_it_learns_and_its_figures_are_those_of_its_answers(tmp_path):
    result = finetune(tmp_path, max_steps=60)
    rows = questions(30, 2, words=60)
    answers = result.predict([{"question": row["question"], "context": row["context"]} for row in rows])
    expected = np.array(
        [by_version_1(a["answer"], row["answers"]["text"]) for a, row in zip(answers, rows, strict=True)]
    )
    found = evaluate(result, read_rows(rows, result.task, None, need_truth=True))
    assert [found["exact_match"], found["f1"]] == pytest.approx(expected.mean(axis=0).tolist())
    assert found["rows"] == 30 and found["f1"] > 0.9 and "per_kind" not in found


def test_where_questions_have_no_answer_a_threshold_is_tuned_and_kept(tmp_path):
    data = {"train": questions(90, impossible=True), "validation": questions(30, 1, impossible=True)}
    result = finetune(tmp_path, data, max_steps=80)
    threshold = result.metrics["tuned"]["null_threshold"]
    assert result.metrics["eval"]["per_kind"]["unanswerable"]["questions"] == 10
    again = hfft.load(tmp_path / "run")
    rows = questions(30, 2, impossible=True)
    answers = again.predict(rows)
    expected = np.array(
        [by_version_2(a["answer"], row["answers"]["text"]) for a, row in zip(answers, rows, strict=True)]
    )
    found = evaluate(again, read_rows(rows, again.task, None, need_truth=True))
    assert again.task.tuned == {"null_threshold": threshold}
    assert [found["exact_match"], found["f1"]] == pytest.approx(expected.mean(axis=0).tolist())
    assert found["f1"] > 0.8 and sum(not a["answer"] for a in answers) in range(8, 13)


@pytest.mark.parametrize("tuning", [[], [{"peft": {"peft_type": "LORA", "lora_dropout": 0.1}}]], ids=["full", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(tuning, tmp_path):
    import shutil

    from safetensors.torch import load_file

    beat = {"max_steps": 12, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 4}
    more = {**beat, "save_total_limit": 9, "load_best_model_at_end": False, "gradient_accumulation_steps": 2}
    finetune(tmp_path, tuning=tuning, **more)
    file = tmp_path / "run" / ("adapter_model.safetensors" if tuning else "model.safetensors")
    whole = load_file(file)
    file.unlink()
    (tmp_path / "run" / "metrics.json").unlink()
    for step in (8, 12):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    recipe = hfft.Recipe.read(tmp_path / "run" / "recipe.yaml")
    hfft.finetune(recipe, data={"train": questions(60), "validation": questions(20, 1)}, resume=True)
    resumed = load_file(file)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_what_evaluation_keeps_is_as_small_for_long_contexts(tmp_path):
    task = ready(tmp_path, **SHORT)
    model = task.load_model(ModelSection(name=str(tmp_path / "bert"))).eval()
    sizes = []
    for words in (10, 100):
        encoded = task.encode(canonical(questions(6, words=words))[:])
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        inputs = task.collate(rows)
        with torch.no_grad():
            kept = task.keep(task.forward(model, inputs), inputs)
        sizes.append(sum(np.asarray(values).nbytes for values in kept.values()) / len(rows))
    assert sizes[0] == sizes[1] < 120  # bytes a window


# ---- answers --------------------------------------------------------------------------------------------------------
def test_predict_takes_dicts_and_tuples_and_gives_the_place(tmp_path):
    result = finetune(tmp_path, max_steps=60)
    row = questions(1, 5, words=50)[0]
    (one,) = result.predict((row["question"], row["context"]))
    assert list(one) == ["row", "answer", "start", "end", "score"] and 0 < one["score"] <= 1
    assert one["answer"] == row["context"][one["start"] : one["end"]] == "good film"
    pair = {"question": row["question"], "context": row["context"]}
    assert result.predict(pair) == [one]
    assert result.predict([tuple(pair.values()), pair])[1] == {**one, "row": 1}
    with pytest.raises(InputError, match=r"this run takes \(question, context\) as a tuple"):
        result.predict("a text alone")
    file = tmp_path / "ask.json"
    file.write_text(json.dumps(nested([row])))
    assert result.predict(file) == [one]


PLAIN = """
import json, sys, torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer
folders, rows = json.loads(sys.argv[1])
answers = []
for folder in folders:
    model, tokenizer = AutoModelForQuestionAnswering.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for question, context in rows:
        inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        own = inputs.sequence_ids(0)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            out = model(**{name: inputs[name] for name in tokenizer.model_input_names if name in inputs})
        every = [((out.start_logits[0, i] + out.end_logits[0, j]).item(), offsets[i][0], offsets[j][1])
                 for i in range(len(own)) for j in range(i, min(i + 30, len(own))) if own[i] == own[j] == 1]
        every = sorted(every, reverse=True)[:20]
        answers.append([every[0][1], every[0][2], torch.tensor([each[0] for each in every]).softmax(0)[0].item()])
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_plain_transformers_give_the_answers_of_predict_in_a_fresh_process(tmp_path):
    from hfft.export.merge import merge

    rows, folders, ours = [(row["question"], row["context"]) for row in questions(8, 4, words=40)], [], []
    for name, lora in (("bert", False), ("bert", True), ("llama", False), ("llama", True)):
        place, tuning = tmp_path / f"{name}-{lora}", [{"peft": {"peft_type": "LORA", "r": 4}}] if lora else []
        result = finetune(place, name=name, tuning=tuning, task={"max_length": 200, "stride": 8}, max_steps=10)
        answers = hfft.load(place / "run").predict(rows)
        for folder in [place / "run", *([merge(result, place / "merged")] if lora else [])]:
            folders.append(str(folder))
            ours += answers
    out = subprocess.run([sys.executable, "-c", PLAIN, json.dumps([folders, rows])], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-600:]
    for mine, plain in zip(ours, json.loads(out.stdout.splitlines()[-1]), strict=True):
        assert [mine["start"], mine["end"], mine["score"]] == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_without_a_cls_token_the_first_stands_for_no_answer(name, tmp_path, caplog):
    folder = Path(tiny.build(name, tmp_path / "base"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("cls_token")
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "[SEP]"}))
    task = QuestionAnswering(**SHORT)
    with caplog.at_level(logging.INFO, "hfft"):
        task.setup(ModelSection(name=str(folder)))
    assert "the tokenizer has no [CLS], so the first token of a window stands for it" in caplog.text
    found = task.encode(canonical(questions(9, impossible=True))[:])
    assert set(found["null"]) == {0} and found["labels"][2] == [0, 0]


def test_the_task_is_found_by_its_name():
    assert isinstance(lookup.call("tasks", Part("question_answering", {"stride": 7})), QuestionAnswering)
    with pytest.raises(InputError, match="task: n_best: 0 is too small; write 1 or more"):
        QuestionAnswering(n_best=0)

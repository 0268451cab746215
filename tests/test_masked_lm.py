"""Masked LM: what is drawn, packed and asked for; exact in every layout; read back; its result begins another run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from safetensors.torch import load_file
from test_invariance import LAYOUTS, caught, trainer_of
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import AutoModelForMaskedLM

import hfft
from hfft import batches, lookup, masking, models
from hfft.export.merge import merge
from hfft.messages import InputError
from hfft.recipe import ModelSection, Part

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["act", "##or", "##ing", "##s", "song", "film", "book", "good", "bad", "the", "a", "was", "very", "not", "it"]
SIZE = len(SPECIAL) + len(PIECES)
TEXT = {**tiny.TEXT, **tiny.QUIET, "vocab_size": SIZE}
QUIET_DISTIL = {"dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.2, "pad_token_id": 0}
CONFIGS = {
    "bert": lambda: tf.BertConfig(**TEXT),
    "roberta": lambda: tf.RobertaConfig(**{**TEXT, "max_position_embeddings": 264}),
    "distilbert": lambda: tf.DistilBertConfig(
        vocab_size=SIZE, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=260, **QUIET_DISTIL
    ),
    "modernbert": lambda: tf.ModernBertConfig(
        **{**TEXT, "hidden_dropout_prob": 0.0}, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3
    ),
    "electra": lambda: tf.ElectraConfig(**TEXT, embedding_size=32),
    "deberta-v2": lambda: tf.DebertaV2Config(**TEXT),
    "albert": lambda: tf.AlbertConfig(**TEXT, embedding_size=16, classifier_dropout_prob=0.0),
    "xlm-roberta": lambda: tf.XLMRobertaConfig(**{**TEXT, "max_position_embeddings": 264}),
    "mpnet": lambda: tf.MPNetConfig(**{**TEXT, "max_position_embeddings": 264}),
    "camembert": lambda: tf.CamembertConfig(**{**TEXT, "max_position_embeddings": 264}),
}


def tokenizer() -> tf.PreTrainedTokenizerFast:
    """WordPiece with a mask token: "actors" is act ##or ##s."""
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *PIECES])}
    inner = Tokenizer(token_models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=256, **names)


def build(folder: Path, name: str = "bert", auto=AutoModelForMaskedLM) -> str:
    torch.manual_seed(0)
    auto.from_config(CONFIGS[name]()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def texts(num_rows: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    words = ["song", "film", "book", "good", "bad", "the", "actor", "acting", "actors", "was", "very", "not", "it"]
    return [" ".join(generator.choice(words, int(generator.integers(3, 12)))) for _ in range(num_rows)]


def task_of(folder: str, **options):
    task = lookup.call("tasks", Part("masked_lm", options))
    task.setup(ModelSection(name=folder))
    return task


def rows_of(num_rows: int):
    import datasets

    return datasets.Dataset.from_dict({"text": texts(num_rows), "row": list(range(num_rows))})


def recipe_of(folder: Path, options: dict, tuning=(), **train) -> dict:
    return {
        "task": {"masked_lm": options},
        "model": {"name": build(folder / "base")},
        "tuning": list(tuning),
        "train": {
            "output_dir": str(folder / "run"), "max_steps": 4, "per_device_train_batch_size": 8, "use_cpu": True,
            "learning_rate": 1e-2, **train,
        },
    }  # fmt: skip


def data_of(num_rows: int = 40) -> list[dict]:
    return [{"text": text} for text in texts(num_rows)]


LORA = [{"peft": {"peft_type": "LORA", "r": 2}}]


# ---- what is drawn ---------------------------------------------------------------------------------------------------
def rule(**changes) -> masking.Rule:
    given = {"probability": 0.15, "mask": 0.8, "random": 0.1, "mask_id": 4, "special": (0, 1, 2, 3, 4), "size": 1005}
    return masking.Rule(**given | changes)


def test_fifteen_percent_are_asked_for_and_of_these_eight_tenths_hidden_and_one_exchanged():
    np.random.seed(0)
    ids = np.concatenate([[2], np.random.randint(5, 1005, 200_000), [1, 4, 3, 0]])
    hidden, labels = masking.draw(ids, None, rule())
    asked = labels != -100
    assert asked.sum() / 200_000 == pytest.approx(0.15, abs=0.005)
    assert np.array_equal(labels[asked], ids[asked]) and np.array_equal(hidden[~asked], ids[~asked])
    assert not asked[np.isin(ids, [0, 1, 2, 3, 4])].any()
    masked, kept = hidden[asked] == 4, hidden[asked] == ids[asked]
    assert masked.mean() == pytest.approx(0.8, abs=0.01) and kept.mean() == pytest.approx(0.1, abs=0.01)
    others = hidden[asked][~masked & ~kept]
    assert others.min() == 5 and others.max() == 1004 and len(np.unique(others)) > 900


def test_the_draw_of_a_seed_is_the_one_written_here():
    ids = np.arange(5, 25)
    batches.draw_from(0, 0, 0)
    hidden, labels = masking.draw(ids, None, rule(size=25))
    assert np.flatnonzero(labels != -100).tolist() == [0, 5, 9, 19]
    assert hidden[labels != -100].tolist() == [4, 10, 4, 4]


def test_a_row_in_which_nothing_was_drawn_hides_one_token_and_a_row_of_special_ones_none():
    for seed in range(20):
        np.random.seed(seed)
        _, labels = masking.draw(np.array([2, 9, 8, 7, 3]), None, rule(probability=1e-9))
        assert (labels != -100).sum() == 1 and labels[0] == labels[4] == -100
    hidden, labels = masking.draw(np.array([2, 1, 3]), None, rule())
    assert hidden.tolist() == [2, 1, 3] and (labels == -100).all()


def test_whole_words_are_drawn_whole(tmp_path):
    task = task_of(build(tmp_path), whole_word_masking=True, packing=False, mlm_probability=0.4)
    encoded = task.encode({"text": ["the actors was acting"], "row": [0]})
    tokens = task.processor.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens == ["[CLS]", "the", "act", "##or", "##s", "was", "act", "##ing", "[SEP]"]
    assert encoded["begins"][0][1:-1] == [1, 1, 0, 0, 1, 1, 0]
    seen = set()
    for seed in range(60):
        np.random.seed(seed)
        row = task.vary({name: np.array(cells[0]) for name, cells in encoded.items()})
        asked = row["labels"] != -100
        assert asked[2] == asked[3] == asked[4] and asked[6] == asked[7] and not asked[0] and not asked[8]
        seen.add(tuple(asked))
    assert len(seen) > 8


def test_words_that_a_tokenizer_cannot_tell_are_refused_in_one_line(tmp_path):
    build(tmp_path)
    path = tmp_path / "tokenizer.json"
    state = json.loads(path.read_text())
    state["pre_tokenizer"] = None  # the whole text is one word
    path.write_text(json.dumps(state))
    with pytest.raises(
        InputError, match=r"whole_word_masking: the tokenizer of .* does not tell words; delete the line"
    ):
        task_of(str(tmp_path), whole_word_masking=True)
    task_of(str(tmp_path))


# ---- packing ---------------------------------------------------------------------------------------------------------
def test_packing_loses_no_token_and_fills_all_rows_but_the_last(tmp_path):
    task = task_of(build(tmp_path), max_length=16)
    given = texts(30)
    found = task.encode({"text": given, "row": list(range(100, 130))})
    sizes = [len(ids) for ids in found["input_ids"]]
    assert all(ids[0] == 2 and ids[-1] == 3 for ids in found["input_ids"])
    assert max(sizes) == 16 and min(sizes[:-1]) >= 15  # a separator never ends a row
    tokens = [token for ids in found["input_ids"] for token in ids if token > 4]
    assert tokens == [t for text in given for t in task.processor(text, add_special_tokens=False)["input_ids"]]
    assert found["source_row"] == sorted(found["source_row"]) and found["source_row"][0] == 100
    assert task.cut_off() == 0


def test_without_packing_each_text_is_a_row_and_what_is_cut_is_counted(tmp_path):
    task = task_of(build(tmp_path), packing=False, max_length=8)
    given = texts(30)
    found = task.encode({"text": given, "row": list(range(30))})
    plain = task.processor(given, truncation=True, max_length=8)["input_ids"]
    assert found == {"input_ids": plain} and not task.windows
    assert task.cut_off() == sum(len(ids) > 8 for ids in task.processor(given)["input_ids"]) > 0


def test_what_is_drawn_changes_with_the_epoch_and_is_the_same_in_every_evaluation(tmp_path):
    task = task_of(build(tmp_path), max_length=16)
    train, held_out = (batches.encoded(rows_of(20), task, split=split, seed=3) for split in ("train", "eval"))

    def key(rows, epoch):
        return [row["labels"].tolist() for row in rows.__getitems__([(epoch, i, False) for i in range(5)])]

    assert key(train, 0) == key(train, 0) != key(train, 1)
    again = batches.encoded(rows_of(20), task, split="eval", seed=99)
    assert key(held_out, 0) == key(again, 0)


# ---- the loss --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_metrics_are_those_of_all_logits(name, tmp_path):
    folder = build(tmp_path, name)
    task = task_of(folder, max_length=16)
    net = task.load_model(ModelSection(name=folder)).eval()
    rows = batches.encoded(rows_of(12), task, split="eval", seed=0).__getitems__([(0, i, False) for i in range(6)])
    raw = task.collate(rows)
    inputs = task.prepare(raw)
    with torch.no_grad():
        loss, outputs = task.loss(net, inputs)
        plain = net(input_ids=raw["input_ids"], attention_mask=raw["attention_mask"]).logits
    assert task.whole_logits is False and outputs.logits.shape == (task.items(raw), net.config.vocab_size)
    expected = torch.nn.functional.cross_entropy(plain.flatten(0, 1), raw["labels"].flatten())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    kept = {key: value.numpy() for key, value in task.keep(outputs, inputs).items()}
    found, asked = task.metrics(kept), raw["labels"] != -100
    assert found["perplexity"] == pytest.approx(expected.exp().item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((plain.argmax(-1) == raw["labels"])[asked].float().mean().item())
    assert all(values.ndim == 1 and len(values) == 6 for values in kept.values())  # three numbers a row, no logits


def test_a_batch_in_which_nothing_can_be_hidden_weighs_nothing(tmp_path):
    folder = build(tmp_path)
    task = task_of(folder, packing=False)
    net = task.load_model(ModelSection(name=folder))
    raw = task.collate([task.vary({"input_ids": np.array([2, 1, 1, 3])})])
    assert task.items(raw) == 0
    task.whole_logits = False
    loss, outputs = task.loss(net, task.prepare(raw), torch.tensor(0.0))
    loss.backward()
    assert loss.item() == 0.0 and all(p.grad is None or not p.grad.any() for p in net.parameters())
    kept = {key: value.detach().numpy() for key, value in task.keep(outputs, task.prepare(raw)).items()}
    with pytest.raises(InputError, match="no token of the evaluation rows is known"):
        task.metrics(kept)


def gradients(name: str, folder: str, layout: tuple[int, int], tuning: str, objective=None) -> list[torch.Tensor]:
    task = task_of(folder, max_length=16)
    torch.manual_seed(0)
    model = task.load_model(ModelSection(name=folder))
    encoded = batches.encoded(rows_of(20), task, split="train", seed=0)
    assert 8 < len(encoded) < 16, len(encoded)  # a whole window of 8 rows and a partial one
    loss = lookup.call("objectives", Part(objective, {}), task.loss, task=task) if objective else task.loss
    return caught(trainer_of(task, model, encoded, folder, layout, tuning, loss=loss))


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", ["bert", *(pytest.param(each, marks=pytest.mark.slow) for each in [*CONFIGS][1:])])
def test_gradient_is_the_same_for_every_layout_of_the_global_batch(name, tuning, tmp_path):
    folder = build(tmp_path, name)
    whole, *others = (gradients(name, folder, layout, tuning) for layout in LAYOUTS)
    assert len(whole) == 2
    for other in others:
        for a, b in zip(whole, other, strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()


def test_label_smoothing_works_on_hidden_tokens(tmp_path):
    folder = build(tmp_path)
    plain, smooth, split = (
        gradients("bert", folder, layout, "full", objective)
        for layout, objective in (((8, 1), None), ((8, 1), "label_smoothing"), ((2, 4), "label_smoothing"))
    )
    assert (plain[0] - smooth[0]).norm() > 1e-3 * plain[0].norm()
    assert (smooth[0] - split[0]).norm() <= 1e-5 * smooth[0].norm()


# ---- runs ------------------------------------------------------------------------------------------------------------
def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    train = {"max_steps": -1, "num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 9}
    recipe = recipe_of(tmp_path, {"max_length": 16}, **train, load_best_model_at_end=False)
    recipe["model"]["config"] = {"hidden_dropout_prob": 0.2}
    hfft.finetune(recipe, data=data_of())
    file = tmp_path / "run" / "model.safetensors"
    whole = load_file(file)
    file.unlink()
    (tmp_path / "run" / "metrics.json").unlink()
    steps = sorted(int(folder.name.split("-")[1]) for folder in (tmp_path / "run").glob("checkpoint-*"))
    assert len(steps) >= 3
    for step in steps[1:]:
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    hfft.finetune(recipe, data=data_of(), resume=True)
    resumed = load_file(file)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


PLAIN = """
import json, sys, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline
found = []
for folder in sys.argv[1:]:
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    fill = pipeline("fill-mask", model=model.float().eval(), tokenizer=tokenizer, device="cpu")
    found.append([fill("the [MASK] was good"), fill("a [MASK] film and [MASK] song")])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, hfft.Result]:
    found = {}
    for name, tuning in (("full", []), ("lora", LORA)):
        folder = tmp_path_factory.mktemp(name)
        found[name] = hfft.finetune(recipe_of(folder, {"max_length": 16}, tuning), data=data_of())
    return found


@pytest.mark.slow
def test_predict_answers_as_transformers_pipeline_does_in_a_fresh_process(runs, tmp_path):
    merged = merge(runs["lora"], tmp_path / "merged")
    folders = [str(runs["full"].folder), str(runs["lora"].folder), str(merged)]
    out = subprocess.run([sys.executable, "-c", PLAIN, *folders], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-600:]
    plain = json.loads(out.stdout.splitlines()[-1])
    ours = [
        hfft.load(runs[name].folder).predict(["the [MASK] was good", "a [MASK] film and [MASK] song"]) for name in runs
    ]
    for answers, expected in zip([*ours, ours[1]], plain, strict=True):
        assert [len(answer["masks"]) for answer in answers] == [1, 2]
        for one, other in [(answers[0]["masks"][0], expected[0]), *zip(answers[1]["masks"], expected[1], strict=True)]:
            assert [each["sequence"] for each in one] == [each["sequence"] for each in other]
            assert [(each["token"], each["token_str"]) for each in one] == [(e["token"], e["token_str"]) for e in other]
            assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=1e-5)


def test_metrics_json_has_the_perplexity_of_what_was_saved(runs):
    for result in runs.values():
        found = result.metrics["eval"]
        assert found["perplexity"] == pytest.approx(np.exp(found["loss"]), rel=1e-6) and 0 <= found["accuracy"] <= 1
        again = json.loads((result.folder / "metrics.json").read_text())["eval"]
        assert again == found
    assert "fill-mask" in (result.folder / "README.md").read_text()


def test_evaluation_of_the_saved_run_is_that_of_training(runs, tmp_path):
    from hfft.evaluation import of_run

    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_of()))
    one, other = (of_run(str(runs["full"].folder), data=str(file)) for _ in range(2))
    assert one == other and one["rows"] == 40


def test_a_text_without_a_mask_is_one_line_and_a_long_one_keeps_all_its_masks(runs):
    result = hfft.load(runs["full"].folder)
    with pytest.raises(InputError, match=r"^input row 1: has no \[MASK\]; write \[MASK\] for the word to be found$"):
        result.predict(["a [MASK] film", "a good film"])
    (answer,) = result.predict(["good " * 40 + "[MASK]" + " bad" * 40 + " [MASK]"])
    assert answer["row"] == 0 and len(answer["masks"]) == 2


def test_the_result_begins_the_next_recipe(runs, tmp_path):
    folder = runs["full"].folder
    recipe = {
        "task": "text_classification",
        "model": {"name": str(folder)},
        "train": {"output_dir": str(tmp_path / "next"), "max_steps": 1, "learning_rate": 1e-12, "use_cpu": True},
    }
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts(24))]
    hfft.finetune(recipe, data=rows)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "next" / "model.safetensors")
    shared = [key for key in before if key in after]
    assert len(shared) > 20 and all(torch.allclose(before[key], after[key], atol=1e-7) for key in shared)


def test_an_encoder_without_the_head_gets_one_and_lora_trains_it(tmp_path):
    folder = build(tmp_path / "encoder", auto=tf.AutoModel)
    recipe = recipe_of(tmp_path, {"max_length": 16}, LORA)
    recipe["model"]["name"] = folder
    result = hfft.finetune(recipe, data=data_of())
    net = result.model.get_base_model()
    assert models.head_modules(net) == ["cls.predictions.transform"]
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert any("cls.predictions.transform.dense.weight" in key for key in saved)


@pytest.mark.parametrize(
    ("name", "heads"),
    [("bert", ["cls.predictions.transform"]), ("roberta", ["lm_head.dense", "lm_head.layer_norm"]),
     ("distilbert", ["vocab_transform", "vocab_layer_norm"]), ("modernbert", ["head"]),
     ("electra", ["generator_predictions"])],
)  # fmt: skip
def test_what_is_before_the_output_embeddings_is_the_head(name, heads, tmp_path):
    net = AutoModelForMaskedLM.from_config(CONFIGS[name]())
    assert models.head_modules(net) == heads


def test_a_trunk_that_stays_frozen_is_not_stored_for_the_masks_change(tmp_path, caplog):
    caplog.set_level("INFO", "hfft")
    hfft.finetune(recipe_of(tmp_path, {"max_length": 16}, ["frozen"], num_train_epochs=3, max_steps=-1), data=data_of())
    assert "something in its rows is drawn anew in each epoch" in caplog.text


def test_a_stream_is_trained_on_without_packing_and_refused_with_it(tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_of(60)))
    recipe = recipe_of(tmp_path, {"packing": False}, eval_strategy="no", save_strategy="no")
    recipe["data"] = {"path": {"train": str(file), "eval": str(file)}, "load": {"streaming": True}}
    assert hfft.finetune(recipe).metrics["train"]["steps"] == 4
    recipe["task"] = "masked_lm"
    with pytest.raises(InputError, match="cuts long rows into several"):
        hfft.finetune(recipe, overwrite=True)


def test_check_shows_hidden_tokens_and_what_was_there(tmp_path):
    found = hfft.check(recipe_of(tmp_path, {"max_length": 16}), data=data_of(), show=tmp_path / "shown")
    text = (tmp_path / "shown" / "training_texts.txt").read_text()
    assert "[MASK]" in text and "label " in text and found["problems"] == []


# ---- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mlm_probability": 0}, "mlm_probability: 0 is no share"),
        ({"mlm_probability": 1.5}, "mlm_probability: 1.5 is no share"),
        ({"mask_replace_prob": 0.9, "random_replace_prob": 0.2}, "are no shares of a whole"),
        ({"max_length": 3}, "max_length: 3 leaves no room"),
        ({"max_length": 9999}, "max_length 9999 is above the"),
    ],
)
def test_a_wrong_option_is_one_line(options, line, tmp_path):
    with pytest.raises(InputError, match=line) as caught:
        task_of(build(tmp_path), **options)
    assert len(caught.value.lines) == 1


def test_a_tokenizer_without_a_mask_token_is_one_line(tmp_path):
    build(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no mask token; name a model that was trained with masks"):
        task_of(str(tmp_path))


WRONG = {
    "empty": ('{"text": "a"}\n{"text": ""}\n', r"x\.jsonl line 2, column 'text': is empty"),
    "null": ('{"text": "a"}\n{"text": null}\n', r"line 2, column 'text': is empty"),
    "blank": ('{"text": "a"}\n{"text": "  "}\n', r"line 2, column 'text': holds only blanks"),
    "number": ('{"text": "a"}\n{"text": 1.5}\n', r"line 2, column 'text': is 1\.5 \(number\), no text"),
    "list": ('{"text": "a"}\n{"text": ["b"]}\n', r"line 2, column 'text': is \['b'\] \(list\), no text"),
    "surrogate": ('{"text": "a"}\n{"text": "\\ud800"}\n', r"line 2.*half a surrogate"),
    "json": ('{"text": "a"}\n{"text": \n', r"x\.jsonl line 2"),
    "column": ('{"words": 1, "more": 2}\n', "which column"),
    "nothing": ("", r"x\.jsonl"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line(name, tmp_path):
    content, line = WRONG[name]
    (tmp_path / "x.jsonl").write_text(content)
    recipe = recipe_of(tmp_path, {"max_length": 16})
    recipe["data"] = {"path": str(tmp_path / "x.jsonl")}
    with pytest.raises(InputError, match=line) as caught:
        hfft.finetune(recipe)
    assert len(caught.value.lines) == 1


def test_rows_read_are_rows_trained_and_rows_listed(tmp_path):
    rows = [{"text": text} for text in texts(30)] + [{"text": ""}, {"text": None}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(tmp_path, {"max_length": 16})
    recipe["data"] = {"path": str(tmp_path / "x.jsonl"), "on_bad_row": "skip", "eval_size": 5}
    found = hfft.finetune(recipe).metrics["data"]
    assert found["rows_read"] == {"train": 32} and found["trained"] == 25 and found["dropped"] == 2
    assert len((tmp_path / "run" / "dropped.jsonl").read_text().splitlines()) == 2


LAYOUT = """
import sys
sys.path.insert(0, sys.argv[1])
import os, torch
import test_masked_lm as t
found = {key: t.gradients("bert", sys.argv[2], (2, 2), key) for key in ("full", "lora")}
if os.environ["RANK"] == "0":
    torch.save(found, sys.argv[2] + "/found.pt")
"""


@pytest.mark.slow
def test_the_gradient_of_two_processes_is_that_of_one(forks, tmp_path):
    folder, script = build(tmp_path / "model"), tmp_path / "two.py"
    script.write_text(LAYOUT)
    codes, said = forks.run(script, Path(__file__).parent, folder, processes=2)
    assert codes == [0, 0], said
    two = torch.load(Path(folder) / "found.pt", weights_only=False)
    for tuning in ("full", "lora"):
        for a, b in zip(gradients("bert", folder, (8, 1), tuning), two[tuning], strict=True):
            assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()

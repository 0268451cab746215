"""Models, tokenizers, heads and adapters that do not fit, row M01 to M42 of the catalogue of faults: `hfft check` of each.

Refused ones name the model, its file or the recipe's key; the others are used as they are meant, and it is said how.
"""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import csv
import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import transformers as tf
import yaml
from safetensors.torch import load_file, save_file
from verdict import one_a_row, told

ROOT = Path(__file__).resolve().parent.parent
LORA = {"peft": {"peft_type": "LORA"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Models and data."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("bert", "roberta", "llama", "vit", "resnet"):
        tiny.build(name, folder / name)
    tiny.build("bert", folder / "swapped", labels=["pos", "neg"])
    tiny.build("bert", folder / "three", labels=["a", "b", "c"])
    tiny.build("bert", folder / "named", labels=["good", "bad"])
    torch.manual_seed(1)
    tf.AutoModelForSequenceClassification.from_config(tiny.CONFIGS["bert"][1]()).save_pretrained(folder / "other")
    tf.AutoModelForCausalLM.from_config(tiny.CONFIGS["llama"][1]()).save_pretrained(folder / "causal")
    for name in ("other", "causal"):
        tiny.tokenizer().save_pretrained(folder / name)
    for split, rows in (("train", tiny.sentences(12)), ("val", tiny.sentences(6, seed=1))):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
        for i, row in enumerate(tiny.pictures(8, seed=len(split))):
            place = folder / "pictures" / split / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            row["image"].save(place / f"{i}.png")
    return folder


def config(**changes):
    """A change of config.json; None takes a key out."""
    return in_json("config.json", **changes)


def in_json(name: str, **changes):
    def change(model: Path) -> None:
        known = json.loads((model / name).read_text()) | changes
        (model / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))

    return change


def text_of(name: str, content: str):
    return lambda model: (model / name).write_text(content)


def without(*names: str):
    return lambda model: [(model / name).unlink() for name in names]


def weights(change, name: str = "model.safetensors"):
    """A change of the weights, which are a dict."""

    def rewrite(model: Path) -> None:
        found = load_file(model / name)
        change(found)
        save_file(found, model / name, metadata={"format": "pt"})

    return rewrite


def drop(part: str):
    return weights(lambda found: [found.pop(name) for name in list(found) if part in name])


def not_a_number(part: str):
    return weights(lambda found: next(w for name, w in found.items() if part in name).view(-1)[:1].fill_(float("nan")))


def truncated(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])


def tokenizer(change):
    def rewrite(model: Path) -> None:
        found = tiny.tokenizer()
        change(found)
        found.save_pretrained(model)

    return rewrite


def no_pad(found) -> None:
    found.pad_token = None


def padded_by_the_end(found) -> None:
    found.eos_token = found.pad_token = "[SEP]"


def emptied(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def as_bf16(model: Path) -> None:
    weights(lambda found: found.update({name: weight.bfloat16() for name, weight in found.items()}))(model)
    config(dtype="bfloat16")(model)


def only_adapter(model: Path) -> None:
    emptied(model)
    (model / "adapter_config.json").write_text("{}")


def as_it_is(_: Path) -> None:
    pass


TEXT, IMAGE = {}, {"task": "image_classification", "data": {"path": "BASE/pictures"}}
LONG = " ".join(["good film"] * 200)
GPTQ = {"quant_method": "gptq", "bits": 4, "dataset": "c4"}

# row and what is wrong -> (model, what is done to its folder, the recipe's other parts, exit code, part of the one line)
REFUSED = {
    "M01 a tokenizer larger than the embeddings": (
        "bert", tokenizer(lambda found: found.add_tokens(["more", "words"])), TEXT, 2,
        f"model.tokenizer: 'MODEL' has {tiny.SIZE + 2} tokens, the model's embeddings {tiny.SIZE}; set it to the tokenizer",
    ),
    "M01 a config that says fewer tokens than there are": (
        "bert", config(vocab_size=20), TEXT, 2, f"'MODEL' has {tiny.SIZE} tokens, the model's embeddings 20;",
    ),
    "M02 a config that says more tokens than the weights have": (
        "bert", config(vocab_size=99), TEXT, 2,
        "model 'MODEL': 1 weights outside the head are missing or of another shape (bert.embeddings.word_embeddings.weight)",
    ),
    "M02 a config of another width": (
        "bert", config(intermediate_size=64), TEXT, 2, "weights outside the head are missing or of another shape (bert.encoder",
    ),
    "M05 another pad token in the model than in the tokenizer": (
        "bert", config(pad_token_id=5), TEXT, 2, "'MODEL' pads with token 0, the model with 5 (config.json, pad_token_id)",
    ),
    "M08 a vision model for texts": (
        "vit", as_it_is, TEXT, 2, "model 'MODEL' is a vit, of which there is no AutoModelForSequenceClassification; name",
    ),
    "M08 a language model for pictures": (
        "bert", as_it_is, IMAGE, 2, "model 'MODEL' is a bert, of which there is no AutoModelForImageClassification; name",
    ),
    "M11 targets of LoRA that match nothing": (
        "bert", as_it_is, {"tuning": [{"peft": {"peft_type": "LORA", "target_modules": ["q_proj"]}}]}, 2,
        "tuning: peft: target_modules: 'q_proj' matches no module",
    ),
    "M12 one target of LoRA that matches nothing": (
        "bert", as_it_is, {"tuning": [{"peft": {"peft_type": "LORA", "target_modules": ["query", "valeu"]}}]}, 2,
        "tuning: peft: target_modules: 'valeu' matches no module. Did you mean 'value'?",
    ),
    "M12 a name in modules_to_save that matches nothing": (
        "bert", as_it_is, {"tuning": [{"peft": {"peft_type": "LORA", "modules_to_save": ["poolr"]}}]}, 2,
        "tuning: peft: modules_to_save: 'poolr' matches no module. Did you mean 'pooler'?",
    ),
    "M13 LoRA of rank 0": (
        "bert", as_it_is, {"tuning": [{"peft": {"peft_type": "LORA", "r": 0}}]}, 2, "tuning.0.peft.r: expected a whole number ≥ 1, got 0",
    ),
    "M18 truncated weights": ("bert", truncated, TEXT, 2, "model 'MODEL' cannot be loaded as AutoModelForSequenceC"),
    "M18 empty weights": ("bert", text_of("model.safetensors", ""), TEXT, 2, "model 'MODEL' cannot be loaded as AutoMo"),
    "M18 no weights": ("bert", without("model.safetensors"), TEXT, 2, "model 'MODEL' cannot be loaded as AutoModelForS"),
    "M19 a layer that the weights lack": (
        "bert", drop(".layer.1.attention"), TEXT, 2,
        "model 'MODEL': 10 weights outside the head are missing or of another shape (bert.encoder.layer.1.attention.output",
    ),
    "M20 NaN in the weights": (
        "bert", not_a_number("word_embeddings"), TEXT, 2,
        "model 'MODEL': weight bert.embeddings.word_embeddings.weight holds values that are not finite; download it again",
    ),
    "M20 NaN in running statistics": (
        "resnet", not_a_number("running_mean"), IMAGE, 2, "running_mean holds values that are not finite",
    ),
    "M21 a config that is no JSON": (
        "bert", text_of("config.json", '{"model_type": "bert",\n "hidden_size": 32,,}'), TEXT, 2,
        "MODEL/config.json line 2: is not JSON (Expecting property name enclosed in double quotes, column 20); get the",
    ),
    "M21 an empty config": ("bert", text_of("config.json", ""), TEXT, 2, "MODEL/config.json line 1: is not JSON (Expec"),
    "M21 a config that is a list": ("bert", text_of("config.json", "[1]"), TEXT, 2, "config.json: is no JSON object of"),
    "M21 a config without a type": (
        "bert", config(model_type=None), TEXT, 2, "MODEL/config.json: has no model_type, so it is no config of",
    ),
    "M21 a config of an unknown type": (
        "bert", config(model_type="brt"), TEXT, 2, f"config.json: model_type 'brt': transformers {tf.__version__} does not know",
    ),
    "M21 a config with a word for a number": (
        "bert", config(hidden_size="big"), TEXT, 2, "model 'MODEL': config.json cannot be used: Validation error for fi",
    ),
    "M21 a config whose numbers do not go together": (
        "bert", config(num_attention_heads=3), TEXT, 2, "model 'MODEL'",
    ),
    "M22 an empty folder": ("bert", emptied, TEXT, 2, "model.name: the folder 'MODEL' holds no config.json; it is no saved"),
    "M22 a folder that is not there": (
        "bert", lambda model: model.rename(model.with_name("modle")), TEXT, 2, "model.name: folder 'MODEL' not found. Did you mean",
    ),
    "M22 a file": (
        "bert", as_it_is, {"model": {"name": "MODEL/model.safetensors"}}, 2, "is a file; name the folder of a saved model",
    ),
    "M22 an adapter without its base": ("bert", only_adapter, TEXT, 2, "the folder 'MODEL' holds an adapter without its"),
    "M23 no tokenizer": (
        "bert", without("tokenizer.json", "tokenizer_config.json"), TEXT, 2,
        "model 'MODEL': no tokenizer files in the folder; set model.tokenizer to a tokenizer's name",
    ),
    "M23 a tokenizer's config without its words": (
        "bert", without("tokenizer.json"), TEXT, 2, "model 'MODEL': no tokenizer files in the folder; set model.tokenizer",
    ),
    "M24 a tokenizer that is no JSON": ("bert", text_of("tokenizer.json", '{"version": '), TEXT, 2, "tokenizer"),
    "M24 a tokenizer that is another JSON": ("bert", text_of("tokenizer.json", '{"a": 1}'), TEXT, 2, "tokenizer"),
    "M26 a limit above the model's": (
        "bert", as_it_is, {"task": {"text_classification": {"max_length": 999}}}, 2, "max_length 999 is above the 256 tokens",
    ),
    "M27 a negative learning rate": ("bert", as_it_is, {"train": {"learning_rate": -1}}, 2, "train.learning_rate"),
    "M28 a metric misspelt": (
        "bert", as_it_is, {"train": {"metric_for_best_model": "acuracy"}}, 2, "'acuracy' is none of accuracy, f1_macro, ",
    ),
    "M29 no rows to evaluate": (
        "bert", as_it_is, {"data": {"path": {"train": "BASE/train.csv", "eval": "MODEL/empty.csv"}, "eval": "eval"}}, 2,
        "empty.csv: there are no rows below the header; give a file with rows",
    ),
    "M30 no rows to train": (
        "bert", as_it_is, {"data": {"path": {"train": "MODEL/empty.csv", "eval": "BASE/val.csv"}, "eval": "eval"}}, 2,
        "empty.csv: there are no rows below the header; give a file with rows",
    ),
    "M31 a tracker that is not installed": (
        "bert", as_it_is, {"train": {"report_to": "comet_ml"}}, 3, "train.report_to: comet_ml is not installed; pip install",
    ),
    "M31 a tracker misspelt": (
        "bert", as_it_is, {"train": {"report_to": "wanbd"}}, 2, "'wanbd' is none of none, all",
    ),
    "M31 an optimizer that is not installed": (
        "bert", as_it_is, {"train": {"optim": "galore_adamw"}}, 3, "training lacks a library: You need to install `galore",
    ),
    "M31 a schedule that lacks an option": (
        "bert", as_it_is, {"train": {"lr_scheduler_type": "cosine_with_min_lr"}}, 2, "a training step fails: One of min_lr or",
    ),
    "M33 a kind of problem that would have no effect": (
        "bert", as_it_is, {"model": {"name": "MODEL", "config": {"problem_type": "multi_label_classification"}}}, 2,
        "model.config.problem_type: comes from the data's labels; delete the line",
    ),
    "M34 several labels a row": (
        "bert", text_of("several.jsonl", '{"text": "a", "label": ["x", "y"]}\n' + '{"text": "b", "label": "x"}\n' * 3),
        {"data": {"path": "MODEL/several.jsonl"}}, 2, "several.jsonl line 1, column 'label': is a list of several labels;",
    ),
    "M35 numbers to predict": (
        "bert", text_of("numbers.csv", "text,label\na,0.5\nb,0.7\nc,0.5\n"), {"data": {"path": "MODEL/numbers.csv"}}, 2,
        "numbers.csv line 2, column 'label': is '0.5', a number with decimals (3 rows so); this task needs classes;",
    ),
    "M36 a quantised base without its library": (
        "bert", config(quantization_config=GPTQ), {"tuning": [LORA]}, 3, "model 'MODEL' cannot be loaded: ",
    ),
    "M37 gradient checkpointing of a model that cannot": (
        "resnet", as_it_is, IMAGE | {"train": {"gradient_checkpointing": True}}, 2,
        "train.gradient_checkpointing: ResNetForImageClassification cannot do that; delete the line",
    ),
    "M38 a new head that is frozen": (
        "three", as_it_is, {"tuning": [{"frozen": {"freeze": ["classifier"]}}]}, 2,
        "tuning: the new head (classifier) would stay frozen, and so random; take it out of what is frozen",
    ),
    "M41 no mean in the picture processor": (
        "vit", in_json("preprocessor_config.json", image_mean=None), IMAGE, 2,
        "model 'MODEL': preprocessor_config.json has no image_mean; write the one that the model was trained with",
    ),
    "M41 a deviation of 0": (
        "vit", in_json("preprocessor_config.json", image_std=[0.5, 0.0, 0.5]), IMAGE, 2, "model 'MODEL': its image processor",
    ),
    "M41 a mean of two colours": (
        "vit", in_json("preprocessor_config.json", image_mean=[0.5, 0.5]), IMAGE, 2, "model 'MODEL': its image processor fails",
    ),
}  # fmt: skip

# row and what it is -> (model, what is done to its folder, the recipe's other parts, part of a line that says so)
USED = {
    "M03 no pad token": ("bert", tokenizer(no_pad), TEXT, "pad token '[PAD]' (the tokenizer had none; saved with the"),
    "M03 no pad token anywhere": (
        "llama", lambda model: (tokenizer(no_pad)(model), config(pad_token_id=None)(model)), TEXT,
        "pad token '[UNK]' (the tokenizer had none; saved with the model)",
    ),
    "M04 a pad token in the tokenizer only": (
        "llama", config(pad_token_id=None), TEXT, "model's pad_token_id None -> 0 (the tokenizer's)",
    ),
    "M06 a decoder that pads with its end": (
        "llama", lambda model: (tokenizer(padded_by_the_end)(model), config(pad_token_id=3)(model)), TEXT, "check: 12 rows",
    ),
    "M07 a language model of another kind": ("causal", as_it_is, TEXT, "new weights, not in the checkpoint: score.weight"),
    "M09 a head of three classes for two": (
        "three", as_it_is, TEXT, "new weights, not in the checkpoint: classifier.bias, classifier.weight",
    ),
    "M10 the same classes in another order": (
        "swapped", as_it_is, TEXT, "the checkpoint already has these 2 classes: its head and their order are kept",
    ),
    "M10 as many classes of other names": (
        "named", as_it_is, TEXT, "the head (classifier) starts afresh: the checkpoint's classes are others than the data's",
    ),
    "M14 LoRA without a task type": (
        "three", as_it_is, {"tuning": [LORA]}, "peft: LORA: modules_to_save ['classifier'] (found from the model;",
    ),
    "M14 LoRA beside a pooler that the checkpoint lacks": (
        "bert", drop("pooler"), {"tuning": [LORA]}, "warning: new weights stay frozen, and so random: bert.pooler.dense; train",
    ),
    "M25 more classes than the head has": (
        "three", text_of("four.csv", "text,label\n" + "".join(f"good film {i},{i % 4}\n" for i in range(12))),
        {"data": {"path": "MODEL/four.csv"}}, "new weights, not in the checkpoint: classifier.bias, classifier.weight",
    ),
    "M26 rows longer than the positions": (
        "roberta",
        lambda model: (
            in_json("tokenizer_config.json", model_max_length=10**30)(model),
            text_of("long.csv", f"text,label\n{LONG},pos\n" + "".join(f"good film {i},pos\nbad film {i},neg\n" for i in range(4)))(model),
        ),
        {"data": {"path": "MODEL/long.csv", "eval_size": 2}}, "at most 263 tokens a row",
    ),
    "M33 another kind of problem in the config": ("bert", config(problem_type="regression"), TEXT, "check: 12 rows to train"),
    "M37 gradient checkpointing beside a cache": (
        "llama", config(use_cache=True), {"tuning": [LORA], "train": {"gradient_checkpointing": True}}, "check: 12 rows",
    ),
    "M38 a kept head that is frozen": (
        "swapped", as_it_is, {"tuning": [{"frozen": {"freeze": ["classifier"]}}]}, "check: 12 rows to train on",
    ),
    "M40 an adapter of another precision than its base": (
        "bert", as_bf16, {"tuning": [LORA], "model": {"name": "MODEL", "dtype": "bfloat16"}}, "check: 12 rows to train on",
    ),
    "M42 no chat template": ("bert", as_it_is, TEXT, "check: 12 rows to train on, 6 rows to evaluate, loss"),
}  # fmt: skip


def written(base: Path, folder: Path, name: str, change, parts: dict) -> Path:
    """The recipe of a case, with a copy of its model in `folder`/model."""
    model = folder / "model"
    shutil.copytree(base / name, model)
    change(model)
    if model.is_dir():
        (model / "empty.csv").write_text("text,label\n")
    content = {
        "task": "text_classification",
        "model": {"name": str(model)},
        "data": {"path": {"train": str(base / "train.csv"), "eval": str(base / "val.csv")}, "eval": "eval"},
        **json.loads(json.dumps(parts).replace("MODEL", str(model)).replace("BASE", str(base))),
    }
    content["train"] = {"output_dir": str(folder / "run"), "use_cpu": True, "max_steps": 2} | content.get("train", {})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


def error(lines: list[str], folder: Path) -> str:
    """The one error line, without this machine's paths."""
    [line] = [line for line in lines if line.startswith("hfft: error: ")]
    return line.replace(str(folder / "model"), "MODEL")


@pytest.mark.parametrize("case", one_a_row(REFUSED))
def test_a_model_that_does_not_fit_is_refused_in_one_line(case, forks, base, place):
    name, change, parts, code, expected = REFUSED[case]
    lines = told(forks, "check", written(base, place, name, change, parts), code=code)
    assert expected in error(lines, place)
    assert not (place / "run").exists()


@pytest.mark.parametrize("case", one_a_row(USED))
def test_a_model_that_can_be_meant_is_used_and_it_is_said_how(case, forks, base, place):
    name, change, parts, expected = USED[case]
    lines = told(forks, "check", written(base, place, name, change, parts), code=0)
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize(
    "case", ["M05 another pad token in the model than in the tokenizer", "M38 a new head that is frozen"]
)
def test_training_refuses_the_same_before_its_first_step(case, forks, base, place):
    name, change, parts, code, expected = REFUSED[case]
    lines = told(forks, "train", written(base, place, name, change, parts), code=code)
    assert expected in error(lines, place) and not (place / "run").exists()


# ---- memory ---------------------------------------------------------------------------------------------------------
HUGE = {"model_type": "bert", **tiny.SMALL, "vocab_size": 30_000_000, "pad_token_id": 0}  # 3.84 GB of embeddings


@pytest.mark.parametrize("command", ["check", "train"])
def test_m32_a_model_that_memory_does_not_hold_is_refused(command, forks, base, place):
    parts = {"model": {"config": HUGE, "tokenizer": str(base / "bert")}}
    recipe = written(base, place, "bert", as_it_is, parts)
    lines = told(forks, ROOT / "tests" / "limited.py", "memory=1000000000", command, recipe, code=3)
    assert "the model does not fit into this machine's memory: " in error(lines, place)


def test_m32_weights_that_memory_does_not_hold_are_refused_before_they_are_read(forks, base, place):
    def grown(model: Path) -> None:
        with open(model / "model.safetensors", "r+b") as file:
            file.truncate(10**12)  # a sparse file

    lines = told(forks, "check", written(base, place, "bert", grown, {}), code=3)
    assert "model 'MODEL': its weights alone need 1000.00 GB" in error(lines, place)


# ---- adapters -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(forks, base, tmp_path_factory) -> Path:
    """A finished run of LoRA, two steps, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("lora")
    parts = {"tuning": [LORA], "train": {"eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 5}}
    told(forks, "train", written(base, folder, "bert", as_it_is, parts), code=0)
    return folder


def other_base(run: Path, base: Path) -> None:
    shutil.copy(base / "other" / "model.safetensors", run)


def wider_base(run: Path, _: Path) -> None:
    wide = tiny.CONFIGS["bert"][1]()
    wide.hidden_size, wide.id2label = 48, json.loads((run / "config.json").read_text())["id2label"]
    tf.AutoModelForSequenceClassification.from_config(wide).save_pretrained(run)
    (run / "run.lock.json").unlink()


def without_a_layer(run: Path, _: Path) -> None:
    lacks = lambda found: [found.pop(name) for name in list(found) if ".layer.0." in name]  # noqa: E731
    weights(lacks, "adapter_model.safetensors")(run)


def without_the_head(run: Path, _: Path) -> None:
    weights(lambda found: [found.pop(name) for name in list(found) if "classifier" in name], ADAPTER)(run)


def with_nan(run: Path, _: Path) -> None:
    weights(lambda found: next(iter(found.values())).fill_(float("nan")), ADAPTER)(run)


ADAPTER = "adapter_model.safetensors"
CHANGED = {
    "M15 a base of another size": (wider_base, "RUN: the model cannot be loaded: size mismatch for base_model.model."),
    "M16 another base of the same shapes": (
        other_base,
        "RUN: the base model there is not the one that the adapter was trained on (run.lock.json, model.base)",
    ),
    "M17 an adapter that lacks a layer": (
        without_a_layer,
        "RUN/adapter_model.safetensors: lacks base_model.model.bert.encoder.layer.0.attention",
    ),
    "M17 an adapter that lacks the head": (without_the_head, "classifier"),
    "M17 an adapter with NaN": (with_nan, "RUN/adapter_model.safetensors: "),
}


@pytest.mark.parametrize("case", one_a_row(CHANGED))
def test_an_adapter_is_read_back_whole_and_onto_its_own_base(case, forks, run, base, place):
    change, expected = CHANGED[case]
    shutil.copytree(run / "run", place / "run")
    change(place / "run", base)
    lines = told(forks, "predict", place / "run", "a good film", code=4)
    [line] = [line for line in lines if line.startswith("hfft: error: ")]
    assert expected in line.replace(str(place / "run"), "RUN")


def test_the_adapter_of_a_run_is_read_back_as_it_is(forks, run):
    lines = told(forks, "predict", run / "run", "a good film", code=0)
    assert json.loads(lines[-1])["label"] in ("pos", "neg")


ALLOWED = [word for key in ("tuning", "model", "train") for word in ("--allow-change", key)]
RESUMED = {
    "M39 other options of the adapter": (
        ["tuning=[{peft: {peft_type: LORA, r: 4}}]"], 2,
        'tuning: [{"peft": {"peft_type": "LORA"}}] in checkpoint-2, [{"peft": {"peft_type": "LORA", "r": 4}}] now',
    ),
    "R25 no adapter any more": (["tuning=[]", *ALLOWED], 4, "checkpoint-2: holds an adapter, which the run that began"),
    "R26 an adapter of other shapes": (
        ["tuning=[{peft: {peft_type: LORA, r: 4}}]", *ALLOWED], 4,
        "checkpoint-2: the adapter does not fit this model (size mismatch for base_model.model.bert.encoder.layer.0",
    ),
    "R26 an adapter of other layers": (
        ["tuning=[{peft: {peft_type: LORA, target_modules: [query]}}]", *ALLOWED], 4,
        "checkpoint-2/adapter_model.safetensors: has, beyond this adapter, base_model.model.bert.encoder.layer.0",
    ),
    "R24 another model": (["model.name=BASE/llama", *ALLOWED], 4, "checkpoint-2/adapter_model.safetensors: lacks base_model."),
}  # fmt: skip


@pytest.mark.parametrize("case", one_a_row(RESUMED))
def test_a_run_that_resumes_as_another_is_refused(case, forks, run, base, place):
    words, code, expected = RESUMED[case]
    shutil.copytree(run, place / "copy")
    there = f"train.output_dir={place / 'copy' / 'run'}"
    words = [word.replace("BASE", str(base)) for word in words]
    lines = told(forks, "train", run / "recipe.yaml", there, "train.max_steps=4", "--resume", *words, code=code)
    assert any(expected in line for line in lines), lines


def test_r25_a_whole_model_resumed_with_an_adapter_is_refused(forks, base, place):
    steps = {"train": {"eval_strategy": "steps", "eval_steps": 1}}
    recipe = written(base, place, "bert", as_it_is, steps)
    told(forks, "train", recipe, code=0)
    words = ["train.max_steps=4", "tuning=[{peft: {peft_type: LORA}}]", "--resume", *ALLOWED]
    lines = told(forks, "train", recipe, *words, code=4)
    assert "checkpoint-2: no adapter_model.safetensors there, for the run that began trained no adapter" in error(
        lines, place
    )

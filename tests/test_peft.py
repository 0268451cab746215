"""Adapters: targets, heads, refusals, reload and merge of the common methods; test_peft_methods.py has every method."""

import copy
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers as tf
from peft import PeftModel
from test_tuning_base import build, timm_model

from hfft.export.merge import merge
from hfft.messages import InputError, MachineError
from hfft.tuning.base import blocks, head_modules, small_inputs, small_logits, trainable_table
from hfft.tuning.peft import endings, peft, train_defaults


def lively(model):
    """The same model with every scale and shift moved off 0 and 1, so that every layer counts in the logits."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "lambda" in name or "gamma" in name:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.mul_(3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
    return model


def train(model, steps: int = 2) -> None:
    """A few steps of AdamW on the small batch."""
    labels = torch.tensor([0, 1])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**small_inputs(model)).logits, labels).backward()
        optimizer.step()


def trained_parts(adapted, heads: list[str]) -> tuple[bool, bool]:
    """Whether two steps of training change the head, and whether they change anything of the adapter."""
    before = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    train(adapted)
    changed = [name for name, p in adapted.named_parameters() if name in before and not torch.equal(p, before[name])]
    in_head = [any(f".{head}." in name for head in heads) for name in changed]
    return any(in_head), not all(in_head)


def distance(one, other) -> float:
    return (small_logits(one) - small_logits(other)).abs().max().item()


def run_of(adapted):
    folder = Path(tempfile.mkdtemp())
    (folder / "recipe.yaml").write_text("task: text_classification\n")
    return SimpleNamespace(model=adapted, task=SimpleNamespace(processor=None, save=lambda folder: None), folder=folder)


def adapt_train_reload(model, folder, **options):
    """(adapted and trained, reloaded as plain peft code does) of a model."""
    base = copy.deepcopy(model)
    adapted = peft(model, **options)
    train(adapted)
    adapted.save_pretrained(folder)
    return adapted, PeftModel.from_pretrained(base, folder)


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("bert", {"query", "key", "value", "output.dense", "intermediate.dense"}),
        ("distilbert", {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}),
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("vit", {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}),
        ("convnext", {"pwconv1", "pwconv2"}),
        ("timm", {"qkv", "attn.proj", "fc1", "fc2"}),
    ],
)
def test_target_modules_are_found_and_are_the_layers_of_the_blocks(name, targets):
    model = build(name)
    inside = blocks(model)
    adapted = peft(model, peft_type="LORA")
    assert set(adapted.peft_config["default"].target_modules) == targets
    assert all(any(n.startswith(block + ".") for block in inside) for n in adapted.base_model.targeted_module_names)


def test_depthwise_convolutions_and_the_stem_are_not_adapted():
    adapted = peft(timm_model("test_efficientnet"), peft_type="LORA")
    found = [adapted.get_base_model().get_submodule(name) for name in adapted.base_model.targeted_module_names]
    assert {layer.base_layer.groups for layer in found} == {1}
    assert not any("conv_stem" in name for name in adapted.base_model.targeted_module_names)


def test_endings_name_what_is_wanted_and_nothing_else():
    model = build("bert")
    wanted = ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"]
    assert endings(model, wanted) == ["0.output.dense", "1.output.dense"]
    assert endings(model, ["bert.pooler.dense"]) == ["pooler.dense"]


def test_the_head_is_trained_whole_also_beside_the_users_own_modules():
    adapted = peft(build("distilbert"), peft_type="LORA", modules_to_save=["embeddings.LayerNorm"])
    trainable = {n for n, p in adapted.named_parameters() if p.requires_grad and "lora_" not in n}
    assert {n.split(".modules_to_save")[0].removeprefix("base_model.model.") for n in trainable} == {
        "pre_classifier", "classifier", "distilbert.embeddings.LayerNorm",
    }  # fmt: skip


def test_all_linear_leaves_the_head_alone():
    adapted = peft(build("roberta"), peft_type="LORA", target_modules="all-linear")
    assert not any("classifier" in name for name in adapted.base_model.targeted_module_names)
    assert len(adapted.base_model.targeted_module_names) == 12


def test_bert_gets_its_task_type_and_vit_none():
    assert peft(build("bert"), peft_type="LORA").peft_config["default"].task_type == "SEQ_CLS"
    assert peft(build("vit"), peft_type="LORA").peft_config["default"].task_type is None


def test_defaults_that_fit_no_layer_are_replaced_by_what_fits():
    assert peft(build("bert"), peft_type="C3A").peft_config["default"].block_size == 16  # of 32 and 48


def test_the_table_counts_the_trained_head_once():
    text = trainable_table(peft(build("vit"), peft_type="LORA", target_modules=["q_proj"]))
    assert text.splitlines()[-2].split() == ["classifier", "66", "66", "100.00", "%"]
    assert text.splitlines()[2].split()[:5] == ["vit.layers.0", "…", "1", "16,032", "1,024"]


def test_learning_rates_go_by_method():
    assert train_defaults(peft_type="lora", r=4) == train_defaults(peft_type="DORA") == {"learning_rate": 1e-3}
    assert train_defaults(peft_type="IA3") == {"learning_rate": 5e-3}
    assert train_defaults(peft_type="PROMPT_TUNING") == {"learning_rate": 1e-2}


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = [
    ("bert", {"peft_type": "LORRA"}, "unknown peft_type 'LORRA'. Did you mean 'LORA'?"),
    ("bert", {"peft_type": "LORA", "lora_alhpa": 8}, "LORA has no option 'lora_alhpa'. Did you mean 'lora_alpha'?"),
    ("bert", {"peft_type": "LORA", "r": 0}, "LORA does not work here: `r` should be a positive integer"),
    (
        "bert",
        {"peft_type": "LORA", "target_modules": ["query", "valeu"]},
        "target_modules: 'valeu' matches no module. Did you mean 'value'?",
    ),
    (
        "vit",
        {"peft_type": "LORA", "target_modules": ["query"]},
        "target_modules: 'query' matches no module.",
    ),
    (
        "bert",
        {"peft_type": "LORA", "target_modules": ["query", "classifier"]},
        "target_modules: 'classifier' matches no module but the head, which trains whole.",
    ),
    ("bert", {"peft_type": "LORA", "target_modules": "querry"}, "target_modules: the regular expression 'querry'"),
    (
        "bert",
        {"peft_type": "LORA", "modules_to_save": ["clasifier"]},
        "modules_to_save: 'clasifier' matches no module. Did you mean 'classifier'?",
    ),
    (
        "bert",
        {"peft_type": "LORA", "rank_pattern": {"querry": 4}},
        "rank_pattern: 'querry' matches no module. Did you mean 'query'?",
    ),
    (
        "resnet",
        {"peft_type": "LORA", "target_modules": "all-linear"},
        "LORA: all-linear: the model has no linear layer outside the head",
    ),
    ("resnet", {"peft_type": "VERA"}, "VERA: target_modules: the model has no layer that VERA can adapt"),
    ("resnet", {"peft_type": "OFT"}, "OFT: target_modules: the model has no layer that OFT can adapt"),
    ("resnet", {"peft_type": "OFT", "target_modules": ["convolution"]}, "OFT cannot adapt resnet."),
    ("resnet", {"peft_type": "OSF", "target_modules": ["convolution"]}, "OSF adapts none of the layers of target_mod"),
    ("vit", {"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING puts virtual tokens before a text; this model reads pixel_"),
    ("mobilenet_v2", {"peft_type": "LORA"}, "LORA: this model's TensorFlow padding reads the stride of"),
    ("bert", {"peft_type": "LORA", "init_lora_weights": "eva"}, "LORA: init_lora_weights: eva cannot be used: EVA"),
    ("bert", {"peft_type": "LORA", "init_lora_weights": "loftq"}, "LORA: init_lora_weights: loftq cannot be used: Lo"),
    ("bert", {"peft_type": "ADALORA"}, "ADALORA does not work here: AdaLoRA does not work when `total_step` is None"),
    ("bert", {"peft_type": "TRAINABLE_TOKENS"}, "TRAINABLE_TOKENS cannot train and save the head (classifier); write"),
]


@pytest.mark.parametrize(("name", "options", "line"), REFUSED)
def test_what_cannot_work_is_refused_in_one_line(name, options, line):
    with pytest.raises(InputError) as error:
        peft(build(name), **options)
    assert str(error.value).startswith("tuning: peft: " + line)
    assert "\n" not in str(error.value)


def test_a_second_adapter_is_refused():
    with pytest.raises(InputError, match="has an adapter already"):
        peft(peft(build("bert"), peft_type="LORA"), peft_type="IA3")


# --- reload and merge -------------------------------------------------------------------------------------------------

TEXT = ["bert", "roberta", "distilbert", "modernbert", "llama", "gpt2"]
IMAGE = ["vit", "swin", "convnext", "resnet", "timm_resnet"]


@pytest.mark.parametrize("name", TEXT + IMAGE)
def test_lora_reloads_and_merges_to_the_same_logits(name, tmp_path):
    model = lively(build(name))
    untrained = copy.deepcopy(model)
    adapted, reloaded = adapt_train_reload(model, tmp_path / "adapter", peft_type="LORA")
    assert distance(adapted, untrained) > 1e-3
    assert distance(adapted, reloaded) <= 1e-6
    folder = merge(run_of(adapted), tmp_path / "merged")
    plain = type(untrained).from_pretrained(folder)
    assert distance(adapted, plain) <= 1e-5 * max(1, small_logits(plain).abs().max().item())
    assert hasattr(adapted, "peft_config")


@pytest.mark.parametrize("architecture", ["test_vit", "test_efficientnet", "test_convnext"])
def test_lora_on_timm_networks_reloads_and_merges(architecture, tmp_path):
    model = lively(timm_model(architecture, 160 if architecture == "test_vit" else 64))
    adapted, reloaded = adapt_train_reload(model, tmp_path / "adapter", peft_type="LORA")
    assert distance(adapted, reloaded) <= 1e-6
    plain = tf.AutoModelForImageClassification.from_pretrained(merge(run_of(adapted), tmp_path / "merged"))
    assert distance(adapted, plain) <= 1e-5 * max(1, small_logits(plain).abs().max().item())


@pytest.mark.parametrize("method", ["LOHA", "LOKR", "BOFT", "HRA", "HIRA", "IA3", "ADALORA", "LN_TUNING"])
def test_methods_that_adapt_convolutions_reload_and_merge_with_batchnorm(method, tmp_path):
    model = lively(build("resnet"))
    extra = {"total_step": 10} if method == "ADALORA" else {}
    adapted, reloaded = adapt_train_reload(model, tmp_path / "adapter", peft_type=method, **extra)
    assert distance(adapted, reloaded) <= 1e-6
    plain = tf.ResNetForImageClassification.from_pretrained(merge(run_of(adapted), tmp_path / "merged"))
    assert distance(adapted, plain) <= 1e-5 * max(1, small_logits(plain).abs().max().item())


def test_lora_variants_reload_and_merge(tmp_path):
    variants = [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"init_lora_weights": "pissa"}]
    for index, extra in enumerate(variants):
        folder = tmp_path / str(index)
        adapted, reloaded = adapt_train_reload(lively(build("bert")), folder, peft_type="LORA", **extra)
        assert distance(adapted, reloaded) <= 1e-5, extra
        merge(run_of(adapted), folder / "merged")


def test_the_auto_class_reads_the_adapter_folder_with_its_base(tmp_path):
    name = tiny.build("bert", tmp_path / "base", labels=["bad", "good", "so"])
    adapted = peft(tf.AutoModelForSequenceClassification.from_pretrained(name), peft_type="LORA")
    train(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == name
    plain = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)
    assert distance(adapted, plain) <= 1e-6


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "export: merge: PROMPT_TUNING adds tokens, not weights"),
        ({"peft_type": "LILY"}, "export: merge: LILY cannot be merged: This method is not supported for Lily."),
    ],
)
def test_methods_without_a_merge_are_refused_in_one_line(options, line, tmp_path):
    with pytest.raises(InputError) as error:
        merge(run_of(peft(build("bert"), **options)), tmp_path / "merged")
    assert str(error.value).startswith(line)
    assert not (tmp_path / "merged").exists()


def test_a_run_without_an_adapter_has_nothing_to_merge(tmp_path):
    with pytest.raises(InputError, match="no adapter to merge"):
        merge(run_of(build("bert")), tmp_path)


def test_a_merge_that_changes_the_answers_is_not_saved(tmp_path, monkeypatch):
    adapted = peft(lively(build("bert")), peft_type="LORA")
    train(adapted)
    monkeypatch.setattr("hfft.export.merge._merged", lambda model: build("bert"))
    with pytest.raises(MachineError, match="logits differ by"):
        merge(run_of(adapted), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_merged_weights_take_the_dtype_asked_for(tmp_path):
    adapted = peft(build("bert"), peft_type="LORA")
    merge(run_of(adapted), tmp_path, dtype="bfloat16")
    assert tf.AutoModelForSequenceClassification.from_pretrained(tmp_path).dtype == torch.bfloat16
    with pytest.raises(InputError, match="dtype: 'fp8' is none of float32"):
        merge(run_of(adapted), tmp_path, dtype="fp8")


def test_heads_are_found_in_adapted_models_too():
    assert head_modules(peft(build("vit"), peft_type="LORA")) == ["classifier"]

"""Pretrained weights: what is new is told, what is wrong is one line, labels keep their meaning."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from hfft import configs, models, text
from hfft.messages import HubError, InputError
from hfft.recipe import ModelSection

NAMES = ["a", "b", "c"]
AUTO = {"text": "AutoModelForSequenceClassification", "image": "AutoModelForImageClassification"}


def load(folder, name: str = "bert", labels=NAMES, **section):
    section = ModelSection(name=str(folder), **section)
    config = configs.load_config(section)
    configs.set_labels(config, labels)
    return models.load(AUTO[tiny.CONFIGS[name][0]], section, config, keep_head=False)


def rewrite(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_checkpoint_gets_a_new_head_with_the_data_s_labels(name, tmp_path):
    tiny.build(name, tmp_path)
    net = load(tmp_path, name)
    assert net.config.id2label == {0: "a", 1: "b", 2: "c"} and net.num_labels == 3
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert models.head_modules(net)


def test_weights_that_are_missing_outside_the_head_stop_the_run(tmp_path):
    tiny.build("bert", tmp_path)
    rewrite(tmp_path, lambda w: [w.pop(k) for k in list(w) if ".layer.1.attention" in k])
    with pytest.raises(InputError, match=r"weights outside the head are missing or of another shape \(bert\.encoder"):
        load(tmp_path)


def test_a_body_of_another_size_stops_the_run(tmp_path):
    tiny.build("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
    with pytest.raises(InputError, match="outside the head are missing or of another shape"):
        load(tmp_path)


def test_weights_that_are_not_finite_stop_the_run(tmp_path):
    tiny.build("vit", tmp_path)
    rewrite(tmp_path, lambda w: w["vit.layernorm.weight"].fill_(float("nan")))
    with pytest.raises(InputError, match=r"weight vit\.layernorm\.weight holds values that are not finite"):
        load(tmp_path, "vit")


def test_truncated_weights_stop_the_run_in_one_line(tmp_path):
    tiny.build("bert", tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert len(caught.value.lines) == 1 and "cannot be loaded" in str(caught.value)


def test_a_folder_that_is_not_there_is_told_with_the_nearest(tmp_path):
    tiny.build("bert", tmp_path / "my_model")
    with pytest.raises(InputError, match=r"folder '.*my_modle' not found. Did you mean '.*my_model'\?"):
        load(tmp_path / "my_modle")
    with pytest.raises(HubError, match="no folder here, and the Hub did not give it"):
        load("someone/something")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no config.json"):
        load(tmp_path / "empty")


def test_a_model_of_the_wrong_kind_is_one_line(tmp_path):
    tiny.build("vit", tmp_path)
    with pytest.raises(InputError) as caught:
        load(tmp_path, "bert")
    assert len(caught.value.lines) == 1 and "AutoModelForSequenceClassification" in str(caught.value)


def test_as_many_classes_of_other_names_get_a_fresh_head(tmp_path):
    tiny.build("bert", tmp_path, labels=["x", "y", "z"])
    before = load_file(tmp_path / "model.safetensors")
    net = load(tmp_path)
    assert not torch.equal(net.classifier.weight, before["classifier.weight"])
    assert torch.equal(net.bert.pooler.dense.weight, before["bert.pooler.dense.weight"])
    assert net.classifier.bias.abs().max() == 0 and 0.01 < net.classifier.weight.std() < 0.4


def test_config_changes_are_checked_against_the_config(tmp_path):
    tiny.build("bert", tmp_path)
    assert load(tmp_path, config={"hidden_dropout_prob": 0.3}).config.hidden_dropout_prob == 0.3
    with pytest.raises(InputError, match="has no 'hidden_droput_prob'. Did you mean 'hidden_dropout_prob'"):
        load(tmp_path, config={"hidden_droput_prob": 0.3})


def test_a_tokenizer_whose_files_are_missing_is_refused(tmp_path):
    tiny.build("bert", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="no tokenizer files in the folder; set model.tokenizer"):
        text.load_tokenizer(ModelSection(name=str(tmp_path)))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path):
    tiny.build("bert", tmp_path)
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["more", "words"])
    with pytest.raises(InputError, match=rf"has {tiny.SIZE + 2} tokens, the model's embeddings {tiny.SIZE}"):
        text.check_vocabulary(tokenizer, configs.load_config(ModelSection(name=str(tmp_path))))


def test_a_decoder_gets_the_pad_token_it_lacks(tmp_path):
    tiny.build("llama", tmp_path)
    config = configs.load_config(ModelSection(name=str(tmp_path)))
    tokenizer = tiny.tokenizer()
    tokenizer.pad_token, config.pad_token_id = None, None
    text.set_pad_token(tokenizer, config)
    assert tokenizer.pad_token == "[UNK]" and config.pad_token_id == tokenizer.pad_token_id == 1


def test_batchnorm_momentum_of_tensorflow_is_mended(tmp_path):
    tiny.build("mobilenet_v2", tmp_path)
    net = load(tmp_path, "mobilenet_v2")
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_a_picture_processor_is_needed_with_a_checkpoint(tmp_path):
    from hfft import image

    tiny.build("vit", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "preprocessor_config.json").unlink()
    config = configs.load_config(ModelSection(name=str(tmp_path / "b")))
    with pytest.raises(InputError, match=r"no image processor can be loaded"):
        image.load_processor(ModelSection(name=str(tmp_path / "b")), config, crop=True)

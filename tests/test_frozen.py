import pytest
import torch
from test_tuning_base import build, timm_model

from hfft.messages import InputError
from hfft.tuning.frozen import frozen, train_defaults


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def roots(model) -> set[str]:
    """The modules that hold trained parameters, to three levels."""
    return {".".join(name.split(".")[:4]) for name in trained(model)}


def test_only_the_head_trains_by_default():
    assert trained(frozen(build("bert"))) == {"classifier.weight", "classifier.bias"}
    assert trained(frozen(timm_model("test_convnext"))) == {"timm_model.head.fc.weight", "timm_model.head.fc.bias"}
    assert {name.split(".")[0] for name in trained(frozen(build("distilbert")))} == {"pre_classifier", "classifier"}


def test_last_trains_blocks_and_what_follows_them():
    model = frozen(build("vit"), last=1)
    outside = {name.rsplit(".", 1)[0] for name in trained(model) if "layers" not in name}
    assert outside == {"vit.layernorm", "classifier"}
    assert {name.split(".")[2] for name in trained(model) if "layers" in name} == {"1"}
    assert roots(frozen(build("bert"), last=1)) == {
        "bert.encoder.layer.1", "bert.pooler.dense.weight", "bert.pooler.dense.bias",
        "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_last_counts_blocks_across_stages():
    names = trained(frozen(build("resnet"), last=1))
    assert {name.split(".")[3] for name in names if "stages" in name} == {"1"}


def test_train_and_freeze_take_names_and_regular_expressions():
    thaw = ["bert.encoder.layer.1.output", r".*\.LayerNorm\.bias"]
    model = frozen(build("bert"), train=thaw, freeze=["classifier.bias"])
    assert trained(model) == {
        "bert.embeddings.LayerNorm.bias",
        "bert.encoder.layer.0.attention.output.LayerNorm.bias",
        "bert.encoder.layer.0.output.LayerNorm.bias",
        "bert.encoder.layer.1.attention.output.LayerNorm.bias",
        "bert.encoder.layer.1.output.dense.weight",
        "bert.encoder.layer.1.output.dense.bias",
        "bert.encoder.layer.1.output.LayerNorm.weight",
        "bert.encoder.layer.1.output.LayerNorm.bias",
        "classifier.weight",
    }


def test_freeze_alone_leaves_the_rest_training():
    model = build("bert")
    everything = set(dict(model.named_parameters()))
    assert everything - trained(frozen(model, freeze=["bert.embeddings"])) == {
        name for name in everything if name.startswith("bert.embeddings.")
    }


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"last": 3}, "tuning: frozen: last: 3, but the model has 2 blocks"),
        ({"last": -1}, "tuning: frozen: last: -1, but the model has 2 blocks"),
        (
            {"train": ["bert.encoder.layer.1.outptu"]},
            "tuning: frozen: train: 'bert.encoder.layer.1.outptu' matches no module or parameter."
            " Did you mean 'bert.encoder.layer.1.output'?",
        ),
        ({"freeze": ["("]}, "tuning: frozen: freeze: '(' is no regular expression: missing ), unterminated subpattern"),
        ({"freeze": [".*"]}, "tuning: frozen: nothing is left to train; name something in train or set last"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options, line):
    with pytest.raises(InputError) as error:
        frozen(build("bert"), **options)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "timm_resnet"])
def test_batchnorm_of_a_frozen_backbone_does_not_move(name):
    model = frozen(build(name)).train()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key or "tracked" in key}
    model(pixel_values=torch.rand(2, 3, 32, 32))
    after = model.state_dict()
    assert before
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_learning_rate_by_what_trains():
    assert train_defaults() == {"learning_rate": 1e-3}
    assert train_defaults(last=2) == {"learning_rate": 5e-5}

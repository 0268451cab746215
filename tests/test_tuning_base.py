import pytest
import timm
import tiny
import torch
import transformers as tf

from hfft.tuning.base import blocks, head_modules, keep_batchnorm_frozen, small_logits, trainable_table, unwrapped


def build(name: str):
    """A tiny model with random weights (seed 0) and two labels."""
    kind, config = tiny.CONFIGS[name]
    torch.manual_seed(0)
    return tiny.AUTO[kind].from_config(config())


def timm_model(architecture: str, size: int = 64):
    shape = {"input_size": [3, size, size]}
    config = tf.TimmWrapperConfig(architecture=architecture, num_labels=2, pretrained_cfg=shape)
    torch.manual_seed(0)
    return tf.AutoModelForImageClassification.from_config(config)


HEADS_AND_BLOCKS = {
    "bert": (["classifier"], ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
    "roberta": (["classifier"], ["roberta.encoder.layer.0", "roberta.encoder.layer.1"]),
    "distilbert": (["pre_classifier", "classifier"], [f"distilbert.transformer.layer.{i}" for i in (0, 1)]),
    "modernbert": (["head", "classifier"], ["model.layers.0", "model.layers.1"]),
    "electra": (["classifier"], ["electra.encoder.layer.0", "electra.encoder.layer.1"]),
    "llama": (["score"], ["model.layers.0", "model.layers.1"]),
    "gpt2": (["score"], ["transformer.h.0", "transformer.h.1"]),
    "vit": (["classifier"], ["vit.layers.0", "vit.layers.1"]),
    "dinov2": (["classifier"], ["dinov2.encoder.layer.0", "dinov2.encoder.layer.1"]),
    "beit": (["classifier"], ["beit.layers.0", "beit.layers.1"]),
    "swin": (["classifier"], ["swin.encoder.layers.0.blocks.0", "swin.encoder.layers.1.blocks.0"]),
    "convnext": (["classifier"], ["convnext.encoder.stages.0.layers.0", "convnext.encoder.stages.1.layers.0"]),
    "resnet": (["classifier"], ["resnet.encoder.stages.0.layers.0", "resnet.encoder.stages.1.layers.0"]),
    "mobilenet_v2": (["classifier"], [f"mobilenet_v2.layer.{i}" for i in range(16)]),
    "timm": (["timm_model.head"], [f"timm_model.blocks.{i}" for i in range(6)]),
    "timm_resnet": (["timm_model.fc"], [f"timm_model.layer{i}.0" for i in (1, 2, 3, 4)]),
}


@pytest.mark.parametrize("name", HEADS_AND_BLOCKS)
def test_head_and_blocks_are_found_in_any_architecture(name):
    model = build(name)
    assert (head_modules(model), blocks(model)) == HEADS_AND_BLOCKS[name]


def test_stages_are_flattened_and_lists_inside_blocks_are_none():
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 1], layer_type="bottleneck")
    found = blocks(tf.ResNetForImageClassification(config))
    assert [name.removeprefix("resnet.encoder.stages.") for name in found] == ["0.layers.0", "0.layers.1", "1.layers.0"]


def test_blocks_of_one_convolution_are_found_where_there_are_no_larger_ones():
    model = tf.MobileNetV1ForImageClassification(tf.MobileNetV1Config(depth_multiplier=0.25, image_size=32))
    assert blocks(model) == [f"mobilenet_v1.layer.{i}" for i in range(26)]


def test_blocks_and_head_of_timm_networks():
    names = ["stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1"]
    assert blocks(timm_model("test_convnext"))[:3] == [f"timm_model.{name}" for name in names]
    assert head_modules(timm_model("test_convnext")) == ["timm_model.head.fc"]
    model = timm_model("mobilenetv3_small_050")
    assert (len(blocks(model)), head_modules(model)) == (11, ["timm_model.classifier"])
    assert "test_efficientnet" in timm.list_models("test_*")


def test_a_language_models_output_embeddings_are_no_head():
    config = tiny.CONFIGS["llama"][1]()
    assert head_modules(tf.LlamaForCausalLM(config)) == []


def test_the_table_has_a_row_for_equal_neighbours_and_the_total_last():
    model = build("vit")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    assert trainable_table(model) == (
        "module            parameters  trainable     share\n"
        "vit.embeddings         2,144          0    0.00 %\n"
        "vit.layers.0 … 1      15,008          0    0.00 %\n"
        "vit.layernorm             64          0    0.00 %\n"
        "classifier                66         66  100.00 %\n"
        "total                 17,282         66    0.38 %"
    )


def test_frozen_batchnorm_keeps_its_statistics_in_training_and_a_trained_one_does_not():
    model = build("resnet")
    frozen = model.resnet.embedder.embedder.normalization
    trained = model.resnet.encoder.stages[1].layers[0].layer[0].normalization
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("resnet.encoder.stages.1"))
    kept, moved = frozen.running_mean.clone(), trained.running_mean.clone()
    assert keep_batchnorm_frozen(model) == 3  # the embedder and two in the first stage
    model.train()(pixel_values=torch.rand(2, 3, 16, 16))
    assert torch.equal(frozen.running_mean, kept)
    assert not torch.equal(trained.running_mean, moved)


@pytest.mark.parametrize("name", ["bert", "llama", "vit", "resnet", "timm_resnet"])
def test_small_logits_leave_mode_and_random_state_alone(name):
    model = build(name).train()
    state = torch.get_rng_state()
    first = small_logits(model)
    assert first.shape == (2, 2)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, small_logits(model))


def test_a_plain_model_is_its_own_base():
    model = build("bert")
    assert unwrapped(model) is model

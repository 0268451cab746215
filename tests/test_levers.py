"""Levers: chosen by model and hardware, each said with its switch, all off by `levers: none`."""

import logging

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import MobileNetV2Config

import hfft
from hfft import levers
from hfft.levers import Levers
from hfft.messages import InputError
from hfft.recipe import Recipe

BF16 = levers._cpu_has_bf16()
NET = {"model_type": "mobilenet_v2", "image_size": 32, "classifier_dropout_prob": 0.0}


class Arguments:
    """The few fields of TrainingArguments that levers read and set."""

    def __init__(self, device: str = "cpu"):
        self.device, self.bf16, self.mixed_precision = torch.device(device), False, "no"


def large() -> nn.Module:
    return nn.Sequential(nn.Linear(1500, 1500))


def train(folder, **options) -> dict[str, torch.Tensor]:
    recipe = {
        "task": "image_classification",
        "model": {"config": NET},
        "train": {"output_dir": str(folder), "use_cpu": True, "max_steps": 1, "eval_strategy": "no", **options},
    }
    recipe["train"] |= {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "optim": "sgd"}
    hfft.finetune(recipe, data={"train": tiny.pictures(24), "validation": tiny.pictures(8, seed=5)})
    return load_file(folder / "model.safetensors")


def test_none_turns_all_off_and_a_mapping_one():
    assert levers.allowed({"levers": "none"}) == Levers()
    assert levers.allowed({}) == levers.allowed(None) == levers.allowed({"levers": "all"})
    assert all(vars(levers.allowed({})).values())
    one = levers.allowed({"levers": {"channels_last": False}})
    assert one.channels_last is False and one.bf16 and one.allocator


@pytest.mark.parametrize(
    ("written", "told"),
    [("{chanels_last: false}", "Did you mean 'channels_last'?"), ("{bf16: 1}", "levers.bf16"), ("some", "'some'")],
)
def test_a_misspelt_lever_is_one_line(written, told):
    with pytest.raises(InputError) as error:
        Recipe.from_dict(
            {"task": "text_classification", "model": {"name": "x"}, "train": {"output_dir": "r"}},
            [f"train.levers={written}"],
        )
    assert len(error.value.lines) == 1 and told in error.value.lines[0]


@pytest.mark.skipif(not BF16, reason="this processor has no bf16 arithmetic")
def test_bf16_is_chosen_for_a_large_model_and_not_against_the_recipe():
    chosen, asked, off, small = Arguments(), Arguments(), Arguments(), Arguments()
    levers.arrange(large(), chosen, Levers(bf16=True), {})
    levers.arrange(large(), asked, Levers(bf16=True), {"bf16": False})
    levers.arrange(large(), off, Levers(), {})
    levers.arrange(nn.Linear(8, 8), small, Levers(bf16=True), {})
    assert [a.mixed_precision for a in (chosen, asked, off, small)] == ["bf16", "no", "no", "no"]


def test_weights_of_another_dtype_are_left_to_the_recipe():
    args = Arguments()
    levers.arrange(large().to(torch.bfloat16), args, Levers(bf16=True), {})
    assert args.mixed_precision == "no"


@pytest.mark.skipif(not BF16, reason="this processor has no bf16 arithmetic")
def test_strided_depthwise_convolutions_stay_in_fp32_and_keep_their_names():
    from transformers import MobileNetV2ForImageClassification

    model = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=32))
    names = list(model.state_dict())
    levers.arrange(model, Arguments(), Levers(bf16=True, channels_last=True), {})
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        model(pixel_values=torch.randn(2, 3, 32, 32)).logits.sum().backward()
    strided = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1 and m.stride[0] > 1}
    assert len(strided) == 4
    assert {name for name, dtype in seen.items() if dtype == torch.float32} == strided
    assert list(model.state_dict()) == names and all(p.grad is not None for p in model.parameters())


def test_channels_last_reaches_the_first_layer_and_changes_no_result(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hfft")
    plain = train(tmp_path / "plain", levers="none")
    assert not [r for r in caplog.records if "turns it off" in r.message]
    lasts = train(tmp_path / "last", levers={"bf16": False})
    told = [r.message for r in caplog.records if "turns it off" in r.message]
    assert any("channels_last" in line for line in told)
    assert plain.keys() == lasts.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(lasts[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_pictures_are_turned_once_before_the_model():
    net = nn.Sequential(*[nn.Conv2d(3, 3, 3) for _ in range(levers.CONVOLUTIONS)])
    seen = []
    model = nn.Module()
    model.net = net
    model.forward = lambda pixel_values: seen.append(pixel_values.is_contiguous(memory_format=torch.channels_last))
    levers.arrange(model, Arguments(), Levers(channels_last=True), {})
    model(pixel_values=torch.randn(2, 3, 8, 8))
    assert seen == [True]
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not BF16, reason="this processor has no bf16 arithmetic")
def test_a_bf16_run_is_saved_in_fp32_and_read_back_as_it_was_measured(tmp_path):
    weights = train(tmp_path / "run")
    assert all(weight.dtype in (torch.float32, torch.int64) for weight in weights.values())
    result = hfft.load(tmp_path / "run")
    again = result.predict([row["image"] for row in tiny.pictures(8, seed=5)])
    truth = [row["label"] for row in tiny.pictures(8, seed=5)]
    right = sum(answer["label"] == str(label) for answer, label in zip(again, truth, strict=True))
    assert right / 8 == pytest.approx(result.metrics["eval"]["accuracy"])


def test_all_modules_train_also_where_the_outermost_says_that_it_does_already():
    class Holder:
        model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2))

        def _sharded(self):
            return True

    net = Holder.model
    net[0].eval()  # as the base inside a fresh PeftModel is
    assert net.training and not net[0].training
    with levers.lean(Holder()):
        assert net[0].training
        net.eval()
        assert not net[0].training
        net.train()
        assert net[0].training
    assert "train" not in net.__dict__

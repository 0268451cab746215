"""Every method of the installed peft on a tiny BERT and a tiny ViT: trains, reloads, merges, or is refused in a line.

The expectation is written down per method, so that a new peft, or a method that starts to work, is noticed.
"""

import copy

import pytest
import transformers as tf
from peft import PeftModel, PeftType
from test_peft import distance, lively, run_of, small_logits, trained_parts
from test_tuning_base import build

from hfft.export.merge import merge
from hfft.messages import InputError
from hfft.tuning.base import head_modules
from hfft.tuning.peft import CONV1D, CONV2D, peft

# Options without which a method cannot start, or whose defaults are larger than these models.
OPTIONS = {
    "ADALORA": {"total_step": 10},
    "ADAMSS": {"r": 8},
    "FOURIERFT": {"n_frequency": 100},
    "FROD": {"progressbar": False},
    "MISS": {"r": 8},
    "SHIRA": {"r": 4},
    "WAVEFT": {"n_frequency": 100},
}
PROMPTS = {"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"}
REFUSED = {  # for both models; prompt methods for the ViT besides
    "MULTITASK_PROMPT_TUNING", "POLY", "XLORA", "ADAPTION_PROMPT", "TRAINABLE_TOKENS", "CPT", "SHADOW",
}  # fmt: skip
NO_MERGE = PROMPTS | {"LILY"}
FAST = {"LORA", "IA3", "LOHA", "OFT", "LN_TUNING", "VERA", *PROMPTS, *REFUSED}


def cases():
    for method in sorted(kind.value for kind in PeftType):
        for name in ("bert", "vit"):
            yield pytest.param(name, method, marks=[] if method in FAST else [pytest.mark.slow], id=f"{method}-{name}")


@pytest.mark.parametrize(("name", "method"), cases())
def test_a_method_trains_reloads_and_merges_or_is_refused_in_one_line(name, method, tmp_path):
    model = lively(build(name))
    base, heads = copy.deepcopy(model), head_modules(model)
    if method in REFUSED or (name == "vit" and method in PROMPTS):
        with pytest.raises(InputError) as error:
            peft(model, peft_type=method)
        assert str(error.value).startswith(f"tuning: peft: {method} ")
        assert "\n" not in str(error.value)
        return
    adapted = peft(model, peft_type=method, **OPTIONS.get(method, {}))
    assert trained_parts(adapted, heads) == (True, True)
    assert distance(adapted, base) > 1e-4
    adapted.save_pretrained(tmp_path / "adapter")
    assert distance(adapted, PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter")) <= 1e-6
    if method in NO_MERGE:
        with pytest.raises(InputError, match=f"export: merge: {method} "):
            merge(run_of(adapted), tmp_path / "merged")
        return
    plain = type(base).from_pretrained(merge(run_of(adapted), tmp_path / "merged"))
    assert isinstance(plain, tf.PreTrainedModel)
    assert distance(adapted, plain) <= 1e-5 * max(1, small_logits(plain).abs().max().item())


LAYERS = [
    ("gpt2", "c_attn", CONV1D),
    ("resnet", "encoder.stages.1.layers.0.layer.1.convolution", CONV2D - {"OFT"}),  # OFT takes 1x1 convolutions only
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target", "table"), LAYERS)
def test_the_tables_of_layer_kinds_are_what_peft_does(name, target, table, tmp_path):
    adapts = set()
    for method in sorted({kind.value for kind in PeftType} - PROMPTS - REFUSED - {"LN_TUNING"}):
        extra = {"feedforward_modules": []} if method == "IA3" else {}
        base = lively(build(name))
        model = copy.deepcopy(base)
        try:
            adapted = peft(model, peft_type=method, target_modules=[target], **OPTIONS.get(method, {}), **extra)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        adapts.add(method)
        trained_parts(adapted, head_modules(base))
        adapted.save_pretrained(tmp_path / method)
        assert distance(adapted, PeftModel.from_pretrained(base, tmp_path / method)) <= 1e-6, method
        merge(run_of(adapted), tmp_path / f"{method}-merged")
    assert adapts == table

"""FSDP2 with the settings of accelerate_configs/fsdp2.yaml, on two CPU processes: trains, saves and resumes as DDP.

accelerate itself leaves FSDP out on CPUs; tests/fsdp_on_cpu.py puts it back. On GPUs this was not run.
"""

from pathlib import Path

import fsdp_on_cpu
import pytest
import survival
import tiny
from survival import STEP, equal, outcome, recipe

from hfft import models, predict
from hfft.messages import InputError

ROOT = Path(__file__).resolve().parent.parent
WHOLE = {"levers": {"buckets": False}}  # a model in shares takes no batch in parts, and dropout draws in another order
SETTINGS = fsdp_on_cpu.settings(ROOT / "accelerate_configs" / "fsdp2.yaml")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return survival.files(tmp_path_factory.mktemp("files"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora"), [("text", False), ("image", True)])
def test_a_model_in_shares_is_trained_and_saved_as_a_whole_one(kind, lora, forks, files, tmp_path):
    file = recipe(files, tmp_path, kind, lora=lora, processes=2, bf16=False, optim="sgd", learning_rate=0.1, **WHOLE)
    assert forks.run("train", file, f"train.output_dir={tmp_path / 'whole'}", processes=2)[0] == [0, 0]
    assert forks.run("train", file, processes=2, **SETTINGS)[0] == [0, 0]
    (weights, metrics), (others, other_metrics) = outcome(tmp_path / "run"), outcome(tmp_path / "whole")
    assert weights.keys() == others.keys()
    assert all((weights[name] - others[name]).norm() <= 1e-6 * others[name].norm() + 1e-6 for name in weights)
    assert metrics["loss"] == pytest.approx(other_metrics["loss"], rel=1e-6)
    assert type(models.unwrapped(predict.load(tmp_path / "run").model)).__name__.startswith(("Bert", "ViT"))


@pytest.mark.slow
def test_a_run_in_shares_goes_on_where_it_was_stopped(forks, files, tmp_path):
    file = recipe(files, tmp_path, "text", processes=2)
    assert forks.run("train", file, f"train.output_dir={tmp_path / 'whole'}", processes=2, **SETTINGS)[0] == [0, 0]
    codes, said = forks.run("train", file, processes=2, SIGNAL=f"SIGTERM {STEP} 3 1", **SETTINGS)
    assert codes == [75, 75] and "".join(said).count("stopped at step 2") == 1
    assert forks.run("train", file, "--resume", processes=2, **SETTINGS)[0] == [0, 0]
    assert equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("name", ["bert", "modernbert", "llama", "vit", "dinov2", "swin"])
def test_shares_are_cut_at_blocks_that_do_not_hold_the_input_embeddings(name, tmp_path):
    kind, config = tiny.CONFIGS[name]
    net = tiny.AUTO[kind].from_config(config())
    found = models.blocks(net)
    assert found and not any("Embeddings" in each for each in found)


def test_a_model_without_named_blocks_is_one_share():
    assert models.blocks(tiny.AUTO["image"].from_config(tiny.CONFIGS["timm"][1]())) == []


def test_a_model_that_accelerate_cannot_share_is_one_line():
    with pytest.raises(InputError, match="cannot share ConvNext.* launch it with accelerate_configs/multi_gpu.yaml"):
        models.blocks(tiny.AUTO["image"].from_config(tiny.CONFIGS["convnext"][1]()))

"""A run that goes on from a checkpoint in the middle of an epoch ends with bitwise the same weights."""

import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

import hfft

LORA = [{"peft": {"peft_type": "LORA", "lora_dropout": 0.1}}]


@pytest.mark.parametrize(
    ("name", "tuning"), [("bert", []), ("bert", LORA), ("vit", []), ("vit", LORA), ("timm", []), ("mobilenet_v2", [])],
    ids=["bert-full", "bert-lora", "vit-full", "vit-lora", "timm-full", "channels-last"],
)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_weights(name, tuning, tmp_path):
    kind = tiny.CONFIGS[name][0]
    recipe = {
        "task": f"{kind}_classification",
        "model": {"name": tiny.build(name, tmp_path / "base")},
        "tuning": tuning,
        "train": {
            "output_dir": str(tmp_path / "run"), "num_train_epochs": 3, "use_cpu": True, "learning_rate": 1e-2,
            "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "eval_strategy": "steps",
            "eval_steps": 2, "save_total_limit": 9, "load_best_model_at_end": False,
        },
    }  # fmt: skip
    if name == "bert":
        recipe["model"]["config"] = {"hidden_dropout_prob": 0.2}
    if kind == "image":
        recipe["data"] = {"augment": [{"image": {"crop": [0.5, 1.0], "policy": "randaugment", "erase": 0.5}}]}
    data = (tiny.sentences if kind == "text" else tiny.pictures)(26)
    file = tmp_path / "run" / ("adapter_model.safetensors" if tuning else "model.safetensors")
    hfft.finetune(recipe, data=data)
    whole = load_file(file)
    file.unlink()
    (tmp_path / "run" / "metrics.json").unlink()  # so that it has not finished
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 4:  # step 4 of 9 lies inside the second epoch
            shutil.rmtree(folder)
    hfft.finetune(recipe, data=data, resume=True)
    resumed = load_file(file)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)

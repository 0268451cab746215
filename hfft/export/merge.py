"""Merge: the adapter is added into the base model's weights, and the sum is saved as a plain model.

The folder loads without peft: AutoModel…from_pretrained, and timm.create_model("local-dir:…") for timm's models.
LoRA, section 4.1 ("no additional inference latency"): https://arxiv.org/abs/2106.09685.
"""

import copy
import re
import shutil
from pathlib import Path

import torch
from peft.utils import ModulesToSaveWrapper

from hfft import models
from hfft.messages import InputError, MachineError, announce
from hfft.tuning.base import small_logits

# Merging adds in another order than the adapter's forward pass does: in fp32 that is 1e-7 to 1e-5 of the largest logit,
# in bf16 (8 bits) up to some 1e-2. Ten times that is no rounding but a method that merges wrongly.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}


def merge(result, folder, *, dtype: str | None = None) -> Path:
    """Save `result.model` with its adapter merged, and its tokenizer or processor, in `folder`; returns it.

    `dtype` ("bfloat16", "float16", "float32") is the saved weights' type, by default the model's. `result.model` stays
    as it is. The merged model must answer a small batch as the adapted one does, within rounding.

    Raises InputError where there is nothing to merge or the method cannot be merged, MachineError where the merged
    model answers otherwise.
    """
    adapted = result.model
    if not hasattr(adapted, "peft_config"):
        raise InputError("export: merge: the run has no adapter to merge; its folder is a plain model already")
    merged = _merged(adapted)
    _compare(small_logits(adapted), small_logits(merged))
    if dtype is not None:
        merged = merged.to(_dtype(dtype))
    folder = Path(folder)
    models.save(merged, result.task.processor, folder)
    result.task.save(folder)
    shutil.copy(Path(result.folder) / "recipe.yaml", folder)  # with it `hfft predict` and `hfft eval` take the folder
    return folder


def _merged(adapted):
    config = adapted.active_peft_config
    method = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise InputError(f"export: merge: {method} adds tokens, not weights: there is nothing to merge")
    if getattr(config, "layer_replication", None):
        raise InputError("export: merge: layer_replication repeats layers that share weights: they cannot be merged")
    if getattr(config, "alora_invocation_tokens", None):
        raise InputError("export: merge: aLoRA acts after its invocation tokens only: it cannot be merged")
    model = copy.deepcopy(adapted).eval()
    _put_trained_modules_in_place(model)
    try:
        return model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError) as error:
        why = re.sub(r"\s+", " ", str(error)) or "peft has no merge for it"
        raise InputError(f"export: merge: {method} cannot be merged: {why[:200]}") from error


def _put_trained_modules_in_place(adapted) -> None:
    """`modules_to_save` instead of the originals; peft's merge fails at that for a head of several layers."""
    for name, module in list(adapted.named_modules()):
        if isinstance(module, ModulesToSaveWrapper) and module.active_adapters:
            parent, _, child = name.rpartition(".")
            setattr(adapted.get_submodule(parent), child, module.modules_to_save[module.active_adapters[0]])


def _compare(before: torch.Tensor, after: torch.Tensor) -> None:
    scale = max(1.0, before.abs().max().item())
    difference = (before.float() - after.float()).abs().max().item()
    allowed = TOLERANCE.get(before.dtype, 1e-4) * scale
    if not difference <= allowed:
        raise MachineError(
            f"export: merge: the merged model's logits differ by {difference:.2g} (at most {allowed:.2g})"
        )
    announce(f"merge: logits of merged and adapted model differ by at most {difference:.2g}")


def _dtype(name: str) -> torch.dtype:
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in kinds:
        raise InputError(f"export: merge: dtype: {name!r} is none of {', '.join(kinds)}")
    return kinds[name]

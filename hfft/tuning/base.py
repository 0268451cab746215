"""What every tuning part asks of a model: its head, its blocks, frozen BatchNorm, a table of what trains.

Everything is found from the model itself (attributes that transformers and timm give every model), never from a table
of architectures. Names are those of `model.named_modules()`; of a PeftModel they are those of its base model.
"""

import re
from itertools import groupby

import torch
from torch import nn

from hfft import safety
from hfft.lookup import hint
from hfft.messages import InputError
from hfft.models import below, head_modules, unwrapped

CONTAINERS = (nn.ModuleList, nn.Sequential)
SPANS = ("start_logits", "end_logits")  # what a model for question answering gives in place of logits


def blocks(model) -> list[str]:
    """Names of the backbone's layers in order, stages flattened: what "the last n layers" counts.

    A block is an element of a list of alike elements (ModuleList or Sequential), with at least two weight layers in it
    and no list of blocks inside. Where nothing is so (MobileNetV1's list of single convolutions, lists of unlike
    layers), the conditions are given up one by one.
    """
    model = unwrapped(model)
    heads = tuple(head_modules(model))
    for alike, least in ((True, 2), (False, 2), (False, 1)):
        found = _blocks_below(model, "", alike, least)
        found = [name for name in found if not below(name, heads)]
        if found:
            return found
    return []


def endings(model, wanted: list[str]) -> list[str]:
    """The shortest endings of module names that name all of `wanted` and no other module."""
    others = {name for name, _ in model.named_modules()} - set(wanted)
    taken = {".".join(name.split(".")[start:]) for name in others for start in range(name.count(".") + 1)}
    found: dict[str, None] = {}
    for name in wanted:
        parts = name.split(".")
        tails = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
        found[next((tail for tail in tails if tail not in taken and not tail.isdigit()), name)] = None
    return list(found)


def _blocks_below(module: nn.Module, prefix: str, alike: bool, least: int) -> list[str]:
    if hasattr(module, "base_layer"):  # an adapter around a layer
        return []
    weighty = [child for child in module.children() if _weight_layers(child)]
    is_list = isinstance(module, CONTAINERS) and (not alike or len({type(child) for child in weighty}) == 1)
    found = []
    for name, child in module.named_children():
        inner = _blocks_below(child, f"{prefix}{name}.", alike, least)
        if not inner and is_list and _weight_layers(child) >= least:
            inner = [prefix + name]
        found += inner
    return found


def _weight_layers(module: nn.Module) -> int:
    """How many modules hold a matrix or kernel of their own; an adapted layer counts once."""
    module = getattr(module, "base_layer", module)
    own = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
    return own + sum(_weight_layers(child) for child in module.children())


def keep_batchnorm_frozen(model) -> int:
    """Keep every BatchNorm whose weight is frozen in eval mode, whatever `model.train()` says; returns how many.

    Its running statistics would otherwise drift with the training batches, and an adapter does not save them
    (a reloaded model then answers differently: 0.11 in a logit).
    """
    found = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in found:
        if _eval_if_frozen not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_eval_if_frozen)
    return sum(_is_frozen(module) for module in found)


def _is_frozen(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    return norm.weight is None or not norm.weight.requires_grad


def _eval_if_frozen(norm, inputs) -> None:
    if _is_frozen(norm):
        norm.eval()


def trainable_table(model) -> str:
    """Parameters by block as aligned text: name, parameters, trainable, share; equal neighbours share a row."""
    counts = _counts(model)
    rows = []
    for _, group in groupby(counts.items(), key=lambda item: (item[1], item[0].rpartition(".")[0])):
        same = list(group)
        sizes = [sum(part) for part in zip(*(size for _, size in same), strict=True)]
        rows.append((_span([name for name, _ in same]), *sizes))
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    cells = [("module", "parameters", "trainable", "share")]
    cells += [(name, f"{size:,}", f"{train:,}", f"{100 * train / max(size, 1):.2f} %") for name, size, train in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1].rpartition('.')[2]}"


def _counts(model) -> dict[str, tuple[int, int]]:
    """(parameters, trainable ones) by block, head module, or child of the backbone, in the model's order.

    peft keeps the head as it was beside the trained copy (`original_module`): not part of the model that answers.
    """
    groups = [*blocks(model), *head_modules(model)]
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        name = name.removeprefix("base_model.").removeprefix("model.") if model is not unwrapped(model) else name
        group = next((each for each in groups if below(name, [each])), None)
        group = group or ".".join(name.split(".")[: min(2, name.count("."))]) or name
        size, train = counts.get(group, (0, 0))
        counts[group] = (size + parameter.numel(), train + parameter.numel() * parameter.requires_grad)
    return counts


def small_inputs(model) -> dict[str, torch.Tensor]:
    """A valid batch of two for the model, the same every time: noise pictures or random tokens.

    Shapes: `pixel_values` (2, channels, size, size) of the config's size; `input_ids` and `attention_mask` (2, 8).
    """
    model = unwrapped(model)
    config, generator = model.config, torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    if model.main_input_name == "pixel_values":
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        noise = torch.randn(2, *_image_shape(config), generator=generator)
        return {"pixel_values": noise.to(device=device, dtype=dtype)}
    ids = torch.randint(0, config.get_text_config().vocab_size, (2, 8), generator=generator)
    for special in (config.pad_token_id, config.eos_token_id):  # pooling at padding or at the end: keep them out
        ids[ids == (special if isinstance(special, int) else -1)] = 1 + max(special or 0, 0) % 2
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}


def _image_shape(config) -> tuple[int, int, int]:
    timm = getattr(config, "pretrained_cfg", None) or {}
    channels = getattr(config, "num_channels", None) or 3
    size = getattr(config, "image_size", None) or timm.get("input_size", (3, 64, 64))[-1]
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


@torch.no_grad()
def small_logits(model) -> torch.Tensor:
    """The model's answer in eval mode to `small_inputs`; its mode and the random state stay as they were."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    outputs = model(**small_inputs(model))
    found = [name for name in ("logits", "last_hidden_state") if name in outputs]  # the second of models without a head
    logits = outputs[found[0]] if found else torch.stack([outputs[name] for name in SPANS])
    for module, training in was_training.items():
        module.training = training
    return logits


def spelt_out(option: str, given: dict, names: list[str]) -> dict:
    """Entries with a regular expression for the end of a name -> entries with the ends that it matches."""
    ends = list(dict.fromkeys(".".join(n.split(".")[i:]) for n in names for i in range(n.count(".") + 1)))
    found: dict = {}
    for entry, value in given.items():
        hit = _matching(option, entry, ends)
        if not hit:
            near = hint(entry, {name.rpartition(".")[2] for name in names})
            raise InputError(f"tuning: peft: {option}: {entry!r} matches no module.{near}")
        plain = safety.PLAIN.fullmatch(entry)
        found |= {name: value for name in ([entry] if plain else hit) if name not in found}
    return found


def matched(option: str, pattern: str, names: list[str]) -> list[str]:
    """The names that a regular expression matches whole. Raises InputError where there is none, or no end of it."""
    found = _matching(option, pattern, names)
    if not found:
        near = hint(pattern, {name.rpartition(".")[2] for name in names})
        what = "matches the whole name of no module; a list of names matches their ends"
        raise InputError(f"tuning: peft: {option}: the regular expression {pattern!r} {what}.{near}")
    return found


def _matching(option: str, pattern: str, names: list[str]) -> list[str]:
    """The names that a regular expression matches whole, which is tried aside: some never come to an end."""
    try:
        re.compile(pattern)
        return safety.matching(pattern, names)
    except re.error as error:
        raise InputError(f"tuning: peft: {option}: {pattern!r} is no regular expression: {error}") from error
    except safety.Overrun as error:
        what = f"the regular expression {pattern[:80]!r} {error}"
        raise InputError(f"tuning: peft: {option}: {what}; write a list of names") from error

"""Models: pretrained weights from the Hub, a folder or timm, or a fresh model from a config, with this task's labels.

Only the head may be new. The labels a checkpoint already has keep their meaning, by name.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hfft import lookup
from hfft.messages import HubError, InputError, announce, is_main_process, warn

BASE = "base"  # folder of a run with the weights that its adapter goes with, where they cannot lie beside it
TIMM_ARGS = ("num_classes", "in_chans", "global_pool")  # timm writes them into model_args; AutoModel refuses them


def load_config(model) -> PreTrainedConfig:
    """The config of the recipe's model section (`.name`, `.revision`, `.config`), with its changes applied."""
    if model.name is None:
        return _fresh_config(model.config)
    _folder_exists(model.name)
    try:
        config = AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=False, **_subfolder(model)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not Path(model.name).exists():
            raise HubError(
                f"model.name: {model.name!r} is no folder here, and the Hub did not give it ({_first_line(error)}); "
                "check the name, go online, or log in with `hf auth login`"
            ) from error
        raise InputError(f"model {model.name!r} cannot be read: {_first_line(error)}") from error
    for key, value in (model.config or {}).items():
        if not hasattr(config, key):
            raise InputError(
                f"model.config: {type(config).__name__} has no {key!r}." + lookup.hint(key, config.to_dict())
            )
        setattr(config, key, value)
    _mend_timm(config)
    return config


def _mend_timm(config: PreTrainedConfig) -> None:
    if config.model_type == "timm_wrapper":  # a dict even when empty: timm reads it back without asking
        config.model_args = {k: v for k, v in (config.model_args or {}).items() if k not in TIMM_ARGS}


def _fresh_config(config: dict | str | None) -> PreTrainedConfig:
    try:
        if isinstance(config, dict):
            fresh = AutoConfig.for_model(**config)
        else:
            fresh = AutoConfig.from_pretrained(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.config cannot be used: {_first_line(error)}") from error
    _mend_timm(fresh)
    return fresh


def _subfolder(model) -> dict[str, Any]:
    return {"subfolder": model.options["subfolder"]} if "subfolder" in model.options else {}


def _folder_exists(name: str) -> None:
    path = Path(name)
    if path.exists() or (name.count("/") == 1 and not name.startswith((".", "/", "~"))) or "/" not in name:
        if path.is_dir() and not any((path / f).exists() for f in ("config.json", "adapter_config.json")):
            raise InputError(f"model.name: the folder {name!r} holds no config.json; it is no saved model")
        return
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"model.name: folder {name!r} not found." + lookup.hint(name, siblings))


def label_names(config: PreTrainedConfig) -> list[str] | None:
    """The checkpoint's own class names in index order; None when it only has LABEL_0, LABEL_1, ..."""
    names = getattr(config, "label_names", None)
    if not names:
        id2label = config.id2label or {}
        names = [str(id2label[i]) for i in sorted(id2label)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else list(names)


def known_labels(model) -> list[str] | None:
    """The class names of the recipe's model section, before anything else of it is loaded."""
    return label_names(load_config(model))


def match_labels(config: PreTrainedConfig, train) -> tuple[list[str], list[int], bool]:
    """(class names in the model's order, the model's index of each class of `train`, whether the head is kept).

    A checkpoint that already knows exactly these classes keeps its order and its head, whatever the data's order.
    """
    known = label_names(config)
    if train is None:
        names = known or [str(config.id2label[i]) for i in sorted(config.id2label)]
        return names, list(range(len(names))), True
    names = list(train.features["label"].names)
    if known is not None and sorted(known) == sorted(names):
        announce(f"the checkpoint already has these {len(names)} classes: its head and their order are kept")
        return known, [known.index(name) for name in names], True
    return names, list(range(len(names))), False


def places(names: list[str], rows) -> list[int]:
    """The model's index of each class of `rows`. Raises InputError for a class that the model does not have."""
    if "label" not in rows.features:
        return list(range(len(names)))
    unknown = [name for name in rows.features["label"].names if name not in names]
    if unknown:
        raise InputError(f"label {unknown[0]!r} is none of the model's classes." + lookup.hint(unknown[0], names))
    return [names.index(name) for name in rows.features["label"].names]


def set_labels(config: PreTrainedConfig, names: list[str]) -> None:
    """Write the class names where transformers and timm look for them."""
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    if config.model_type == "timm_wrapper":
        config.label_names = list(names)
    config.problem_type = None


def load(auto_model: str, model, config: PreTrainedConfig, *, keep_head: bool) -> PreTrainedModel:
    """The model with `config`'s labels. `keep_head`: the checkpoint's head has these classes and stays.

    Weights are float32 unless the recipe says otherwise: a bf16 file would be trained in pure bf16. Raises InputError
    when weights other than the head's are new, missing or not finite.
    """
    auto_class = getattr(transformers, auto_model)
    options = {"dtype": torch.float32, **model.options}
    try:
        if model.name is None:
            announce("the model starts from random weights (model.config without model.name)")
            return auto_class.from_config(config, **options)
        net, info = auto_class.from_pretrained(
            model.name,
            config=config,
            revision=model.revision,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(f"model {model.name!r} cannot be loaded as {auto_model}: {_first_line(error)}") from error
    _check_new_weights(model.name, net, info)
    if not keep_head and not any(below(k, head_modules(net)) for k in _new_keys(info)):
        _start_afresh(net, head_modules(net))
    _check_finite(model.name, net)
    _mend_batchnorm(net)
    return net


def _new_keys(info: dict) -> list[str]:
    mismatched = [key[0] if isinstance(key, tuple | list) else key for key in info["mismatched_keys"]]
    return sorted({*info["missing_keys"], *mismatched})


def _check_new_weights(name: str, net: PreTrainedModel, info: dict) -> None:
    new, head = _new_keys(info), head_modules(net)
    allowed = [*head, *(n for n, _ in net.named_modules() if n.split(".")[-1] == "pooler")]
    wrong = [key for key in new if not below(key, allowed)]
    if wrong:
        raise InputError(
            f"model {name!r}: {len(wrong)} weights outside the head are missing or of another shape "
            f"({', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''}); only a new head may be"
        )
    left = [k for k in info["unexpected_keys"] if k.split(".")[0] not in {h.split(".")[0] for h in head}]
    if new:
        announce(f"new weights, not in the checkpoint: {', '.join(new)}")
    if left:
        announce(f"{len(left)} weights of the checkpoint are not used ({', '.join(left[:3])}{', …' * (len(left) > 3)})")


def below(name: str, parents) -> bool:
    """Whether the module or parameter `name` is one of `parents` or inside one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def _start_afresh(net: PreTrainedModel, modules: list[str]) -> None:
    announce(f"the head ({', '.join(modules)}) starts afresh: the checkpoint's classes are others than the data's")
    for name in modules:
        for module in net.get_submodule(name).modules():
            for weight in module.parameters(recurse=False):
                weight._is_hf_initialized = False
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            net._init_weights(module)


def _check_finite(name: str, net: PreTrainedModel) -> None:
    for key, weight in net.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise InputError(f"model {name!r}: weight {key} holds values that are not finite; download it again")


def _mend_batchnorm(net: PreTrainedModel) -> None:
    """HF's MobileNets carry TensorFlow's decay (0.997) as PyTorch's momentum, which is one minus it.

    The running statistics would then be those of the last batch alone (CIFAR-10: 52.1 % instead of 56.9 %).
    """
    odd = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and (m.momentum or 0) > 0.5]
    for module in odd:
        module.momentum = 0.1
    if odd:
        announce(
            f"BatchNorm momentum 0.1 in {len(odd)} layers (the checkpoint's is TensorFlow's decay, not a momentum)"
        )


def unwrapped(model):
    """The transformers model inside a PeftModel; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_modules(model) -> list[str]:
    """Names of the task head's modules that hold parameters, whether new or loaded.

    transformers: the children outside the backbone (`base_model_prefix`), so BERT's pooler, which is pretrained and
    inside, is none. timm in TimmWrapper: what `get_classifier` gives. A language model's output embeddings are
    pretrained with it and no task head.
    """
    model = unwrapped(model)
    if hasattr(model, "timm_model"):
        return _timm_head(model.timm_model)
    children = dict(model.named_children())
    backbone = {getattr(model, "base_model_prefix", "")} & set(children)
    backbone = backbone or {name for name, child in children.items() if hasattr(child, "base_model_prefix")}
    if not backbone:
        return []
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        name
        for name, child in children.items()
        if name not in backbone and any(True for _ in child.parameters()) and output not in list(child.modules())
    ]


def _timm_head(timm_model) -> list[str]:
    head = timm_model.get_classifier()
    heads = [module for module in (head if isinstance(head, (tuple, list)) else [head]) if module is not None]
    names = [name for name, module in timm_model.named_modules() if any(module is each for each in heads)]
    return [f"timm_model.{name}" for name in names if any(True for _ in timm_model.get_submodule(name).parameters())]


def blocks(net) -> list[str]:
    """Class names of the repeated blocks, in whose shares FSDP holds a model (transformers' `_no_split_modules`).

    Without those around the input embeddings, which accelerate makes a share of their own: no weight can be in two.
    """
    inner = unwrapped(net)
    try:
        embeddings = inner.get_input_embeddings()
    except NotImplementedError as error:
        raise InputError(
            f"launch: accelerate cannot share {type(inner).__name__} by FSDP2, for transformers does not name its "
            "input embeddings; launch it with accelerate_configs/multi_gpu.yaml"
        ) from error
    around = {type(module).__name__ for module in inner.modules() if any(m is embeddings for m in module.modules())}
    return sorted({type(module).__name__ for module in inner.modules()} & {*(inner._no_split_modules or [])} - around)


def save(net, processor, folder: str | Path, **options) -> None:
    """Write model and tokenizer or processor as plain transformers, timm and peft code loads them."""
    if hasattr(net, "timm_model") and not hasattr(net, "peft_config"):  # timm knows no prefix; transformers adds it
        weights = options.pop("state_dict", None) or net.state_dict()
        options["state_dict"] = {name.removeprefix("timm_model."): weight for name, weight in weights.items()}
    net.save_pretrained(folder, **options)
    if processor is not None and options.get("is_main_process", True):
        processor.save_pretrained(folder)


def load_weights(net, folder: str | Path) -> None:
    """Put a checkpoint's weights into the model that it was saved from; none may be left over or missing."""
    if hasattr(net, "peft_config"):
        from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

        weights = load_peft_weights(str(folder), device="cpu")
        try:
            result: Any = set_peft_model_state_dict(net, weights)
        except RuntimeError as error:
            raise InputError(
                f"{folder}: the adapter's shapes have changed since (its ranks move); "
                "write train.load_best_model_at_end: false"
            ) from error
        left = set(result.unexpected_keys) - {"prompt_embeddings"}  # which peft puts in by itself
        assert not left, left
    else:
        saved = type(net).from_pretrained(folder, dtype=net.dtype, trust_remote_code=False)
        net.load_state_dict(saved.state_dict())


def remember_base(net, weights: dict[str, torch.Tensor]) -> None:
    """Keep the weights from before the adapter, for `save_final`; references to them, no copies."""
    if hasattr(net, "peft_config") and head_modules(net.get_base_model()):
        net.base_weights = weights


def save_final(net, processor, folder: str | Path, *, weights: dict[str, torch.Tensor] | None = None) -> None:
    """`save`, and for an adapter with a new head its base too, so that AutoModel.from_pretrained(folder) has it all.

    Without the base's config beside the adapter that call would build a head for the base's own classes. Adapters that
    transformers itself cannot load (peft can), or loads wrongly (DoRA in 5.23), get their base in `base/` instead.
    `weights` are all of them where `net` holds a share only.
    """
    if not is_main_process():
        return
    base_weights = getattr(net, "base_weights", None)
    if base_weights is not None:
        save(net.get_base_model(), None, folder, state_dict=base_weights)
    save(net, processor, folder, **({} if weights is None else {"state_dict": dict(weights)}))
    if base_weights is not None and not _loads_plainly(net, weights, folder):
        for name in ["config.json", *(path.name for path in Path(folder).glob("model*.safetensors*"))]:
            (Path(folder) / name).unlink()
        save(net.get_base_model(), processor, Path(folder) / BASE, state_dict=base_weights)
        warn(
            f"transformers alone cannot load this kind of adapter; load {BASE}/ with AutoModel and the adapter with "
            "peft's PeftModel, or write export: [merge]"
        )


def _loads_plainly(net, weights: dict[str, torch.Tensor] | None, folder: str | Path) -> bool:
    """Whether transformers' own adapter loading gives the weights that were trained."""
    trained = net.get_base_model()
    try:
        plain = type(trained).from_pretrained(folder, dtype=trained.dtype, trust_remote_code=False)
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError):
        return False
    inside = "base_model.model."  # where peft keeps the model
    ours = {k.removeprefix(inside): v for k, v in weights.items()} if weights else trained.state_dict()
    theirs = plain.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.allclose(weight.cpu().float(), theirs[key].float(), atol=1e-6) for key, weight in ours.items()
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

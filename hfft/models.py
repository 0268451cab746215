"""Models: pretrained weights from the Hub, a folder or timm, or a fresh model from a config, with this task's labels.

Only the head may be new.
"""

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

from hfft import adapters, origin, safety
from hfft.messages import CheckpointError, InputError, MachineError, announce, first_line, is_main_process, warn

BASE = "base"  # folder of a run with the weights that its adapter goes with, where they cannot lie beside it


def load(auto_model: str, model, config: PreTrainedConfig, *, keep_head: bool) -> PreTrainedModel:
    """The model with `config`'s labels. `keep_head`: the checkpoint's head has these classes and stays.

    Weights are float32 unless the recipe says otherwise: a bf16 file would be trained in pure bf16. Raises InputError
    when weights other than the head's are new, missing or not finite.
    """
    place = None if model.name is None else origin.folder(model, weights=True)
    safety.check_attention(model.options.get("attn_implementation"))
    try:
        net, info = _loaded(getattr(transformers, auto_model), model, config, place)
    except ImportError as error:
        raise MachineError(f"model {model.name!r} cannot be loaded: {first_line(error)}") from error
    except Exception as error:  # configs and weights of others fail in ways of their own
        if is_out_of_memory(error):
            raise MachineError(f"the model does not fit into this machine's memory: {first_line(error)}") from error
        what = "model.config" if model.name is None else f"model {model.name!r}"
        raise InputError(f"{what} cannot be loaded as {auto_model}: {first_line(error)}") from error
    if info is None:
        return net
    if getattr(net, "_hf_peft_config_loaded", False):
        raise InputError(
            f"model {model.name!r} holds an adapter beside its base; merge it (`hfft export RUN merge`) and name that, "
            "or name the base"
        )
    heads = head_modules(net)
    net.new_weights = _check_new_weights(model.name, net, info)
    if not keep_head and not any(below(key, heads) for key in net.new_weights):
        _start_afresh(net, heads)
        net.new_weights += [key for key, _ in net.named_parameters() if below(key, heads)]
    _check_finite(model.name, net)
    _mend_batchnorm(net)
    return net


def _loaded(auto_class, model, config: PreTrainedConfig, place: Path | None) -> tuple[PreTrainedModel, dict | None]:
    """(the model, what is known of its loading; None for one that starts from random weights)."""
    options = {"dtype": torch.float32, **model.options}
    if place is None:
        announce("the model starts from random weights (model.config without model.name)")
        return auto_class.from_config(config, **options), None
    net, info = auto_class.from_pretrained(
        place,
        config=config,
        trust_remote_code=model.trust_remote_code,
        use_safetensors=None if model.trusted else True,
        **{"ignore_mismatched_sizes": True, "output_loading_info": True, **options},
    )
    net.name_or_path, net.config._name_or_path = str(place), origin.called(model)  # for peft; for others
    return net, info


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, the device's or the machine's, has run out."""
    said = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
    )


def _new_keys(info: dict, net: PreTrainedModel) -> list[str]:
    """Weights that are one (tied ones) have one name."""
    mismatched = [key[0] if isinstance(key, tuple | list) else key for key in info["mismatched_keys"]]
    every, own = (dict(net.named_parameters(remove_duplicate=once)) for once in (False, True))
    return sorted({*info["missing_keys"], *mismatched} - (every.keys() - own.keys()))


def _check_new_weights(name: str, net: PreTrainedModel, info: dict) -> list[str]:
    """The names of the new weights."""
    new, head = _new_keys(info, net), head_modules(net)
    allowed = [*head, *(n for n, _ in net.named_modules() if n.split(".")[-1] == "pooler"), *_output_biases(net)]
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
    return new


def _output_biases(net: PreTrainedModel) -> list[str]:
    """Names of the bias of a masked language model's output embeddings, which may start at zero."""
    output = net.get_output_embeddings() if hasattr(net, "get_output_embeddings") else None
    bias = getattr(output, "bias", None)
    return [name for name, each in net.named_parameters(remove_duplicate=False) if bias is not None and each is bias]


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


def check_tuned(model, args) -> None:
    """After the tuning parts: something trains, no new weight of the head stays random, and the model can do `args`.

    A frozen new weight outside the head, such as a pooler that the checkpoint lacks, is warned of.
    """
    net, trained = unwrapped(model), [name for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise InputError("tuning: all parameters are frozen, so nothing would be trained; leave the head out of freeze")
    heads, new = head_modules(net), getattr(net, "new_weights", [])
    parents = [next((head for head in heads if below(key, [head])), key.rpartition(".")[0]) for key in new]
    idle = [name for name in dict.fromkeys(parents) if not any(f".{name}." in f".{each}" for each in trained)]
    lost = [name for name in idle if name in heads]
    if lost:
        raise InputError(
            f"tuning: the new head ({', '.join(lost)}) would stay frozen, and so random; take it out of what is "
            "frozen, or into modules_to_save"
        )
    if idle:
        warn(
            f"new weights stay frozen, and so random: {', '.join(idle)}; train them too (frozen: train, peft: "
            "modules_to_save), or take a checkpoint that has them"
        )
    if args.gradient_checkpointing and not getattr(net, "supports_gradient_checkpointing", False):
        raise InputError(f"train.gradient_checkpointing: {type(net).__name__} cannot do that; delete the line")


def _check_finite(name: str, net: PreTrainedModel) -> None:
    for key, weight in [*net.named_parameters(), *net.named_buffers()]:
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
    pretrained with it and no task head; what a masked one has before them is.
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
    beside = {name: child for name, child in children.items() if name not in backbone}
    return [each for name, child in beside.items() for each in _apart_from(output, child, name)]


def _apart_from(output, module, name: str) -> list[str]:
    """The module's name if it has parameters; where the output embeddings lie inside, the modules beside these."""
    if module is output or not any(True for _ in module.parameters()):
        return []
    if output is None or output not in list(module.modules()):
        return [name]
    inside = module.named_children()
    return [each for key, child in inside for each in _apart_from(output, child, f"{name}.{key}")]


def output_layer(model, outputs: int) -> torch.nn.Linear | None:
    """The head's last linear layer with so many outputs, the copy that is trained; None where there is none."""
    net, heads = unwrapped(model), head_modules(model)
    found = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == outputs and below(name, heads)
    }
    trained = {name: module for name, module in found.items() if ".modules_to_save." in f".{name}."}
    return next(reversed((trained or found).values()), None)


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
    if hasattr(net, "peft_config") and options.get("is_main_process", True):
        adapters.tell_base(unwrapped(net), Path(folder))
    _as_others_may_read(Path(folder))


def _as_others_may_read(folder: Path) -> None:
    """Weights with the rights of the config beside them, those of any new file: safetensors gives the owner's alone."""
    known = [folder / name for name in ("adapter_config.json", "config.json")]
    for like in [path for path in known if path.is_file()][:1]:
        for path in folder.glob("*.safetensors"):
            path.chmod(like.stat().st_mode & 0o777)


def load_weights(net, folder: str | Path) -> None:
    """Put a checkpoint's weights into the model that it was saved from; none may be left over or missing.

    Raises CheckpointError where they are another model's.
    """
    if hasattr(net, "peft_config"):
        adapters.put(net, folder)
        return
    if (Path(folder) / adapters.WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: holds an adapter, which the run that began trained; go on with its own tuning, or start anew "
            "with --overwrite"
        )
    try:
        saved, info = type(net).from_pretrained(
            folder,
            dtype=net.dtype,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        if not _new_keys(info, net):
            net.load_state_dict(saved.state_dict())
            return
        why = f"{_new_keys(info, net)[0]} is missing or of another shape"
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        why = adapters.problem(error)
    raise CheckpointError(f"{folder}: its weights do not fit this model ({why}); start anew with --overwrite")


def remember_base(net, weights: dict[str, torch.Tensor]) -> None:
    """Keep the weights from before the adapter, for `save_final`; references to them, no copies."""
    if not hasattr(net, "peft_config"):
        return
    base = net.get_base_model()
    if head_modules(base) or getattr(base, "base_model", None) is base:  # or a backbone without any head
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
        save(net.get_base_model(), None, folder, state_dict=dict(base_weights))  # which loses tied ones in it
        adapters.sign(folder, base_weights)
    save(net, processor, folder, **({} if weights is None else {"state_dict": dict(weights)}))
    if base_weights is not None and not _loads_plainly(net, weights, folder):
        for name in ["config.json", *(path.name for path in Path(folder).glob("model*.safetensors*"))]:
            (Path(folder) / name).unlink()
        save(net.get_base_model(), processor, Path(folder) / BASE, state_dict=dict(base_weights))
        warn(
            f"transformers alone cannot load this kind of adapter; load {BASE}/ with AutoModel and the adapter with "
            "peft's PeftModel, or write export: [merge]"
        )


def _loads_plainly(net, weights: dict[str, torch.Tensor] | None, folder: str | Path) -> bool:
    """Whether transformers' own adapter loading gives the weights that were trained."""
    trained = net.get_base_model()
    try:
        plain = type(trained).from_pretrained(
            folder, dtype=trained.dtype, trust_remote_code=False, use_safetensors=True
        )
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError):
        return False
    inside = "base_model.model."  # where peft keeps the model
    ours = {k.removeprefix(inside): v for k, v in weights.items()} if weights else trained.state_dict()
    theirs = plain.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.allclose(weight.cpu().float(), theirs[key].float(), atol=1e-6) for key, weight in ours.items()
    )

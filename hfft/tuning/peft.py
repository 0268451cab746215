"""Parameter-efficient fine-tuning with any method of the peft library, in `adapter_config.json`'s own vocabulary.

What a recipe leaves out is found from the model and announced: the layers to adapt (`target_modules`), the head that
trains beside the adapter (`modules_to_save`), the task type. What cannot work is refused in one line.
Library: https://github.com/huggingface/peft (0.21). Learning rates: `RATES`.
"""

import dataclasses
import math
import warnings

from peft import PromptLearningConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from hfft.lookup import hint
from hfft.messages import InputError, MachineError, announce, warn
from hfft.models import below, head_modules
from hfft.tuning.base import blocks, endings, keep_batchnorm_frozen, matched, small_logits, spelt_out

# Learning rate by method; those not listed take LoRA's. Measured for LoRA (r 8): MiniLM-L6, 1,920 rows of SST-2, 60
# steps of 32: accuracy 0.52 at 2e-4 and 5e-4 (arXiv:2106.09685, GPT-3's and RoBERTa's), 0.76 at 1e-3. "Digits": best
# rate of 5e-4 to 1e-1 beside LoRA's best; tiny ViT from digits 0-4, 100 pictures of 5-9 (one CPU core, 2026-11-21).
RATES = {
    "LORA": 1e-3,
    **dict.fromkeys(("ADALORA", "LOHA", "LOKR", "GLORA", "HIRA", "VBLORA"), 3e-3),  # digits: 3 times LoRA's
    "FOURIERFT": 1e-2,  # arXiv:2405.03003 goes higher, with a slower head; digits: 3 times LoRA's
    **dict.fromkeys(("VERA", "PVERA"), 1e-2),  # arXiv:2310.11454 has 4e-3 to 1e-2; digits: 10 times LoRA's
    **dict.fromkeys(("FROD", "C3A", "ADAMSS", "UNILORA"), 1e-2),  # digits: 10 times LoRA's
    **dict.fromkeys(("BOFT", "HRA", "ROAD", "BEFT", "LN_TUNING"), 5e-3),  # digits: 10 times; the head wants less
    **dict.fromkeys(("IA3", "SUPERTUNING"), 5e-3),  # arXiv:2205.05638 has 3e-3 with Adafactor; digits: 10 times LoRA's
    **dict.fromkeys(("PROMPT_TUNING", "P_TUNING", "CARTRIDGE"), 1e-2),  # arXiv:2104.08691 has 0.3 with Adafactor
    "PREFIX_TUNING": 1e-2,  # arXiv:2110.07602 (P-tuning v2)
}
NUM_VIRTUAL_TOKENS = 20  # where a prompt method's length is not given; arXiv:2104.08691: little gain beyond

# Layers other than Linear that a method adapts in peft 0.21 (a test asks peft itself, method by method).
CONV2D = {"LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "HIRA", "IA3"}
CONV1D = {"LORA", "ADALORA", "IA3", "HIRA", "VERA", "PVERA", "RANDLORA", "TINYLORA", "UNILORA", "GRALORA"}
CONV1D |= {"DEFT", "FROD", "FOURIERFT", "WAVEFT"}

EXPECTED = (  # warnings of peft about what is meant to be so
    "Unsupported layer type",  # LN_TUNING's norms
    "fan_in_fan_out is set to False",  # GPT-2's Conv1D: peft sets it right
    "Failed to load the CUDA extension",  # BOFT falls back to plain torch
)

TASK_TYPES = {  # ending of the model's class -> peft's task type
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}
KINDS = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
REFUSED = {
    "XLORA": "it mixes LoRA adapters that were trained before; train one with LORA",
    "POLY": "it wants a task id with every row, which one task does not have; LORA is its one-task case",
    "MULTITASK_PROMPT_TUNING": "it wants a task id with every row, which one task does not have; use PROMPT_TUNING",
}
NEEDS_DATA = "computes it from batches of data before training, which a recipe cannot do"
REFUSED_OPTIONS = {  # (option, value or None for any but the default) -> why
    ("init_lora_weights", "eva"): f"EVA {NEEDS_DATA}; write true, pissa or olora",
    ("init_lora_weights", "corda"): f"CorDA {NEEDS_DATA}; write true, pissa or olora",
    ("init_lora_weights", "lora_ga"): f"LoRA-GA {NEEDS_DATA}; write true, pissa or olora",
    ("init_lora_weights", "loftq"): "LoftQ changes the base model's weights, which an adapter does not save",
    ("arrow_config", None): "Arrow routes between LoRA adapters that were trained before",
    ("megatron_config", None): "it is for models built with Megatron",
    ("inference_mode", True): "nothing would train",
}


def train_defaults(*, peft_type: str = "LORA", **options) -> dict:
    """The learning rate for a method: adapters start near zero and want 10 to 1000 times that of full fine-tuning."""
    found: dict = {"learning_rate": RATES.get(peft_type.upper(), RATES["LORA"])}
    if peft_type.upper() == "ADALORA":  # its ranks move: an earlier checkpoint does not fit the model any more
        found["load_best_model_at_end"] = False
    return found


def peft(model, *, peft_type: str, **options):
    """Put an adapter of any of peft's methods into the model; only it and the head train.

    `options` are the fields of that method's PeftConfig. `modules_to_save` always includes the head. Names in
    `target_modules` (a list of endings of module names, a regular expression as one string, or all-linear),
    `exclude_modules`, `feedforward_modules` and `modules_to_save` must match something.

    Raises InputError, one line, for an unknown method or name, and where the method cannot work with this model.
    """
    if hasattr(model, "peft_config"):
        raise InputError("tuning: peft: the model has an adapter already; one is what a run can save and merge")
    method = _method(peft_type)
    kind = KINDS[method]
    fields = {field.name for field in dataclasses.fields(kind)}
    heads = head_modules(model)
    _refuse(model, method, options, fields, heads)
    options |= _found(model, method, options, fields, heads)
    _check_names(model, options, heads)
    config = _attempt(method, kind, **options)
    _warn_if_unfrozen_by_hand(model)
    adapted = _attempt(method, get_peft_model, model, config)
    keep_batchnorm_frozen(adapted)
    _check_adapted(method, adapted, heads)
    _attempt(method, small_logits, adapted)  # some methods fail in the first forward pass only
    return adapted


def _check_adapted(method: str, adapted, heads: list[str]) -> None:
    """What peft 0.21 does wrong in silence."""
    if heads and all(".modules_to_save." in name for name, p in adapted.named_parameters() if p.requires_grad):
        raise InputError(
            f"tuning: peft: {method} adapts none of the layers of target_modules: only the head would train"
        )
    names = adapted.base_model.targeted_module_names if method == "OFT" else []
    layers = {name: adapted.get_base_model().get_submodule(name).base_layer for name in names}
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and not _is_pointwise(layer):
            why = "it adds up overlapping patches, so that even the untrained adapter changes the model"
            raise InputError(f"tuning: peft: OFT cannot adapt {name}, a convolution larger than 1x1: {why}")


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.stride == (1, 1)


def _method(peft_type: str) -> str:
    method = str(peft_type).upper()
    known = sorted(KINDS)
    if method not in known:
        raise InputError(
            f"tuning: peft: unknown peft_type {peft_type!r}.{hint(method, known)} (all: {', '.join(known)})"
        )
    return method


def _attempt(method: str, function, *args, **options):
    """Call into peft; whatever it does not like becomes one line, and so does what it warns of."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = function(*args, **options)
    except ImportError as error:
        raise MachineError(f"tuning: peft: {method}: {_one_line(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError, IndexError) as error:
        raise InputError(f"tuning: peft: {method} does not work here: {_one_line(error)}") from error
    lines = [_one_line(each.message) for each in caught if issubclass(each.category, UserWarning)]
    for line in dict.fromkeys(line for line in lines if not line.startswith(EXPECTED)):
        announce(f"peft: {method}: {line}")
    return result


def _one_line(error: Exception | Warning | str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _refuse(model, method: str, options: dict, fields: set[str], heads: list[str]) -> None:
    """What is known beforehand not to work, with its reason."""
    if method in REFUSED:
        raise InputError(f"tuning: peft: {method} is not for this: {REFUSED[method]}")
    for name in options:
        if name not in fields:
            raise InputError(f"tuning: peft: {method} has no option {name!r}.{hint(name, fields)}")
    if heads and "modules_to_save" not in fields:
        instead = "; write peft_type: LORA with trainable_token_indices" if method == "TRAINABLE_TOKENS" else ""
        raise InputError(f"tuning: peft: {method} cannot train and save the head ({', '.join(heads)}){instead}")
    if method == "SHADOW" and heads:
        raise InputError(f"tuning: peft: {method} is for decoders that generate; this model has a head ({heads[0]})")
    if _is_prompt(method) and not _reads_text(model):
        reads = getattr(model, "main_input_name", "no text")
        raise InputError(f"tuning: peft: {method} puts virtual tokens before a text; this model reads {reads}")
    if getattr(model.config, "tf_padding", False) and method != "LN_TUNING":
        why = "this model's TensorFlow padding reads the stride of its convolutions, which peft's layers do not have"
        raise InputError(f"tuning: peft: {method}: {why}; use LN_TUNING, frozen, or the same network from timm")
    for (name, value), why in REFUSED_OPTIONS.items():
        given = options.get(name)
        if given is not None and (value is None or given == value):
            raise InputError(f"tuning: peft: {method}: {name}: {given} cannot be used: {why}")


def _is_prompt(method: str) -> bool:
    return issubclass(KINDS[method], PromptLearningConfig)


def _reads_text(model) -> bool:
    return getattr(model, "main_input_name", "") == "input_ids"


def _warn_if_unfrozen_by_hand(model) -> None:
    named = [(name, p) for name, p in model.named_parameters() if "pooler" not in name]  # tasks freeze an idle one
    if any(p.is_floating_point() and not p.requires_grad for _, p in named):
        warn("peft freezes the whole base model; what was frozen or unfrozen before makes no difference")


# --- what the recipe leaves out ---------------------------------------------------------------------------------------


def _found(model, method: str, options: dict, fields: set[str], heads: list[str]) -> dict:
    """The options that are found from the model, announced."""
    found: dict = {}
    if "modules_to_save" in fields and heads:
        own = options.get("modules_to_save") or []
        found["modules_to_save"] = list(
            dict.fromkeys([*([own] if isinstance(own, str) else own), *_nameable(model, heads)])
        )
    if options.get("task_type") is None and _reads_text(model):
        name = type(model).__name__
        found["task_type"] = next((kind for end, kind in TASK_TYPES.items() if name.endswith(end)), None)
    if _is_prompt(method):
        if options.get("num_virtual_tokens") is None:
            found["num_virtual_tokens"] = NUM_VIRTUAL_TOKENS
    elif "target_modules" in fields:
        found |= _found_targets(model, method, options, fields, heads)
    for name, value in found.items():
        announce(f"peft: {method}: {name} {value} (found from the model; set it in the recipe to change it)")
    if method == "LORA" and not {"r", "lora_alpha"} & set(options):
        announce("peft: LORA: r 8, lora_alpha 8 (peft's defaults; set r and lora_alpha)")
    return found


def _nameable(model, heads: list[str]) -> list[str]:
    """The head modules that `modules_to_save` can name: peft takes every module whose name ends so."""
    names = [name for name, _ in model.named_modules()]
    stray = {head: [n for n in names if n.endswith(head) and not below(n, heads)] for head in heads}
    for head, hit in stray.items():
        if hit:
            warn(f"peft: the head's module {head!r} stays frozen: its name is also the ending of {hit[0]!r}")
    return [head for head in heads if not stray[head]]


def _found_targets(model, method: str, options: dict, fields: set[str], heads: list[str]) -> dict:
    given = options.get("target_modules")
    if (given is not None and str(given) != "all-linear") or options.get("target_parameters"):
        return {}
    inside = None if given is not None else blocks(model)
    layers = _layers(model, method, heads, inside)
    if given is not None:
        layers = {name: layer for name, layer in layers.items() if not isinstance(layer, nn.Conv2d)}
    if not layers:
        what = "no linear layer outside the head" if given is not None else f"no layer that {method} can adapt"
        raise InputError(f"tuning: peft: {method}: {given or 'target_modules'}: the model has {what}; name its layers")
    narrow = [name for name, layer in layers.items() if "feedforward_modules" in fields and _narrows(layer)]
    found: dict = {"target_modules": endings(model, [name for name in layers if name not in narrow])}
    if "feedforward_modules" in fields and options.get("feedforward_modules") is None:
        found["feedforward_modules"] = endings(model, narrow)
        found["target_modules"] += found["feedforward_modules"]
    return found | _fitting(method, options, layers)


def _layers(model, method: str, heads: list[str], inside: list[str] | None) -> dict[str, nn.Module]:
    """The layers of the blocks (or of the whole model) that the method adapts, the head's never.

    Attention and MLP projections; convolutions too, but not depthwise or grouped ones. For LN_TUNING the norms.
    """
    attention = [name for name, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]  # uncalled inside
    return {
        name: module
        for name, module in model.named_modules()
        if not below(name, heads)
        and not below(name, attention)
        and (inside is None or below(name, inside))
        and (_is_norm(module) if method == "LN_TUNING" else _adapts(method, module))
        and module is not _output_embeddings(model)
    }


def _output_embeddings(model):
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None


def _adapts(method: str, module: nn.Module) -> bool:
    if method == "BEFT" and getattr(module, "bias", None) is None:
        return False
    if isinstance(module, nn.Conv2d):
        return method in CONV2D and module.groups == 1 and (method != "OFT" or _is_pointwise(module))
    return isinstance(module, nn.Linear) or (isinstance(module, Conv1D) and method in CONV1D)


def _sizes(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features  # type: ignore[return-value]


def _narrows(layer: nn.Module) -> bool:
    """Whether it is an MLP's second layer: IA3 scales its input, not its output (arXiv:2205.05638, section 3.3)."""
    into, out = _sizes(layer)
    return into > out


def _fitting(method: str, options: dict, layers: dict[str, nn.Module]) -> dict:
    """Options whose default only fits some layer sizes: the greatest that fits these."""
    divides = {"C3A": ("block_size", 256), "VBLORA": ("vector_length", 256), "ROAD": ("group_size", 64)}
    if method not in divides or divides[method][0] in options:
        return {}
    name, default = divides[method]
    return {name: math.gcd(default, *(size for layer in layers.values() for size in _sizes(layer)))}


# --- names that match nothing -----------------------------------------------------------------------------------------


def _check_names(model, options: dict, heads: list[str]) -> None:
    """Every name must match something. A regular expression becomes the list of names that it matches, so that what
    is saved holds none: whoever loads it need not run one of somebody else's.
    """
    names = [name for name, _ in model.named_modules() if name]
    for option in ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"):
        given = options.get(option)
        outside = names if option == "modules_to_save" else [name for name in names if not below(name, heads)]
        if isinstance(given, str):
            options[option] = matched(option, given, outside)
        for entry in given if isinstance(given, (list, tuple, set)) else []:
            if not any(_ends(name, str(entry)) for name in outside):
                head = " but the head, which trains whole" if any(_ends(name, str(entry)) for name in heads) else ""
                near = hint(str(entry), {".".join(n.split(".")[-str(entry).count(".") - 1 :]) for n in outside})
                raise InputError(f"tuning: peft: {option}: {entry!r} matches no module{head}.{near}")
    for option in ("rank_pattern", "alpha_pattern"):
        if options.get(option):
            options[option] = spelt_out(option, options[option], names)


def _ends(name: str, entry: str) -> bool:
    return name == entry or name.endswith("." + entry)

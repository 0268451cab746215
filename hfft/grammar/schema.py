"""Schema: the keys and types that installed libraries read, taken from their source without importing them.

Importing TrainingArguments or a PeftConfig costs seconds (torch); parsing their files costs milliseconds. So `train`
is checked against the fields of TrainingArguments, `peft` against the PeftConfig of its peft_type, `model` against
PreTrainedModel.from_pretrained, `model.config` against the config class of its model_type, `data.load` against
load_dataset, always of the installed version and never from a list typed by hand.
"""

import ast
import importlib.util
import re
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import StringConstraints

from hfft.lookup import Option, arguments, class_fields, literal, tree
from hfft.messages import MachineError

# What from_pretrained reads that is no option of a recipe: objects, and what hfft or other keys of `model` give.
NOT_MODEL: tuple[str, ...] = (
    "cls",
    "self",
    "pretrained_model_name_or_path",
    "config",
    "token",
    "state_dict",
    "tqdm_class",
    "proxies",
)
NOT_MODEL += ("output_loading_info", "device_mesh", "torch_dtype", "trust_remote_code", "name")
NOT_MODEL += ("allow_all_kernels", "use_kernels", "kernel_config", "use_safetensors", "weights_only", "adapter_kwargs")
NOT_LOAD = ("path", "name", "split", "revision", "token", "download_config", "features", "data_files", "version")
READERS = ("csv", "json", "parquet", "text", "arrow")
DTYPES = 'Literal["auto", "float32", "float16", "bfloat16", "float64"]'
NAMES = {"int": int, "float": float, "str": str, "bool": bool, "None": None, "Any": Any, "object": Any, "Path": str}
LISTS = ("list", "List", "Sequence", "Iterable", "set", "Set", "tuple", "Tuple", "Collection")
DICTS = ("dict", "Dict", "Mapping", "MutableMapping")


@cache
def package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MachineError(f"the package {name} is not installed; run: pip install {name}")
    return Path(spec.origin).parent


def classes(path: Path) -> dict[str, ast.ClassDef]:
    """The classes of a source file by name."""
    return {node.name: node for node in tree(path).body if isinstance(node, ast.ClassDef)}


@cache
def enums(path: Path) -> dict[str, str]:
    """Name of each enum class in a file -> Literal[...] of its values, as annotation text."""
    found = {}
    for node in classes(path).values():
        if any("Enum" in ast.unparse(base) for base in node.bases):
            values = [literal(item.value) for item in node.body if isinstance(item, ast.Assign)]
            found[node.name] = f"Literal[{', '.join(repr(value) for value in values if value is not None)}]"
    return found


def spelled(option: Option, found: dict[str, str]) -> Option:
    """The option with enum names replaced by their values; `Enum | str` means the enum, its constructor checks it."""
    text = option.annotation
    for name, values in found.items():
        text = re.sub(rf"\b{name}\b", values, re.sub(rf"\b{name} \| str\b|Union\[str, {name}\]", name, text))
    return Option(text, option.default, option.required)


@cache
def train_fields() -> dict[str, Option]:
    """The fields of TrainingArguments and Seq2SeqTrainingArguments."""
    root = package("transformers")
    found = enums(root / "trainer_utils.py") | enums(root / "training_args.py") | enums(root / "debug_utils.py")
    fields = class_fields(classes(root / "training_args.py")["TrainingArguments"])
    fields |= class_fields(classes(root / "training_args_seq2seq.py")["Seq2SeqTrainingArguments"])
    return {name: spelled(option, found) for name, option in fields.items()}


@cache
def peft_classes() -> dict[str, tuple[Path, str]]:
    """peft_type ("LORA") -> (file, name) of its PeftConfig, from peft's register_peft_method calls."""
    found = {}
    for init in sorted((package("peft") / "tuners").glob("*/__init__.py")):
        for node in ast.walk(tree(init)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register_peft_method":
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                found[literal(given["name"]).upper()] = (init.parent / "config.py", ast.unparse(given["config_cls"]))
    return dict(sorted(found.items()))


@cache
def peft_fields(peft_type: str) -> dict[str, Option]:
    """The fields of the PeftConfig of a peft_type, inherited ones too."""
    return inherited(*peft_classes()[peft_type])


def inherited(path: Path, name: str) -> dict[str, Option]:
    """The fields of a class and of the classes above it, as far as their files are found by the imports."""
    node = classes(path).get(name)
    if node is None:
        moved = imported(path, name)
        return inherited(moved, name) if moved and moved != path else {}
    fields: dict[str, Option] = {}
    for base in reversed(node.bases):
        fields |= inherited(path, ast.unparse(base).split(".")[-1])
    local = enums(path)
    fields |= {key: spelled(option, local) for key, option in class_fields(node).items()}
    fields |= {key: Option("Any") for key in attribute_map(node)}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            taken = arguments(item, keyword_only=False)
            fields |= {key: option for key, option in taken.items() if key != "self" and key not in fields}
    return fields


def attribute_map(node: ast.ClassDef) -> list[str]:
    """The other names that a transformers config takes for its fields."""
    for item in node.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "attribute_map":
            return list(literal(item.value) or [])
    return []


def imported(path: Path, name: str) -> Path | None:
    """The file that `name` is imported from in `path`, if it is one of a package's modules with that class."""
    for node in tree(path).body:
        if not isinstance(node, ast.ImportFrom) or name not in [alias.asname or alias.name for alias in node.names]:
            continue
        parts = node.module.split(".") if node.module else []
        folder = path.parents[node.level - 1] if node.level else package(parts[0])
        target = folder.joinpath(*(parts if node.level else parts[1:]))
        candidates = [target.with_suffix(".py"), target / "__init__.py", target / "config.py"]
        return next((file for file in candidates if file.is_file()), None)
    return None


def popped(node: ast.AST) -> Iterator[tuple[str, Option]]:
    """The keys that a function takes out of its `kwargs`, with the type of their default."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("kwargs.pop", "kwargs.get") and call.args:
            key, default = literal(call.args[0]), literal(call.args[1]) if len(call.args) > 1 else None
            if isinstance(key, str) and not key.startswith("_"):
                known = isinstance(default, bool | int) or (isinstance(default, str) and default)
                yield key, Option(type(default).__name__ if known else "Any", default)


@cache
def model_keys() -> dict[str, Option]:
    """The keys of PreTrainedModel.from_pretrained that a recipe may give in `model`."""
    model = classes(package("transformers") / "modeling_utils.py")["PreTrainedModel"]
    method = next(item for item in model.body if isinstance(item, ast.FunctionDef) and item.name == "from_pretrained")
    found = dict(popped(method)) | arguments(method, keyword_only=False)
    found["dtype"] = Option(f"{DTYPES} | dict")
    found["subfolder"] = found["variant"] = Option("str")
    found["attn_implementation"] = Option("str | dict")
    return {key: option for key, option in found.items() if key not in NOT_MODEL}


@cache
def auto_mapping(name: str) -> dict[str, str]:
    """A dict of transformers' auto files (CONFIG_MAPPING_NAMES, …), its later updates included."""
    found: dict[str, str] = {}
    for file in ("auto_mappings.py", "configuration_auto.py"):
        for node in tree(package("transformers") / "models" / "auto" / file).body:
            call = getattr(node, "value", None)
            target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
            if isinstance(call, ast.Call) and name in (target, ast.unparse(call.func).split(".")[0]):
                for given in [*call.args, *[keyword.value for keyword in call.keywords]]:
                    found |= dict(literal(given) or {})
    return found


def model_types() -> list[str]:
    """Every model_type that transformers knows."""
    return sorted(auto_mapping("CONFIG_MAPPING_NAMES"))


@cache
def config_fields(model_type: str) -> dict[str, Option]:
    """The keys of the config class of a model_type; none if it is not known or its file is not where files are."""
    root, name = package("transformers"), auto_mapping("CONFIG_MAPPING_NAMES").get(model_type)
    special, every = auto_mapping("SPECIAL_MODEL_TYPE_TO_MODULE_NAME"), auto_mapping("CONFIG_MAPPING_NAMES")
    same = [model_type, *[other for other in every if every[other] == name]]  # gpt-sw3 has gpt2's config
    folders = [special.get(other, other.replace("-", "_")) for other in same]
    files = [file for folder in folders for file in sorted((root / "models" / folder).glob("configuration_*.py"))]
    path = next((file for file in files if name in classes(file)), None)
    if name is None or path is None:
        return {}
    base = classes(root / "configuration_utils.py")["PreTrainedConfig"]
    init = next(item for item in base.body if getattr(item, "name", "") == "__post_init__")
    return {
        **dict(popped(init)),
        **class_fields(base),
        "num_labels": Option("int"),
        "output_attentions": Option("bool"),
        "dtype": Option(DTYPES),
        **{key: option for key, option in inherited(path, name).items() if key not in ("self", "dtype")},
        "model_type": Option("str"),
    }


@cache
def load_keys() -> dict[str, Option]:
    """The keys of datasets.load_dataset and of its readers of csv, json, parquet, text and arrow files."""
    root = package("datasets")
    functions = [node for node in tree(root / "load.py").body if isinstance(node, ast.FunctionDef)]
    load = next(node for node in reversed(functions) if node.name == "load_dataset")
    found: dict[str, Option] = {}
    fields = [arguments(load, keyword_only=False)]
    for reader in READERS:
        path = root / "packaged_modules" / reader / f"{reader}.py"
        fields += [class_fields(node) for key, node in classes(path).items() if key.endswith("Config")]
    for key, option in [item for group in fields for item in group.items() if item[0] not in NOT_LOAD]:
        same = key not in found or found[key].annotation == option.annotation
        found[key] = option if same else Option(f"Union[{found[key].annotation}, {option.annotation}]", option.default)
    found["quoting"] = Option('Literal["minimal", "none"] | int')  # hfft's csv reader has names for csv's numbers
    found["buffer_size"] = Option("int")  # of a stream, called as in IterableDataset.shuffle
    found["format"] = Option('Literal["conll"]')  # of .txt and .tsv files
    return found


@cache
def to_type(annotation: str) -> Any:
    """The text of an annotation -> a type that pydantic checks. A class not known here is a mapping of its fields."""
    return _type(ast.parse(annotation.strip(), mode="eval").body)


def _type(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return to_type(node.value) if isinstance(node.value, str) else node.value
    if isinstance(node, ast.BinOp):
        return union([_type(node.left), _type(node.right)])
    if not isinstance(node, ast.Subscript):
        name = ast.unparse(node).split(".")[-1]
        plain = list[Any] if name in LISTS else dict[str, Any]
        return NAMES.get(name, plain)
    name = ast.unparse(node.value).split(".")[-1]
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return choices([literal(item) for item in inner])
    if name in ("Optional", "Union"):
        return union([_type(item) for item in inner] + ([None] if name == "Optional" else []))
    if name in ("Annotated", "ClassVar", "Required", "Final"):
        return _type(inner[0])
    if name in ("tuple", "Tuple") and ast.unparse(inner[-1]) not in ("...", "Ellipsis"):
        every = union([_type(item) for item in inner])
        return Annotated[list[every], Len(len(inner), len(inner))]  # type: ignore[valid-type]
    if name in LISTS:
        return list[_type(inner[0])]  # type: ignore[misc]
    return dict[str, _type(inner[-1])] if name in DICTS else dict[str, Any]  # type: ignore[misc]


def union(members: Sequence[Any]) -> Any:
    """The union of types; None is the null of YAML."""
    return typing.Union[tuple(members)]  # noqa: UP007


def choices(values: list) -> Any:
    """Literal[...]; a value with a place in it ("pissa_niter_[number of iters]") becomes a pattern."""
    plain = [value for value in values if not (isinstance(value, str) and "[" in value)]
    found: list[Any] = [Literal[tuple(plain)]] if plain else []
    for value in [value for value in values if value not in plain]:
        pattern = re.sub(r"\\\[.*?\\\]", "[0-9]+", re.escape(value))
        found.append(Annotated[str, StringConstraints(pattern=f"^{pattern}$"), value])
    return union(found)

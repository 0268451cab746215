"""Safety: what others' files may not do. A model's folder is looked at before anything in it is loaded.

SECURITY.md says who may write what, and what is promised. What can only be found out by trying it (a tokenizer, a
regular expression) is tried in a process of its own, with limits on time and memory.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hfft.messages import InputError, MachineError, first_line, warn

FLOORS = {"torch": (2, 10), "transformers": (5, 23), "safetensors": (0, 4), "Pillow": (11, 3)}  # holes below are known
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.distcp", ".metadata", "*.msgpack", "*.h5")
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
NOT_TIMM = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")  # of create_model
PLAIN = re.compile(r"[\w.-]*|all-linear|\*")  # a module's name, no regular expression
SECONDS, MEMORY = 10, 2 << 30  # for what is tried; a tokenizer of a quarter million tokens takes 2 s and 0.5 GB
JSON_LIMIT = 200 << 20  # bytes of a JSON file that is read


def versions() -> None:
    """Raises MachineError where a library is so old that a foreign file may run code through it."""
    for name, floor in FLOORS.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # whoever imports it says so
        if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) < floor:
            least = ".".join(map(str, floor))
            raise MachineError(f"{name} {found} has known holes; pip install -U '{name.lower()}>={least}'")


def paranoid(trust_code: bool) -> None:
    """No network for this process and those it starts; called before the libraries that read this are imported."""
    if trust_code:
        raise InputError("--paranoid: refuses --trust-code; leave one of the two out")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ[name] = "1"


def cache_folder() -> Path:
    """The folder of everything that hfft keeps between runs."""
    below = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("HFFT_CACHE") or os.path.join(below, "hfft")).expanduser()


def warn_if_open(what: str, folder: str | Path) -> None:
    """Warn of a folder in which any user of this machine may exchange files."""
    if os.name == "posix" and Path(folder).is_dir() and Path(folder).stat().st_mode & 0o1002 == 0o002:
        warn(f"{what}: every user of this machine may write into {folder}; chmod o-w {folder}")


# ---- a model's folder ------------------------------------------------------------------------------------------------
def look_at(folder: str | Path, *, called: str) -> None:
    """Look at a folder of config, tokenizer or adapter before any of it is loaded; `called` is its name in messages.

    Raises InputError for links and names that lead out of it, and for configs that would load something else.
    """
    folder = Path(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        _check_link(path, folder, called)
        if path.name.endswith(".index.json"):
            _check_index(path, called)
    check_config(read_json(folder / "config.json"), called)
    _check_tokenizer(read_json(folder / "tokenizer_config.json"), folder, called)
    _check_adapter(read_json(folder / "adapter_config.json"), called)


def refuse_pickles(folder: str | Path, called: str) -> None:
    """Raises InputError where there are weights and none of them safetensors."""
    folder = Path(folder)
    for config, weights in (
        ("config.json", "model*.safetensors"),
        ("adapter_config.json", "adapter_model.safetensors"),
    ):
        found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        found = [name for name in found if name != "training_args.bin"]
        if found and (folder / config).is_file() and not any(folder.glob(weights)):
            raise InputError(
                f"{called}: {found[0]} can run code when it is read; give safetensors, or --trust-code if you trust it"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; {} where there is none, or what is there is no JSON: who loads it says so."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes of JSON; at most {JSON_LIMIT:,} are read")
        found = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_link(path: Path, folder: Path, called: str) -> None:
    """Links of the Hub's cache lead to its blobs, two folders up."""
    if path.is_dir() and path.name != "additional_chat_templates":
        return
    if not path.is_symlink():
        if not (path.is_file() or path.is_dir()):
            raise InputError(f"{called}: {path.name} is neither a file nor a folder; remove it")
        return
    home, blobs = folder.resolve(), folder.resolve().parent.parent / "blobs"
    inside = {home, blobs} if home.parent.name == "snapshots" else {home}
    if not inside & {*path.resolve().parents}:
        raise InputError(f"{called}: {path.name} is a link that leads out of the folder; put the file itself there")


def leads_out(path: str, root: str) -> bool:
    """Whether a file, links resolved, does not lie below a folder."""
    home = os.path.realpath(root)
    return os.path.commonpath([home, os.path.realpath(path)]) != home


def _check_index(path: Path, called: str) -> None:
    shards = read_json(path).get("weight_map")
    for name in sorted({*map(str, shards.values())}) if isinstance(shards, dict) else ():
        if os.path.basename(name) != name:
            raise InputError(f"{called}: {path.name} names {name[:80]!r}, which leads out of the folder")
        if path.name.endswith("safetensors.index.json") and not name.endswith(".safetensors"):
            raise InputError(f"{called}: {path.name} names {name[:80]!r}, which is no safetensors file")


def check_config(config: dict[str, Any], called: str) -> None:
    """Refuse a config that names other weights than the folder's own."""
    weights = config.get("transformers_weights")
    if weights is not None and not (isinstance(weights, str) and re.fullmatch(r"[\w.-]+\.safetensors", weights)):
        raise InputError(
            f"{called}: config.json: transformers_weights {weights!r} is no safetensors file; delete the key"
        )
    architecture, options = config.get("architecture"), config.get("model_args")
    if isinstance(architecture, str) and not re.fullmatch(r"[\w.-]+", architecture):
        raise InputError(f"{called}: config.json: architecture {architecture!r} is no name of timm's; write one")
    for key in NOT_TIMM:
        if isinstance(options, dict) and options.get(key):
            raise InputError(f"{called}: config.json: model_args.{key} would load something else; delete the key")


def _check_tokenizer(config: dict[str, Any], folder: Path, called: str) -> None:
    """transformers takes the folder's own files (since 5.23); a path that is there, on this machine, is an attempt.

    Paths that are not there are the author's, left over. The name of a chat template becomes that of a file.
    """
    named = config.get("chat_template")
    names = (
        [each.get("name") if isinstance(each, dict) else each for each in named]
        if isinstance(named, list | dict)
        else []
    )
    for name in names:
        if not re.fullmatch(r"[\w-]+", str(name)):
            raise InputError(
                f"{called}: tokenizer_config.json: a chat template is called {str(name)[:60]!r}; delete it"
            )
    for key, value in config.items():
        if not (key.endswith("_file") and isinstance(value, str)) or os.path.basename(value) == value:
            continue
        if os.path.isfile(os.path.join(folder, value)):
            raise InputError(
                f"{called}: tokenizer_config.json: {key} {value!r} leads out of the folder; delete the key"
            )


def _check_adapter(config: dict[str, Any], called: str) -> None:
    """Refuse regular expressions (a run of hfft saves the names that a recipe's matched) and a module to import."""
    if config.get("megatron_config") is not None:
        raise InputError(
            f"{called}: adapter_config.json: megatron_config imports any module by its name; delete the key"
        )
    for key, value in config.items():
        if not key.endswith(("_modules", "_pattern", "_parameters", "layers_to_save")):
            continue
        for text in [value] if isinstance(value, str) else value if isinstance(value, dict) else ():
            if not PLAIN.fullmatch(text):
                raise InputError(
                    f"{called}: adapter_config.json: {key} {text[:60]!r} is a regular expression, which may take for "
                    "ever; name the layers in a list"
                )


def own_attention(config: Any) -> None:
    """Let a loaded config choose among transformers' own attention only: any other name is code from the Hub."""
    for each in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))):
        name = getattr(each, "_attn_implementation", None)
        if name is not None and not attends(name):
            warn(
                f"config.json: attention {str(name)[:60]!r} is left out, which would fetch code; set "
                "model.attn_implementation"
            )
            each._attn_implementation_internal = None
        if getattr(each, "_experts_implementation_internal", None) is not None:
            each._experts_implementation_internal = None


def check_attention(asked: Any) -> None:
    """Raises InputError for an attention of the recipe that is not here, and would be fetched."""
    for name in asked.values() if isinstance(asked, dict) else [asked]:
        if name is not None and not attends(name):
            raise InputError(
                f"model.attn_implementation: {str(name)[:60]!r} is not here; install flash-attn, or write sdpa"
            )


def attends(name: Any) -> bool:
    """Whether it names an attention that is here: without flash-attn transformers would fetch a kernel instead."""
    if str(name).startswith("flash_attention"):
        return name in ATTENTION and any(map(importlib.util.find_spec, ("flash_attn", "flash_attn_interface")))
    return name in ATTENTION


# ---- what is tried ---------------------------------------------------------------------------------------------------
class Overrun(Exception):
    """What was tried took too much time or memory, or brought the process down; `str` of it says which."""


def tried(what: str, seconds: int = SECONDS, **given: Any) -> Any:
    """The answer of a function of trial.py. Raises Overrun where it takes more than `seconds` and MEMORY."""
    asked = {"what": what, "given": given, "seconds": seconds, "memory": MEMORY}
    asked["path"] = [os.path.abspath(place) for place in sys.path]
    env = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "PATH": os.environ.get("PATH", "")}
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("trial.py"))]
    took = f"takes more than {seconds} s"
    try:
        done = subprocess.run(
            words, input=json.dumps(asked), capture_output=True, text=True, errors="replace", timeout=2 * seconds + 5,
            env=env,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Overrun(took) from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Overrun(took)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Overrun(f"fails ({said[-1][:150] if said else f'signal {-done.returncode}'})")
    return json.loads(done.stdout)


@contextlib.contextmanager
def no_panic(called: str) -> Iterator[None]:
    """A panic of the tokenizers library, which no `except Exception` catches, becomes an InputError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{called} gives up on a text ({first_line(error)}); use another tokenizer") from None


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a regular expression matches whole. Raises Overrun where it does not come to an end."""
    if not re.search(r"[*+{]", pattern):  # nothing is repeated
        return [name for name in names if re.fullmatch(pattern, name)]
    return tried("matches", 3, pattern=pattern, names=list(names))


def try_tokenizer(folder: str | Path, called: str) -> None:
    """Let a tokenizer.json encode every letter and some long runs, once for each content. Raises InputError.

    A run's own folder is not left out: nothing tells it from one that was downloaded.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        return
    content = file.read_bytes()
    mark = cache_folder() / "tokenizers" / hashlib.sha256(content).hexdigest()
    if mark.exists():
        return
    try:
        what = tried("encodes", file=str(file.resolve()))
    except Overrun as error:
        what = str(error)
    if what:
        raise InputError(f"{called}: tokenizer.json {what} when it encodes a plain text; use another tokenizer")
    try:
        for place in (cache_folder(), mark.parent):  # the user's alone, as all in it
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return  # it is tried again at each start

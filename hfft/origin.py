"""Origin: the folder that a recipe's model is read from, its own or one commit of the Hub, looked at before it is read.

transformers then finds all it wants in that folder and asks the Hub for nothing: one place for every fault of the
network, and for everything that a foreign folder may not hold.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from hfft import remote, safety
from hfft.grammar.rules import COMMIT
from hfft.lookup import hint
from hfft.messages import HubError, InputError, first_line

FETCH = ("cache_dir", "force_download", "local_files_only")  # of from_pretrained's keys, those about fetching


def folder(model, *, weights: bool = False) -> Path:
    """The folder of the recipe's model section (`.name`, `.revision`, …), with its weights where they are asked for.

    Raises InputError for what is not there or may not be loaded, HubError where the Hub does not give it.
    """
    called, options = f"model {model.name!r}", model.options
    below, more = options.get("subfolder") or "", {key: options[key] for key in FETCH if key in options}
    if os.path.exists(model.name):
        place = _folder("model.name", model.name)
    else:
        code = ("*.py",) if model.trust_remote_code else ()
        place = _of_hub("model.name", model.name, model.revision, remote.SMALL + code, tuple(more.items()))
        if weights:
            _fetch_weights(model, place, more)
    safety.look_at(place / below, called=called)
    if weights and not model.trusted:
        safety.refuse_pickles(place / below, called)
    return place


def tokenizer(model) -> Path:
    """The folder of its tokenizer (`.tokenizer`, else the model's), whose tokenizer.json was tried."""
    if model.tokenizer is None:
        place = folder(model)
    elif os.path.exists(model.tokenizer):
        place = _folder("model.tokenizer", model.tokenizer)
    else:
        place = _of_hub("model.tokenizer", model.tokenizer, None, remote.SMALL, ())
    called = f"model {model.tokenizer or model.name!r}"
    safety.look_at(place, called=called)
    safety.try_tokenizer(place, called)
    return place


def commit(model) -> str | None:
    """The commit of a model of the Hub, None for a folder or a model made from a config."""
    return folder(model).name if is_of_hub(model) else None


def called(model) -> str:
    """What others are told of where a model came from: the Hub's id, or a folder's name without its place."""
    return model.name if is_of_hub(model) else os.path.basename(os.path.abspath(model.name))


def is_of_hub(model) -> bool:
    """Whether the model is the Hub's, and neither a folder here nor made from a config."""
    return model.name is not None and not os.path.exists(model.name)


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, which cannot move."""
    return revision is not None and COMMIT.fullmatch(revision) is not None


def _folder(key: str, name: str) -> Path:
    if not os.path.isdir(name):
        raise InputError(f"{key}: {name!r} is a file; name the folder that it lies in")
    return Path(name)


@cache  # one commit for all that is read in this process, also if the branch moves
def _of_hub(key: str, name: str, revision: str | None, files: tuple[str, ...], options: tuple) -> Path:
    try:
        return remote.fetched(key, name, revision=revision, files=files, **dict(options))
    except HubError as error:
        parent = os.path.dirname(name) or "."
        siblings = (
            [os.path.join(os.path.dirname(name), each) for each in os.listdir(parent)] if os.path.isdir(parent) else []
        )
        raise HubError(f"{error}{'.' * bool(near := hint(name, siblings))}{near}") from error


def _fetch_weights(model, place: Path, more: dict[str, Any]) -> None:
    """Fetch the safetensors of a model whose other files are there; with --trust-code a pickle where there are none."""
    below, variant = model.options.get("subfolder") or "", model.options.get("variant")
    suffix = f".{variant}" if variant else ""
    known = safety.read_json(place / below / f"model.safetensors.index{suffix}.json").get("weight_map")
    shards = sorted({os.path.basename(str(name)) for name in known.values()}) if isinstance(known, dict) else []
    for files in (shards or [f"model{suffix}.safetensors"], ["pytorch_model*.bin"]):
        paths = tuple(os.path.join(below, name) for name in files)
        remote.fetched("model.name", model.name, revision=place.name, files=(*paths, "config.json"), **more)
        if any(any((place / below).glob(name)) for name in files):
            return
        if not model.trusted:
            break
    raise InputError(
        f"model {model.name!r}: the repository has no {os.path.basename(paths[0])}; weights of other forms can run "
        "code when they are read; ask its owner for safetensors, or give --trust-code on the command line"
    )


def needs_code(error: BaseException) -> str:
    """What a library says of a model that it cannot load, and what to write where it wants the repository's code."""
    if "trust_remote_code" not in str(error):
        return first_line(error)
    return (
        "it is defined by Python code of its own repository; if you have read that, write trust_remote_code: true, for "
        "the Hub with revision: the 40 hex digits of that commit, and give --trust-code on the command line"
    )

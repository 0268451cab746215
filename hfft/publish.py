"""Publish: the files of a run that others may read, as they may read them: no checkpoints, no paths of this machine.

What may leave is listed, so that whatever else lies in the folder (answers, dropped rows, optimizer states) stays.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from hfft import card, models, seal
from hfft.checkpoint import MANIFEST
from hfft.messages import TOKEN, InputError, redacted
from hfft.recipe import written

TOLD = ("README.md", "LICENSE*", "recipe.yaml", "run.lock.json", "metrics.json")
LOADED = (  # what transformers, peft, timm and sentence-transformers read
    "config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json",
    "adapter_config.json", "adapter_model*.safetensors", "*processor_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.tiktoken", "spiece.model",
    "tokenizer.model", "sentencepiece*.model", "chat_template.*", "additional_chat_templates/*.jinja",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip
NEVER = ("*.bin", "*.pt", "*.pth", "*.pkl", ".*", "*/.*")  # pickles run code where they are read
WEIGHTS = ".safetensors"
NAMES = ("_name_or_path", "name_or_path", "base_model_name_or_path")  # keys of configs that may hold a path


def files(result, repo: str, *, revision: str | None = None, what: str | None = None) -> dict[str, Path | bytes]:
    """Path in the repository -> the file, or its content where that has to be another than on the disk.

    `what` names an export whose files go instead of the run's model. Raises InputError where there is none.
    """
    run = Path(result.folder)
    model = run / "exports" / what if what else run
    if what and (Path(what).name != what or not model.is_dir()):
        raise InputError(f"{run} has no exports/{what}; write `hfft export {run} {what}` first")
    found = {name: run / name for name in _names(run, TOLD)}
    found |= {name: model / name for name in (_names(model, ("*",)) if what else _names(run, both()))}
    card_text = {"README.md": card.published(result, repo, revision, [*found])} if "README.md" in found else {}
    own = card_text | {"recipe.yaml": written(told(result.recipe.to_dict()))}
    pushed = {name: _content(path, repo, own.get(name)) for name, path in found.items() if name != MANIFEST}
    return pushed | {MANIFEST: seal.manifest(pushed)}


def both() -> tuple[str, ...]:
    """The patterns of the files that make the model, at the top and in the base's folder."""
    return LOADED + tuple(f"{models.BASE}/{pattern}" for pattern in LOADED)


def stale(there: list[str], new: dict[str, Path | bytes]) -> list[str]:
    """Files of an earlier push that would be loaded with this one: an old adapter beside a new full model."""
    return [name for name in there if name not in new and any(fnmatchcase(name, pattern) for pattern in both())]


def _names(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    every = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in every if _any(name, patterns) and not _any(name, NEVER)]


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) and ("/" in pattern or "/" not in name) for pattern in patterns)


def _content(path: Path, repo: str, text: str | None) -> Path | bytes:
    """The file, or its content: `text` if there is one, or without this machine's paths."""
    if path.name in ("run.lock.json", "metrics.json"):
        text = _json(told(json.loads(path.read_text(encoding="utf-8"))))
    elif path.name.endswith("config.json"):
        text = _config(path, repo)
    known = path.read_text(encoding="utf-8", errors="ignore") if text is None and path.suffix != WEIGHTS else text or ""
    if TOKEN.search(known):
        raise InputError(f"{path} holds what looks like a Hub token; take it out first")
    return path if text is None else text.encode()


def _config(path: Path, repo: str) -> str:
    """A config without this machine's paths; of an adapter that comes with its base, with that base's place."""
    text = path.read_text(encoding="utf-8")
    config = json.loads(text)
    changed = {key: told(config[key]) for key in NAMES if key in config}
    bases = (path.parent / "config.json", path.parent / models.BASE / "config.json")
    if path.name == "adapter_config.json" and any(base.is_file() for base in bases):
        # AutoModel.from_pretrained(repo) looks here for the base; the one with the new head is in the repository
        changed |= {"base_model_name_or_path": repo, "revision": None}
    return text if changed.items() <= config.items() else _json(config | changed)


def told(data: Any) -> Any:
    """Plain data without paths of this machine (only their last part) and without passwords in URLs."""
    if isinstance(data, dict):
        return {key: value if key == "labels" else told(value) for key, value in data.items()}
    if isinstance(data, list):
        return [told(value) for value in data]
    if not isinstance(data, str):
        return data
    if "://" in data:
        try:
            parts = urlsplit(data)
        except ValueError:  # no address at all
            return redacted(data)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    kind, colon, rest = data.rpartition(":")
    return kind + colon + Path(rest).name if _local(rest) else data


def _local(text: str) -> bool:
    """Whether it is a path that says something of this machine; a class called "/m/01g317" is none."""
    path = Path(text)
    return text.startswith(("~", "..")) or (path.is_absolute() and path != Path("/") and Path(*path.parts[:2]).exists())


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"

"""Cache of encoded rows on disk, named by everything that decides what they are; so a second start finds them at once.

An entry is a folder `tokens/<key>` below `HFFT_CACHE` (else `$XDG_CACHE_HOME/hfft`, else `~/.cache/hfft`). Its key is a
hash of the rows' content, the task's options and classes, the tokenizer's content, the code that encodes, and versions:
nothing in it can be stale. It is written beside its place and renamed; what is not as it was written is made again.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import types
import zlib
from collections.abc import Callable
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

from hfft import __version__, compact, safety, text
from hfft.messages import announce, warn

FORMAT = 1
DAYS = 30  # an entry that no run has used for so long is removed
OFF = "train.levers.cache=false"
PACKAGE = Path(__file__).resolve().parent
# of a task: the processor counts by content, the others decide on nothing that is encoded
NOT_PLAIN = {"config", "processor", "answering", "train", "lengths"}


def home() -> Path:
    """The folder of everything that hfft keeps between runs."""
    return safety.cache_folder()


def through(rows, task, *, split: str, encode: Callable[[], compact.Columns], root: Path | None) -> compact.Columns:
    """`encode()`, or what it gave before, with the task's counts. Kept below `root`; None: in the cache of all runs."""
    unknown = [name for name, value in vars(task).items() if name not in NOT_PLAIN and not _is_plain(value)]
    if unknown:
        announce(f"{split}: encoded anew at each start, for task.{unknown[0]} cannot name a cache entry")
        return encode()
    folder = (root or home()) / "tokens" / key(rows, task, train=split == "train")
    found = _read(folder, task)
    if found is not None:
        if root is None:
            announce(f"{split}: {len(found):,} encoded rows from the cache ({folder}; {OFF} encodes anew)")
        return found
    if hasattr(task, "lengths"):
        task.lengths = text.Lengths()  # of this split alone
    made = encode()
    if made.unsuited():
        announce(f"{split}: encoded anew at each start, for '{made.unsuited()[0]}' holds no numbers or texts")
        return made
    if not _write(made, folder, task):
        return made
    if root is None:
        announce(f"{split}: encoded rows kept for the next start in {folder} ({OFF} turns it off)")
        _tidy(folder.parent)
    return _read(folder, task) or made


# ---- the key --------------------------------------------------------------------------------------------------------
def key(rows, task, *, train: bool) -> str:
    """32 hex digits of all that `task.encode(rows, train=train)` depends on."""
    state = sorted((name, value) for name, value in vars(task).items() if name not in NOT_PLAIN)
    versions = [__version__, *(metadata.version(name) for name in ("transformers", "tokenizers"))]
    tokenizer = text.identity(getattr(task, "processor", None))
    digest = blake2b(repr((FORMAT, versions, _code(task), state, tokenizer, train)).encode(), digest_size=16)
    digest.update(repr(sorted(rows.features.items())).encode())
    for table in rows.with_format("arrow").iter(10_000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether `repr` tells all of a value."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _code(task) -> list[str]:
    """Hashes of the task's file and of the modules beside it, or of hfft's own, that it imports."""
    method = type(task).encode
    own = Path(method.__code__.co_filename).resolve()
    used = method.__globals__.values()
    modules = [x if isinstance(x, types.ModuleType) else sys.modules.get(getattr(x, "__module__", "")) for x in used]
    files = {Path(file).resolve() for file in (getattr(module, "__file__", None) for module in modules) if file}
    files = {file for file in files if file.parent in (PACKAGE, own.parent)} | {own, Path(compact.__file__).resolve()}
    return [blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in sorted(files)]


# ---- entries --------------------------------------------------------------------------------------------------------
def _read(folder: Path, task) -> compact.Columns | None:
    """The entry's rows, its counts given to the task; None where there is none, or (said) a damaged one."""
    if not folder.is_dir():
        return None
    damage = _damage(folder)
    if damage:
        warn(f"cache: {folder} is damaged ({damage}); encoded anew")
        return None
    about = json.loads((folder / "entry.json").read_text(encoding="utf-8"))["about"]
    rows = compact.read(folder, about["columns"])
    if "counts" in about:
        task.lengths = text.Lengths.from_json(about["counts"])
    if os.access(folder / "entry.json", os.W_OK):
        os.utime(folder / "entry.json")  # when it was last used
    return rows


def _damage(folder: Path) -> str:
    """What is not as it was written, by the checksum of every byte; empty where all is."""
    try:
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        if zlib.crc32(json.dumps(entry["about"]).encode()) != entry["crc"]:
            return "entry.json was changed"
        changed = [name for name, crc in entry["about"]["files"].items() if _crc(folder / name) != crc]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error) or type(error).__name__
    return f"{changed[0]} was changed" if changed else ""


def _crc(path: Path) -> int:
    """Of a file's bytes, read in pieces: it may be larger than memory."""
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


def _write(rows: compact.Columns, folder: Path, task) -> bool:
    """Make the entry, or say why there is none. Another process may have made it meanwhile, which is as good."""
    temporary = None
    try:
        for parent in (folder.parent.parent, folder.parent):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", suffix=f".{folder.name}", dir=folder.parent))
        about: dict[str, Any] = {"columns": compact.save(rows, temporary)}
        about["files"] = {path.name: _crc(path) for path in sorted(temporary.iterdir())}
        if hasattr(task, "lengths"):
            about["counts"] = task.lengths.to_json()
        entry = {"about": about, "crc": zlib.crc32(json.dumps(about).encode())}
        (temporary / "entry.json").write_text(json.dumps(entry), encoding="utf-8")
        _put(temporary, folder)
    except OSError as error:
        warn(
            f"cache: {folder.parent} cannot be written ({error.strerror or error}), so every start encodes anew; "
            f"set HFFT_CACHE to another folder, or {OFF}"
        )
        return False
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def _put(temporary: Path, folder: Path) -> None:
    """Rename into place; a damaged entry there makes room, a good one of another process may stay."""
    if folder.is_dir() and _damage(folder):
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _tidy(folder: Path) -> None:
    """Remove, and say so, what no run has used for a month, and what a killed one left half written."""
    old, count = time.time() - DAYS * 86400, 0
    for entry in folder.iterdir():
        about = entry if entry.name.startswith(".") else entry / "entry.json"
        if about.exists() and about.stat().st_mtime < old:
            shutil.rmtree(entry, ignore_errors=True)
            count += 1
    if count:
        announce(f"cache: {count} entries of {folder} removed, unused for {DAYS} days")

"""What can happen to a file of a checkpoint on a disk: ways to damage it, by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cut(share: float) -> Callable[[Path, Path], None]:
    """A file of which the end is lost."""
    return lambda file, _: os.truncate(file, int(file.stat().st_size * share))


def flip(share: float) -> Callable[[Path, Path], None]:
    """One bit of the byte at this place."""

    def turned(file: Path, _: Path) -> None:
        content = bytearray(file.read_bytes())
        content[min(int(len(content) * share), len(content) - 1)] ^= 0x10
        file.write_bytes(content)

    return turned


def zeroed(file: Path, _: Path) -> None:
    """A lost block in the middle, of 4096 bytes where there are so many."""
    content = bytearray(file.read_bytes())
    start = max(len(content) // 2 - 2048, 0)
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    file.write_bytes(content)


def of_another(file: Path, other: Path) -> None:
    """The file of that name in another checkpoint."""
    shutil.copy(other, file)


def dropped(file: Path, _: Path) -> None:
    """A weight file that lacks its first tensor."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    save_file({name: weights[name] for name in sorted(weights)[1:]}, file, {"format": "pt"})


def nan(file: Path, _: Path) -> None:
    """A weight file whose first tensor is not finite."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    weights[sorted(weights)[0]].view(-1)[0] = float("nan")
    save_file(weights, file, {"format": "pt"})


def reseal(place: Path) -> None:
    """A manifest that says the damaged files are right, as whoever may write there can make it."""
    from hfft import checkpoint

    about = checkpoint.about(place)
    (place / checkpoint.MANIFEST).unlink()
    checkpoint.seal(place, {key: value for key, value in about.items() if key != "files"})


def without(key: str) -> Callable[[Path, Path], None]:
    """A manifest that lacks a key."""

    def gone(file: Path, _: Path) -> None:
        known = json.loads(file.read_text())
        del known[key]
        file.write_text(json.dumps(known))

    return gone


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "deleted": lambda file, _: file.unlink(),
    "0 bytes": cut(0),
    "half": cut(0.5),
    "99.9 %": cut(0.999),
    "bit at the start": flip(0),
    "bit in the middle": flip(0.5),
    "bit at the end": flip(1),
    "zeroed block": zeroed,
    "of another step": of_another,
}

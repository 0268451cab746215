"""What a checkpoint holds beside weights, without pickle: nested values as JSON, the tensors in them as safetensors.

One file holds both: the JSON lies in the header of the safetensors file, with a reference in each tensor's place.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as dumped
from safetensors.torch import save_file

from hfft.messages import CheckpointError, MachineError

TREE = "tree"  # the header's key
Tensors = dict[str, torch.Tensor]
Seen = dict[tuple, tuple[str, torch.Tensor]]  # keeps each alive, lest another take its place in memory


def packed(value: Any) -> bytes:
    """Dicts, lists, tuples, numbers, texts, None, tensors and arrays as the bytes of one safetensors file.

    Raises MachineError for anything else, such as the function of a user's own schedule.
    """
    tensors: Tensors = {}
    tree = _tree(value, tensors, {}, "")
    return dumped(tensors, metadata={TREE: json.dumps(tree)})


def write(path: Path, value: Any) -> None:
    """`packed` as a file, with the rights of any other: safetensors gives the owner's alone."""
    tensors: Tensors = {}
    tree = _tree(value, tensors, {}, "")
    path.touch()
    rights = path.stat().st_mode
    save_file(tensors, path, metadata={TREE: json.dumps(tree)})
    path.chmod(rights)


def read(path: Path) -> Any:
    """What `write` left, tensors on the CPU. Raises CheckpointError for another file."""
    with safe_open(str(path), framework="pt") as file:
        known = (file.metadata() or {}).get(TREE)
        if known is None:
            raise CheckpointError(f"{path}: not a state that hfft wrote; remove this checkpoint")
        return _value(json.loads(known), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _tree(value: Any, tensors: Tensors, seen: Seen, place: str) -> Any:
    """JSON, in which whatever JSON does not know is a mapping of one kind to what it holds."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": _tree(torch.from_numpy(value.copy()), tensors, seen, place)}
    if isinstance(value, torch.Tensor):
        same = (value.data_ptr() or len(seen), value.device, value.dtype, value.shape, value.stride())
        if same not in seen:  # 8-bit optimizers share one table among all parameters
            seen[same] = str(len(seen)), value
            part = value.untyped_storage().nbytes() != value.nbytes  # two parts of one memory cannot be written
            tensors[seen[same][0]] = value.detach().to("cpu", copy=part).contiguous()
        return {"tensor": seen[same][0]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_tree(item, tensors, seen, f"{place}/{i}") for i, item in enumerate(value)]}
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        return {"dict": [[key, _tree(item, tensors, seen, f"{place}/{key}")] for key, item in value.items()]}
    raise MachineError(f"checkpoint: {place}: a {type(value).__name__} cannot be saved without pickle")


def _value(tree: Any, tensors: Tensors) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, held),) = tree.items()
    if kind == "dict":
        return {key: _value(item, tensors) for key, item in held}
    if kind in ("list", "tuple"):
        items = [_value(item, tensors) for item in held]
        return items if kind == "list" else tuple(items)
    return tensors[held] if kind == "tensor" else _value(held, tensors).numpy()

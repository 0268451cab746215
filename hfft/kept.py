"""What evaluation keeps of every row, gathered from the batches of all processes."""

from typing import Any

import numpy as np
import torch


def numpy(value):
    """A tensor as an array on the CPU, floating ones in fp32; anything else as it is."""
    return (
        value.float().cpu().numpy()
        if torch.is_tensor(value) and value.is_floating_point()
        else (value.cpu().numpy() if torch.is_tensor(value) else value)
    )


def joined(kept: list[tuple], num_rows: int) -> tuple[float, float, dict[str, Any]]:
    """(sum of losses, items, columns in row order) of every batch of every process."""
    seen = [(rows, columns) for rows, _, _, columns in kept if len(rows)]
    places = np.concatenate([rows for rows, _ in seen])
    back = np.argsort(places)
    assert np.array_equal(places[back], np.arange(num_rows)), "evaluation must see each row exactly once"
    columns: dict[str, Any] = {}
    for name, first in seen[0][1].items():
        if len({np.shape(found[name])[1:] if isinstance(first, np.ndarray) else name for _, found in seen}) == 1 and (
            isinstance(first, np.ndarray) or np.ndim(first[0]) == 0
        ):  # as many numbers in every row; anything else stays a list of what each row has
            columns[name] = np.concatenate([found[name] for _, found in seen])[back]
        else:
            values = [value for _, found in seen for value in found[name]]
            columns[name] = [values[i] for i in back]
    return sum(batch[1] for batch in kept), sum(batch[2] for batch in kept), columns

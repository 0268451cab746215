"""Rows of several texts: their token ids one after the other in a row, all texts of a batch in parts of like length.

A text of a batch has its place by its part in the rows: first all rows' first texts, then their second ones, then their
negatives.
"""

import hashlib
from typing import Any

import numpy as np
import torch

from hfft import text
from hfft.batches import parts

IDS = ("input_ids", "token_type_ids")


def encode(tokenizer, rows: dict[str, list], columns: tuple[str, ...], limit: int, lengths: text.Lengths) -> dict:
    """Token ids of each row's texts, those of `columns` and of the list in `negative`; `sizes`: how many each has."""
    texts = [list(cells) for cells in zip(*[rows[name] for name in columns if name in rows], strict=True)]
    for found, more in zip(texts, rows.get("negative", []), strict=False):
        found.extend(more)
    ends = np.cumsum([len(row) for row in texts]).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    flat = text.encode(tokenizer, [each for row in texts for each in row], None, limit, lengths)
    encoded: dict[str, list] = {}
    for name in (name for name in IDS if name in flat):
        cells = [np.asarray(each) for each in flat[name]]
        encoded[name] = [np.concatenate(cells[a:b]) for a, b in spans]
    encoded["sizes"] = [np.array([len(each) for each in flat["input_ids"][a:b]]) for a, b in spans]
    return encoded


def collate(tokenizer, rows: list[dict], most: int | None = None) -> dict[str, Any]:
    """What `encode` gave of some rows -> tensors, padded on the right; at most `most` texts in a part.

    input_ids, attention_mask (, token_type_ids) and mask: (texts, tokens), longest text first, in `parts` of (first,
    last, tokens); `back` (texts,) puts what is made of them into order; `ids` (texts,) int64 are the same for equal
    texts; `negatives` (negatives,) the row of each; `num_rows`.
    """
    sizes = [np.asarray(row["sizes"]).tolist() for row in rows]
    order = [(i, k) for k in (0, 1) for i in range(len(rows)) if len(sizes[i]) > k]
    order += [(i, k) for i in range(len(rows)) for k in range(2, len(sizes[i]))]
    names = [name for name in IDS if name in rows[0]]
    cut = {
        name: [np.split(np.asarray(row[name]), np.cumsum(of)[:-1]) for row, of in zip(rows, sizes, strict=True)]
        for name in names
    }
    lengths = [sizes[i][k] for i, k in order]
    places, spans = parted(lengths, most)
    texts = [{name: cut[name][i][k] for name in names} for i, k in (order[place] for place in places)]
    inputs: dict[str, Any] = text.collate(tokenizer, texts)
    inputs["mask"] = mask([lengths[place] for place in places])
    inputs["back"] = torch.from_numpy(np.argsort(places))
    inputs["ids"] = torch.tensor([identity(cut["input_ids"][i][k]) for i, k in order])
    inputs["negatives"] = torch.tensor([i for i, k in order if k > 1], dtype=torch.int64)
    return {**inputs, "parts": spans, "num_rows": len(rows)}


def parted(lengths: list[int], most: int | None) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Places of the texts, longest first, and (first, last, tokens) of each part of them."""
    found = parts(lengths, 4096 if torch.accelerator.is_available() else 100)  # as in levers: what a pass costs
    if most:
        found = [part[start : start + most] for part in found for start in range(0, len(part), most)]
    ends = np.cumsum([len(part) for part in found]).tolist()
    widths = [max(lengths[place] for place in part) for part in found]
    return np.concatenate(found), list(zip([0, *ends[:-1]], ends, widths, strict=True))


def mask(lengths: list[int]) -> torch.Tensor:
    """(texts, tokens) int64: 1 where a text has tokens, the others being padding, which comes after them."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def identity(ids: np.ndarray) -> int:
    """The same number for the same tokens, in every process."""
    digest = hashlib.blake2b(np.ascontiguousarray(ids, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def lines(tokenizer, inputs: dict[str, Any]) -> list[str]:
    """The tokens of each row's texts without padding, a line a text, for a person."""
    every = [
        " ".join(tokenizer.convert_ids_to_tokens(ids[real.bool()].tolist()))
        for ids, real in zip(inputs["input_ids"], inputs["mask"], strict=True)
    ]
    ordered, size = [every[place] for place in inputs["back"].tolist()], inputs["num_rows"]
    negatives = inputs["negatives"].tolist()
    of_rows = ordered[: len(ordered) - len(negatives)]
    shown = [of_rows[i::size] for i in range(size)]
    for line, row in zip(ordered[len(of_rows) :], negatives, strict=True):
        shown[row].append("not: " + line)
    return ["\n".join(row) for row in shown]

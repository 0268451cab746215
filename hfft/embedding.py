"""Embeddings of texts: pooled token states, cosines, and how well they find what belongs together.

Retrieval metrics as in https://www.sbert.net/docs/package_reference/sentence_transformer/evaluation.html
"""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from hfft import metrics

Pooling = Literal["mean", "cls", "last"]
RETRIEVAL = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")
NEIGHBOURS = ("accuracy@1", "accuracy@5", "accuracy@10", "mrr@10", "ndcg@10")
DEPTH = 10  # answers that are looked at for each query
CELLS = 1 << 24  # cosines that are held at a time: 64 MB


def pooled(states: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """States of tokens (texts, tokens, size) and their mask (texts, tokens) -> one vector a text, (texts, size).

    `cls` is the first token that is no padding and `last` the last one, on whichever side the padding is.
    """
    states = states[:, -mask.shape[1] :]  # without the virtual tokens of prompt methods
    if how == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    real = mask.bool()
    if how == "cls":
        places = real.int().argmax(1)
    else:
        places = real.shape[1] - 1 - real.flip(1).int().argmax(1)
    return states[torch.arange(len(states), device=states.device), places]


def cosines(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The cosine of each of `ones` with each of `others`: (ones, others)."""
    return F.normalize(ones, dim=-1) @ F.normalize(others, dim=-1).T


def pairwise(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The cosine of each row with its own: (rows,)."""
    return (F.normalize(ones, dim=-1) * F.normalize(others, dim=-1)).sum(-1)


def similarity(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Spearman and Pearson correlation of cosines with the given scores, both (rows,)."""
    found = metrics.regression(scores, truth, ["score"])
    return {name: found[name] for name in ("spearman", "pearson")}


def of_pairs(
    anchors: np.ndarray, positives: np.ndarray, anchor_ids: np.ndarray, positive_ids: np.ndarray
) -> dict[str, float]:
    """How well each different anchor finds its positives among all different ones; ids tell texts apart.

    An anchor that stands in several rows has as many right answers, a positive in several rows is one answer.
    """
    queries, first_query, query_of = np.unique(anchor_ids, return_index=True, return_inverse=True)
    answers, first_answer, answer_of = np.unique(positive_ids, return_index=True, return_inverse=True)
    right = np.unique(np.stack([query_of.ravel(), answer_of.ravel()], axis=1), axis=0)
    best = nearest(anchors[first_query], positives[first_answer])
    keys = right[:, 0] * len(answers) + right[:, 1]
    hits = np.isin(np.arange(len(queries))[:, None] * len(answers) + best, keys) & (best >= 0)
    return ranked(hits, np.bincount(right[:, 0], minlength=len(queries)), RETRIEVAL)


def of_labels(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How often the nearest other texts have a text's own label; texts alone in their class are left out."""
    sizes = np.bincount(labels)[labels] - 1
    asked = np.flatnonzero(sizes > 0)
    if not len(asked):
        return dict.fromkeys(NEIGHBOURS, 0.0)
    best = nearest(embeddings[asked], embeddings, without=asked)
    return ranked((labels[best] == labels[asked][:, None]) & (best >= 0), sizes[asked], NEIGHBOURS)


def nearest(queries: np.ndarray, corpus: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
    """Places in the corpus of each query's nearest by cosine, nearest first, -1 where there are fewer than DEPTH.

    `without` is a place for each query that is no answer: its own. Memory does not grow with the queries.
    """
    known, asked = _unit(corpus), _unit(queries)
    depth, step = min(DEPTH, len(corpus) - (without is not None)), max(1, CELLS // len(corpus))
    found = np.full((len(queries), DEPTH), -1, dtype=np.int64)
    for start in range(0, len(queries), step):
        scores = asked[start : start + step] @ known.T
        if without is not None:
            scores[torch.arange(len(scores)), torch.from_numpy(without[start : start + step])] = -torch.inf
        found[start : start + step, :depth] = scores.topk(depth, dim=1).indices.numpy()
    return found


def _unit(vectors: np.ndarray) -> torch.Tensor:
    return F.normalize(torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)), dim=-1)


def ranked(hits: np.ndarray, right: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Metrics of answers in order: hits (queries, DEPTH) bool, and how many right answers each query has.

    recall@k is the share of the right answers among the first k, accuracy@k whether there is any.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(right, DEPTH)]
    first = np.where(hits.any(1), 1 / (1 + hits.argmax(1)), 0.0)
    found: dict[str, float] = {"mrr@10": float(first.mean()), "ndcg@10": float((hits @ discounts / ideal).mean())}
    for k in (1, 5, 10):
        found[f"recall@{k}"] = float((hits[:, :k].sum(1) / right).mean())
        found[f"accuracy@{k}"] = float(hits[:, :k].any(1).mean())
    return {name: found[name] for name in names}


def of_triplets(margins: np.ndarray) -> dict[str, float]:
    """The share of anchors that are nearer to their positive than to each negative; margins (rows,) of cosines."""
    return {"accuracy": float((margins > 0).mean()), "margin": float(margins.mean())}


def kept_cosines(cuts: list[tuple], inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What evaluation needs of pairs and triplets, for each cut (texts, others, negatives or None): (rows, cuts).

    `score` is the cosine of a pair, with its `label`; `margin` how much nearer a positive is than the nearest negative.
    """
    scores = torch.stack([pairwise(texts, others) for texts, others, _ in cuts], dim=1)
    if cuts[0][2] is None:
        return {"score": scores, "label": inputs["labels"]}
    rows = inputs["negatives"]
    against = torch.stack([pairwise(texts[rows], negatives) for texts, _, negatives in cuts], dim=1)
    nearest = torch.full_like(scores, -torch.inf)
    return {"margin": scores - nearest.scatter_reduce(0, rows[:, None].expand_as(against), against, "amax")}


def measured(form: str, kept: dict[str, np.ndarray], cut: tuple[int, int] | None) -> dict[str, float]:
    """The metrics of a form; of `cut`, (its place among the cuts, its size), or of whole embeddings."""
    place, size = cut or (0, None)
    if form == "pair":
        return of_pairs(kept["text"][:, :size], kept["positive"][:, :size], kept["text_id"], kept["positive_id"])
    if form == "labelled":
        return of_labels(kept["text"][:, :size], kept["label"])
    if form == "triplet":
        return of_triplets(kept["margin"][:, place])
    return similarity(kept["score"][:, place], kept["label"])


def modules(size: int, how: Pooling, longest: int, *, normalize: bool) -> dict[str, Any]:
    """File name -> content, what SentenceTransformer reads beside a model of transformers."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    places = ["", "1_Pooling", "2_Normalize"]
    modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": places[i], "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(kinds)
        ],
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": size,
            **{f"pooling_mode_{mode}": mode == modes[how] for mode in modes.values()},
            "include_prompt": True,
        },
    }

"""Losses of embeddings, each a sum over the rows of a batch: what belongs together comes near, the rest goes apart.

InfoNCE with the batch as negatives, https://arxiv.org/abs/1705.00652; cosent, https://kexue.fm/archives/8847; triplet,
https://arxiv.org/abs/1503.03832; batch-hard, https://arxiv.org/abs/1703.07737; supervised contrastive,
https://arxiv.org/abs/2004.11362; Matryoshka, https://arxiv.org/abs/2205.13147.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F

from hfft.embedding import cosines, pairwise

Distance = Literal["cosine", "euclidean"]


@dataclass
class Embedded:
    """The embeddings of a batch of rows, by their part in a row; (rows, size), of negatives (negatives, size).

    `ids` tell texts apart. Rows that are not `real` keep processes in step and stand for nothing. `shared`: the other
    processes' rows count as rows of this batch, in order of the processes, with exact gradients.
    """

    texts: torch.Tensor
    others: torch.Tensor | None = None  # positives, or the second texts of scored pairs
    negatives: torch.Tensor | None = None
    rows_of_negatives: torch.Tensor | None = None  # (negatives,) the row of each
    ids: torch.Tensor | None = None  # (rows,) int64, of the texts
    other_ids: torch.Tensor | None = None
    negative_ids: torch.Tensor | None = None
    labels: torch.Tensor | None = None  # (rows,): scores, or classes
    real: bool = True
    shared: bool = False

    def cut(self, size: int) -> "Embedded":
        """The first numbers of each embedding only, of length 1."""
        first = {
            name: F.normalize(values[:, :size], dim=-1)
            for name in ("texts", "others", "negatives")
            if (values := getattr(self, name)) is not None
        }
        return replace(self, **first)  # type: ignore[arg-type]

    def everyone(self, values: torch.Tensor) -> torch.Tensor:
        """The same of all processes, one below the other."""
        return gathered(values) if self.shared else values

    def place(self) -> int:
        """Rows of the processes before this one."""
        if not self.shared:
            return 0
        return sum(_sizes(self.texts)[: dist.get_rank()])

    def marks(self, like: torch.Tensor) -> torch.Tensor:
        """Whether each of `like`'s rows is real: (rows,) int64, for it is gathered."""
        return torch.full((len(like),), int(self.real), device=like.device)


Loss = Callable[..., torch.Tensor]


def multiple_negatives_ranking(batch: Embedded, *, scale: float, **_) -> torch.Tensor:
    """Cross entropy of finding each text's positive among all positives and negatives of the batch.

    What is known to belong to a text is no negative of it: its own text, its positive in another row, and the positives
    of rows with the same text.
    """
    assert batch.others is not None and batch.ids is not None and batch.other_ids is not None
    candidates, ids, asked = [batch.others], [batch.other_ids], [batch.ids]
    if batch.negatives is not None and batch.negative_ids is not None:
        candidates.append(batch.negatives)
        ids.append(batch.negative_ids)
        asked.append(batch.negative_ids)  # which no text's id is, or they would be the text itself
    local, known, owners = torch.cat(candidates), torch.cat(ids), torch.cat(asked)
    own = _places(batch, len(local))
    scores = scale * cosines(batch.texts, batch.everyone(local))
    known, owners, real = (batch.everyone(each) for each in (known, owners, batch.marks(local)))
    mine, positives = batch.ids[:, None], batch.other_ids[:, None]
    out = (known == positives) | (known == mine) | (owners == mine) | (real == 0)
    out[torch.arange(len(own), device=out.device), own] = False
    return F.cross_entropy(scores.masked_fill(out, -torch.inf), own, reduction="sum")


def _places(batch: Embedded, size: int) -> torch.Tensor:
    """(rows,) where each row's positive is among the candidates of all processes; here they are `size`."""
    before = 0
    if batch.shared:
        before = sum(_sizes(torch.empty(size, device=batch.texts.device))[: dist.get_rank()])
    return before + torch.arange(len(batch.texts), device=batch.texts.device)


def cosent(batch: Embedded, *, scale: float, **_) -> torch.Tensor:
    """Pairs in the order of their scores: log(1 + sum of exp(scale (cos j - cos i)) where i's score is above j's).

    One number of the batch, times its rows.
    """
    assert batch.others is not None and batch.labels is not None
    scores = pairwise(batch.texts, batch.others)
    every, labels = batch.everyone(scale * scores), batch.everyone(batch.labels)
    real = batch.everyone(batch.marks(scores)) > 0
    every, labels = every[real], labels[real]
    wrong = (every[None, :] - every[:, None])[labels[:, None] > labels[None, :]]
    return len(scores) * torch.cat([every.new_zeros(1), wrong]).logsumexp(0)


def cosine_mse(batch: Embedded, **_) -> torch.Tensor:
    """The squared difference of each pair's cosine and its score."""
    assert batch.others is not None and batch.labels is not None
    return (pairwise(batch.texts, batch.others) - batch.labels).square().sum()


def triplet(batch: Embedded, *, margin: float, distance: Distance, **_) -> torch.Tensor:
    """How far each positive is from being nearer than its negatives by `margin`; a mean over a row's negatives."""
    assert batch.others is not None and batch.negatives is not None and batch.rows_of_negatives is not None
    rows = batch.rows_of_negatives
    near = _apart(batch.texts, batch.others, distance)[rows]
    far = _apart(batch.texts[rows], batch.negatives, distance)
    weights = 1 / torch.bincount(rows, minlength=len(batch.texts))[rows]
    return (F.relu(near - far + margin) * weights).sum()


def _apart(ones: torch.Tensor, others: torch.Tensor, distance: Distance) -> torch.Tensor:
    return 1 - pairwise(ones, others) if distance == "cosine" else F.pairwise_distance(ones, others)


def supervised_contrastive(batch: Embedded, *, scale: float, **_) -> torch.Tensor:
    """Cross entropy of finding the texts of the same class among all others, a mean over them; without any, 0."""
    scores, same, other = _by_class(batch, lambda ones, others: scale * cosines(ones, others))
    logs = scores - scores.masked_fill(~(same | other), -torch.inf).logsumexp(1, keepdim=True)
    found = logs.masked_fill(~same, 0).sum(1) / same.sum(1).clamp(min=1)
    return -found[same.any(1)].sum()


def batch_hard_triplet(batch: Embedded, *, margin: float, distance: Distance, **_) -> torch.Tensor:
    """Each text, the farthest of its class and the nearest of another; 0 where the batch lacks one of them."""
    how = (lambda a, b: 1 - cosines(a, b)) if distance == "cosine" else _euclidean
    apart, same, other = _by_class(batch, how)
    far = apart.masked_fill(~same, -torch.inf).amax(1)
    near = apart.masked_fill(~other, torch.inf).amin(1)
    return F.relu(far - near + margin)[same.any(1) & other.any(1)].sum()


def _euclidean(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    squares = (ones[:, None] - others[None]).square().sum(-1)
    return torch.where(squares > 0, squares.clamp(min=1e-16).sqrt(), 0.0)  # of a root the gradient at 0 is infinite


def _by_class(batch: Embedded, how: Loss) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`how` of each text with those of all processes, and which of them have its class, which another."""
    assert batch.labels is not None
    values, labels = how(batch.texts, batch.everyone(batch.texts)), batch.everyone(batch.labels)
    real = batch.everyone(batch.marks(batch.texts)) > 0
    same = batch.labels[:, None] == labels[None, :]
    itself = torch.zeros_like(same)
    rows = torch.arange(len(batch.texts), device=same.device)
    itself[rows, batch.place() + rows] = True
    return values, same & real & ~itself, ~same & real


# ---- processes ------------------------------------------------------------------------------------------------------
def _sizes(values: torch.Tensor) -> list[int]:
    """How many rows each process has."""
    mine = torch.tensor([len(values)], device=values.device)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    return [int(size) for size in every]


def gathered(values: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, one below the other; each process may have another number of them.

    A row's gradient is the sum of what all processes have of it, so that after the mean over the processes, times their
    number, it is that of one process with all rows.
    """
    sizes = _sizes(values)
    return _Gathered.apply(values, sizes) if values.requires_grad else _gather(values, sizes)


def _gather(values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    block = values.new_zeros(max(sizes), *values.shape[1:])
    block[: len(values)] = values.detach()
    every = [torch.empty_like(block) for _ in sizes]
    dist.all_gather(every, block)
    return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, sizes):
        ctx.sizes = sizes
        return _gather(values, sizes)

    @staticmethod
    def backward(ctx, gradient):
        gradient, rank = gradient.contiguous(), dist.get_rank()
        dist.all_reduce(gradient)
        start = sum(ctx.sizes[:rank])
        return gradient[start : start + ctx.sizes[rank]], None

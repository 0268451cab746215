"""Text embedding: texts to vectors whose cosine says how much they belong together, learnt from pairs and their like.

Sentence-BERT, https://arxiv.org/abs/1908.10084. The run loads with `sentence_transformers.SentenceTransformer(RUN)`.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from hfft import configs, contrastive, embedding, models, several, text
from hfft.contrastive import Embedded
from hfft.messages import InputError, announce
from hfft.reading import forms
from hfft.tasks.base import Inputs, Rows, Task

LOSSES = {  # of each form, the default first
    "pair": ("multiple_negatives_ranking",),
    "scored_pair": ("cosent", "cosine_mse"),
    "triplet": ("multiple_negatives_ranking", "triplet"),
    "labelled": ("supervised_contrastive", "batch_hard_triplet"),
}
OF_ROWS = ("cosine_mse", "triplet")  # losses that are sums over rows; the others look at the whole batch
TRUTHS = {"scored_pair": "numbers", "labelled": "group"}
METRICS = {
    "pair": embedding.RETRIEVAL,
    "scored_pair": ("spearman", "pearson"),
    "triplet": ("accuracy", "margin"),
    "labelled": embedding.NEIGHBOURS,
}
BEST = {"pair": "ndcg@10", "scored_pair": "spearman", "triplet": "accuracy", "labelled": "accuracy@1"}
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HELD = 4 << 30  # bytes of embeddings that an evaluation may keep


@dataclass(kw_only=True)
class TextEmbedding(Task):
    """A text in, a vector out; learnt from pairs, scored pairs, triplets or labelled texts.

    `form` is found from the columns where they leave no doubt: pair (text, positive), scored_pair (text, text_pair,
    label), triplet (text, positive, negative: a column, several, or lists), labelled (text, label). `loss_type`: by
    default multiple_negatives_ranking (pairs, triplets), cosent (scored pairs), supervised_contrastive (labels).
    `dimensions`: the first so many numbers of an embedding have to do by themselves too (Matryoshka). `scale` is one by
    the temperature. `mini_batch` texts are computed at a time, so that a batch can be as large as negatives ask for.
    `score_range` [lowest, highest] makes scores 0 to 1 for cosine_mse. `max_length` cuts above so many tokens.
    """

    form: Literal["pair", "scored_pair", "triplet", "labelled"] | None = None
    loss_type: (
        Literal[
            "multiple_negatives_ranking",
            "cosent",
            "cosine_mse",
            "triplet",
            "supervised_contrastive",
            "batch_hard_triplet",
        ]
        | None
    ) = None
    pooling: Literal["mean", "cls", "last"] = "mean"
    normalize: bool = True
    dimensions: list[int] | None = None
    scale: float = 20.0
    margin: float = 0.5
    distance: Literal["cosine", "euclidean"] = "cosine"
    mini_batch: int | None = None
    score_range: list[float] | None = None
    decimal: Literal[".", ","] = "."
    max_length: int | None = None

    answered: ClassVar[tuple[str, ...]] = ("text",)
    auto_model: ClassVar[str] = "AutoModel"
    known_columns: ClassVar[tuple[str, ...]] = ("text", "text_pair", "positive", "negative", "label")
    pipeline_tag: ClassVar[str] = "sentence-similarity"

    def __post_init__(self):
        for name in ("scale", "margin"):
            if not getattr(self, name) > 0:
                raise InputError(f"task: {name}: is {getattr(self, name)}; write a number above 0")
        for name in ("mini_batch", "max_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"task: {name}: is {getattr(self, name)}; write 1 or more")
        if self.dimensions is not None and (not self.dimensions or min(self.dimensions) < 1):
            raise InputError(f"task: dimensions: is {self.dimensions}; write numbers from 1 on, such as [256, 128, 64]")
        if self.score_range is not None and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise InputError(
                f"task: score_range: is {self.score_range}; write the lowest and the highest score: [0, 5]"
            )
        self._check_loss()
        self.tuned: dict[str, str] = {}

    def _check_loss(self) -> None:
        if self.form and self.loss_type and self.loss_type not in LOSSES[self.form]:
            fitting = " or ".join(LOSSES[self.form])
            raise InputError(f"task: loss_type: {self.loss_type} is not for the form {self.form}; write {fitting}")

    @property
    def _form(self) -> str | None:
        return self.form or self.tuned.get("form")

    @property
    def _loss(self) -> str | None:
        return self.loss_type or (LOSSES[self._form][0] if self._form else None)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the form."""
        return forms.COLUMNS[self._form] if self._form else self.answered

    @property
    def truth(self) -> str | None:  # type: ignore[override]
        """The kind of right answers."""
        return TRUTHS.get(self._form or "")

    @property
    def truth_options(self) -> dict[str, Any]:
        """How scores are written."""
        return {"decimal": self.decimal}

    @property
    def best_metric(self) -> str:  # type: ignore[override]
        """What "better" means when a checkpoint is chosen."""
        return BEST[self._form or "pair"]

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """What `metrics` gives; of any form as long as it is not known."""
        return METRICS[self._form] if self._form else tuple(dict.fromkeys(sum(METRICS.values(), ())))

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        """Whether rows are compared with the other rows of their batch."""
        return self._loss not in OF_ROWS

    def meet(self, source, data) -> None:
        """Find the form and its columns from the training split's."""
        self.form = forms.settle(self.form, source, data)
        self._check_loss()

    def accept(self, rows) -> None:
        """The form of rows that are in canonical columns."""
        self.form = self.form or forms.of_columns(rows.column_names)

    # ---- the model --------------------------------------------------------------------------------------------------
    def setup(self, model, train=None) -> None:
        """The checkpoint's tokenizer; the scores of `train`."""
        self.config = configs.load_config(model, self.auto_model)
        if getattr(self.config, "is_encoder_decoder", False):
            raise InputError(f"model {model.name!r} is an encoder with a decoder, whose texts have no one embedding")
        self.size = self.config.get_text_config().hidden_size
        if wrong := [size for size in self.dimensions or [] if size > self.size]:
            raise InputError(f"task: dimensions: {wrong[0]} is above the {self.size} numbers of the model's embeddings")
        self.processor = text.load_tokenizer(model)
        if self.processor.padding_side != "right":  # before a text it would shift the positions of its tokens
            announce(f"padding side right, not {self.processor.padding_side}, so that embeddings do not depend on it")
            self.processor.padding_side = "right"
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        self.limit = text.max_length(self.processor, self.config, self.max_length)
        self.lengths, self.evaluated = text.Lengths(), 0
        if train is not None:
            self._learn(train)

    def _learn(self, train) -> None:
        if self.form is None:  # it was another process that met the data
            self.form = forms.of_columns(train.column_names)
        if self.whole_batch:
            announce(
                f"loss {self._loss}: each row beside the others of its batch in all processes; accumulated batches do "
                "not see each other (task.mini_batch makes one large batch fit)"
            )
        if self._loss == "cosine_mse" and hasattr(train, "column_names"):
            scores = [next(iter(cell.values())) for cell in train["label"]]
            low, high = min(scores), max(scores)
            least, most = self.score_range or (-1, 1)
            if low < least or high > most:
                raise InputError(
                    f"task: scores run from {low:g} to {high:g}, and cosine_mse wants them from {least:g} to {most:g}; "
                    "write the task's score_range: [lowest, highest], or loss_type: cosent"
                )

    def load_model(self, model):
        """The checkpoint without any head; a pooler, which has no part in embeddings, does not train."""
        net = models.load(self.auto_model, model, self.config, keep_head=True)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        poolers = [name for name, _ in net.named_modules() if name.split(".")[-1] == "pooler"]
        for name in poolers:
            net.get_submodule(name).requires_grad_(False)
        net.new_weights = [name for name in getattr(net, "new_weights", []) if not models.below(name, poolers)]
        return net

    def save(self, folder) -> None:
        """What SentenceTransformer reads."""
        found = embedding.modules(self.size, self.pooling, self.limit, normalize=self.normalize)
        for name, content in found.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if (Path(folder) / "adapter_config.json").is_file():
            announce(
                "sentence-transformers loads an adapter only where it finds the base by its name; what export: [merge] "
                "leaves it loads everywhere"
            )

    # ---- rows -------------------------------------------------------------------------------------------------------
    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """The token ids of a row's texts one after the other, and in `sizes` how many each has."""
        encoded = several.encode(self.processor, rows, ("text", "text_pair", "positive"), self.limit, self.lengths)
        if "label" in rows:
            encoded["labels"] = [self._label(cell) for cell in rows["label"]]
        self.evaluated += 0 if train else len(encoded["sizes"])
        return encoded

    def _label(self, cell: Any) -> float | int:
        if not isinstance(cell, dict):
            return cell
        low, high = self.score_range or (0, 1)
        return (next(iter(cell.values())) - low) / (high - low)

    def data_report(self, split: str) -> dict[str, int]:
        """Texts cut at the limit, with the length quantiles announced; what an evaluation will keep."""
        self.lengths.tell(split, self.limit)
        counted, self.lengths = self.lengths, text.Lengths()
        if self.evaluated and self.form in ("pair", "labelled"):
            needed = self.evaluated * self.size * 4 * (2 if self.form == "pair" else 1)
            if needed > HELD:
                most = self.evaluated * HELD // needed
                raise InputError(
                    f"data: an evaluation would keep {needed / 1e9:.1f} GB of embeddings of '{split}', for each is "
                    f"compared with all; set data.eval_size to at most {most:,} rows, or a smaller eval split"
                )
            announce(f"{split}: an evaluation keeps the embeddings of all rows ({max(1, needed >> 20):,} MB)")
        self.evaluated = 0
        return {"truncated": counted.truncated}

    def cut_off(self) -> int:
        """Texts cut at the limit since the last report."""
        return self.lengths.truncated

    def collate(self, rows: list[dict]) -> Inputs:
        """The texts of all rows as `several.collate` gives them; labels (rows,) float32 scores or int64 classes."""
        inputs = several.collate(self.processor, rows, self.mini_batch)
        if "labels" in rows[0]:
            labels = torch.tensor([row["labels"] for row in rows])
            inputs["labels"] = labels.float() if labels.is_floating_point() else labels
        return inputs

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens of each row's texts without padding, and its truth."""
        shown = several.lines(self.processor, inputs)
        truth = inputs["labels"].tolist() if "labels" in inputs else ["none"] * len(shown)
        return list(zip(shown, map(str, truth), strict=True))

    # ---- embeddings -------------------------------------------------------------------------------------------------
    def forward(self, model, inputs: Inputs) -> torch.Tensor:
        """The embeddings of all texts, (texts, size) float32, in the order of the rows."""
        found: list[torch.Tensor] = []
        for first, last, width in inputs["parts"]:
            part = {name: inputs[name][first:last, :width] for name in (*MODEL_INPUTS, "mask") if name in inputs}
            if self.mini_batch and found and torch.is_grad_enabled():  # computed once more where its gradient is needed
                found.append(checkpoint(partial(self._embedded, _inner(model)), part, use_reentrant=False))
            else:
                found.append(self._embedded(_inner(model) if found else model, part))
        embeddings = torch.cat(found)[inputs["back"]]
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings

    def _embedded(self, model, part: Inputs) -> torch.Tensor:
        outputs = model(**{name: value for name, value in part.items() if name != "mask"})
        return embedding.pooled(outputs.last_hidden_state.float(), part["mask"], self.pooling)

    def items(self, inputs: Inputs) -> int:
        """Rows."""
        return inputs["num_rows"]

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """The form's loss, summed over rows / items; at each of `dimensions` where they are given."""
        embeddings = self.forward(model, inputs)
        shared = model.training and dist.is_initialized() and dist.get_world_size() > 1
        batch = self._batch(embeddings, inputs, shared)
        find = partial(getattr(contrastive, self._loss or ""), scale=self.scale, margin=self.margin)
        find = partial(find, distance=self.distance)
        batches = [batch] if self.dimensions is None else [batch.cut(size) for size in self.dimensions]
        total = sum((find(each) for each in batches), embeddings.new_zeros(()))
        return total / (inputs["num_rows"] if items is None else items), embeddings

    @staticmethod
    def _batch(embeddings: torch.Tensor, inputs: Inputs, shared: bool) -> Embedded:
        size, ids = inputs["num_rows"], inputs["ids"]
        two, more = len(embeddings) > size, len(inputs["negatives"]) > 0
        return Embedded(
            texts=embeddings[:size],
            others=embeddings[size : 2 * size] if two else None,
            negatives=embeddings[2 * size :] if more else None,
            rows_of_negatives=inputs["negatives"] if more else None,
            ids=ids[:size],
            other_ids=ids[size : 2 * size] if two else None,
            negative_ids=ids[2 * size :] if more else None,
            labels=inputs.get("labels"),
            real=not inputs.get("filler", False),
            shared=shared,
        )

    # ---- what is found ----------------------------------------------------------------------------------------------
    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """Cosines of scored pairs and triplets; the embeddings themselves where each is compared with all."""
        batch = self._batch(outputs, inputs, shared=False)
        if self.form == "pair":
            named = {"text": batch.texts, "positive": batch.others}
            return {**named, "text_id": batch.ids, "positive_id": batch.other_ids}
        if self.form == "labelled":
            return {"text": batch.texts, "label": batch.labels}
        cuts = [batch, *(batch.cut(size) for size in self.dimensions or [])]
        return embedding.kept_cosines([(each.texts, each.others, each.negatives) for each in cuts], inputs)

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, Any]:
        """The form's metrics; with `dimensions` those of each too."""
        self.tuned.setdefault("form", str(self._form))
        found = embedding.measured(str(self._form), kept, None)
        sizes = enumerate(self.dimensions or [])
        by = {str(size): embedding.measured(str(self._form), kept, (i + 1, size)) for i, size in sizes}
        return found | ({"by_dimension": by} if by else {})

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """embedding: the numbers of each text."""
        return [{"embedding": row} for row in outputs.float().tolist()]


def _inner(model):
    """The model in torch's DistributedDataParallel, which takes one call a step; what it does then is for all calls."""
    return model.module if isinstance(model, DistributedDataParallel) else model

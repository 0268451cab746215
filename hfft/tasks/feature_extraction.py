"""Feature extraction: a text in, an embedding of any of the model's layers out; nothing is trained (`train: null`)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from hfft import configs, models, text
from hfft.messages import InputError
from hfft.tasks.base import Inputs, Rows, Task

TAKEN = ("row", "text", "embedding")  # columns of the files that are ours


@dataclass(kw_only=True)
class FeatureExtraction(Task):
    """A text in, `embedding` out: one row of parquet files in `output`/features for each row of the data.

    `layer`: 0 is the embeddings, 1 the first layer, -1 the last; of a list each is a column of its own. `pooling` over
    the tokens: their mean, the first (cls), the last, or the greatest of each number. `ids` are columns of the data to
    write beside. `rows_per_file` rows are computed at a time, of which a run that was ended loses those of one file.
    """

    output: str
    layer: int | list[int] = -1
    pooling: Literal["mean", "cls", "last", "max"] = "mean"
    normalize: bool = False
    ids: list[str] = field(default_factory=list)
    max_length: int | None = None
    batch_size: int = 64
    rows_per_file: int = 2000
    bf16: bool = False

    truth: ClassVar[str | None] = None
    trains: ClassVar[bool] = False
    auto_model: ClassVar[str] = "AutoModel"
    known_columns: ClassVar[tuple[str, ...]] = ("text", "*ids")
    pipeline_tag: ClassVar[str] = "feature-extraction"

    def __post_init__(self):
        if not self.output:
            raise InputError("task: output: is empty; write the folder that the run leaves")
        for name in ("batch_size", "rows_per_file"):
            if getattr(self, name) < 1:
                raise InputError(f"task: {name}: {getattr(self, name)}; write 1 or more")
        if twice := [name for i, name in enumerate(self.ids) if name in (*TAKEN, *self.ids[:i])]:
            raise InputError(f"task: ids: {twice[0]!r} is a column of the files anyway; take it out")
        if self.layer == []:
            raise InputError("task: layer: names no layer; write -1 for the last one")
        self.carried = list(self.ids)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The text, and what is written beside its embedding."""
        return ("text", *self.carried)

    def setup(self, model, train=None) -> None:
        """The checkpoint's config and tokenizer; rows to predict need no ids."""
        if train is None:
            self.carried = []
        self.config = configs.load_config(model, self.auto_model)
        if getattr(self.config, "is_encoder_decoder", False):
            raise InputError(f"model {model.name!r} has an encoder and a decoder; name a model of one of the two")
        self.processor = text.load_tokenizer(model)
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        self.limit = text.max_length(self.processor, self.config, self.max_length)
        self.layers = self._layers(self.config.get_text_config().num_hidden_layers)
        self.lengths = text.Lengths()

    def _layers(self, most: int) -> dict[str, int]:
        """Column of the files -> layer from 0 to `most`."""
        given = [self.layer] if isinstance(self.layer, int) else self.layer
        if wrong := [layer for layer in given if not -most - 1 <= layer <= most]:
            raise InputError(f"task: layer: {wrong[0]}: the model has 0 (its embeddings) to {most}, or -1 for the last")
        counted = [layer % (most + 1) for layer in given]
        if len(set(counted)) < len(counted):
            raise InputError(f"task: layer: {given} names a layer twice")
        return {"embedding" if isinstance(self.layer, int) else f"embedding_{layer}": layer for layer in counted}

    def load_model(self, model):
        """The checkpoint without a head."""
        net = models.load(self.auto_model, model, self.config, keep_head=True)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        return net

    def cut_off(self) -> int:
        """Texts cut at the limit so far."""
        return self.lengths.truncated

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """text -> token ids, unpadded, cut at the limit."""
        return text.encode(self.processor, rows["text"], None, self.limit, self.lengths)

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids): (batch, tokens) int64, padded to the longest row.

        tokens: (batch, tokens) bool, where there is no padding.
        """
        places = text.places_of([len(row["input_ids"]) for row in rows], self.processor.padding_side)
        return {**text.collate(self.processor, rows), "tokens": torch.from_numpy(places)}

    def forward(self, model, inputs: Inputs) -> dict[str, torch.Tensor]:
        """Column -> embeddings (batch, hidden) float32."""
        tokens, given = inputs["tokens"], {name: value for name, value in inputs.items() if name != "tokens"}
        last = self.config.get_text_config().num_hidden_layers
        inner = set(self.layers.values()) != {last}
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = model(**given, **({"output_hidden_states": True} if inner else {}))
        found = {
            name: pooled(outputs[0] if layer == last else outputs.hidden_states[layer], tokens, self.pooling)
            for name, layer in self.layers.items()
        }
        if self.normalize:
            found = {name: torch.nn.functional.normalize(values, dim=-1) for name, values in found.items()}
        return found

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """embedding of each row; of several layers embedding_N."""
        columns = {name: values.tolist() for name, values in outputs.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def pooled(hidden: torch.Tensor, tokens: torch.Tensor, how: str) -> torch.Tensor:
    """(batch, tokens, hidden) -> (batch, hidden) float32, over `tokens` (batch, tokens) bool: no padding."""
    hidden, there = hidden.float(), tokens.unsqueeze(-1)
    if how == "mean":
        return hidden.masked_fill(~there, 0).sum(1) / tokens.sum(1, keepdim=True).clamp(min=1)
    if how == "max":
        return hidden.masked_fill(~there, -torch.inf).amax(1)
    order = torch.arange(tokens.shape[1], device=tokens.device)
    first, last = tokens.int().argmax(1), torch.where(tokens, order, -1).amax(1)
    places = first if how == "cls" else last
    return hidden[torch.arange(len(hidden), device=hidden.device), places]

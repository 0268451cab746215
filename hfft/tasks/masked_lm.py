"""Masked language modelling: hidden words of raw text are found again; pre-training goes on with texts of your own."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from hfft import configs, losses, masking, models, text
from hfft.masking import IGNORED, Piece
from hfft.messages import InputError, announce
from hfft.tasks.base import Inputs, Rows, Task

BEST = 5  # answers for each mask, as many as transformers' pipeline gives


@dataclass(kw_only=True)
class MaskedLm(Task):
    """Raw text in; the tokens that were hidden out, new ones in each epoch, the same in every evaluation.

    `mlm_probability` of the tokens are asked for; of these `mask_replace_prob` are hidden, `random_replace_prob` become
    another token and the rest stay. `whole_word_masking` draws words instead of tokens. With `packing` texts are joined
    into rows of `max_length` tokens (default: the model's limit); without, each is a row of its own and cut above it.
    """

    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    whole_word_masking: bool = False
    packing: bool = True
    max_length: int | None = None

    columns: ClassVar[tuple[str, ...]] = ("text",)
    truth: ClassVar[str | None] = None
    auto_model: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline_tag: ClassVar[str] = "fill-mask"
    best_metric: ClassVar[str] = "perplexity"
    metric_names: ClassVar[tuple[str, ...]] = ("perplexity", "accuracy")

    def __post_init__(self):
        if not 0 < self.mlm_probability < 1:
            raise InputError(f"task: mlm_probability: {self.mlm_probability!r} is no share between 0 and 1; write 0.15")
        shares = self.mask_replace_prob, self.random_replace_prob
        if min(shares) < 0 or sum(shares) > 1:
            raise InputError(f"task: mask_replace_prob and random_replace_prob: {shares} are no shares of a whole")

    @property
    def windows(self) -> bool:  # type: ignore[override]
        """Packed rows are not the texts' own."""
        return self.packing

    def setup(self, model, train=None) -> None:
        """The checkpoint's config and tokenizer, which must have a mask token."""
        self.config = configs.load_config(model, self.auto_model)
        self.processor = text.load_tokenizer(model)
        if self.processor.mask_token_id is None:
            name = self.processor.name_or_path
            raise InputError(f"model.tokenizer: {name!r} has no mask token; name a model that was trained with masks")
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        if self.whole_word_masking and not masking.tells_words(self.processor):
            name = self.processor.name_or_path
            raise InputError(
                f"task: whole_word_masking: the tokenizer of {name!r} does not tell words; delete the line"
            )
        self.limit = text.max_length(self.processor, self.config, self.max_length)
        self.before, self.after = masking.around(self.processor)
        if self._room() < 2:
            raise InputError(f"task: max_length: {self.limit} leaves no room for a text; write 16 or more")
        self.special = sorted(set(self.processor.all_special_ids))
        self.whole_logits: bool | None = None  # whether the head needs the whole text; not known yet
        self.lengths = text.Lengths()
        if self.packing and train is not None:
            announce(f"packing: texts are joined into rows of {self.limit} tokens (packing: false leaves each its own)")

    def load_model(self, model):
        """The checkpoint with its language modelling head."""
        net = models.load(self.auto_model, model, self.config, keep_head=True)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        return net

    def data_report(self, split: str) -> dict[str, int]:
        """Texts cut at the limit, with the length quantiles announced."""
        self.lengths.tell(split, self.limit)
        counted, self.lengths = self.lengths, text.Lengths()
        return {"truncated": counted.truncated}

    def cut_off(self) -> int:
        """Texts cut at the limit since the last report."""
        return self.lengths.truncated

    def _room(self) -> int:
        """Tokens of text in a row."""
        return self.limit - len(self.before) - len(self.after)

    # ---- rows -----------------------------------------------------------------------------------------------------
    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """text -> token ids of packed texts, or of each cut at the limit; with whole words, where they begin.

        A text that has a mask of its own is never packed: it is a question (`predict`).
        """
        ids, words = text.pieces(self.processor, rows["text"], self.lengths, words=self.whole_word_masking)
        begins = [masking.word_begins(row) for row in words] if words is not None else [[1] * len(row) for row in ids]
        texts = [Piece(*each) for each in zip(range(len(ids)), ids, begins, strict=True)]
        found = self._packed(texts) if self.packing else [self._cut(each) for each in texts]
        first, last = len(self.before), len(self.after)
        encoded: Rows = {"input_ids": [[*self.before, *each.ids, *self.after] for each in found]}
        if self.whole_word_masking:
            encoded["begins"] = [[1] * first + each.begins + [1] * last for each in found]
        if self.packing:
            encoded["source_row"] = [rows["row"][each.owner] for each in found]
        return encoded

    def _packed(self, texts: list[Piece]) -> list[Piece]:
        separator = self.after[-1:] or [self.processor.sep_token_id or self.processor.eos_token_id or self.special[0]]
        mask, room = self.processor.mask_token_id, self._room()
        plain = [each for each in texts if mask not in each.ids]
        alone = [part for each in texts if mask in each.ids for part in masking.packed([each], room, separator)]
        return [*masking.packed(plain, room, separator), *alone]

    def _cut(self, piece: Piece) -> Piece:
        room = self._room()
        if len(piece.ids) <= room:
            return piece
        self.lengths.truncated += 1
        kept = slice(-room, None) if self.processor.truncation_side == "left" else slice(room)
        return Piece(piece.owner, piece.ids[kept], piece.begins[kept])

    def vary(self, row: dict) -> dict:  # type: ignore[override]
        """Draw what is hidden: input_ids with masks, labels with what was there, -100 elsewhere."""
        rule = masking.Rule(
            probability=self.mlm_probability,
            mask=self.mask_replace_prob,
            random=self.random_replace_prob,
            mask_id=self.processor.mask_token_id,
            special=tuple(self.special),
            size=len(self.processor),
        )
        begins = row.pop("begins", None)
        hidden, labels = masking.draw(np.asarray(row["input_ids"]), begins, rule)
        return row | {"input_ids": hidden, "labels": labels}

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids) and labels (-100: not asked for): (batch, tokens) int64.

        source_row, a list, where texts are packed.
        """
        inputs: Inputs = dict(text.collate(self.processor, rows))
        if "labels" in rows[0]:
            places = text.places_of([len(row["input_ids"]) for row in rows], self.processor.padding_side)
            inputs["labels"] = text.padded([row["labels"] for row in rows], IGNORED, places)
        if "source_row" in rows[0]:
            inputs["source_row"] = [int(row["source_row"]) for row in rows]
        return inputs

    def prepare(self, inputs: Inputs) -> Inputs:
        """places: (batch, tokens) bool, what is asked for; labels of these alone: (asked,) int64."""
        if "places" in inputs:
            return inputs
        if "labels" not in inputs:
            return inputs | {"places": inputs["input_ids"] == self.processor.mask_token_id}
        places = inputs["labels"] != IGNORED
        return inputs | {"places": places, "labels": inputs["labels"][places]}

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens without padding, with their masks; what was there."""
        name, shown, start = self.processor.convert_ids_to_tokens, [], 0
        for ids, places in zip(inputs["input_ids"], inputs["places"], strict=True):
            tokens, count = name(ids[ids != self.processor.pad_token_id].tolist()), int(places.sum())
            shown.append((" ".join(tokens), " ".join(name(inputs["labels"][start : start + count].tolist()))))
            start += count
        return shown

    # ---- loss, metrics, answers -----------------------------------------------------------------------------------
    def forward(self, model, inputs: Inputs) -> Any:
        """Logits (asked, vocabulary) at `places` alone; the head does not see the other tokens where it can do without.

        At 15 % of the tokens that is a seventh of its work and memory, and more with a large vocabulary.
        """
        known = ("labels", "places", "source_row")
        given, places = {name: value for name, value in inputs.items() if name not in known}, inputs["places"]
        if self.whole_logits is None:
            self.whole_logits = not (masking.hooks_fit(model) and masking.head_is_local(model, given, places))
        if self.whole_logits:
            outputs = model(**given)
            outputs.logits = masking.at(outputs.logits, places)
            return outputs
        with masking.only_at(masking.inner(model), places):
            outputs = model(**given)
        outputs.logits = outputs.logits[0]
        return outputs

    def items(self, inputs: Inputs) -> int:
        """Tokens that are asked for."""
        return int((inputs["labels"] != IGNORED).sum())

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Cross entropy at the tokens asked for, summed over them / items."""
        outputs = self.forward(model, inputs)
        count = torch.as_tensor(inputs["labels"].numel() if items is None else items)
        # of nothing asked for the sum is 0, and so is the loss
        return losses.cross_entropy(outputs.logits, inputs["labels"], count.clamp(min=1)), outputs

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """Of each row: the sum of its losses, the tokens asked for, those found."""
        places, labels = inputs["places"], inputs["labels"]
        each = F.cross_entropy(outputs.logits.float(), labels, reduction="none")
        right = (outputs.logits.argmax(-1) == labels).float()
        owner = places.nonzero()[:, 0]
        zero = torch.zeros(len(places), device=each.device)
        return {
            "loss": zero.index_add(0, owner, each),
            "asked": places.sum(1),
            "found": zero.index_add(0, owner, right).long(),
        }

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, float]:
        """Perplexity (e to the mean loss) and accuracy over all tokens asked for. Raises InputError without any."""
        asked = int(kept["asked"].sum())
        if not asked:
            raise InputError("data: no token of the evaluation rows is known to the tokenizer, so none can be hidden")
        loss = float(kept["loss"].astype(np.float64).sum()) / asked
        return {"perplexity": math.exp(min(loss, 700.0)), "accuracy": float(kept["found"].sum()) / asked}

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """masks: for each mask of a text the five likeliest tokens: score, token, token_str, sequence.

        Raises InputError for a text without a mask.
        """
        owners = inputs.get("source_row", range(len(rows["text"])))
        places = (inputs["input_ids"] == self.processor.mask_token_id).nonzero().tolist()
        answers: list[dict] = [{"masks": []} for _ in rows["text"]]
        for (row, place), logits in zip(places, outputs.logits, strict=True):
            answers[owners[row]]["masks"].append(self._filled(inputs["input_ids"][row], place, logits))
        for i, answer in enumerate(answers):
            if not answer["masks"]:
                mask = self.processor.mask_token
                there = f"{mask} beyond its first {self.limit} tokens" if mask in rows["text"][i] else f"no {mask}"
                raise InputError(f"input row {rows['row'][i]}: has {there}; write {mask} for the word to be found")
        return answers

    def _filled(self, ids: torch.Tensor, place: int, logits: torch.Tensor) -> list[dict]:
        """The best answers for one mask, as transformers' fill-mask pipeline writes them."""
        scores, tokens = logits.float().softmax(-1).topk(min(BEST, logits.shape[-1]))
        alone = int((ids == self.processor.mask_token_id).sum()) == 1
        found = []
        for score, token in zip(scores.tolist(), tokens.tolist(), strict=True):
            filled = ids.clone()
            filled[place] = token
            whole = filled[filled != self.processor.pad_token_id].tolist()
            sequence = self.processor.decode(whole, skip_special_tokens=alone)
            found.append(
                {"score": score, "token": token, "token_str": self.processor.decode([token]), "sequence": sequence}
            )
        return found

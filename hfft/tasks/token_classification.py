"""Token classification: a text or a list of tokens in, the entities in it (or a tag for each word) out.

As in section 5.3 of https://arxiv.org/abs/1810.04805: a word is classified by its first piece. Entities are IOB2
(see `hfft/entities.py`), whatever scheme the data have.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from hfft import configs, entities, losses, models, text, windows, words
from hfft.messages import InputError
from hfft.tasks.base import Inputs, Rows, Task

IGNORED = -100
IN_WINDOWS = "rows are longer than the model takes and read in several windows"
NO_PIECE = "words are nothing to the tokenizer and answered with no tag"
LONG_WORD = "words have more pieces than a window holds and are cut to them"


@dataclass(kw_only=True)
class TokenClassification(Task):
    """A text or a list of tokens in, its entities out, or a tag for each word.

    Rows of more than `max_length` tokens (default: the model's limit) are read in windows of so many, which share
    `stride` tokens (default: a quarter); each word is judged once, where most is seen around it.
    """

    max_length: int | None = None
    stride: int | None = None

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    truth: ClassVar[str | None] = "tags"
    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline_tag: ClassVar[str] = "token-classification"
    best_metric: ClassVar[str] = "f1"
    metric_names: ClassVar[tuple[str, ...]] = entities.METRICS
    windows: ClassVar[bool] = True

    def setup(self, model, train=None) -> None:
        """Tags by `train`'s feature (or the checkpoint's), and the checkpoint's tokenizer."""
        self.config = configs.load_config(model, self.auto_model)
        self.names, self.tag_ids, self.head_kept = configs.match_labels(self.config, train, "tags")
        configs.set_labels(self.config, self.names)
        self.outside = self.names.index("O") if "O" in self.names else -1
        self.processor = text.load_tokenizer(model)
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        self.limit = text.max_length(self.processor, self.config, self.max_length)
        self.before, self.after = windows.frame(self.processor)
        self._room()
        self.lengths = text.Lengths()

    def _room(self) -> tuple[int, int]:
        """(tokens of words in a window, tokens that windows share). Raises InputError where that leaves no way on."""
        room = self.limit - len(self.before) - len(self.after)
        stride = room // 4 if self.stride is None else self.stride
        if room < 1:
            raise InputError(f"task: max_length {self.limit} holds only special tokens; write more")
        if not 0 <= stride < room:
            raise InputError(f"task: stride {stride}: windows hold {room} tokens of words; write 0 to {room - 1}")
        return room, stride

    def accept(self, rows) -> None:
        """The model's index of each tag of `rows`, by name."""
        self.tag_ids = configs.places(self.names, rows, "tags")

    def data_report(self, split: str) -> dict[str, int]:
        """No row is cut; what is read in windows is announced, and words that the tokenizer drops."""
        self.lengths.tell(split, self.limit)
        self.lengths = text.Lengths()
        return {"truncated": 0}

    def load_model(self, model):
        """The checkpoint's backbone with a head for these tags."""
        net = models.load(self.auto_model, model, self.config, keep_head=self.head_kept)
        self.limit = text.fit_positions(net, self.processor, self.limit)
        self._room()
        return net

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """tokens -> windows of token ids, and the place of the first piece of each word that a window judges.

        A place of -1 is a word without pieces; in training windows of nothing else are left out.
        """
        room, stride = self._room()
        split = [_words(cell) for cell in rows["tokens"]]
        found: Rows = {"input_ids": [], "places": [], "source_row": [], **({"tags": []} if "tags" in rows else {})}
        for i, pieces in enumerate(windows.pieces(self.processor, split)):
            self._count(pieces, room)
            pieces = [ids[:room] for ids in pieces]
            for (start, end), (first, last) in windows.windows([len(ids) for ids in pieces], room, stride):
                ids, places = list(self.before), []
                for word in range(start, end):
                    if first <= word < last:
                        places.append(len(ids) if pieces[word] else -1)
                    ids += pieces[word]
                if train and not any(place >= 0 for place in places):
                    continue
                found["input_ids"].append(ids + self.after)
                found["places"].append(places)
                found["source_row"].append(rows["row"][i])
                if "tags" in found:
                    found["tags"].append([self.tag_ids[tag] for tag in rows["tags"][i][first:last]])
        return found

    def _count(self, pieces: list[list[int]], room: int) -> None:
        size = sum(map(len, pieces))
        self.lengths.tokens[size + len(self.before) + len(self.after)] += 1
        self.lengths.seen += size
        unknown = self.processor.unk_token_id
        if unknown is not None and unknown != self.processor.pad_token_id:
            self.lengths.unknown += sum(ids.count(unknown) for ids in pieces)
        counts = {
            IN_WINDOWS: int(size > room),
            NO_PIECE: sum(not ids for ids in pieces),
            LONG_WORD: sum(len(ids) > room for ids in pieces),
        }
        self.lengths.notes.update({what: count for what, count in counts.items() if count})

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids): (batch, tokens) int64, padded to the longest row of the batch.

        `places` is a list of arrays, for each word its first token in the padded row, or -1; `source_row` a list. Where
        the rows have tags: `tags` like `places`, and labels (batch, tokens) int64, -100 but at the places.
        """
        inputs: Inputs = text.collate(self.processor, rows)
        width = inputs["input_ids"].shape[1]
        left = self.processor.padding_side == "left"
        inputs["places"] = []
        for row in rows:
            places = np.asarray(row["places"], dtype=np.int64)
            inputs["places"].append(np.where(places < 0, -1, places + left * (width - len(row["input_ids"]))))
        inputs["source_row"] = [int(row["source_row"]) for row in rows]
        if "tags" in rows[0]:
            inputs["tags"] = [np.asarray(row["tags"], dtype=np.int64) for row in rows]
            labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
            for row, places, tags in zip(labels, inputs["places"], inputs["tags"], strict=True):
                row[places[places >= 0]] = tags[places >= 0]
            inputs["labels"] = torch.from_numpy(labels)
        return inputs

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens without padding, special ones included; the tags of the pieces that are judged."""
        shown = []
        for ids, mask, labels in zip(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], strict=True):
            tokens = self.processor.convert_ids_to_tokens(ids.tolist())
            tags = [
                f"{token} {self.names[tag]}" for token, tag in zip(tokens, labels.tolist(), strict=True) if tag >= 0
            ]
            seen = [token for token, there in zip(tokens, mask.tolist(), strict=True) if there]
            shown.append((" ".join(seen), ", ".join(tags)))
        return shown

    def items(self, inputs: Inputs) -> int:
        """Words that are judged."""
        return int((inputs["labels"] != IGNORED).sum())

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Cross entropy over the tags, summed over words / items."""
        outputs = self.forward(model, inputs)
        judged = inputs["labels"] != IGNORED
        return losses.cross_entropy(outputs.logits[judged], inputs["labels"][judged], items), outputs

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """Of each window the row it is of, and prediction and tag of each word that it judges."""
        best = outputs.logits.argmax(-1).cpu().numpy()
        kind = np.int16 if len(self.names) < 2**15 else np.int32
        found = [
            np.where(places < 0, self.outside, row[places]).astype(kind)
            for row, places in zip(best, inputs["places"], strict=True)
        ]
        labels = [tags.astype(kind) for tags in inputs["tags"]]
        return {"prediction": found, "label": labels, "source_row": np.array(inputs["source_row"])}

    def metrics(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Strict F1, precision and recall of entities, seqeval's default F1, accuracy by word, and each kind."""
        rows = np.asarray(kept["source_row"])
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))  # the windows of a row follow each other
        ends = np.append(starts[1:], len(rows))
        said, true = (
            [np.concatenate(list(kept[name][start:end])) for start, end in zip(starts, ends, strict=True)]
            for name in ("prediction", "label")
        )
        return entities.scores(said, true, self.names)

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """entities of each row: entity_group, word, start, end and score, as transformers' pipeline has them.

        `start` and `end` are characters of a text; of a list of tokens they count tokens, and `tags` has one for each.
        """
        found: list[list[tuple[int, float]]] = [[] for _ in rows["tokens"]]
        chances = outputs.logits.float().softmax(-1).cpu()
        for row, places, source in zip(chances, inputs["places"], inputs["source_row"], strict=True):
            best = row.max(-1)
            tags, scores = best.indices.tolist(), best.values.tolist()
            found[source] += [(tags[p], scores[p]) if p >= 0 else (self.outside, 1.0) for p in places.tolist()]
        known = entities.Tags(self.names)
        return [self._answer(known, cell, judged) for cell, judged in zip(rows["tokens"], found, strict=True)]

    def _answer(self, known: entities.Tags, cell: Any, judged: list[tuple[int, float]]) -> dict[str, Any]:
        tags = np.array([tag for tag, _ in judged], dtype=np.int64)
        firsts = np.arange(len(tags)) == 0
        spans = words.bounds(cell) if isinstance(cell, str) else [(i, i + 1) for i in range(len(cell))]
        answers = []
        for first, last, kind in zip(*known.entities(tags, firsts, strict=False), strict=True):
            start, end = spans[first][0], spans[last - 1][1]
            word = cell[start:end] if isinstance(cell, str) else " ".join(cell[start:end])
            score = float(np.mean([score for _, score in judged[first:last]]))
            answers.append(
                {"entity_group": known.kinds[kind], "word": word, "start": start, "end": end, "score": score}
            )
        by_word = [self.names[tag] if tag >= 0 else "O" for tag in tags]
        return {"entities": answers} if isinstance(cell, str) else {"entities": answers, "tags": by_word}


def _words(cell: Any) -> list[str]:
    return [cell[start:end] for start, end in words.bounds(cell)] if isinstance(cell, str) else list(cell)

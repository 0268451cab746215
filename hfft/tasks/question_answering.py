"""Question answering, extractive: a question and a context in, the piece of the context that answers it out.

As in section 4.2 of https://arxiv.org/abs/1810.04805: a head gives each token a logit to be the answer's first and one
to be its last; the first token (section 4.3) stands for "no answer in this window".
"""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from hfft import configs, models, spans, squad_metric, text
from hfft.messages import InputError, announce
from hfft.tasks.base import Inputs, Rows, Task

PADDING, TOKEN, CONTEXT = 0, 1, 2  # what stands at a place of a padded window
MARGIN = 1e4  # no difference of scores is larger: a window without any span has none


@dataclass(kw_only=True)
class QuestionAnswering(Task):
    """A question and a context in, the answer's text and place in the context out.

    Windows have `max_length` tokens at most (default: 384, or the model's limit where that is less); those of one
    context share `stride`. Answers have `max_answer_length` tokens at most; a score is the probability among the
    `n_best`. Where the evaluation split has questions without an answer, the margin above which none is given is
    tuned on it.
    """

    max_length: int | None = None
    stride: int = 128
    max_answer_length: int = 30
    n_best: int = 20

    columns: ClassVar[tuple[str, ...]] = ("question", "context", "answers")
    truth: ClassVar[str | None] = "answers"
    auto_model: ClassVar[str] = "AutoModelForQuestionAnswering"
    pipeline_tag: ClassVar[str] = "question-answering"
    best_metric: ClassVar[str] = "f1"
    metric_names: ClassVar[tuple[str, ...]] = ("exact_match", "f1")
    windows: ClassVar[bool] = True

    def __post_init__(self):
        for name, least in (("stride", 0), ("max_answer_length", 1), ("n_best", 1)):
            if (value := getattr(self, name)) < least:
                raise InputError(f"task: {name}: {value} is too small; write {least} or more")
        self.tuned: dict[str, float] = {}

    def meet(self, source, data) -> None:
        """Find the answers where they lie in several columns with usual names."""
        if "answers" in data.columns:
            return
        there = [name for name in ("answer_text", "answer", "text") if name in source.columns]
        flag = ["is_impossible"] if "is_impossible" in source.columns else []
        parts = ["answers", *flag]
        if "answers" not in source.columns:
            parts = [*there, "answer_start", *flag] if len(there) == 1 and "answer_start" in source.columns else []
        # where a reader knows the flag already, it stands in the answers too
        if len(parts) > 1 and not _has_flag(source, parts[0]):
            data.columns = {**data.columns, "answers": parts}
            announce(f"columns: answers are {' + '.join(parts)} (by their names; set data.columns)")

    def setup(self, model, train=None) -> None:
        """The checkpoint's tokenizer; a head of two logits a token."""
        self.config = configs.load_config(model, self.auto_model)
        configs.set_labels(self.config, ["LABEL_0", "LABEL_1"])
        self.processor = text.load_tokenizer(model)
        if not self.processor.is_fast:
            raise InputError(
                f"model.tokenizer: {self.processor.name_or_path!r} does not tell which characters a token is of; "
                "set it to one with a tokenizer.json"
            )
        text.check_vocabulary(self.processor, self.config)
        text.set_pad_token(self.processor, self.config)
        longest = text.max_length(self.processor, self.config, self.max_length)
        self.limit = longest if self.max_length else min(longest, 384)
        self._check_stride()
        if self.processor.cls_token_id is None:
            announce("no answer: the tokenizer has no [CLS], so the first token of a window stands for it")
        self.lengths = text.Lengths()

    def _check_stride(self) -> None:
        room = self.limit - self.processor.num_special_tokens_to_add(pair=True)
        if self.stride >= room - 1:
            raise InputError(
                f"task: stride: {self.stride} of {self.limit} tokens (max_length) leave no room for a question; "
                f"write at most {max(0, room // 2)}"
            )

    def data_report(self, split: str) -> dict[str, int]:
        """The windows' lengths, and how many questions have several; none is cut off."""
        replace(self.lengths, truncated=0).tell(f"{split} in windows", self.limit)
        if self.lengths.truncated:
            several = f"{split}: {self.lengths.truncated:,} contexts are read in several windows"
            announce(f"{several} of at most {self.limit} tokens, which share {self.stride}")
        self.lengths = text.Lengths()
        return {}

    def load_model(self, model):
        """The checkpoint's backbone, and its head where it answers questions already."""
        renamed = _backbone_renamed(model, self.config)
        net = models.load(self.auto_model, renamed, self.config, keep_head=True)
        if renamed is not model:  # else it would be undone in what is saved, which this class would not find again
            known = net._weight_conversions
            net._weight_conversions = [x for x in known if x.source_patterns != list(renamed.options["key_mapping"])]
        self.limit = text.fit_positions(net, self.processor, self.limit)
        self._check_stride()
        return net

    def encode(self, rows: Rows, *, train: bool = False) -> Rows:
        """question, context -> windows; answers -> labels, [first, last] token (the null token where they are not).

        Not to train: also what finds texts and scores them: `offsets` (flat), the context, the references as JSON.
        """
        questions = [question.lstrip() for question in rows["question"]]  # blanks are no tokens
        texts = questions, rows["context"]
        spans.refuse_long(self.processor, texts, rows["row"], self.limit, self.stride)
        found = spans.windows(self.processor, *texts, self.limit, self.stride)
        places, offsets = found.pop("place"), found.pop("offsets")
        found["null"] = [self._null(ids) for ids in found["input_ids"]]
        found["source_row"] = [rows["row"][place] for place in places]
        if "answers" in rows:
            answers = [_references(cell) for cell in rows["answers"]]
            found["labels"] = [
                _label(answers[place], window, null, context[0])
                for place, window, null, context in zip(places, offsets, found["null"], found["context"], strict=True)
            ]
        if not train:
            found["offsets"] = [window.ravel() for window in offsets]
            found["passage"] = [rows["context"][place] for place in places]
            if "answers" in rows:
                found["references"] = [json.dumps([reference for reference, _ in answers[place]]) for place in places]
        self._count(found["input_ids"], places)
        return found

    def _null(self, ids: list[int]) -> int:
        """The place of the token that stands for no answer."""
        return ids.index(self.processor.cls_token_id) if self.processor.cls_token_id in ids else 0

    def _count(self, windows: list[list[int]], places: list[int]) -> None:
        self.lengths.tokens.update(map(len, windows))
        self.lengths.truncated += int((np.bincount(places) > 1).sum()) if places else 0
        unknown = self.processor.unk_token_id
        if unknown is not None and unknown != self.processor.pad_token_id:
            special = self.processor.num_special_tokens_to_add(pair=True)
            self.lengths.seen += sum(len(ids) - special for ids in windows)
            self.lengths.unknown += sum(ids.count(unknown) for ids in windows)

    def collate(self, rows: list[dict]) -> Inputs:
        """input_ids, attention_mask (, token_type_ids), kinds: (windows, tokens); null (windows,); labels (windows, 2).

        `kinds` says what is PADDING, TOKEN or CONTEXT. `begins` is where each window's context begins, in a list.
        """
        inputs: Inputs = dict(text.collate(self.processor, rows))
        width, left = inputs["input_ids"].shape[1], self.processor.padding_side == "left"
        shifts = [width - len(row["input_ids"]) if left else 0 for row in rows]
        kinds = np.full((len(rows), width), PADDING, dtype=np.int64)
        for kind, row, shift in zip(kinds, rows, shifts, strict=True):
            first, stop = (int(place) + shift for place in row["context"])
            kind[shift : shift + len(row["input_ids"])] = TOKEN
            # a token without characters cannot begin or end an answer
            offsets = np.reshape(row["offsets"], (-1, 2)) if "offsets" in row else None
            kind[first:stop] = CONTEXT if offsets is None else np.where(offsets[:, 1] > offsets[:, 0], CONTEXT, TOKEN)
        inputs["kinds"], moved = torch.from_numpy(kinds), torch.tensor(shifts)
        inputs["null"] = torch.tensor([row["null"] for row in rows]) + moved
        if "labels" in rows[0]:
            labels = np.array([row["labels"] for row in rows], dtype=np.int64)
            inputs["labels"] = torch.from_numpy(labels) + moved[:, None]
        inputs["begins"] = [int(row["context"][0]) + shift for row, shift in zip(rows, shifts, strict=True)]
        for name in ("source_row", "offsets", "passage", "references"):
            if name in rows[0]:
                inputs[name] = [row[name] for row in rows]
        return inputs

    def view(self, inputs: Inputs, rows: Rows) -> list[tuple[Any, str]]:
        """The tokens of a window without padding; those of the answer are the truth."""
        shown = []
        for ids, kinds, null, label in zip(*(inputs[n] for n in ("input_ids", "kinds", "null", "labels")), strict=True):
            tokens = self.processor.convert_ids_to_tokens(ids[kinds != PADDING].tolist())
            first, last = label.tolist()
            answer = " ".join(self.processor.convert_ids_to_tokens(ids[first : last + 1].tolist()))
            shown.append((" ".join(tokens), "(no answer in this window)" if first == null else answer))
        return shown

    def forward(self, model, inputs: Inputs) -> Any:
        """The model's outputs: start_logits and end_logits (windows, tokens)."""
        return model(**{name: inputs[name] for name in self.processor.model_input_names if name in inputs})

    def items(self, inputs: Inputs) -> int:
        """Windows."""
        return len(inputs["labels"])

    def loss(self, model, inputs: Inputs, items=None) -> tuple[torch.Tensor, Any]:
        """Mean of the first and the last token's cross entropy over the window without padding, summed / items."""
        outputs, labels = self.forward(model, inputs), inputs["labels"]
        logits = torch.cat(_logits(outputs, inputs)).masked_fill(inputs["kinds"].repeat(2, 1) == PADDING, float("-inf"))
        total = F.cross_entropy(logits, labels.T.flatten(), reduction="sum")
        return total / (2 * (len(labels) if items is None else items)), outputs

    def _found(self, outputs, inputs: Inputs, count: int) -> tuple[np.ndarray, list[list[tuple[float, int, int]]]]:
        """(score of no answer (windows,), the likeliest (score, start, stop in the context) of each window)."""
        start, end = _logits(outputs, inputs)
        null = (start + end).gather(1, inputs["null"][:, None]).squeeze(1).cpu().numpy()
        scores, *tokens = spans.best(start, end, inputs["kinds"] == CONTEXT, self.max_answer_length, count)
        values, first, last = (each.cpu().numpy() for each in (scores, *tokens))
        found: list[list[tuple[float, int, int]]] = []
        for i, (begin, passage) in enumerate(zip(inputs["begins"], inputs["passage"], strict=True)):
            offsets, there = np.reshape(inputs["offsets"][i], (-1, 2)), np.flatnonzero(np.isfinite(values[i]))
            places = [
                spans.characters(offsets, first[i, j] - begin, last[i, j] - begin, passage) for j in there.tolist()
            ]
            found.append([(float(values[i, j]), *place) for j, place in zip(there.tolist(), places, strict=True)])
        return null, found

    def keep(self, outputs, inputs: Inputs) -> dict[str, Any]:
        """Of each window's best answer and of none: score and what it counts. No texts."""
        null, found = self._found(outputs, inputs, 1)
        passages = zip(found, inputs["passage"], strict=True)
        texts = [passage[each[0][1] : each[0][2]] if each else "" for each, passage in passages]
        references = [json.loads(cell) for cell in inputs["references"]]
        return {
            "source_row": np.array(inputs["source_row"]),
            "null": null,
            "score": np.array([each[0][0] if each else -np.inf for each in found]),
            # (windows, 2 versions of the rules, exact match and F1)
            "answered": np.array([squad_metric.scores(*pair) for pair in zip(texts, references, strict=True)]),
            "unanswered": np.array([squad_metric.scores("", right) for right in references]),
            "impossible": np.array([not right for right in references]),
        }

    def metrics(self, kept: dict[str, np.ndarray]) -> dict[str, Any]:
        """Exact match and F1 over questions; where some have no answer by the rules of SQuAD 2.0, else of 1.1."""
        order = np.lexsort((-kept["score"], kept["source_row"]))  # a question's windows together, the best first
        rows = kept["source_row"][order]
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
        best = {name: values[order[starts]] for name, values in kept.items()}
        null, impossible = np.minimum.reduceat(kept["null"][order], starts), best["impossible"]
        rules = 1 if impossible.any() else 0
        answered, unanswered = best["answered"][:, rules], best["unanswered"][:, rules]
        margins = np.clip(null - best["score"], -MARGIN, MARGIN)
        if impossible.any() and "null_threshold" not in self.tuned:
            self.tuned["null_threshold"] = squad_metric.null_threshold(margins, answered[:, 1], unanswered[:, 1])
            told = f"{self.tuned['null_threshold']:.3f} (the best F1 on the evaluation split)"
            announce(f"no answer where its score is above the best answer's by {told}")
        is_null = margins > self.tuned.get("null_threshold", np.inf)
        values = np.where(is_null[:, None], unanswered, answered)
        groups = {"answerable": ~impossible, "unanswerable": impossible} if impossible.any() else {}
        each = {kind: _means(values[own]) | {"questions": int(own.sum())} for kind, own in groups.items() if own.any()}
        return _means(values) | ({"per_kind": each} if each else {})

    def decode(self, outputs, rows: Rows, inputs: Inputs) -> list[dict]:
        """answer, start, end (characters of the context) and score of each row; an empty answer is none."""
        null, found = self._found(outputs, inputs, self.n_best)
        answers = []
        for i, context in enumerate(rows["context"]):
            own = [window for window, place in enumerate(inputs["source_row"]) if place == i]
            ranked = spans.merged([each for window in own for each in found[window]], self.n_best)
            answers.append(self._answer(ranked, float(min(null[own])), context))
        return answers

    def _answer(self, ranked: list[tuple[float, int, int]], null: float, context: str) -> dict[str, Any]:
        may_be_null = "null_threshold" in self.tuned
        scores = [score for score, _, _ in ranked] + ([null] if may_be_null or not ranked else [])
        shares = spans.probabilities(scores)
        if not ranked or (may_be_null and null - ranked[0][0] > self.tuned["null_threshold"]):
            return {"answer": "", "start": 0, "end": 0, "score": shares[-1]}
        _, start, stop = ranked[0]
        return {"answer": context[start:stop], "start": start, "end": stop, "score": shares[0]}


def _backbone_renamed(model, config):
    """The model section with a `key_mapping`, where transformers calls the backbone otherwise in this class alone.

    So with Llama, Qwen and others like them: all of their weights would be missing.
    """
    known = transformers.AutoModelForQuestionAnswering._model_mapping, transformers.AutoModel._model_mapping
    if model.name is None or "key_mapping" in model.options or any(type(config) not in classes for classes in known):
        return model
    own, usual = (classes[type(config)].base_model_prefix for classes in known)
    mapping = {rf"^{usual}\.": f"{own}."}
    return model if own == usual else replace(model, options={**model.options, "key_mapping": mapping})


def _logits(outputs, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end in fp32, of the tokens alone: a prompt method puts tokens of its own before them."""
    width = inputs["kinds"].shape[1]
    return outputs.start_logits[:, -width:].float(), outputs.end_logits[:, -width:].float()


def _has_flag(source, column: str) -> bool:
    """Whether answers carry is_impossible themselves, as those read from SQuAD's nested form do."""
    first = next((cell for cell in source.values(column) if cell is not None), None)
    return isinstance(first, dict) and "references" in first


def _references(cell: dict[str, list]) -> list[tuple[str, int]]:
    """(text, start) of each reference answer, as `reading.answers` wrote them."""
    return list(zip(cell["text"], cell["answer_start"], strict=True))


def _label(answers: list[tuple[str, int]], offsets: np.ndarray, null: int, begin: int) -> list[int]:
    """[first, last] token of the first reference answer; the null token's twice where it is not in the window."""
    if not answers:
        return [null, null]
    answer, start = answers[0]
    found = spans.tokens_of(offsets, start, start + len(answer))
    return [null, null] if found is None else [begin + found[0], begin + found[1]]


def _means(values: np.ndarray) -> dict[str, float]:
    return {"exact_match": float(values[:, 0].mean()), "f1": float(values[:, 1].mean())}

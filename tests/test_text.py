"""Text: token ids and batches are those of the plain tokenizer, whatever its kind; the counts are exact."""

import copy
import functools
import json
import logging
import multiprocessing

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from tokenizers import SentencePieceBPETokenizer, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as train

from hfft import text

TEXTS = [
    "a good film", "x", "The plot was not very good , but the actor was great !", "naïve café — 漢字 и кириллица 🙂",
    "  blanks   inside\tand around  ", "good " * 40, "<s> [CLS] special <|endoftext|>", "ﬁne, ﬀ; e\u0301 é", "bad" * 30,
]  # fmt: skip
PAIRS = ["a dull book", "and the scene was nice " * 10, "song", "dull " * 30, "y", "x", "🙂", "the", "great " * 3]


def wordpiece() -> tf.PreTrainedTokenizerBase:
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(TEXTS + PAIRS, train.WordPieceTrainer(vocab_size=120, special_tokens=tiny.SPECIAL))
    return tf.BertTokenizer(vocab=inner.get_vocab())


def byte_level(kind=tf.RobertaTokenizer, **options) -> tf.PreTrainedTokenizerBase:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXTS, train.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    state = inner.model.__getstate__()
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in json.loads(state)["merges"]]
    return kind(vocab=inner.get_vocab(), merges=merges, **options)


def gpt2() -> tf.PreTrainedTokenizerBase:
    return byte_level(tf.GPT2Tokenizer, pad_token="<pad>", padding_side="left")


def unigram(kind=tf.XLMRobertaTokenizer, **options) -> tf.PreTrainedTokenizerBase:
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<cls>", "<sep>"]
    inner.train_from_iterator(TEXTS, train.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>"))
    return kind(vocab=[tuple(entry) for entry in json.loads(inner.to_str())["model"]["vocab"]], **options)


def xlnet() -> tf.PreTrainedTokenizerBase:
    return unigram(tf.XLNetTokenizer)


def llama() -> tf.PreTrainedTokenizerBase:
    inner = SentencePieceBPETokenizer()
    inner.train_from_iterator(TEXTS, vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend = inner._tokenizer
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return tf.PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", truncation_side="left", **names)


def slow() -> tf.PreTrainedTokenizerBase:
    return tf.ByT5Tokenizer()


@functools.cache  # two seconds to make
def slow_with_types() -> tf.PreTrainedTokenizerBase:
    return tf.CanineTokenizer()


def typed() -> tf.PreTrainedTokenizerBase:
    """One whose single texts have types that are not zero."""
    tokenizer = tiny.tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:2 $A:1 [SEP]:1", pair="$A:0 $B:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


KINDS = [wordpiece, byte_level, gpt2, unigram, xlnet, llama, slow, slow_with_types, tiny.tokenizer, typed]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__, scope="module")
def tokenizer(request):
    return request.param()


@pytest.mark.parametrize("limit", [8, 30, 400])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pair"])
def test_ids_and_batches_are_those_of_the_plain_tokenizer(tokenizer, pairs, limit):
    expected = copy.deepcopy(tokenizer)(TEXTS, pairs, truncation=True, max_length=limit, padding=False)
    counts = text.Lengths()
    found = text.encode(tokenizer, TEXTS, pairs, limit, counts)
    assert found["input_ids"] == expected["input_ids"]
    rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    padded = tokenizer.pad(dict(expected), return_tensors="pt")
    batch = text.collate(tokenizer, rows)
    assert batch.keys() == padded.keys() and "input_ids" in batch
    for name in batch:
        assert batch[name].dtype == torch.int64 and torch.equal(batch[name], padded[name]), name
    whole = [len(ids) for ids in copy.deepcopy(tokenizer)(TEXTS, pairs)["input_ids"]]
    assert sorted(counts.tokens.elements()) == sorted(whole)
    assert counts.truncated == sum(size > limit for size in whole)
    unknown = tokenizer.unk_token_id
    expected_unknown = sum(ids.count(unknown) for ids in expected["input_ids"])
    assert counts.unknown == (expected_unknown if unknown not in (None, tokenizer.pad_token_id) else 0)


def test_the_kinds_differ_in_what_makes_them_hard():
    made = {kind.__name__: kind() for kind in KINDS}
    assert [name for name, each in made.items() if not each.is_fast] == ["slow", "slow_with_types"]
    assert [name for name, each in made.items() if each.padding_side == "left"] == ["gpt2", "xlnet", "llama"]
    assert made["typed"]("good")["token_type_ids"] == [2, 1, 1]
    assert made["llama"]("good")["input_ids"][0] == made["llama"].bos_token_id
    assert "token_type_ids" not in made["byte_level"]("good")


def test_a_text_without_tokens_is_a_row_without_tokens():
    tokenizer = gpt2()
    found = text.encode(tokenizer, ["", "good"], None, 8, text.Lengths())
    assert found["input_ids"][0] == [] == tokenizer("")["input_ids"]
    batch = text.collate(tokenizer, [{"input_ids": ids} for ids in found["input_ids"]])
    assert batch["attention_mask"].sum(1).tolist() == [0, len(found["input_ids"][1])]


@pytest.mark.parametrize("kind", [wordpiece, gpt2])
def test_rows_as_arrays_make_the_same_batch_as_rows_as_lists(kind):
    tokenizer = kind()
    found = text.encode(tokenizer, TEXTS, PAIRS, 30, text.Lengths())
    lists = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    arrays = [{name: np.array(values, np.uint16) for name, values in row.items()} for row in lists]
    one, other = text.collate(tokenizer, lists), text.collate(tokenizer, arrays)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_encoding_leaves_the_tokenizer_as_it_was():
    tokenizer = wordpiece()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = tokenizer.backend_tokenizer.to_str()
    ids = text.encode(tokenizer, TEXTS, None, 8, text.Lengths())["input_ids"]
    assert {len(row) for row in ids} > {8} and tokenizer.backend_tokenizer.to_str() == before


def test_a_tokenizer_with_a_call_of_its_own_is_called():
    class Own(tf.PreTrainedTokenizerFast):
        def _encode_plus(self, text, **options):
            return super()._encode_plus([each.upper() for each in text], **options)

    plain = tiny.tokenizer()
    own = Own(tokenizer_object=plain.backend_tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    unknown = plain.unk_token_id
    assert text.encode(own, ["good film"], None, 8, text.Lengths())["input_ids"] == [[2, unknown, unknown, 3]]


def test_special_tokens_written_in_a_text_are_split_where_the_tokenizer_says_so():
    tokenizer = wordpiece()
    joined = text.encode(tokenizer, ["[CLS] good"], None, 30, text.Lengths())["input_ids"]
    tokenizer.split_special_tokens = True
    split = text.encode(tokenizer, ["[CLS] good"], None, 30, text.Lengths())["input_ids"]
    assert joined != split == copy.deepcopy(tokenizer)(["[CLS] good"])["input_ids"]


def test_the_identity_of_a_tokenizer_is_its_content(tmp_path):
    one = wordpiece()
    one.save_pretrained(tmp_path / "a")
    one.save_pretrained(tmp_path / "b")
    a, b = (tf.AutoTokenizer.from_pretrained(tmp_path / name) for name in "ab")
    assert text.identity(a) == text.identity(b)
    a(TEXTS, truncation=True, max_length=7, padding=True)  # leaves its truncation in the backend
    assert text.identity(a) == text.identity(b)
    b.add_tokens(["newword"])
    assert text.identity(a) != text.identity(b)
    other = copy.deepcopy(a)
    other.truncation_side = "left"
    assert text.identity(a) != text.identity(other)
    assert len({text.identity(kind()) for kind in KINDS}) == len(KINDS)


def test_the_lengths_are_told_with_quantiles_and_survive_json(caplog):
    counts = text.Lengths()
    tokenizer = tiny.tokenizer()
    text.encode(tokenizer, ["good " * n for n in range(1, 21)], None, 20, counts)
    with caplog.at_level(logging.INFO, "hfft"):
        counts.tell("train", 20)
        text.Lengths.from_json(counts.to_json()).tell("train", 20)
    lines = [record.getMessage() for record in caplog.records]
    line = "20 rows of 12 tokens (median), 21 (95 %), 22 (longest); 2 (10.0%) are cut at 20 tokens"
    assert lines == [f"warning: train: {line}"] * 2


def test_forked_workers_tokenise_without_a_warning(monkeypatch, capfd):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    tokenizer = tiny.tokenizer()

    def ids() -> list:
        return text.encode(tokenizer, ["good film"] * 2000, None, 8, text.Lengths())["input_ids"]

    here = ids()  # on all cores

    def work() -> None:
        assert ids() == here

    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0 and "fork" not in capfd.readouterr().err

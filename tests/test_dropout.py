"""Quick dropout: the same distribution, the same attention, the same checkpoints; off by its switch."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hfft import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    found = dropout.scale(torch.empty(1000, 1001, dtype=dtype), p)
    assert found.dtype == dtype and found.shape == (1000, 1001)
    assert len(found.unique()) == 2 and found.min() == 0
    assert abs((found == 0).double().mean().item() - p) < 0.003
    assert abs(found.double().mean().item() - 1) < 0.02


def test_what_is_dropped_is_independent_from_element_to_element():
    torch.manual_seed(0)
    found = (dropout.scale(torch.empty(400_000), 0.5) > 0).double() - 0.5
    for step in (1, 2, 3, 4, 8):  # four elements come from one number of 64 bits
        assert abs((found[:-step] * found[step:]).mean().item()) < 0.002


def bert(p: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=100,
            hidden_dropout_prob=p, attention_probs_dropout_prob=p,
        )
    )  # fmt: skip


def test_the_same_seed_drops_the_same_and_evaluation_drops_nothing():
    net = bert()
    plain, ids = copy.deepcopy(net).eval(), torch.randint(0, 100, (4, 9))
    assert dropout.quicken(net) and net.config._attn_implementation == dropout.NAME
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(net.train()(ids).logits)
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])
    assert torch.equal(net.eval()(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_is_sdpas_when_nothing_happens_to_be_dropped(kind, monkeypatch):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 8).unbind(0)
    hidden = torch.zeros(2, 1, 7, 7, dtype=torch.bool)
    hidden[:, :, :, 5:] = True
    mask = {"none": None, "bool": ~hidden, "float": torch.zeros(2, 1, 7, 7).masked_fill(hidden, -1e30)}[kind]
    module = nn.Module()
    module.is_causal = False
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, 0.0)
    monkeypatch.setattr(dropout, "scale", lambda like, p: torch.ones_like(like))
    found, _ = dropout.attention(module, query, key, value, mask, dropout=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_saved_model_knows_nothing_of_it(tmp_path):
    net = bert()
    dropout.quicken(net)
    net.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
    assert dropout.NAME not in (tmp_path / "config.json").read_text()


def test_a_model_without_dropout_stays_as_it_is():
    net = bert(0.0)
    assert not dropout.quicken(net) and net.config._attn_implementation == "sdpa"
    assert "forward" not in net.bert.embeddings.dropout.__dict__

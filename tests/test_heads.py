"""More heads than those of tests/tiny.py: the gradient of 8 rows is that of 4 x 2, where plain heads are off by two.

Plain transformers multiply the loss by the number of accumulated batches for nearly every text head.
"""

import pytest
import tiny
import transformers as tf
from test_invariance import gradients, rows_of

TEXT = {**tiny.TEXT, **tiny.QUIET}
CAUSAL = {**tiny.TEXT, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
FLAT = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "vocab_size": tiny.SIZE, "initializer_range": 0.2}
HEADS = {
    "albert": ("text", lambda: tf.AlbertConfig(**TEXT, embedding_size=16, classifier_dropout_prob=0.0)),
    "xlm-roberta": ("text", lambda: tf.XLMRobertaConfig(**{**TEXT, "max_position_embeddings": 264})),
    "camembert": ("text", lambda: tf.CamembertConfig(**{**TEXT, "max_position_embeddings": 264})),
    "mpnet": ("text", lambda: tf.MPNetConfig(**{**TEXT, "max_position_embeddings": 264})),
    "deberta-v2": ("text", lambda: tf.DebertaV2Config(**TEXT, pooler_hidden_size=32)),
    "qwen3": ("text", lambda: tf.Qwen3Config(**CAUSAL, head_dim=16)),
    "mistral": ("text", lambda: tf.MistralConfig(**CAUSAL)),
    "gpt-neox": ("text", lambda: tf.GPTNeoXConfig(**{**tiny.TEXT, **FLAT})),
    "opt": (
        "text",
        lambda: tf.OPTConfig(
            **FLAT, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, dropout=0.0,
            word_embed_proj_dim=32, max_position_embeddings=260,
        ),
    ),
    "vit-msn": ("image", lambda: tf.ViTMSNConfig(**tiny.SMALL, **tiny.PICTURE)),
    "swinv2": (
        "image",
        lambda: tf.Swinv2Config(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, drop_path_rate=0.0
        ),
    ),
    "convnextv2": (
        "image", lambda: tf.ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2),
    ),
    "pvt-v2": (
        "image",
        lambda: tf.PvtV2Config(
            image_size=16, hidden_sizes=[8, 16], num_attention_heads=[1, 2], depths=[1, 1], mlp_ratios=[2, 2],
            num_encoder_blocks=2, sr_ratios=[2, 1], patch_sizes=[3, 3], strides=[2, 2], drop_path_rate=0.0,
        ),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_gradient_is_the_same_where_a_batch_is_split(name, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.CONFIGS, name, HEADS[name])
    tiny.build(name, tmp_path)
    rows = rows_of(HEADS[name][0], 14)
    (whole, last), (split, end) = (gradients(name, tmp_path, layout, "full", rows) for layout in ((8, 1), (4, 2)))
    assert whole.norm() > 1e-6 and (whole - split).norm() <= 1e-5 * whole.norm()
    assert (last - end).norm() <= 1e-5 * last.norm()

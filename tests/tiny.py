"""Tiny models of real architectures, built from configs, with tokenizer or image processor; no network."""

from pathlib import Path

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, ViTImageProcessor

WORDS = """good bad fine poor great awful nice dull film book song a the and not very it was plot actor scene""".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZE = len(SPECIAL) + len(WORDS)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = {**SMALL, "vocab_size": SIZE, "max_position_embeddings": 260, "pad_token_id": 0, "initializer_range": 0.2}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
PICTURE = {"image_size": 16, "patch_size": 4}

# name -> (kind, config): kinds are the two tasks' inputs
CONFIGS = {
    "bert": ("text", lambda: tf.BertConfig(**TEXT, **QUIET)),
    "roberta": ("text", lambda: tf.RobertaConfig(**{**TEXT, "max_position_embeddings": 264}, **QUIET)),
    "distilbert": (
        "text",
        lambda: tf.DistilBertConfig(
            vocab_size=SIZE,
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=48,
            max_position_embeddings=260,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
            qa_dropout=0.0,
            initializer_range=0.2,
            pad_token_id=0,
        ),
    ),
    "modernbert": (
        "text",
        lambda: tf.ModernBertConfig(**TEXT, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3),
    ),
    "electra": ("text", lambda: tf.ElectraConfig(**TEXT, embedding_size=32, **QUIET)),
    "llama": (
        "text",
        lambda: tf.LlamaConfig(**TEXT, num_key_value_heads=1, bos_token_id=2, eos_token_id=3),
    ),
    "gpt2": (
        "text",
        lambda: tf.GPT2Config(
            vocab_size=SIZE,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=260,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        ),
    ),
    "vit": ("image", lambda: tf.ViTConfig(**SMALL, **PICTURE)),
    "dinov2": ("image", lambda: tf.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **PICTURE)),
    "beit": ("image", lambda: tf.BeitConfig(**SMALL, **PICTURE)),
    "swin": (
        "image",
        lambda: tf.SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, drop_path_rate=0.0
        ),
    ),
    "convnext": ("image", lambda: tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2)),
    "resnet": (
        "image",
        lambda: tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    ),
    "mobilenet_v2": ("image", lambda: tf.MobileNetV2Config(depth_multiplier=0.25, image_size=32)),
    "timm": (
        "image",
        lambda: tf.TimmWrapperConfig(
            architecture="test_vit",
            pretrained_cfg={"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3},
            model_args={"img_size": 32},
        ),
    ),
    "timm_resnet": (
        "image",
        lambda: tf.TimmWrapperConfig(
            architecture="test_resnet", pretrained_cfg={"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
        ),
    ),
}
# of texts, for tasks that show ten architectures; the slow ones of a test
MORE = {
    "deberta-v2": ("text", lambda: tf.DebertaV2Config(**TEXT, **QUIET, pooler_hidden_size=32)),
    "xlm-roberta": (
        "text",
        # with weights as large as the others' its gradients are in the thousands, and so is what rounding leaves
        lambda: tf.XLMRobertaConfig(**{**TEXT, "max_position_embeddings": 264, "initializer_range": 0.1}, **QUIET),
    ),
    "qwen3": (
        "text",
        lambda: tf.Qwen3Config(**TEXT, num_key_value_heads=1, bos_token_id=2, eos_token_id=3, head_dim=16),
    ),
    "albert": (
        "text",
        lambda: tf.AlbertConfig(**TEXT, **QUIET, embedding_size=16, classifier_dropout_prob=0.0),
    ),
}
TEXTS = [*(name for name, (kind, _) in CONFIGS.items() if kind == "text"), *MORE]
NO_BATCHNORM = [name for name in CONFIGS if name not in ("resnet", "mobilenet_v2", "timm_resnet")]
FAST = ("bert", "modernbert", "llama")
AUTO = {"text": tf.AutoModelForSequenceClassification, "image": tf.AutoModelForImageClassification}


def few_fast(names) -> list:
    """For parametrize: all but a few architectures are for the slow run."""
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of WORDS with [CLS] text [SEP] (pair [SEP])."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=256,
    )


def build(name: str, folder: Path, labels: list[str] | None = None) -> str:
    """Save a tiny `name` with random weights (seed 0) and two or these labels; returns the folder."""
    kind, config = (CONFIGS | MORE)[name]
    config = config()
    if labels is not None:
        config.num_labels = len(labels)
        config.id2label, config.label2id = dict(enumerate(labels)), {x: i for i, x in enumerate(labels)}
    torch.manual_seed(0)
    AUTO[kind].from_config(config).save_pretrained(folder)
    if kind == "text":
        tokenizer().save_pretrained(folder)
    elif not name.startswith("timm"):
        size = config.image_size if name in ("mobilenet_v2",) else 16
        ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return str(folder)


def sentences(num_rows: int, seed: int = 0) -> list[dict]:
    """Rows of text and label, learnable: "pos" when the first word is a praise."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(num_rows):
        length = int(torch.randint(3, 12, (), generator=generator))
        words = [WORDS[int(j)] for j in torch.randint(8, len(WORDS), (length,), generator=generator)]
        good = i % 2 == 0
        rows.append({"text": " ".join([WORDS[0 if good else 1], *words]), "label": "pos" if good else "neg"})
    return rows


def pictures(num_rows: int, seed: int = 0, size: int = 16) -> list[dict]:
    """Rows of a PIL picture and label, learnable: "dark" or "light", with noise."""
    from PIL import Image

    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(num_rows):
        base = 60 if i % 2 == 0 else 180
        values = (base + torch.randint(-40, 40, (size, size, 3), generator=generator)).to(torch.uint8).numpy()
        rows.append({"image": Image.fromarray(values), "label": "dark" if i % 2 == 0 else "light"})
    return rows


def questions(num_rows: int, seed: int = 0, impossible: bool = False, words: int = 20) -> list[dict]:
    """Learnable rows: the answer is the one "good film" in the context; every third has none, if asked for."""
    import numpy as np

    generator, rows = np.random.default_rng(seed), []
    for i in range(num_rows):
        context = generator.choice(WORDS[10:], int(generator.integers(5, words))).tolist()
        without = impossible and i % 3 == 2
        place = int(generator.integers(0, len(context)))
        context[place:place] = [] if without else ["good", "film"]
        text = " ".join(context)
        answers = {"text": [], "answer_start": []}
        if not without:
            answers = {"text": ["good film", "good"], "answer_start": [text.index("good film")] * 2}
        rows.append({"question": "the film was", "context": text, "answers": answers})
    return rows

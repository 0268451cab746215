"""Made-up short sentences with labels, and a small model with a tokenizer for them: what the memory benchmarks read."""

import csv
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

WORDS = """the a of and to in is it that this film movie story character plot scene actor director performance with for
but not very funny dull charming tedious brilliant predictable moving flat clever heavy light comedy drama thriller
romance ending beginning middle dialogue score music camera direction writing script cast audience emotion humor wit
charm energy pace style substance depth feeling sense moment way time life love death family friend world war peace
man woman child people unfortunately never quite manages rather wonderfully overwrought incomprehensible""".split()  # noqa: SIM905


def sentences(num_rows: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(text of 3 to 17 words, about as long as SST-2's, label)."""
    draw = random.Random(seed)
    for _ in range(num_rows):
        yield " ".join(draw.choices(WORDS, k=draw.randint(3, 17))), draw.choice(("negative", "positive"))


def write(folder: Path, num_rows: int, kind: str) -> Path:
    """A file of that many rows: csv, jsonl or parquet."""
    path = folder / f"{num_rows}.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts, labels = zip(*sentences(num_rows), strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        if kind == "csv":
            csv.writer(file).writerows([("text", "label"), *sentences(num_rows)])
        else:
            file.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in sentences(num_rows))
    return path


def model(folder: Path) -> str:
    """minilm-l6-v5k of HFFT_SHARED where that is, else a small BERT with a WordPiece of the words above."""
    shared = Path(os.environ.get("HFFT_SHARED", "../shared")) / "models" / "minilm-l6-v5k"
    return str(shared) if shared.is_dir() else small(folder)


def small(folder: Path) -> str:
    """A BERT of two layers with random weights, and its tokenizer, saved in `folder`."""
    import transformers
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator((text for text, _ in sentences(2000)), vocab_size=2000, show_progress=False)
    size = pieces.get_vocab_size()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=size, **shape)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab=pieces.get_vocab()).save_pretrained(folder)
    return str(folder)

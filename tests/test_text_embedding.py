"""text_embedding: losses and metrics with known values, forms of rows, batches in any layout, reload by other code."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from safetensors.torch import load_file
from test_invariance import LAYOUTS, caught, trainer_of

import hfft
from hfft import batches, contrastive, embedding, several, text
from hfft.contrastive import Embedded
from hfft.evaluation import of_run
from hfft.messages import InputError
from hfft.recipe import ModelSection
from hfft.tasks.text_embedding import TextEmbedding

LORA = [{"peft": {"peft_type": "LORA", "r": 2, "init_lora_weights": False}}]
FORMS = {
    "pair": ["text", "positive"],
    "scored_pair": ["text", "text_pair", "label"],
    "triplet": ["text", "positive", "negative"],
    "labelled": ["text", "label"],
}


def rows_of(form: str, num_rows: int, seed: int = 0) -> list[dict]:
    """Rows of canonical columns; every label has some rows."""
    words = np.random.default_rng(seed)

    def sentence() -> str:
        return " ".join(words.choice(tiny.WORDS, size=words.integers(2, 9)))

    made = {"text": sentence, "text_pair": sentence, "positive": sentence, "negative": lambda: [sentence(), sentence()]}
    rows = [{name: made[name]() for name in FORMS[form] if name != "label"} for _ in range(num_rows)]
    for i, row in enumerate(rows):
        if "label" in FORMS[form]:
            row["label"] = f"class {i % 3}" if form == "labelled" else round(float(words.random()), 3)
    return rows


def recipe_of(base: str, out, **train) -> dict:
    return {
        "task": "text_embedding",
        "model": {"name": base},
        "train": {"output_dir": str(out), "max_steps": 3, "use_cpu": True, "learning_rate": 1e-2, **train},
    }


# ---- losses --------------------------------------------------------------------------------------------------------
@pytest.fixture
def batch() -> Embedded:
    """Eight rows of embeddings of 16 numbers, with a negative each."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(8, 16, generator=generator) for _ in range(3))
    ids, scores = torch.arange(8), torch.rand(8, generator=generator)
    return Embedded(a, b, c, torch.arange(8), ids, ids + 100, ids + 200, scores)


OPTIONS = {"scale": 20.0, "margin": 0.7}
CLASSES = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
# what sentence-transformers 6.2 gives for the same embeddings
KNOWN = [
    ("multiple_negatives_ranking", "cosine", 6.5640621),
    ("cosent", "cosine", 14.4478712),
    ("cosine_mse", "cosine", 0.4326236),
    ("triplet", "cosine", 0.4368613),
    ("triplet", "euclidean", 0.0737961),
    ("batch_hard_triplet", "cosine", 1.1454498),
    ("batch_hard_triplet", "euclidean", 2.3161764),
]


def ours(name: str, distance: str, batch: Embedded) -> float:
    if name == "batch_hard_triplet":
        batch.labels = CLASSES
    return getattr(contrastive, name)(batch, distance=distance, **OPTIONS).item() / 8


@pytest.mark.parametrize(("name", "distance", "expected"), KNOWN)
def test_a_loss_has_its_known_value(name, distance, expected, batch):
    assert ours(name, distance, batch) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "distance", "expected"), KNOWN)
def test_a_loss_is_that_of_sentence_transformers(name, distance, expected, batch):
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses", reason="the extra `embed`")
    hard = losses.BatchHardTripletLossDistanceFunction
    metric = {"cosine": losses.TripletDistanceMetric.COSINE, "euclidean": losses.TripletDistanceMetric.EUCLIDEAN}
    theirs, given = {
        "multiple_negatives_ranking": (losses.MultipleNegativesRankingLoss(None), "abc"),
        "cosent": (losses.CoSENTLoss(None), "ab"),
        "cosine_mse": (losses.CosineSimilarityLoss(None), "ab"),
        "triplet": (losses.TripletLoss(None, metric[distance], 0.7), "abc"),
        "batch_hard_triplet": (
            losses.BatchHardTripletLoss(
                None, hard.cosine_distance if distance == "cosine" else hard.eucledian_distance, 0.7
            ),
            "a",
        ),
    }[name]
    parts = [batch.texts, batch.others, batch.negatives][: len(given)]
    labels = CLASSES if name == "batch_hard_triplet" else batch.labels
    assert theirs.compute_loss_from_embeddings(parts, labels).item() == pytest.approx(expected, abs=1e-5)
    assert ours(name, distance, batch) == pytest.approx(expected, abs=1e-5)


def test_the_supervised_contrastive_loss_is_its_formula_written_out(batch):
    batch.labels, unit = CLASSES, torch.nn.functional.normalize(batch.texts, dim=-1)
    total = 0.0
    for i in range(8):
        others = [j for j in range(8) if j != i]
        below = torch.logsumexp(torch.stack([20 * unit[i] @ unit[j] for j in others]), 0)
        same = [j for j in others if CLASSES[j] == CLASSES[i]]
        total += -sum((20 * unit[i] @ unit[j] - below).item() for j in same) / len(same)
    assert contrastive.supervised_contrastive(batch, scale=20.0).item() == pytest.approx(total, rel=1e-5)
    batch.labels = torch.arange(8)  # nothing in common
    assert contrastive.supervised_contrastive(batch, scale=20.0).item() == 0
    assert contrastive.batch_hard_triplet(batch, margin=0.5, distance="euclidean").item() == 0


def test_what_belongs_to_a_text_is_no_negative_of_it(batch):
    batch.negatives = batch.negative_ids = batch.rows_of_negatives = None
    batch.texts, batch.others = batch.texts[:3], batch.others[:3]
    batch.ids, batch.other_ids = torch.tensor([1, 2, 1]), torch.tensor([11, 12, 12])
    scores = 20 * embedding.cosines(batch.texts, batch.others)
    # row 0 and 2 are one text, row 1 and 2 have one positive: only 0 and 1 are negatives of each other
    first, second = torch.logsumexp(scores[0, :2], 0) - scores[0, 0], torch.logsumexp(scores[1, :2], 0) - scores[1, 1]
    expected = (first + second).item()
    assert contrastive.multiple_negatives_ranking(batch, scale=20.0).item() == pytest.approx(expected, rel=1e-5)


def test_short_embeddings_are_of_length_one(batch):
    short = batch.cut(4)
    assert short.texts.shape == (8, 4) and torch.allclose(short.negatives.norm(dim=-1), torch.ones(8))


# ---- embeddings and metrics ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_does_not_see_padding(side):
    states, real = torch.arange(24.0).reshape(2, 4, 3), several.mask([4, 2])
    real = real if side == "right" else real.flip(1)
    alone = states[1, :2] if side == "right" else states[1, 2:]
    for how, expected in (("mean", alone.mean(0)), ("cls", alone[0]), ("last", alone[-1])):
        found = embedding.pooled(states, real, how)
        assert torch.equal(found[1], expected) and torch.equal(
            found[0], {"mean": states[0].mean(0), "cls": states[0, 0], "last": states[0, 3]}[how]
        )


def test_retrieval_metrics_of_answers_in_a_known_order():
    hits = np.zeros((3, 10), dtype=bool)
    hits[0, 0] = hits[1, 2] = hits[1, 9] = True  # the third query's answer is not found
    found = embedding.ranked(hits, np.array([1, 2, 1]), (*embedding.RETRIEVAL, "accuracy@1", "accuracy@5"))
    gain = (1 / np.log2(4) + 1 / np.log2(11)) / (1 + 1 / np.log2(3))
    assert found == pytest.approx(
        {
            "recall@1": 1 / 3, "recall@5": (1 + 0.5) / 3, "recall@10": 2 / 3, "mrr@10": (1 + 1 / 3) / 3,
            "ndcg@10": (1 + gain) / 3, "accuracy@1": 1 / 3, "accuracy@5": 2 / 3,
        }
    )  # fmt: skip


def test_retrieval_is_that_of_sentence_transformers_with_equal_texts_on_both_sides():
    name = "sentence_transformers.sentence_transformer.evaluation"
    theirs = pytest.importorskip(name, reason="the extra `embed`")
    draw = np.random.default_rng(0)
    anchor_ids, positive_ids = draw.integers(0, 40, 60), draw.integers(0, 30, 60)
    vectors = draw.normal(size=(2, 40, 8)).astype(np.float32)
    anchors, positives = vectors[0, anchor_ids], vectors[1, positive_ids]
    right: dict[str, set] = {}
    for a, b in zip(anchor_ids, positive_ids, strict=True):
        right.setdefault(f"a{a}", set()).add(f"b{b}")
    known = {f"a{i}": vectors[0, i] for i in range(40)} | {f"b{i}": vectors[1, i] for i in range(30)}
    queries, corpus = ({n: n for n in known if n[0] == k and (k == "a" or int(n[1:]) in positive_ids)} for k in "ab")
    measure = {"cosine": lambda a, b: embedding.cosines(torch.as_tensor(a), torch.as_tensor(b))}
    options = {"write_csv": False, "score_functions": measure}
    evaluator = theirs.InformationRetrievalEvaluator(queries, corpus, right, **options)

    class Model:
        def encode(self, names, **_):
            return torch.tensor(np.stack([known[n] for n in names]))

        encode_query = encode_document = encode

    found = evaluator.compute_metrices(Model())["cosine"]
    mine = embedding.of_pairs(anchors, positives, anchor_ids, positive_ids)
    flat = {f"{kind[:-2]}@{k}": v for kind, values in found.items() if kind.endswith("@k") for k, v in values.items()}
    assert all(mine[key] == pytest.approx(flat[key], abs=1e-6) for key in embedding.RETRIEVAL)


def test_the_nearest_of_the_same_label_without_the_text_itself(monkeypatch):
    labels = np.array([0, 0, 1, 1, 2])
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.95, 0.1], [-1, 0]], dtype=np.float32)
    found = embedding.of_labels(vectors, labels)
    assert found["accuracy@1"] == 0 and found["accuracy@5"] == 1
    monkeypatch.setattr(embedding, "CELLS", 5)  # a query at a time
    assert embedding.of_labels(vectors, labels) == found


def test_evaluation_that_would_keep_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hfft.tasks.text_embedding.HELD", 1000)
    with pytest.raises(InputError, match="an evaluation would keep .* at most 3 rows"):
        hfft.finetune(recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run"), data=rows_of("pair", 80))


# ---- batches -------------------------------------------------------------------------------------------------------
def task_of(folder, form: str, **options) -> tuple[TextEmbedding, datasets.Dataset]:
    rows = rows_of(form, 14)
    train = datasets.Dataset.from_list(rows)
    if form == "labelled":
        train = train.class_encode_column("label")
    if form == "scored_pair":
        train = datasets.Dataset.from_list([{**row, "label": {"score": row["label"]}} for row in rows])
    task = TextEmbedding(form=form, **options)
    task.setup(ModelSection(name=str(folder)), train)
    return task, train


def gradients(folder, layout: tuple[int, int], form: str, tuning: str = "full", **options) -> list[torch.Tensor]:
    task, train = task_of(folder, form, **options)
    torch.manual_seed(0)
    model = task.load_model(ModelSection(name=str(folder)))
    return caught(trainer_of(task, model, encoded(task, train), folder, layout, tuning))


def encoded(task, rows) -> batches.EncodedRows:
    return batches.encoded(rows, task, split="train", seed=0)


def assert_alike(whole: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(whole) == len(other) == 2
    for a, b in zip(whole, other, strict=True):
        assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.few_fast(tiny.TEXTS))
def test_the_gradient_is_the_same_for_every_layout_where_a_loss_is_a_sum_over_rows(name, tuning, tmp_path):
    tiny.build(name, tmp_path)
    for form, loss in (("triplet", "triplet"), ("scored_pair", "cosine_mse")):
        whole, *others = [gradients(tmp_path, at, form, tuning, loss_type=loss) for at in LAYOUTS]
        for other in others:
            assert_alike(whole, other)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.few_fast(tiny.TEXTS))
def test_a_batch_computed_two_texts_at_a_time_has_the_gradient_of_the_whole(name, tuning, tmp_path):
    tiny.build(name, tmp_path)
    for form in FORMS:
        whole = gradients(tmp_path, (8, 1), form, tuning, dimensions=[32, 8])
        assert_alike(whole, gradients(tmp_path, (8, 1), form, tuning, dimensions=[32, 8], mini_batch=2))


def test_dropout_is_the_same_where_texts_are_computed_once_more(tmp_path):
    folder = tiny.build("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    task, train = task_of(tmp_path, "pair", mini_batch=4)
    model = task.load_model(ModelSection(name=folder)).train()
    rows = encoded(task, train)
    inputs = task.collate(rows.__getitems__([(0, i, False) for i in range(8)]))

    def of(limit: int | None) -> list[torch.Tensor]:
        task.mini_batch = limit
        torch.manual_seed(1)
        loss, _ = task.loss(model, inputs)
        return [loss.detach(), *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])]

    for one, other in zip(of(4), of(None), strict=True):  # the parts are the same, so the draws are
        assert torch.allclose(one, other, atol=1e-6)


def test_in_batch_negatives_come_from_one_micro_batch(tmp_path):
    """The documented exception: what is accumulated does not see each other."""
    tiny.build("bert", tmp_path)
    whole, halves = (gradients(tmp_path, layout, "pair")[0] for layout in ((8, 1), (4, 2)))
    assert (whole - halves).norm() > 1e-2 * whole.norm()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_for_every_loss(forks, tmp_path):
    tiny.build("bert", tmp_path)
    codes, said = forks.run(Path(__file__), tmp_path, processes=2)
    assert codes == [0, 0], said
    two = torch.load(tmp_path / "found.pt", weights_only=False)
    for (form, options), found in zip(SHARED, two, strict=True):
        assert_alike(gradients(tmp_path, (8, 1), form, **options), found)


SHARED: list[tuple[str, dict]] = [
    ("pair", {}),
    ("pair", {"mini_batch": 3}),
    ("triplet", {"dimensions": [32, 8]}),
    ("triplet", {"loss_type": "triplet"}),
    ("scored_pair", {}),
    ("labelled", {}),
    ("labelled", {"loss_type": "batch_hard_triplet"}),
]


# ---- runs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
def test_a_run_of_each_form_measures_answers_and_is_measured_again(form, tmp_path):
    result = hfft.finetune(recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run"), data=rows_of(form, 40))
    names = TextEmbedding(form=form).metric_names
    assert set(names) <= result.metrics["eval"].keys() and result.metrics["tuned"] == {"form": form}
    answers = result.predict(["good film", "a bad plot and the scene"])
    assert [len(answer["embedding"]) for answer in answers] == [32, 32]
    assert np.linalg.norm(answers[0]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert result.predict("good film")[0]["embedding"] == pytest.approx(answers[0]["embedding"], abs=1e-6)
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of(form, 9, seed=1)))
    assert set(names) <= of_run(str(tmp_path / "run"), data=str(file)).keys()
    assert len(hfft.load(tmp_path / "run").predict(file)) == 9


def test_metrics_of_each_dimension_are_details(tmp_path):
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run")
    recipe["task"] = {"text_embedding": {"dimensions": [16, 4]}}
    found = hfft.finetune(recipe, data=rows_of("pair", 40)).metrics["eval"]["by_dimension"]
    assert list(found) == ["16", "4"] and set(found["4"]) == set(embedding.RETRIEVAL)


@pytest.mark.parametrize("tuning", [[], LORA], ids=["full", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(tuning, tmp_path):
    steps = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": False, "save_total_limit": 9}
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run", **steps | {"max_steps": 6})
    recipe["train"] |= {"per_device_train_batch_size": 8}
    recipe["model"]["config"], recipe["tuning"] = {"hidden_dropout_prob": 0.2}, tuning
    file = tmp_path / "run" / ("adapter_model.safetensors" if tuning else "model.safetensors")
    hfft.finetune(recipe, data=rows_of("pair", 30))
    whole = load_file(file)
    file.unlink()
    (tmp_path / "run" / "metrics.json").unlink()
    for step in (4, 6):
        path = tmp_path / "run" / f"checkpoint-{step}"
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
    hfft.finetune(recipe, data=rows_of("pair", 30), resume=True)
    again = load_file(file)
    assert all(torch.equal(whole[key], again[key]) for key in whole)


PLAIN = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer, logging
logging.disable_progress_bar()
found = []
for folder in sys.argv[1:]:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(["good film", "a bad plot and the scene"], padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in tokenizer.model_input_names}
    mask = inputs["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    found.append(vectors.tolist())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A full run, one with LoRA, and that merged."""
    folder = tmp_path_factory.mktemp("runs")
    base = tiny.build("bert", folder / "base")
    for name, tuning in (("full", []), ("lora", LORA)):
        recipe = recipe_of(base, folder / name) | {"tuning": tuning, "export": ["merge"] if tuning else []}
        hfft.finetune(recipe, data=rows_of("pair", 40))
    return {"full": folder / "full", "lora": folder / "lora", "merged": folder / "lora" / "exports" / "merge"}


@pytest.mark.slow
def test_plain_transformers_code_in_a_fresh_process_gives_the_same_embeddings(runs):
    places = [str(folder) for folder in runs.values()]
    out = subprocess.run([sys.executable, "-c", PLAIN, *places], capture_output=True, text=True, check=True)
    for name, found in zip(runs, json.loads(out.stdout.splitlines()[-1]), strict=True):
        run = runs["lora" if name == "merged" else name]
        answers = hfft.load(run).predict(["good film", "a bad plot and the scene"])
        assert np.abs(np.array(found) - [answer["embedding"] for answer in answers]).max() < 1e-5, name


@pytest.mark.parametrize("name", ["full", "lora", "merged"])
def test_sentence_transformers_loads_a_run_with_the_same_embeddings(name, runs, monkeypatch):
    library = pytest.importorskip("sentence_transformers", reason="the extra `embed` is not installed")
    words = ["good film", "a bad plot and the scene", "nice " * 300]
    monkeypatch.chdir(runs["lora"].parent)  # where the name of the adapter's base means something
    found = library.SentenceTransformer(str(runs[name]), device="cpu").encode(words)
    answers = hfft.load(runs["lora" if name == "merged" else name]).predict(words)
    assert np.abs(found - [answer["embedding"] for answer in answers]).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["roberta", "distilbert", "gpt2"])
def test_sentence_transformers_pools_alike(name, pooling, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="the extra `embed` is not installed")
    base = tiny.build(name, tmp_path / "base")
    if name == "gpt2":
        tokenizer = tf.AutoTokenizer.from_pretrained(base, padding_side="left")
        tokenizer.save_pretrained(base)
    recipe = recipe_of(base, tmp_path / "run", max_steps=1)
    recipe["task"] = {"text_embedding": {"pooling": pooling, "normalize": False}}
    result = hfft.finetune(recipe, data=rows_of("pair", 20))
    words = ["good film", "a bad plot and the scene", "nice " * 300]
    found = library.SentenceTransformer(str(tmp_path / "run"), device="cpu").encode(words)
    assert np.abs(found - [answer["embedding"] for answer in result.predict(words)]).max() < 1e-4


# ---- data ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("anchor,positive", "pair"),
        ("question,answer,id", "pair"),
        ("de,en", "pair"),
        ("sentence1,sentence2,score", "scored_pair"),
        ("query,positive,negative", "triplet"),
        ("anchor,positive,negative_1,negative_2", "triplet"),
        ("text,label", "labelled"),
    ],
)
def test_the_form_is_found_from_the_columns(header, form, tmp_path, caplog):
    caplog.set_level("INFO", logger="hfft")
    words = ["good film", "bad film", "a nice plot", "dull scene", "great book"]
    cells = {"score": lambda i: f"{i / 4}", "id": str, "label": lambda i: "ab"[i % 2]}
    lines = [
        ",".join(cells.get(name, lambda i, at=at: words[(i + at) % 5])(i) for at, name in enumerate(header.split(",")))
        for i in range(20)
    ]
    (tmp_path / "rows.csv").write_text("\n".join([header, *dict.fromkeys(lines)]) + "\n")
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run")
    recipe["data"] = {"path": str(tmp_path / "rows.csv"), "eval_size": 2 if form != "labelled" else 0.4}
    hfft.check(recipe)
    assert f"form {form} (" in caplog.text


SCORED = (
    "sentence1,sentence2,score\n" + "good film,bad film,0.5\nnice book,dull book,3.5\npoor song,fine song,4.5\n" * 2
)
TRIPLETS = [{"text": f"good film {w}", "positive": f"nice film {w}", "negative": [f"bad {w}"]} for w in tiny.WORDS[:9]]


def spoilt(place: int, column: str, value) -> str:
    rows = [dict(row) for row in TRIPLETS]
    rows[place][column] = value
    return "".join(json.dumps(row) + "\n" for row in rows)


WRONG = [
    ("a.csv", "one,two,three\na,b,c\n" * 3, {}, "which form have these rows? it has one, two, three; write task:"),
    ("a.csv", "premise,hypothesis,label\ngood,bad,1\nfine,poor,0\n", {}, "which form have these rows?"),
    ("a.csv", "sentence1,sentence2\ngood,bad\n", {"form": "scored_pair"}, "which column of a.csv is the label? none"),
    ("a.csv", SCORED + "good,poor,high\n", {}, "a.csv line 8, column 'score': is 'high', no number"),
    ("a.csv", SCORED + "good,poor,\n", {}, "a.csv line 8, column 'score': is empty"),
    ("a.csv", SCORED + "good,,1.5\n", {}, "a.csv line 8, column 'sentence2': is empty"),
    ("a.csv", SCORED + "good,poor,inf\n", {}, "a.csv line 8, column 'score': is 'inf', no number"),
    (
        "a.csv",
        SCORED,
        {"loss_type": "cosine_mse"},
        "and cosine_mse wants them from -1 to 1; write the task's score_range",
    ),
    ("a.csv", "anchor,positive\ngood,nice\nfine,  \n", {}, "a.csv line 3, column 'positive': holds only blanks"),
    ("a.jsonl", spoilt(3, "negative", []), {}, "a.jsonl line 4, column 'negative': is empty"),
    ("a.jsonl", spoilt(3, "negative", None), {}, "a.jsonl line 4, column 'negative': is empty"),
    ("a.jsonl", spoilt(3, "negative", ["bad", 7]), {}, "a.jsonl line 4, column 'negative': is 7 (number), no text"),
    ("a.jsonl", spoilt(3, "negative", ["nice film poor"]), {}, "'nice film poor' is the row's positive too"),
    ("a.jsonl", spoilt(3, "positive", ["nice", "fine"]), {}, "a.jsonl line 4, column 'positive': is ['nice', 'fine']"),
    ("a.csv", "text,label\ngood,a\nfine,a\nbad,a\n", {}, "a classifier needs two classes"),
    ("a.csv", "anchor,positive\ngood,nice\n", {"form": "triplet"}, "which column of a.csv is the negative? none"),
]


@pytest.mark.parametrize(("name", "content", "options", "said"), WRONG)
def test_a_wrong_file_is_told_in_one_line(name, content, options, said, tmp_path):
    (tmp_path / name).write_text(content)
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run")
    recipe |= {"task": {"text_embedding": options}, "data": {"path": str(tmp_path / name), "eval_size": 1}}
    with pytest.raises(InputError) as caught:
        hfft.check(recipe)
    (line,) = caught.value.lines
    assert said in line and "\n" not in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "pair", "loss_type": "cosent"}, "cosent is not for the form pair; write multiple_negatives_ranking"),
        ({"scale": 0}, "scale: is 0; write a number above 0"),
        ({"mini_batch": 0}, "mini_batch: is 0; write 1 or more"),
        ({"dimensions": [99]}, "dimensions: 99 is above the 32 numbers of the model's embeddings"),
        ({"dimensions": []}, "dimensions: is []; write numbers from 1 on"),
        ({"score_range": [5, 0]}, "score_range: is [5, 0]; write the lowest and the highest score"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(options, said, tmp_path):
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run")
    with pytest.raises(InputError, match=r".*") as caught:
        hfft.check(recipe | {"task": {"text_embedding": options}}, data=rows_of("pair", 20))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["class_weights", "label_smoothing"])
def test_objectives_of_classes_are_refused(name, tmp_path):
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run") | {"objectives": [name]}
    with pytest.raises(InputError, match=f"objectives: {name}: "):
        hfft.check(recipe, data=rows_of("labelled", 20))


def test_what_the_model_will_see_is_shown(tmp_path):
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run")
    hfft.check(recipe, data=TRIPLETS, show=tmp_path / "seen")
    found = (tmp_path / "seen" / "training_texts.txt").read_text()
    assert "[CLS] good film good [SEP]\n[CLS] nice film good [SEP]\nnot: [CLS] bad good [SEP]" in found


def test_rows_in_are_rows_trained_and_rows_listed(tmp_path):
    (tmp_path / "a.jsonl").write_text(spoilt(3, "negative", []) + spoilt(5, "text", " "))
    recipe = recipe_of(tiny.build("bert", tmp_path / "base"), tmp_path / "run", max_steps=1)
    recipe["data"] = {"path": str(tmp_path / "a.jsonl"), "on_bad_row": "skip", "eval_size": 2}
    data = hfft.finetune(recipe).metrics["data"]
    listed = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert data["rows_read"] == {"train": 18} and [row["line"] for row in listed] == [4, 15]
    assert data["trained"] + 2 + len(listed) >= 16  # copies of held-out rows are held out too
    assert data["dropped"] == 2


def test_texts_that_are_cut_are_counted_text_by_text(tmp_path):
    folder = tiny.build("bert", tmp_path)
    task = TextEmbedding(form="pair", max_length=6)
    task.setup(ModelSection(name=folder))
    found = task.encode({"text": ["good", "good " * 9], "positive": ["bad " * 8, "bad"], "row": [0, 1]})
    assert [row.tolist() for row in found["sizes"]] == [[3, 6], [6, 3]] and task.cut_off() == 2
    whole = text.encode(task.processor, ["good " * 9], None, 6, text.Lengths())["input_ids"][0]
    assert found["input_ids"][1].tolist()[:6] == list(whole)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = [gradients(folder, (4, 1), form, **options) for form, options in SHARED]
    if torch.distributed.get_rank() == 0:
        torch.save(found, folder / "found.pt")

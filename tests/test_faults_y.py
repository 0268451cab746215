"""Recipes that are wrong, row Y01 to Y38 of the catalogue of faults: what `hfft check` says of each, with its place."""

# ruff: noqa: E501 (the lines that are expected stand here as they are printed)

import pytest
import tiny
from verdict import told

HEAD = "task: text_classification\nmodel: {name: base}\ndata: {path: {train: train.csv, eval: eval.csv}}\ntrain:\n"
TRAIN = "  output_dir: run\n  max_steps: 1\n  use_cpu: true\n"
RECIPE = HEAD + TRAIN
WHOLE = "train.per_device_train_batch_size: expected a whole number ≥ 1, got"
SEED = "train.seed: expected a whole number ≥ 0 and < 4294967296, got"


def row(text: str) -> str:
    """The recipe with an eighth line, in `train`."""
    return f"{RECIPE}  {text}\n"


# row of the catalogue and what is wrong -> (the file, its lines from "hfft: error: recipe.yaml:" on)
REFUSED = {
    "Y01 a number in quotes": (
        row("learning_rate: '1e-4'"),
        ["8:18: train.learning_rate: expected a number > 0, got '1e-4' (text); write 1e-4 without quotes"],
    ),
    "Y02 a key twice": (
        row("max_steps: 2"),
        ["8:3: train: 'max_steps' is written twice (first at recipe.yaml:6:3); keep one"],
    ),
    "Y02 a section twice": (
        RECIPE + "model: {name: other}\n",
        ["8:1: 'model' is written twice (first at recipe.yaml:2:1); keep one"],
    ),
    "Y03 a tab": (
        RECIPE + "\tseed: 1\n",
        [
            "8:1: not valid YAML: while scanning for the next token found character '\\t' that cannot start any token; indent with spaces, not tabs"
        ],
    ),
    "Y04 true for a text": (
        row("run_name: true"),
        ["8:13: train.run_name: expected text or null, got true; write it in quotes: 'true'"],
    ),
    "Y05 a bool in quotes": (
        row("bf16: 'false'"),
        ["8:9: train.bf16: expected true or false, got 'false' (text); write false"],
    ),
    "Y06 a misspelt bool": (
        row("bf16: ture"),
        ["8:9: train.bf16: expected true or false, got 'ture'. Did you mean 'true'?"],
    ),
    "Y07 a misspelt key": (
        row("learning_rat: 1e-4"),
        ["8:3: train: unknown key 'learning_rat'. Did you mean 'learning_rate'?"],
    ),
    "Y07 a misspelt section": (
        RECIPE + "tunning: frozen\n",
        ["8:1: unknown key 'tunning'. Did you mean 'tuning'?"],
    ),
    "Y07 thirty misspelt keys": (
        RECIPE + "".join(f"  warmup_step{i}: 1\n" for i in range(30)),
        [
            *[f"{8 + i}:3: train: unknown key 'warmup_step{i}'. Did you mean 'warmup_steps'?" for i in range(10)],
            *[f"{18 + i}:3: train: unknown key 'warmup_step{10 + i}'. Did you mean 'warmup_steps'?" for i in range(10)],
            "… and 10 more",
        ],
    ),
    "Y08 a fraction": (row("per_device_train_batch_size: 3.7"), [f"8:32: {WHOLE} 3.7"]),
    "Y09 a word": (row("per_device_train_batch_size: eight"), [f"8:32: {WHOLE} 'eight'"]),
    "Y10 true for a number": (row("per_device_train_batch_size: true"), [f"8:32: {WHOLE} true"]),
    "Y11 a negative number": (row("per_device_train_batch_size: -4"), [f"8:32: {WHOLE} -4"]),
    "Y11 a number beyond 64 bits": (
        row("per_device_train_batch_size: 99999999999999999999"),
        [
            "8:32: train.per_device_train_batch_size: is too large a number, got 99999999999999999999; write at most 1000000"
        ],
    ),
    "Y11 steps of a stream that no memory holds": (
        row("gradient_accumulation_steps: 1000000").replace(
            "eval: eval.csv}", "eval: eval.csv}, load: {streaming: true}"
        ),
        [
            "8:32: train.gradient_accumulation_steps: with per_device_train_batch_size makes steps of 8,000,000 rows, all held; at most 1,000,000"
        ],
    ),
    "Y12 no accumulation": (
        row("gradient_accumulation_steps: 0"),
        ["8:32: train.gradient_accumulation_steps: expected a whole number ≥ 1, got 0"],
    ),
    "Y13 octal": (row("seed: 010"), [f"8:9: {SEED} '010'; write 10"]),
    "Y14 minutes": (row("seed: 12:30"), [f"8:9: {SEED} '12:30'"]),
    "Y15 underscores": (row("seed: 1_000"), [f"8:9: {SEED} '1_000'; write 1000"]),
    "Y16 null": (row("num_train_epochs: null"), ["8:21: train.num_train_epochs: expected a number > 0, got null"]),
    "Y16 a missing value": (
        row("num_train_epochs:"),
        ["8:20: train.num_train_epochs: has no value; write one, or null, or delete the line"],
    ),
    "Y17 nan": (row("weight_decay: .nan"), ["8:17: train.weight_decay: must be a finite number, got nan"]),
    "Y17 infinity": (row("max_grad_norm: .inf"), ["8:18: train.max_grad_norm: must be a finite number, got inf"]),
    "Y18 a list": (row("learning_rate: [1e-4]"), ["8:18: train.learning_rate: expected a number > 0, got a list"]),
    "Y18 a mapping": (row("seed: {a: 1}"), [f"8:9: {SEED} a mapping"]),
    "Y19 a percentage": (
        row("weight_decay: 5%"),
        ["8:17: train.weight_decay: expected a number ≥ 0, got '5%'; write 0.05"],
    ),
    "Y20 a decimal comma": (
        row("weight_decay: 0,001"),
        ["8:17: train.weight_decay: expected a number ≥ 0, got '0,001'; write 0.001"],
    ),
    "Y21 an empty file": ("", ["1:1: the file is empty; a recipe needs at least `task` and `train`"]),
    "Y22 a list": ("- task\n", ["1:1: the top level must be a mapping (task: …, model: …), got a list"]),
    "Y23 a word": (
        "text_classification\n",
        ["1:1: the top level must be a mapping (task: …, model: …), got 'text_classification'"],
    ),
    "Y24 two documents": (RECIPE + "---\n" + RECIPE, ["8:1: a second document; a recipe is one document"]),
    "Y25 a Python tag": (
        RECIPE + "  run_name: !!python/object/apply:os.system [touch canary]\n",
        ["8:13: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed; delete it"],
    ),
    "Y26 aliases of aliases": (
        "a: &a [x, x]\nb: &b [*a, *a]\n" + RECIPE,
        ["1:4: anchors (&) and aliases (*) are not allowed; write the value out"],
    ),
    "Y27 nested five thousand deep": (
        RECIPE + "tuning: " + "[" * 5000 + "]" * 5000,
        ["8:41: nested deeper than 32 levels"],
    ),
    "Y27 a hundred thousand values": (
        RECIPE + "metrics: [" + "a," * 100_000 + "]\n",
        ["8:99985: more than 50,000 values; a recipe is a page of YAML"],
    ),
    "Y28 Latin-1": (row("run_name: café").encode("latin-1"), ["8:16: not UTF-8; save the file as UTF-8"]),
    "Y29 a NUL byte": (row("run_name: a\0b"), ["8:14: control character U+0000; delete it"]),
    "Y29 an escape": (row("run_name: a\x1b[2Jb"), ["8:14: control character U+001B; delete it"]),
    "Y29 a NUL written out": (
        row('run_name: "a\\0b"'),
        ["8:13: train.run_name: holds a NUL character or half a surrogate pair; delete it"],
    ),
    "Y29 a character beyond Unicode": (
        row('run_name: "\\UFFFFFFFF"'),
        [" not valid YAML: Python int too large to convert to C int"],
    ),
    "Y32 an open quote": (
        row('run_name: "a'),
        ["9:1: not valid YAML: while scanning a quoted scalar found unexpected end of stream; a quote is not closed"],
    ),
    "Y33 two colons": (
        row("run_name: b: c"),
        ["8:14: not valid YAML: mapping values are not allowed here; put quotes around text that contains ': '"],
    ),
    "Y34 a variable": (
        row("run_name: ${USER}-1"),
        [
            "8:13: train.run_name: '${' is not expanded in a recipe; write the value, or give key=value on the command line"
        ],
    ),
    "Y35 a home folder in quotes, alone": (
        (HEAD + TRAIN).replace("run\n", "'~'\n"),
        ["5:15: train.output_dir: '~' is not expanded in a recipe; write the whole path"],
    ),
    "Y35 a home folder": (
        (HEAD + TRAIN).replace("run\n", "~/run\n"),
        ["5:15: train.output_dir: '~' is not expanded in a recipe; write the whole path"],
    ),
    "Y36 a merge key": (row("<<: {seed: 1}"), ["8:3: merge keys (<<) are not allowed; write the keys out"]),
    "Y37 a key of another section": (row("columns: {text: a}"), ["8:3: train: 'columns' belongs under data:"]),
    "Y37 a key without its section": (RECIPE + "learning_rate: 1e-4\n", ["8:1: 'learning_rate' belongs under train:"]),
    "Y37 a misspelt option of a part": (
        RECIPE + "tuning: [{peft: {peft_type: LORA, lora_alfa: 8}}]\n",
        ["8:35: tuning.0.peft: unknown key 'lora_alfa'. Did you mean 'lora_alpha'?"],
    ),
    "Y37 a key below a scalar": (
        RECIPE.replace("{name: base}", "base"),
        ["2:8: model: expected a mapping (key: value), got 'base'; write model: {name: base}"],
    ),
    "Y38 a recipe of a later version": (
        "version: 2\n" + RECIPE,
        ["1:10: version: this recipe is of version 2, this hfft reads version 1; upgrade hfft (pip install -U hfft)"],
    ),
    "a batch found by itself": (
        row("auto_find_batch_size: true"),
        [
            "8:3: train: 'auto_find_batch_size' would start again with another batch where memory ends, and the learning rate as it was; write a smaller per_device_train_batch_size and a larger gradient_accumulation_steps"
        ],
    ),
    "a million worker processes": (
        row("dataloader_num_workers: 1000000"),
        ["8:27: train.dataloader_num_workers: expected a whole number ≥ 0 and ≤ 256, got 1000000"],
    ),
    "several mistakes": (
        row("lerning_rate: 1").replace("{name: base}", "{nme: base}").replace("max_steps: 1", "max_steps: x"),
        [
            "2:9: model: unknown key 'nme'. Did you mean 'name'?",
            "6:14: train.max_steps: expected -1 or a whole number ≥ 1, got 'x'",
            "8:3: train: unknown key 'lerning_rate'. Did you mean 'learning_rate'?",
        ],
    ),
}

# row and what is odd -> (the file, the key of `train` and the value that it has)
USED = {
    "Y01 a number in powers of ten": (row("learning_rate: 1e-4"), "learning_rate", 0.0001),
    "Y04 no for a text": (row("run_name: no"), "run_name", "no"),
    "Y14 minutes for a text": (row("run_name: 12:30"), "run_name", "12:30"),
    "Y30 a byte order mark": ("\ufeff" + row("seed: 3"), "seed", 3),
    "Y31 Windows line ends": (row("seed: 3").replace("\n", "\r\n"), "seed", 3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, data, and where each recipe is put in turn."""
    folder = tmp_path_factory.mktemp("recipes")
    tiny.build("bert", folder / "base")
    for seed, name in enumerate(("train.csv", "eval.csv")):
        rows = [f"{row['text']},{row['label']}\n" for row in tiny.sentences(12, seed)]
        (folder / name).write_text("text,label\n" + "".join(rows))
    return folder


def write(folder, text: str | bytes) -> str:
    (folder / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return "recipe.yaml"


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_recipe_is_told_by_its_place(case, forks, folder):
    text, expected = REFUSED[case]
    lines = told(forks, "check", write(folder, text), code=2, FOLDER=str(folder))
    start = "hfft: error: "
    assert lines == [start + (line if line.startswith("…") else f"recipe.yaml:{line}") for line in expected]
    assert not (folder / "canary").exists() and not (folder / "run").exists()


@pytest.mark.parametrize("case", USED)
def test_an_odd_recipe_means_what_it_says(case, forks, folder):
    from hfft.recipe import Recipe

    text, key, value = USED[case]
    told(forks, "check", write(folder, text), code=0, FOLDER=str(folder))
    assert Recipe.read(folder / "recipe.yaml").train[key] == value


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.learning_rat=1", "command line: train.learning_rat=1: train: unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("train.bf16=ture", "command line: train.bf16=ture: train.bf16: expected true or false, got 'ture'. Did you mean 'true'?"),
        ("train.seed=[1", "command line: train.seed=[1: not valid YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'"),
        ("data.columns={text: body}", "command line: data.columns={text: body}: data.columns.text: train.csv has no column 'body'. It has text, label."),
    ],
)  # fmt: skip
def test_a_wrong_override_is_told_as_the_command_line_has_it(override, line, forks, folder):
    lines = told(forks, "check", write(folder, RECIPE), override, code=2, FOLDER=str(folder))
    assert lines[-1] == "hfft: error: " + line

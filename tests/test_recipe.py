"""Recipes: reading, overrides, saving, the JSON Schema, and a right suggestion for every single-letter typo."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from hfft.grammar import positions, rules, schema
from hfft.messages import InputError
from hfft.recipe import DataSection, ModelSection, Part, Recipe, export_part, json_schema

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = {"task": "text_classification", "train": {"output_dir": "runs/x"}}
ODD = ["01", "no", "on", "5e-4", "1e5", "null", "~", "", "a: b", "# x", "- a", " x ", "é", "1_000", "12:30", "0x1F"]
ODD += ["true", "[a", "two\nlines", "tab\t", "=", "<<", "*a", "&a", "!t", "%", "@", "`", ".inf", "-.5", "'", '"', "\\"]
ODD += ["\x85", "\u2028", "\ufeff", "a" * 300 + " b" * 100, "2020-01-01", "😀"]


def read(folder, text, *overrides, **options):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return Recipe.read(path, list(overrides), **options)


def lines(given, *overrides):
    with pytest.raises(InputError) as error:
        Recipe.from_dict(given, list(overrides))
    return error.value.lines


def keys(data, path=()):
    """The path of every key in nested data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in pairs:
        if isinstance(step, str):
            yield (*path, step)
        yield from keys(value, (*path, step))


def typos(word, letters):
    """Every word that one deletion, swap of neighbours, insertion or substitution makes of `word`."""
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    found = {a + b[1:] for a, b in cuts if b} | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    found |= {a + letter + b for a, b in cuts for letter in letters}
    found |= {a + letter + b[1:] for a, b in cuts if b for letter in letters}
    return sorted(found - {word})


def with_typo(text, spot, key, typo):
    """The text of a recipe with the key at `spot` misspelt, or None where YAML cannot read the typo as a plain key."""
    rows = text.split("\n")
    row = rows[spot.line - 1]
    start = spot.column - 1
    assert row[start:].startswith(key)
    rows[spot.line - 1] = row[:start] + typo + row[start + len(key) :]
    return "\n".join(rows)


def check_typos(recipe, letters, folder, seen):
    """Every typo of every key is one line: the key's line and column, and the right suggestion."""
    text = recipe.read_text()
    source = positions.read(recipe)
    file = folder / recipe.name
    for path in keys(source.data):
        if path[:-1] == ("data", "labels") or (key := (path[0] == "task" and str(source.data["task"]), path)) in seen:
            continue
        seen.add(key)
        spot, word = source.keys[path], str(path[-1])
        for typo in typos(word, letters):
            if typo in rules.value_at(source.data, path[:-1]):
                continue  # the typo is another key of this mapping
            file.write_text(with_typo(text, spot, word, typo))
            with pytest.raises(InputError) as error:
                Recipe.read(file)
            found = error.value.lines
            assert len(found) == 1, (path, typo, found)
            assert found[0].startswith(f"{file}:{spot.line}:{spot.column}: "), (path, typo, found)
            if not typo and "a key is missing before ':'" in found[0]:
                continue  # of a one-letter key nothing is left, which YAML itself refuses in {}
            assert repr(word) in found[0].split("Did you mean")[-1] and "Did you mean" in found[0], (typo, found)


def test_a_recipe_is_read_into_its_sections(tmp_path):
    recipe = read(
        tmp_path,
        """
task: {text_classification: {max_length: 64}}
model: {name: some/bert, dtype: float32, config: {hidden_dropout_prob: 0.0}}
data:
  path: {train: a.csv, eval: b.csv}
  load: {sep: ";", header: null}
  columns: {text: [title, body]}
  labels: {0: no, 1: yes}
  filters: dedup
tuning: [frozen, {peft: {peft_type: LORA, r: 4}}]
objectives: {class_weights: balanced}
metrics: f1
train: {output_dir: runs/x, learning_rate: 5e-4, eval_strategy: no, early_stopping_patience: 3}
export: merge
""",
    )
    assert recipe.task == Part("text_classification", {"max_length": 64})
    assert recipe.model == ModelSection(
        name="some/bert", config={"hidden_dropout_prob": 0.0}, options={"dtype": "float32"}
    )
    assert recipe.data == DataSection(
        path={"train": "a.csv", "eval": "b.csv"},
        load={"sep": ";", "header": None},
        columns={"text": ["title", "body"]},
        labels={"0": "no", "1": "yes"},
        filters=[Part("dedup")],
    )
    assert recipe.tuning == [Part("frozen"), Part("peft", {"peft_type": "LORA", "r": 4})]
    assert recipe.objectives == [Part("class_weights", {"weights": "balanced"})]
    assert recipe.metrics == ["f1"] and recipe.export == [Part("merge")]
    assert recipe.train == {
        "output_dir": "runs/x",
        "learning_rate": 0.0005,
        "eval_strategy": "no",
        "early_stopping_patience": 3,
    }


def test_where_names_the_file_line_and_column(tmp_path):
    recipe = read(tmp_path, "task: text_classification\ntrain: {output_dir: o}\ndata:\n  columns: {text: a}\n")
    assert recipe.where("data", "columns") == f"{tmp_path / 'recipe.yaml'}:4:3: data.columns"
    assert recipe.where("data", "eval") == f"{tmp_path / 'recipe.yaml'}:3:1: data.eval"
    assert Recipe.from_dict(SMALL).where("data", "columns") == "data.columns"


def test_train_null_trains_nothing_and_a_missing_output_dir_is_an_error():
    assert Recipe.from_dict({"task": "text_classification", "train": None}).train is None
    needs = "needs output_dir: the folder that the run leaves"
    assert lines({"task": "text_classification", "train": {}}) == [f"train: {needs}"]
    assert lines({"task": "text_classification"}) == [f"the recipe has no train section; it {needs}"]


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    text = b"task: text_classification\r\ntrain:\r\n  output_dir: runs/x\r\n"
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + text)
    assert Recipe.read(tmp_path / "r.yaml") == Recipe.from_dict(SMALL)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-4", 0.0005), ("1e-4", 0.0001), ("10", 10), ("-0.5", -0.5), (".5", 0.5), ("true", True), ("null", None)]
    + [(text, text) for text in ("no", "on", "off", "yes", "01", "010", "12:30", "1_000", "0x1F", "1e", "2020-01-01")],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    found = positions.parse(f"key: {text}", "f").data["key"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads_back_equal_from_what_it_saves(path, tmp_path):
    recipe = Recipe.read(path)
    assert len(path.read_text().splitlines()) <= 40
    recipe.save(tmp_path / "saved.yaml")
    assert Recipe.read(tmp_path / "saved.yaml") == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_odd_texts_read_back_equal(tmp_path):
    recipe = Recipe.from_dict(
        {
            **SMALL,
            "data": {"path": "a.csv", "labels": {text: text for text in ODD}, "join": "\n", "revision": "5e-4"},
            "train": {"output_dir": "01", "learning_rate": 1e-5, "weight_decay": 1e-300, "seed": 2**31},
        }
    )
    recipe.save(tmp_path / "saved.yaml")
    assert Recipe.read(tmp_path / "saved.yaml") == recipe
    assert list(recipe.data.labels) == ODD


def test_overrides_are_typed_and_replace_or_create(tmp_path):
    text = "task: text_classification\ntrain: {output_dir: o}\ntuning: {peft: {peft_type: LORA, r: 4}}\n"
    given = [
        "train.learning_rate=5e-4",
        "train.run_name=a: b",
        "train.lr_scheduler_kwargs={num_cycles: 2}",
        "data.path=x.csv",
        "data.columns.text=body",
        "data.filters=[dedup]",
        "tuning.0.peft.r=8",
        "tuning.1=frozen",
        "task.text_classification.max_length=32",
        "export.0=merge",
        "model.revision='01'",
        "model.name=a/b",
    ]
    recipe = read(tmp_path, text, *given)
    assert recipe.train == {
        "output_dir": "o",
        "learning_rate": 0.0005,
        "run_name": "a: b",
        "lr_scheduler_kwargs": {"num_cycles": 2},
    }
    assert recipe.tuning == [Part("peft", {"peft_type": "LORA", "r": 8}), Part("frozen")]
    assert recipe.data == DataSection(path="x.csv", columns={"text": "body"}, filters=[Part("dedup")])
    assert recipe.task == Part("text_classification", {"max_length": 32}) and recipe.export == [Part("merge")]
    assert recipe.model == ModelSection(name="a/b", revision="01")


def test_an_override_repairs_a_mistake_of_the_file(tmp_path):
    text = "task: text_classification\ntrain: {output_dir: o, learning_rate: }\n"
    assert read(tmp_path, text, "train.learning_rate=1e-3").train["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.learning_rat=1", "train: unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("train.bf16=yes", "train.bf16: expected true or false, got 'yes'; write true"),
        ("train.seed=", "train.seed: has no value; write one, or null"),
        ("trian.seed=1", "unknown key 'trian'. Did you mean 'train'?"),
        ("tuning.0=frozn", "tuning.0: unknown name 'frozn'. Did you mean 'frozen'?"),
        ("train.run_name='a", "not valid YAML: while scanning a quoted scalar found unexpected end of stream; "
         "a quote is not closed"),
        ("train.seed", "an override is key.path=value, such as train.learning_rate=5e-4"),
        ("=3", "an override is key.path=value, such as train.learning_rate=5e-4"),
        ("train..seed=3", "'train..seed' is no path of keys, such as train.learning_rate"),
        ("train.seed.x=3", "train.seed is 7, it has no 'x'"),
        ("tuning.3.peft.r=8", "tuning has 0 entries; the next index is 0"),
        ("train.0=3", "train is a mapping, it has no 0"),
        ("train.output_dir=${HOME}", "train.output_dir: '${' is not expanded in a recipe; write the value, "
         "or give key=value on the command line"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_one_line_at_the_command_line(override, line):
    given = {"task": "text_classification", "train": {"output_dir": "o", "seed": 7}}
    assert lines(given, override) == [f"command line: {override}: {line}"]


def test_a_secret_is_never_shown():
    secret = "hf_" + "a1B2" * 8
    given = {**SMALL, "model": {"name": "a", "token": secret}, "data": {"path": secret, "load": {"password": secret}}}
    found = lines({**given, "train": {"output_dir": "o", "hub_token": secret}}, f"train.hub_token={secret}")
    assert len(found) == 4 and secret not in "\n".join(found)


def test_mistakes_are_told_all_at_once_in_the_order_of_the_file(tmp_path):
    text = "train: {lerning_rate: 1, seed: x}\ntask: text_clasification\nmodel: {}\n"
    with pytest.raises(InputError) as error:
        read(tmp_path, text, "train.bf16=1")
    places = [line.removeprefix(str(tmp_path / "recipe.yaml")).split(": ")[0] for line in error.value.lines]
    assert places == [":1:8", ":1:9", ":1:32", ":2:7", ":3:8", "command line"]


ANY = [None, 3, 0.5, float("nan"), True, "x", "", [], [1], [[]], [None], {}, {"a": {"b": []}}]


@pytest.mark.parametrize("value", ANY)
def test_any_value_anywhere_is_read_or_refused_in_lines(value):
    whole = {
        **SMALL, "version": 1, "model": {"name": "a", "config": {"model_type": "vit"}}, "tuning": [{"peft": {"r": 8}}],
        "data": {"path": {"train": "a"}, "columns": {"text": "a"}, "load": {"sep": ";"}, "filters": ["dedup"]},
    }  # fmt: skip
    for path in [(), *keys(whole), ("tuning", 0), ("data", "labels"), ("metrics",), ("export",), ("objectives",)]:
        data = json.loads(json.dumps(whole))
        if path:
            rules.value_at(data, path[:-1])[path[-1]] = value
        try:
            Recipe.from_dict(data if path else value)
        except InputError as error:
            assert error.lines and not any("\n" in line for line in error.lines)


def test_sections_that_a_command_needs_are_asked_for():
    with pytest.raises(InputError) as error:
        Recipe.from_dict(SMALL).require("model", "data", "train")
    assert error.value.lines == [
        "the recipe has no model section; write model: {name: a Hub id or folder}",
        "the recipe has no data section; write data: {path: a Hub id, file or folder}",
    ]


def test_options_of_an_export_come_from_the_command_line():
    assert export_part("merge", ["dtype=float16"]) == Part("merge", {"dtype": "float16"})
    with pytest.raises(InputError, match=r"command line: dtyp=1: export\.merge: unknown key 'dtyp'"):
        export_part("merge", ["dtyp=1"])


def test_a_users_own_part_needs_trust_and_is_checked_by_its_signature(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text('"""Mine."""\n\ndef mine(model, *, scale: float, task):\n    """Scales."""\n    return model\n')
    given = {**SMALL, "tuning": [{str(own): {"scale": 2}}]}
    assert Recipe.from_dict(given, trust_code=True).tuning == [Part(str(own), {"scale": 2})]
    assert "--trust-code" in lines(given)[0]
    with pytest.raises(InputError, match="unknown key 'scal'"):
        Recipe.from_dict({**SMALL, "tuning": [{str(own): {"scal": 2}}]}, trust_code=True)
    with pytest.raises(InputError, match=r"tuning: no file 'other\.py'"):
        Recipe.from_dict({**SMALL, "tuning": "other.py"}, trust_code=True)


def test_config_keys_of_a_local_checkpoint_are_checked(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    found = lines({**SMALL, "model": {"name": str(tmp_path), "config": {"hiden_dropout_prob": 0.1}}})
    assert found == ["model.config: unknown key 'hiden_dropout_prob'. Did you mean 'hidden_dropout_prob'?"]


def test_single_letter_typos_are_answered_at_their_place_with_the_right_key(tmp_path):
    seen: set = set()
    for recipe in RECIPES:
        check_typos(recipe, "e", tmp_path, seen)
    assert len(seen) >= 30


@pytest.mark.slow
def test_typos_with_other_letters_are_answered_with_the_right_key_too(tmp_path):
    seen: set = set()  # a key that another recipe has had at the same place
    for recipe in RECIPES:
        check_typos(recipe, "aeinort_", tmp_path, seen)


def test_the_fields_are_those_of_the_installed_libraries():
    import dataclasses

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from transformers import Seq2SeqTrainingArguments, ViTConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    public = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments) if not field.name.startswith("_")}
    assert set(schema.train_fields()) == public
    assert set(schema.peft_classes()) == {str(getattr(key, "value", key)) for key in PEFT_TYPE_TO_CONFIG_MAPPING}
    for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        fields = {field.name for field in dataclasses.fields(config) if field.init}
        assert set(schema.peft_fields(str(getattr(name, "value", name)))) == fields, name
    assert set(schema.model_types()) == set(CONFIG_MAPPING_NAMES)
    assert {field.name for field in dataclasses.fields(ViTConfig)} <= set(schema.config_fields("vit"))
    assert all(schema.config_fields(model_type) for model_type in schema.model_types())


def test_every_annotation_of_the_libraries_is_understood():
    groups = [schema.train_fields(), schema.model_keys(), schema.load_keys()]
    groups += [schema.peft_fields(name) for name in schema.peft_classes()]
    groups += [schema.config_fields(name) for name in ("vit", "bert", "llama", "timm_wrapper", "swin", "modernbert")]
    for option in [option for group in groups for option in group.values()]:
        assert schema.to_type(option.annotation) is not ...


def test_the_json_schema_holds_every_part_and_every_key():
    found = json_schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(found["properties"]) == {
        "version",
        "task",
        "model",
        "data",
        "tuning",
        "objectives",
        "metrics",
        "train",
        "export",
    }
    train = found["properties"]["train"]["anyOf"][0]["properties"]
    assert {"learning_rate", "early_stopping_patience"} <= set(train) and "hub_token" not in train
    assert train["per_device_train_batch_size"] == {"minimum": 1, "type": "integer"}
    text = json.dumps(found)
    for word in ("frozen", "class_weights", "text_classification", "LORA", "lora_alpha", "attn_implementation", "sep"):
        assert f'"{word}"' in text


def test_the_json_schema_accepts_every_recipe_and_refuses_a_typo():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    for path in RECIPES:
        assert list(validator.iter_errors(positions.read(path).data)) == []
    assert list(validator.iter_errors({**SMALL, "trian": 1}))


def test_a_wrong_recipe_is_answered_without_torch_or_transformers(tmp_path):
    text = "task: text_classification\nmodel: {nme: x, config: {model_type: vit, x: 1}}\n"
    text += "tuning: {peft: {peft_type: LORA, q: 1}}\n"
    (tmp_path / "r.yaml").write_text(text + "train: {learning_rat: 1}\ndata: {load: {sepp: 1}}\n")
    heavy = ("torch", "transformers", "peft", "datasets", "numpy", "pandas", "PIL")
    code = (
        "import sys\nfrom hfft.recipe import Recipe\n"
        "try:\n    Recipe.read(sys.argv[1])\nexcept ValueError as error:\n    print(len(error.lines))\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.yaml")]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert out.split("\n")[1] == "[]" and int(out.split("\n")[0]) == 6


def test_recipes_are_read_without_a_home_that_can_be_written(tmp_path):
    command = [sys.executable, "-c", "from hfft.recipe import json_schema; json_schema()"]
    env = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", "PATH": ""}
    assert subprocess.run(command, cwd=ROOT, env=env, capture_output=True).returncode == 0


def test_neighbouring_overrides_keep_their_order():
    found = lines(SMALL, "train.seed=a", "train.bf16=b", "train.fp16=c")
    assert all(a < b for a, b in pairwise([line.split("=")[1][0] for line in found]))

"""Wrong recipes: each with every line that it gets, exactly."""

import pytest

from hfft.messages import InputError
from hfft.recipe import Recipe

TASKS = (
    *("feature_extraction", "image_classification", "masked_lm", "question_answering"),
    *("text_classification", "text_embedding", "token_classification"),
)
TASK = "task: text_classification\n"
NULL = "train: null\n"
HEAD = TASK + "model: {name: a/b}\ntrain: {output_dir: o}\n"
PEFT = "'ADALORA', 'ADAMSS', 'ADAPTION_PROMPT', 'BEFT', 'BOFT', 'C3A', 'CARTRIDGE', 'CPT', 'DEFT', 'DELORA', "
PEFT += "'FOURIERFT', 'FROD' or …"
SECRET = "is not for a recipe (recipes are shared and saved); set HF_TOKEN in the environment or run `hf auth login`"
HUB = "is not for a recipe's train section; write export: [{hub: {repo: user/name}}], "
HUB += "with HF_TOKEN in the environment or `hf auth login`"
GONE = "is gone from TrainingArguments; "


def train(text):
    """A recipe whose third line is one more key of `train`."""
    return f"{TASK}train:\n  {text}\n  output_dir: o\n"


WRONG = {
    # scalars
    "a number in quotes": (
        train("learning_rate: '1e-4'"),
        ["3:18: train.learning_rate: expected a number > 0, got '1e-4' (text); write 1e-4 without quotes"],
    ),
    "a bool in quotes": (
        train("bf16: 'false'"), ["3:9: train.bf16: expected true or false, got 'false' (text); write false"],
    ),
    "no for a bool": (train("bf16: no"), ["3:9: train.bf16: expected true or false, got 'no'; write false"]),
    "a misspelt bool": (
        train("bf16: ture"), ["3:9: train.bf16: expected true or false, got 'ture'. Did you mean 'true'?"],
    ),
    "a fraction for a whole number": (
        train("per_device_train_batch_size: 3.7"),
        ["3:32: train.per_device_train_batch_size: expected a whole number ≥ 1, got 3.7"],
    ),
    "a whole number with a point": (
        train("per_device_train_batch_size: 8.0"),
        ["3:32: train.per_device_train_batch_size: expected a whole number ≥ 1, got 8.0; write 8"],
    ),
    "a number in words": (
        train("per_device_train_batch_size: eight"),
        ["3:32: train.per_device_train_batch_size: expected a whole number ≥ 1, got 'eight'"],
    ),
    "true for a number": (
        train("per_device_train_batch_size: true"),
        ["3:32: train.per_device_train_batch_size: expected a whole number ≥ 1, got true"],
    ),
    "a negative batch": (
        train("per_device_train_batch_size: -4"),
        ["3:32: train.per_device_train_batch_size: expected a whole number ≥ 1, got -4"],
    ),
    "no accumulation": (
        train("gradient_accumulation_steps: 0"),
        ["3:32: train.gradient_accumulation_steps: expected a whole number ≥ 1, got 0"],
    ),
    "octal": (
        train("seed: 010"),
        ["3:9: train.seed: expected a whole number ≥ 0 and < 4294967296, got '010'; write 10"],
    ),
    "minutes": (
        train("seed: 12:30"), ["3:9: train.seed: expected a whole number ≥ 0 and < 4294967296, got '12:30'"],
    ),
    "underscores": (
        train("save_total_limit: 1_000"),
        ["3:21: train.save_total_limit: expected a whole number ≥ 1 or null, got '1_000'; write 1000"],
    ),
    "null where a value is needed": (
        train("num_train_epochs: null"), ["3:21: train.num_train_epochs: expected a number > 0, got null"],
    ),
    "a missing value": (
        train("num_train_epochs:"),
        ["3:20: train.num_train_epochs: has no value; write one, or null, or delete the line"],
    ),
    "nan": (train("weight_decay: .nan"), ["3:17: train.weight_decay: must be a finite number, got nan"]),
    "infinity": (train("max_grad_norm: -.inf"), ["3:18: train.max_grad_norm: must be a finite number, got -inf"]),
    "a number too large": (
        train("max_grad_norm: 1e999"),
        ["3:18: train.max_grad_norm: must be a finite number, got inf"],
    ),
    "a list for a scalar": (
        train("learning_rate: [1e-4]"), ["3:18: train.learning_rate: expected a number > 0, got a list"],
    ),
    "a percentage": (
        train("weight_decay: 5%"), ["3:17: train.weight_decay: expected a number ≥ 0, got '5%'; write 0.05"],
    ),
    "a decimal comma": (
        train("weight_decay: 0,001"), ["3:17: train.weight_decay: expected a number ≥ 0, got '0,001'; write 0.001"],
    ),
    "a number for a text": (
        train("run_name: 7"), ["3:13: train.run_name: expected text or null, got 7; write it in quotes: '7'"],
    ),
    "a learning rate of zero": (train("learning_rate: 0"), ["3:18: train.learning_rate: expected a number > 0, got 0"]),
    "no steps": (train("max_steps: 0"), ["3:14: train.max_steps: expected -1 or a whole number ≥ 1, got 0"]),
    "half a warmup step": (
        train("warmup_steps: 1.5"),
        ["3:17: train.warmup_steps: expected a whole number ≥ 0 or a number ≥ 0 and < 1, got 1.5"],
    ),
    "a misspelt choice": (
        train("eval_strategy: stpes"),
        ["3:18: train.eval_strategy: expected 'no', 'steps' or 'epoch', got 'stpes'. Did you mean 'steps'?"],
    ),
    "a short name for an optimizer": (
        train("optim: adamw_torch_fuse"),
        ["3:10: train.optim: expected 'adamw_torch', 'adamw_torch_fused', 'adamw_torch_xla', 'adamw_torch_npu_fused', "
         "'adafactor', 'adamw_anyprecision', 'adamw_torch_4bit', 'adamw_torch_8bit', 'ademamix', 'sgd', 'adagrad', "
         "'adamw_bnb_8bit' or …, got 'adamw_torch_fuse'. Did you mean 'adamw_torch_fused'?"],
    ),
    # YAML
    "a key twice": (
        train("output_dir: p"),
        ["4:3: train: 'output_dir' is written twice (first at FILE:3:3); keep one"],
    ),
    "a tab": (
        "task: a\ntrain:\n\toutput_dir: o\n",
        ["3:1: not valid YAML: while scanning for the next token found character '\\t' that cannot start any token; "
         "indent with spaces, not tabs"],
    ),
    "an empty file": ("", ["1:1: the file is empty; a recipe needs at least `task` and `train`"]),
    "only a comment": ("# later\n", ["1:1: the file is empty; a recipe needs at least `task` and `train`"]),
    "a list": ("- task\n", ["1:1: the top level must be a mapping (task: …, model: …), got a list"]),
    "a word": ("task\n", ["1:1: the top level must be a mapping (task: …, model: …), got 'task'"]),
    "two documents": (HEAD + "---\n" + HEAD, ["4:1: a second document; a recipe is one document"]),
    "a Python tag": (
        TASK + "train: !!python/object/apply:os.system [true]\n",
        ["2:8: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed; delete it"],
    ),
    "an alias": (
        "task: &a [x]\ntrain: *a\n",
        ["1:7: anchors (&) and aliases (*) are not allowed; write the value out"],
    ),
    "deep nesting": ("task: " + "[" * 5000 + "]" * 5000, ["1:39: nested deeper than 32 levels"]),
    "latin-1": (b"task: caf\xe9\n", ["1:10: not UTF-8; save the file as UTF-8"]),
    "a null byte": (b"task: a\x00\n", ["1:8: control character U+0000; delete it"]),
    "an open quote": (
        'task: "a\n',
        ["2:1: not valid YAML: while scanning a quoted scalar found unexpected end of stream; a quote is not closed"],
    ),
    "two colons": (
        "task: a: b\n",
        ["1:8: not valid YAML: mapping values are not allowed here; put quotes around text that contains ': '"],
    ),
    "a variable": (
        train("run_name: ${USER}-1"),
        ["3:13: train.run_name: '${' is not expanded in a recipe; write the value, "
         "or give key=value on the command line"],
    ),
    "a home folder": (
        TASK + "train: {output_dir: ~/runs}\n",
        ["2:21: train.output_dir: '~' is not expanded in a recipe; write the whole path"],
    ),
    "a merge key": (TASK + "train:\n  <<: {seed: 1}\n", ["3:3: merge keys (<<) are not allowed; write the keys out"]),
    "a key that is a list": (
        TASK + "? [a]\n: 1\n", ["2:3: a key must be a word (text with '{' or '[' in front needs quotes)"],
    ),
    "more than a megabyte": ("# " + "x" * 1_000_000, [": larger than 1 MB; a recipe is a page of YAML"]),
    # keys
    "an unknown key": (
        train("learning_rat: 1"), ["3:3: train: unknown key 'learning_rat'. Did you mean 'learning_rate'?"],
    ),
    "a misspelt section": (HEAD + "tunning: frozen\n", ["4:1: unknown key 'tunning'. Did you mean 'tuning'?"]),
    "a key of another section": (train("columns: {text: a}"), ["3:3: train: 'columns' belongs under data:"]),
    "a key without its section": (HEAD + "learning_rate: 1\n", ["4:1: 'learning_rate' belongs under train:"]),
    "peft's key without peft": (train("lora_alpha: 16"), ["3:3: train: 'lora_alpha' belongs under tuning.peft:"]),
    "two keys as near": (train("f16: true"), ["3:3: train: unknown key 'f16'. Did you mean 'bf16' or 'fp16'?"]),
    "a gone key": (
        train("warmup_ratio: 0.1"),
        [f"3:3: train: 'warmup_ratio' {GONE}write warmup_steps: 0.1 (below 1 it is a ratio of all steps)"],
    ),
    "a renamed key": (
        train("evaluation_strategy: epoch"),
        [f"3:3: train: 'evaluation_strategy' {GONE}write eval_strategy"],
    ),
    "a key for the command line": (
        train("overwrite_output_dir: true"),
        [f"3:3: train: 'overwrite_output_dir' {GONE}give --overwrite on the command line"],
    ),
    "length groups": (
        train("group_by_length: true"),
        [f"3:3: train: 'group_by_length' {GONE}write train_sampling_strategy: group_by_length"],
    ),
    "a short name": (train("lr: 1"), ["3:3: train: 'lr' is called learning_rate"]),
    "the Hub's token": (train("hub_token: hf_x"), [f"3:3: train: 'hub_token' {SECRET}"]),
    "a push to the Hub": (train("push_to_hub: true"), [f"3:3: train: 'push_to_hub' {HUB}"]),
    "the model's own smoothing": (
        train("label_smoothing_factor: 0.1"),
        ["3:3: train: 'label_smoothing_factor' would change the model's own loss; "
         "write objectives: [{label_smoothing: {alpha: 0.1}}]"],
    ),
    "a checkpoint to resume from": (
        train("resume_from_checkpoint: x"),
        ["3:3: train: 'resume_from_checkpoint' is not for a recipe; give --resume on the command line"],
    ),
    "no output folder": (
        TASK + "train: {seed: 1}\n", ["2:8: train: needs output_dir: the folder that the run leaves"],
    ),
    "no task": (
        "train: {output_dir: o}\n",
        ["1:1: the recipe has no task; write task: NAME, one of " + ", ".join(TASKS)],
    ),
    "a later version": (
        "version: 2\n" + HEAD,
        ["1:10: version: this recipe is of version 2, this hfft reads version 1; upgrade hfft (pip install -U hfft)"],
    ),
    # parts
    "an unknown task": (
        "task: text_clasification\n" + NULL,
        ["1:7: task: unknown name 'text_clasification'. Did you mean 'text_classification'?"],
    ),
    "a wrong option of a task": (
        "task: {text_classification: {max_lenght: 3}}\n" + NULL,
        ["1:30: task.text_classification: unknown key 'max_lenght'. Did you mean 'max_length'?"],
    ),
    "an unknown part": (HEAD + "tuning: frozn\n", ["4:9: tuning: unknown name 'frozn'. Did you mean 'frozen'?"]),
    "a part of another kind": (HEAD + "export: [frozen]\n", ["4:10: export.0: 'frozen' belongs under tuning:"]),
    "two parts in one entry": (
        HEAD + "tuning: {frozen: {last: 1}, peft: LORA}\n",
        ["4:9: tuning: one entry names one part, got frozen, peft; write a list (- a, - b) or indent the options"],
    ),
    "a part without its value": (
        HEAD + "tuning: {frozen: }\n",
        ["4:17: tuning.frozen: has no value; write one, or null, or delete the line"],
    ),
    "null for a part's options": (
        HEAD + "tuning: {frozen: null}\n", ["4:18: tuning.frozen: got no value; write only frozen"],
    ),
    "a wrong first option": (
        HEAD + "tuning: {frozen: two}\n",
        ["4:18: tuning.frozen: expected a whole number, got 'two'"],
    ),
    "one's own part without trust": (
        HEAD + "tuning: ./mine.py\n",
        ["4:9: tuning: './mine.py' is Python code; give --trust-code on the command line to run it"],
    ),
    "a metric of the Hub without trust": (
        HEAD + "metrics: [evaluate:bleu]\n",
        ["4:11: metrics: 'evaluate:bleu' loads code from the Hub; give --trust-code on the command line to allow it"],
    ),
    "peft without a type": (
        HEAD + "tuning: [peft]\n",
        [f"4:10: tuning.0: peft needs peft_type ({PEFT}); write peft: {{peft_type: …}}"],
    ),
    "an unknown peft type": (
        HEAD + "tuning: {peft: {peft_type: LORAA, r: 8}}\n",
        [f"4:28: tuning.peft.peft_type: expected {PEFT}, got 'LORAA'. Did you mean 'LORA'?"],
    ),
    "another method's option": (
        HEAD + "tuning: {peft: {peft_type: IA3, lora_alpha: 8}}\n",
        ["4:33: tuning.peft: unknown key 'lora_alpha'; there are: task_type, peft_type, target_modules, "
         "exclude_modules, feedforward_modules, fan_in_fan_out, modules_to_save, init_ia3_weights"],
    ),
    "a rank of zero": (
        HEAD + "tuning: {peft: {peft_type: LORA, r: 0}}\n",
        ["4:37: tuning.peft.r: expected a whole number ≥ 1, got 0"],
    ),
    "an adapter that only infers": (
        HEAD + "tuning: {peft: {peft_type: LORA, inference_mode: true}}\n",
        ["4:34: tuning.peft: 'inference_mode' would train nothing; delete the line"],
    ),
    # model and data
    "a model's name alone": (
        TASK + "model: bert\n" + NULL,
        ["2:8: model: expected a mapping (key: value), got 'bert'; write model: {name: bert}"],
    ),
    "a model without name or config": (
        TASK + "model: {revision: x}\n" + NULL,
        ["2:8: model: has neither name nor config; write name: a Hub id or folder, "
         "or config: {model_type: …} for random weights"],
    ),
    "an unknown model type": (
        TASK + "model: {config: {model_type: brt}}\n" + NULL,
        ["2:30: model.config: unknown model_type 'brt'. Did you mean 'bart' or 'bert' or 'bit' or 'blt'?"],
    ),
    "a misspelt config key": (
        TASK + "model: {config: {model_type: vit, hiden_size: 8}}\n" + NULL,
        ["2:35: model.config: unknown key 'hiden_size'. Did you mean 'hidden_size'?"],
    ),
    "code from the Hub": (
        TASK + "model: {name: a, trust_remote_code: true}\n" + NULL,
        ["2:18: model: 'trust_remote_code' runs Python code of the model's repository; "
         "give --trust-code on the command line to allow it"],
    ),
    "a column that the task does not read": (
        TASK + "data: {path: a.csv, columns: {image: a}}\n" + NULL,
        ["2:31: data.columns: unknown key 'image'; there are: text, text_pair, label"],
    ),
    "a share of everything": (
        TASK + "data: {path: a.csv, eval_size: 1.5}\n" + NULL,
        ["2:32: data.eval_size: expected a number > 0 and < 1 or a whole number ≥ 1, got 1.5"],
    ),
    "a split that is not there": (
        TASK + "data: {path: {train: a.csv, tset: b.csv}, eval: dev}\n" + NULL,
        ["2:14: data.path: has no split 'dev', which data.eval names; it has train, tset",
         "2:29: data.path: unknown split 'tset'. Did you mean 'test'?"],
    ),
    "a reader's option misspelt": (
        TASK + "data: {path: a.csv, load: {encodng: utf-8}}\n" + NULL,
        ["2:28: data.load: unknown key 'encodng'. Did you mean 'encoding'?"],
    ),
    "a password": (
        TASK + "data: {path: a.csv, load: {storage_options: {secret: s3cr3t}}}\n" + NULL,
        [f"2:46: data.load.storage_options: 'secret' {SECRET}"],
    ),
    "everything at once": (
        "task: text_classification\nmodel: {nme: a}\ntrain:\n  lerning_rate: 1\n  seed: x\n",
        ["2:9: model: unknown key 'nme'. Did you mean 'name'?",
         "4:3: train: unknown key 'lerning_rate'. Did you mean 'learning_rate'?",
         "4:3: train: needs output_dir: the folder that the run leaves",
         "5:9: train.seed: expected a whole number ≥ 0 and < 4294967296, got 'x'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_gets_exactly_these_lines(name, tmp_path):
    text, lines = WRONG[name]
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        Recipe.read(file)
    found = [line.replace(str(file), "FILE") for line in error.value.lines]
    assert found == [f"FILE{line}" if line.startswith(":") else f"FILE:{line}" for line in lines]
    assert error.value.exit_code == 2


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read: No such file or directory"):
        Recipe.read(tmp_path / "gone.yaml")

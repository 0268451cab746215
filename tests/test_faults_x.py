"""Hostile artefacts, rows X01 to X44: each is built here and run in a process with limits, as `hfft` runs it.

None may leave the canary, reach the listener (which stands in for the Hub, for every proxy and for the machine's own
addresses), write outside its run's folder, or leave the token in a file.
"""

import http.server
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from forks import Forks

from hfft.data import require_pinned
from hfft.messages import redacted
from hfft.recipe import Recipe

TOKEN = "hf_" + "Zq7" * 12
SECRET = "the words of a private file"
LIMITS = "60 4000000000"  # seconds of a core, bytes
KERNEL = "somebody/kernel"


class Listener(http.server.BaseHTTPRequestHandler):
    """Counts what should not come."""

    hits: list[str] = []

    def answer(self) -> None:
        self.hits.append(f"{self.command} {self.path}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = answer

    def log_message(self, *words) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def listener():
    """The address of the listener, which is where every request would go."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def online(listener):
    """Processes that may ask the Hub, where the Hub is the listener."""
    proxies = {name: listener for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    given = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": listener, "HF_TOKEN": TOKEN, "USE_HUB_KERNELS": "NO", **proxies}
    before = dict(os.environ)
    os.environ.update(given)
    try:
        server = Forks()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield server
    server.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny BERT, its rows, and finished runs of it, full and with LoRA; each test copies what it spoils."""
    place = tmp_path_factory.mktemp("built")
    tiny.build("bert", place / "bert")
    rows = "\n".join(f"{row['text']},{row['label']}" for row in tiny.sentences(24))
    (place / "rows.csv").write_text("text,label\n" + rows + "\n")
    return place


class Place:
    """One test's folder: what is spoilt in it, and what `hfft` made of that."""

    def __init__(self, folder: Path, built: Path, online: Forks, listener: str):
        self.folder, self.built, self.forks, self.listener = folder, built, online, listener
        self.canary = folder / "canary"
        (folder / "outside").mkdir()
        (folder / "outside" / "secret.txt").write_text(SECRET)
        shutil.copy(built / "rows.csv", folder)
        Listener.hits.clear()

    def model(self, name: str = "model") -> Path:
        """A copy of the tiny model."""
        shutil.copytree(self.built / "bert", self.folder / name)
        return self.folder / name

    def edit(self, path: Path, **changes) -> Path:
        """A JSON file with other values."""
        path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))
        return path

    def recipe(self, model: object = None, **sections) -> Path:
        content = {
            "task": "text_classification",
            "model": model if isinstance(model, dict) else {"name": str(model or self.built / "bert")},
            "data": {"path": str(self.folder / "rows.csv")},
            "train": {"output_dir": str(self.folder / "run"), "max_steps": 1, "use_cpu": True},
        } | sections
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(content))
        return self.folder / "recipe.yaml"

    def evil(self) -> object:
        """What leaves the canary when it is unpickled."""
        return Touch(str(self.canary))

    def code(self, path: Path, body: str = "") -> Path:
        """Python that leaves the canary when it is imported."""
        path.write_text(f"import pathlib\npathlib.Path({str(self.canary)!r}).touch()\n{body}")
        return path

    def hfft(self, *words: object) -> tuple[int, str]:
        """(exit code, what it said); nothing of what may not happen has."""
        before = {path for path in self.folder.rglob("*") if not path.is_relative_to(self.folder / "run")}
        (code,), (said,) = self.forks.run(*words, LIMITS=LIMITS)
        after = {path for path in self.folder.rglob("*") if not path.is_relative_to(self.folder / "run")}
        assert not self.canary.exists(), said
        assert Listener.hits == []
        assert after == before
        for path in self.folder.rglob("*"):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            assert TOKEN.encode() not in content, path
            assert SECRET.encode() not in content or path.is_relative_to(self.folder / "outside"), path
        assert "Traceback" not in said and TOKEN not in said and SECRET not in said
        return code, said

    def refused(self, line: str, *words: object, code: int = 2) -> None:
        """It ends with this code and one line of at most 300 characters that says so."""
        found, said = self.hfft(*(words or ("train", self.recipe())))
        errors = [text for text in said.splitlines() if "error: " in text]
        assert (found, len(errors)) == (code, 1), said
        assert line in errors[0] and len(errors[0]) <= 320, errors


class Touch:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def place(tmp_path, built, online, listener):
    return Place(tmp_path, built, online, listener)


def legacy(place: Place, path: Path) -> None:
    path.write_bytes(pickle.dumps(place.evil()))


def zipped(place: Place, path: Path) -> None:
    torch.save({"weight": place.evil()}, path)


# ---- X01 to X06: pickles --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [legacy, zipped])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_x01_a_pickle_is_not_opened(name, form, place):
    model = place.model()
    (model / "model.safetensors").unlink()
    form(place, model / name)
    place.refused(f"{name} can run code when it is read", "train", place.recipe(model))


def test_x01_with_trust_code_a_pickle_is_read_as_weights_only(place):
    model = place.model()
    (model / "model.safetensors").unlink()
    legacy(place, model / "pytorch_model.bin")
    place.refused("cannot be loaded", "train", place.recipe(model), "--trust-code")


def test_x02_x04_pickles_beside_safetensors_are_not_opened_and_none_is_written(place):
    model = place.model()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        legacy(place, model / name)
    assert place.hfft("train", place.recipe(model))[0] == 0
    left = [path.name for path in (place.folder / "run").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle"))]


STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "random_states_0.pkl", "optimizer.bin")


def test_x03_x06_pickled_states_beside_a_checkpoints_own_are_not_read(place):
    recipe = place.recipe(train={"output_dir": str(place.folder / "run"), "max_steps": 2, "save_steps": 1,
                                 "save_strategy": "steps", "use_cpu": True})  # fmt: skip
    assert place.hfft("train", recipe)[0] == 0
    for name in STATES:
        legacy(place, place.folder / "run" / "checkpoint-2" / name)
    code, said = place.hfft("train", recipe, "train.max_steps=3", "--resume", "--allow-change", "train")
    assert code == 0 and "resumed from" in said, said


def test_x03_x05_a_foreign_checkpoint_of_pickles_or_dcp_is_not_resumed(place):
    checkpoint = place.folder / "run" / "checkpoint-1"
    shutil.copytree(place.built / "bert", checkpoint)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
    for name in (*STATES, "pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        legacy(place, checkpoint / name)
    code, said = place.hfft("train", place.recipe(), "--resume")
    assert code == 4 and "checkpoint-1 cannot be resumed: it has no MANIFEST.json" in said


def test_x05_a_folder_of_distributed_weights_is_no_model(place):
    model = place.model()
    (model / "model.safetensors").unlink()
    for name in (".metadata", "__0_0.distcp"):
        legacy(place, model / name)
    place.refused("can run code when it is read", "train", place.recipe(model))


# ---- X07 to X14: code -----------------------------------------------------------------------------------------------
CLASSES = """
from transformers import BertConfig, BertForSequenceClassification
class OwnConfig(BertConfig):
    model_type = "own"
class Own(BertForSequenceClassification):
    config_class = OwnConfig
"""


def of_own_code(place: Place, model_type: str = "own") -> Path:
    model = place.model()
    place.code(model / "own.py", CLASSES)
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"}
    place.edit(model / "config.json", model_type=model_type, auto_map=auto)
    return model


def test_x07_a_models_own_code_is_not_run_and_the_line_says_what_it_takes(place):
    place.refused("give --trust-code on the command line", "train", place.recipe(of_own_code(place)))


def test_x07_nothing_is_asked_on_standard_input(place, monkeypatch, capsys):
    from hfft.cli import main

    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("it asked"))
    assert main(["train", str(place.recipe(of_own_code(place)))]) == 2
    assert not place.canary.exists() and "--trust-code" in capsys.readouterr().err


def test_x07_code_beside_a_known_kind_of_model_is_left_alone(place):
    assert place.hfft("train", place.recipe(of_own_code(place, "bert")))[0] == 0


def test_x08_a_tokenizers_own_code_is_not_run(place):
    model = place.model()
    place.code(model / "own.py", "class Own:\n    pass\n")
    place.edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    assert place.hfft("train", place.recipe(model))[0] in (0, 2)


@pytest.mark.parametrize("name", ["kernels-community/flash-attn2", KERNEL, "flash_attention_2", {"": KERNEL}])
def test_x09_a_config_does_not_choose_attention_that_is_fetched(name, place):
    model = place.model()
    place.edit(model / "config.json", attn_implementation=name, _attn_implementation=KERNEL)
    place.edit(model / "config.json", _attn_implementation_internal=KERNEL, experts_implementation=KERNEL)
    code, said = place.hfft("train", place.recipe(model))
    assert code == 0 and "is left out, which would fetch code" in said, said
    assert KERNEL not in (place.folder / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"attn_implementation": KERNEL}, "is fetched from the Hub as code"),
        ({"use_kernels": True}, "would run code from the Hub"),
        ({"allow_all_kernels": True}, "would run code from the Hub"),
        ({"trust_remote_code": True}, "runs Python code of the model's repository; give --trust-code"),
        ({"weights_only": False}, "weights are read as safetensors"),
        ({"adapter_kwargs": {"_adapter_model_path": "x/y"}}, "would load an adapter from elsewhere"),
    ],
)
def test_x09_x10_a_recipe_alone_brings_no_code(section, line, place):
    place.refused(line, "train", place.recipe(model={"name": str(place.built / "bert"), **section}))


@pytest.mark.parametrize("revision", [{}, {"revision": "main"}, {"revision": "abc1234"}])
def test_x10_code_of_the_hub_needs_a_whole_commit_besides_the_flag(revision, place):
    model = {"name": "somebody/model", "trust_remote_code": True, **revision}
    place.refused("needs revision: the 40 hex digits", "train", place.recipe(model=model), "--trust-code")


@pytest.mark.slow
def test_x10_with_the_flag_a_folders_own_code_runs_and_its_run_needs_the_flag_too(place):
    recipe = place.recipe(model={"name": str(of_own_code(place)), "trust_remote_code": True})
    (code,), (said,) = place.forks.run("train", recipe, "--trust-code", HF_MODULES_CACHE=str(place.folder / "modules"))
    assert code == 0 and place.canary.exists(), said
    place.canary.unlink()
    place.refused("the run's model is Python code", "predict", place.folder / "run", "a good film")


def test_x11_a_recipe_imports_nothing_by_name(place):
    part = place.code(place.folder / "mine.py", "def mine(model):\n    return model\n")
    place.refused("is Python code; give --trust-code", "train", place.recipe(tuning=[str(part)]))
    place.refused("unknown name 'os.system'", "train", place.recipe(tuning=["os.system"]))
    megatron = {"peft": {"peft_type": "LORA", "megatron_config": {}, "megatron_core": "mine"}}
    place.refused("imports a module by its name", "train", place.recipe(tuning=[megatron]))
    prompt = {"peft": {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}}}
    place.refused("could load code", "train", place.recipe(tuning=[prompt]))


def test_x12_a_metric_of_the_hub_or_a_folder_needs_the_flag(place):
    metric = place.code(place.folder / "metric.py")
    place.refused("loads code from the Hub; give --trust-code", "train", place.recipe(metrics=[f"evaluate:{metric}"]))


def test_x13_x14_scripts_and_pickles_are_no_data(place):
    (place.folder / "data").mkdir()
    place.code(place.folder / "data" / "data.py")
    place.refused("only files of other kinds (.py)", "train", place.recipe(data={"path": str(place.folder / "data")}))
    legacy(place, place.folder / "rows.pkl")
    place.refused("'.pkl' are not read", "train", place.recipe(data={"path": str(place.folder / "rows.pkl")}))


# ---- X15 to X21: paths and archives ---------------------------------------------------------------------------------
def saved(place: Place, name: str = "saved") -> Path:
    from datasets import Dataset

    Dataset.from_list(tiny.sentences(24)).save_to_disk(place.folder / name)
    return place.folder / name


@pytest.mark.parametrize("name", ["../outside/data.arrow", "/etc/hostname", "deep/../../outside/data.arrow"])
def test_x15_a_saved_data_set_names_its_own_files_only(name, place):
    folder = saved(place)
    shutil.copy(folder / "data-00000-of-00001.arrow", place.folder / "outside" / "data.arrow")
    place.edit(folder / "state.json", _data_files=[{"filename": name}])
    place.refused("which leads out of the folder", "train", place.recipe(data={"path": str(folder)}))


def test_x15_a_saved_data_set_has_no_splits_or_links_elsewhere(place):
    other, folder = saved(place, "outside/other"), place.folder / "splits"
    folder.mkdir()
    place.edit(folder / "dataset_dict.json", splits=["../outside/other"])
    place.refused("which leads out of the folder", "train", place.recipe(data={"path": str(folder)}))
    linked = saved(place, "linked")
    (linked / "data-00000-of-00001.arrow").unlink()
    (linked / "data-00000-of-00001.arrow").symlink_to(other / "data-00000-of-00001.arrow")
    place.refused("is a link that leads out", "train", place.recipe(data={"path": str(linked)}))


@pytest.mark.parametrize("name", ["../outside/model.safetensors", "{outside}/model.safetensors", "x/../../outside/m"])
def test_x16_an_index_of_weights_names_its_own_files_only(name, place):
    model = place.model()
    shutil.move(model / "model.safetensors", place.folder / "outside")
    named = name.format(outside=place.folder / "outside")
    keys = dict.fromkeys(["classifier.weight", "bert.pooler.dense.bias"], named)
    place.edit(model / "model.safetensors.index.json", metadata={}, weight_map=keys)
    place.refused("which leads out of the folder", "train", place.recipe(model))


def pictures(place: Place, name: str) -> Path:
    """A table of pictures, the last of which is somebody's idea."""
    folder = place.folder / "pictures"
    folder.mkdir()
    lines = []
    for i, row in enumerate(tiny.pictures(8)):
        row["image"].save(folder / f"{i}.png")
        lines.append(f"{i}.png,{row['label']}")
    tiny.pictures(1)[0]["image"].save(place.folder / "outside" / "private.png")
    named = name.format(outside=place.folder / "outside", url=place.listener)
    (folder / "rows.csv").write_text("image,label\n" + "\n".join([*lines, f"{named},dark"]) + "\n")
    return folder / "rows.csv"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("{outside}/private.png", "is an absolute path"),
        ("../outside/private.png", "leads out of the data's folder"),
        ("file://{outside}/private.png", "is a URL, which is not fetched"),
        ("{url}/latest/meta-data", "is a URL, which is not fetched"),
        ("data:image/png;base64;AAAA", "is a URL, which is not fetched"),
        ("link.png", "leads out of the data's folder"),
        ("/dev/zero", "is an absolute path"),
    ],
)
def test_x17_x18_a_column_of_pictures_reads_and_fetches_nothing_else(name, line, place):
    path = pictures(place, name)
    if name == "link.png":
        (path.parent / name).symlink_to(place.folder / "outside" / "private.png")
    tiny.build("vit", place.folder / "vit")
    sections = {"task": "image_classification", "data": {"path": str(path)}}
    code, said = place.hfft("train", place.recipe(place.folder / "vit", **sections))
    errors = [text for text in said.splitlines() if "error: " in text]
    assert code == 2 and "rows.csv line 10, column 'image'" in errors[0] and line in errors[0], said


@pytest.mark.parametrize(
    "path",
    ["{url}/rows.csv", {"train": "{url}/rows.csv"}, ["{url}/rows.csv"], "file:///etc/passwd", "s3://bucket/rows.csv",
     "zip://rows.csv::{url}/a.zip", "hf://datasets/a/b/rows.csv"],
)  # fmt: skip
def test_x19_an_address_as_data_is_refused_without_a_request(path, place):
    given = json.loads(json.dumps(path).replace("{url}", place.listener))
    place.refused("is a URL, which is not fetched", "train", place.recipe(data={"path": given}))


@pytest.mark.parametrize("load", [{"data_files": "{url}/rows.csv"}, {"trust_remote_code": True}])
def test_x19_a_recipe_hands_no_address_to_the_library(load, place):
    given = json.loads(json.dumps(load).replace("{url}", place.listener))
    place.refused("data.load", "train", place.recipe(data={"path": "a/b", "load": given}))


@pytest.mark.parametrize("name", ["rows.zip", "rows.tar", "rows.csv.gz", "rows.tar.gz", "rows.jsonl.zst"])
def test_x20_x21_packed_files_are_not_unpacked(name, place):
    with zipfile.ZipFile(place.folder / name, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("../outside/rows.csv", "text,label\n" + "a" * 10_000_000)
    place.refused("packed files", "train", place.recipe(data={"path": str(place.folder / name)}))


# ---- X22 to X28: bombs ----------------------------------------------------------------------------------------------
TEMPLATES = {
    "x22": "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "x23": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "x24": "{{ 'a' * 10000000000 }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_x22_x24_a_chat_template_is_not_rendered(name, place):
    model = place.model()
    (model / "chat_template.jinja").write_text(TEMPLATES[name].replace("CANARY", str(place.canary)))
    assert place.hfft("train", place.recipe(model))[0] == 0


def test_x25_a_chat_templates_name_is_no_path(place):
    model = place.model()
    place.edit(model / "tokenizer_config.json", chat_template=[{"name": "../../evil", "template": "x"}])
    place.refused("a chat template is called '../../evil'", "train", place.recipe(model))


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
SPLIT = {"behavior": "Isolated", "invert": False}
BOMBS = {
    "x26": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, **SPLIT}},
    "x26 other letter": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": "b"}},
    "x27": {"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 6}},
    "x27 by another way": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**7}},
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.endswith("another way")) for name in BOMBS]
)
def test_x26_x27_a_tokenizer_that_never_ends_or_bursts_is_refused(name, place):
    model = place.model()
    place.edit(model / "tokenizer.json", **BOMBS[name])
    place.refused("when it encodes a plain text; use another tokenizer", "train", place.recipe(model))


def test_x26_a_panic_of_the_tokenizers_library_is_one_line(tmp_path):
    from hfft import safety
    from hfft.messages import InputError

    class PanicException(BaseException):
        """As pyo3 raises it."""

    with pytest.raises(InputError, match="gives up on a text"), safety.no_panic("the tokenizer"):
        raise PanicException("retry-limit-in-match over")


EVER = r"(\w+\.?)+!"


def test_x28_a_regular_expression_of_a_downloaded_adapter_is_refused(place):
    model = place.model()
    for entry in ({"target_modules": EVER}, {"target_modules": ["query"], "rank_pattern": {EVER: 4}}):
        place.edit(model / "adapter_config.json", peft_type="LORA", base_model_name_or_path="x", **entry)
        place.refused("is a regular expression, which may take for ever", "train", place.recipe(model))


@pytest.mark.slow
def test_x28_one_of_a_recipe_has_an_end_too(place):
    tuning = [{"peft": {"peft_type": "LORA", "target_modules": EVER}}]
    place.refused("takes more than 3 s; write a list of names", "train", place.recipe(tuning=tuning))


# ---- X29 to X36: adapters, tokens, cards ----------------------------------------------------------------------------
LORA = [{"peft": {"peft_type": "LORA", "r": 2, "target_modules": r".*\.(query|value)"}}]


@pytest.fixture(scope="module")
def adapter(built, online, tmp_path_factory):
    """A finished run with LoRA, made from a folder with an absolute path."""
    place = Place(tmp_path_factory.mktemp("adapter"), built, online, "")
    train = {"output_dir": str(place.folder / "run"), "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    recipe = place.recipe(place.model("private-base"), tuning=LORA, train={**train, "use_cpu": True})
    assert place.hfft("train", recipe)[0] == 0
    return place.folder / "run"


def spoilt(place: Place, adapter: Path) -> Path:
    shutil.copytree(adapter, place.folder / "run")
    return place.folder / "run"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "mine"}, "imports any module by its name"),
        ({"target_modules": EVER}, "is a regular expression"),
        ({"exclude_modules": EVER}, "is a regular expression"),
        ({"rank_pattern": {EVER: 4}}, "is a regular expression"),
    ],
)
def test_x28_x29_an_adapter_of_a_run_brings_no_code_and_no_hang(change, line, place, adapter):
    run = spoilt(place, adapter)
    place.edit(run / "adapter_config.json", **change)
    place.refused(line, "predict", run, "a good film")


def test_x29_an_auto_mapping_is_not_imported(place, adapter):
    run = spoilt(place, adapter)
    place.code(place.folder / "mine.py")
    place.edit(run / "adapter_config.json", auto_mapping={"base_model_class": "Mine", "parent_library": "mine"})
    assert place.hfft("predict", run, "a good film")[0] in (0, 2)


def test_x30_an_adapter_in_a_pickle_is_refused(place, adapter):
    run = spoilt(place, adapter)
    (run / "adapter_model.safetensors").unlink()
    legacy(place, run / "adapter_model.bin")
    place.refused("adapter_model.bin can run code when it is read", "predict", run, "a good film")


def test_x31_an_adapter_and_its_card_tell_no_path_of_this_machine(adapter):
    told = [path for path in adapter.rglob("*") if path.name in ("adapter_config.json", "README.md", "config.json")]
    assert len(told) >= 4
    for path in told:
        assert str(adapter.parent) not in path.read_text(), path
    known = json.loads((adapter / "adapter_config.json").read_text())
    assert known["base_model_name_or_path"] == "private-base"
    assert all(".attention.self." in name for name in known["target_modules"])  # names, no regular expression


def test_x32_a_token_in_a_recipe_is_refused_and_not_told(place):
    other = "hf_" + "Yx9" * 12
    code, said = place.hfft("train", place.recipe(), f"train.hub_token={other}")
    assert code == 2 and other not in said and "HF_TOKEN" in said


SECRETS = {
    "https://me:pa55@host.org/x.git": "https://…@host.org/x.git",
    "https://b.s3.amazonaws.com/x?X-Amz-Signature=deadbeef&X-Amz-Date=1": "https://b.s3.amazonaws.com/x?X-Amz-Signature=…&X-Amz-Date=…",
    "https://b.blob.core.windows.net/x?sv=1&sig=abc%3D": "https://b.blob.core.windows.net/x?sv=1&sig=…",
    "https://h/x?access_token=abc&b=2": "https://h/x?access_token=…&b=2",
    "Authorization: Bearer abc.def": "Authorization: Bearer …",
    "{'authorization': 'Basic YWJj'}": "{'authorization': 'Basic …'}",
    f"use {TOKEN}, please": "use hf_…, please",
    "ghp_" + "a1" * 18: "ghp_…",
    "the bearer of this line is here": "the bearer of this line is here",
    "a@b.org and https://h.org/@me?page=2": "a@b.org and https://h.org/@me?page=2",
    '{"url": "https://u:p@h/x?Signature=aa", "k": 1}': '{"url": "https://…@h/x?Signature=…", "k": 1}',
}  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
def test_x34_tokens_passwords_and_signatures_are_taken_out(text):
    assert redacted(text) == SECRETS[text]


def test_x34_the_home_folder_is_not_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert (
        redacted("/home/ada/runs/x and /home/adam/y and /mnt/home/ada/z")
        == "~/runs/x and /home/adam/y and /mnt/home/ada/z"
    )
    assert redacted("/home/ada/runs", home=False) == "/home/ada/runs"


def test_x34_a_run_keeps_no_password_of_an_address(place):
    train = {"output_dir": str(place.folder / "run"), "max_steps": 1, "use_cpu": True}
    recipe = place.recipe(train={**train, "run_name": "https://me:pa55@host.org/?token=abcdef"})
    assert place.hfft("train", recipe)[0] == 0
    for path in (place.folder / "run").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"pa55" not in content and b"abcdef" not in content, path


def test_x35_names_in_a_card_are_plain_text(place):
    run = place.folder / "run" / "<img src=x onerror=alert(1)> --- [a](javascript:b) `c`"
    recipe = place.recipe(train={"output_dir": str(run), "max_steps": 1, "use_cpu": True})
    assert place.hfft("train", recipe)[0] == 0
    front, body = (run / "README.md").read_text().split("\n---\n", 1)
    assert yaml.safe_load(front.removeprefix("---\n"))["model-index"][0]["name"] == run.name
    title = next(line for line in body.splitlines() if line.startswith("# "))
    assert title == "# &lt;img src=x onerror=alert(1)&gt; — \\[a\\](javascript:b) 'c'"
    assert "<img" not in body and "\n---\n" not in body


def test_x36_what_the_recipes_author_names_may_be_anywhere_and_nothing_else_is_written(place):
    (place.folder / "beside").mkdir()
    recipe = place.recipe(train={"output_dir": f"{place.folder}/beside/../run", "max_steps": 1, "use_cpu": True})
    assert place.hfft("train", recipe)[0] == 0 and (place.folder / "run" / "config.json").is_file()


# ---- X37 to X44 -----------------------------------------------------------------------------------------------------
def claims(size: int) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("content", [claims(4 << 40), struct.pack("<Q", 1 << 62) + b"{}", b"", claims(8)])
def test_x37_safetensors_that_claim_what_they_have_not_are_refused(content, place):
    model = place.model()
    (model / "model.safetensors").write_bytes(content)
    place.refused("cannot be loaded", "train", place.recipe(model))


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "local-dir:{outside}"},
        {"architecture": "hf-hub:somebody/model"},
        {"model_args": {"checkpoint_path": "{outside}/weights.bin"}},
        {"model_args": {"pretrained_cfg": {"file": "{outside}/weights.bin"}}},
        {"model_args": {"pretrained_cfg_overlay": {"url": "{url}/weights.bin"}}},
        {"transformers_weights": "../outside/weights.bin"},
        {"transformers_weights": "adapter_model.bin"},
    ],
)
def test_x38_a_timm_config_loads_its_own_weights_only(change, place):
    model = Path(tiny.build("timm", place.folder / "timm"))
    legacy(place, place.folder / "outside" / "weights.bin")
    told = json.dumps(change).replace("{outside}", str(place.folder / "outside")).replace("{url}", place.listener)
    place.edit(model / "config.json", **json.loads(told))
    tiny_pictures = {"task": "image_classification", "data": {"path": str(pictures(place, "0.png"))}}
    place.refused("config.json: ", "train", place.recipe(model, **tiny_pictures))


@pytest.mark.parametrize("name", ["{outside}/secret.txt", "../outside/secret.txt"])
def test_x39_a_tokenizer_reads_no_file_of_this_machine(name, place):
    model = place.model()
    place.edit(model / "tokenizer_config.json", vocab_file=name.format(outside=place.folder / "outside"))
    place.refused("leads out of the folder", "train", place.recipe(model))


def test_x39_a_path_that_its_author_has_left_in_a_tokenizer_does_no_harm(place):
    model = place.model()
    place.edit(model / "tokenizer_config.json", special_tokens_map_file="/home/author/special_tokens_map.json")
    assert place.hfft("train", place.recipe(model))[0] == 0


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_x40_a_link_out_of_a_models_folder_is_not_followed(name, place):
    model = place.model()
    if (model / name).exists():
        shutil.move(model / name, place.folder / "outside" / name)
    (model / name).symlink_to(place.folder / "outside" / (name if name != "vocab.txt" else "secret.txt"))
    place.refused(f"{name} is a link that leads out of the folder", "train", place.recipe(model))


def test_x40_what_is_no_file_is_not_opened(place):
    model = place.model()
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    place.refused("is neither a file nor a folder", "train", place.recipe(model))


def test_x42_a_folder_that_everyone_may_write_into_is_told(place):
    (place.folder / "run").mkdir()
    (place.folder / "run").chmod(0o777)
    code, said = place.hfft("train", place.recipe())
    assert code == 0 and "every user of this machine may write into" in said


def loose(folder, **more) -> str:
    """A recipe of a model and data of the Hub, `more` in its sections model and data."""
    recipe = {"task": "text_classification", "model": {"name": "some/model"}, "data": {"path": "some/data"}}
    for kind, options in more.items():
        recipe[kind] |= options
    path = folder / "loose.yaml"
    path.write_text(yaml.safe_dump(recipe | {"train": {"output_dir": str(folder / "run")}}))
    return str(path)


@pytest.mark.parametrize("flag", ["--require-pinned", "--paranoid"])
def test_x43_what_the_hub_could_exchange_is_refused_where_asked_for(flag, place):
    code, said = place.hfft("check", loose(place.folder), flag)
    for kind, name in (("model", "some/model"), ("data", "some/data")):
        assert f"{kind}.revision: {name!r} is not pinned; write the 40 hex digits of its commit" in said
    assert code == 2
    pinned = loose(place.folder, model={"revision": "a" * 40}, data={"revision": "b" * 40})
    require_pinned(Recipe.read(pinned))
    require_pinned(Recipe.read(loose(place.folder, model={"revision": "a" * 40}, data={"path": "some/*.csv"})))
    assert place.hfft("check", place.recipe(), flag)[0] == 0  # a folder is what it is


@pytest.mark.slow
def test_sr12_the_strictest_way_has_no_network_and_runs_no_code_of_others(place):
    place.refused("--paranoid: refuses --trust-code", "check", place.recipe(), "--paranoid", "--trust-code")
    said = """
import sys
from hfft.cli import main
code = main(["check", sys.argv[1], "--paranoid"])
from datasets import config
from huggingface_hub import constants
print(code, constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE)
"""
    env = {name: value for name, value in os.environ.items() if not name.endswith("OFFLINE")}
    done = subprocess.run([sys.executable, "-c", said, str(place.recipe())], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "True", "True"], done.stderr


@pytest.fixture(scope="module")
def sealed(built, online, tmp_path_factory):
    """A finished run, which is sealed by itself."""
    place = Place(tmp_path_factory.mktemp("sealed"), built, online, "")
    assert place.hfft("train", place.recipe())[0] == 0
    return place.folder / "run"


DAMAGES = {
    "a changed weight": (lambda run: flip(run / "model.safetensors"), "model.safetensors"),
    "a changed config": (lambda run: (run / "config.json").write_text("{}"), "config.json"),
    "a missing file": (lambda run: (run / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "other weights beside": (lambda run: (run / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin was added"),
    "code beside": (lambda run: (run / "modeling.py").write_text("x"), "modeling.py was added"),
    "a link instead": (lambda run: linked(run / "config.json"), "config.json is missing"),
    "another manifest": (lambda run: flip(run / "MANIFEST.json"), "MANIFEST.json"),
    "no manifest": (lambda run: (run / "MANIFEST.json").unlink(), "has no MANIFEST.json"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def linked(path: Path) -> None:
    path.rename(path.parent / "exports-of-it")
    path.symlink_to(path.parent / "exports-of-it")


@pytest.mark.parametrize("name", DAMAGES)
def test_x44_what_was_changed_in_a_sealed_run_is_named(name, place, sealed):
    run = spoilt(place, sealed)
    assert place.hfft("verify", run)[0] == 0
    change, line = DAMAGES[name]
    change(run)
    place.refused(line, "verify", run, code=4)


def test_x44_answers_and_checkpoints_in_a_run_are_no_change_and_seal_takes_a_new_state(place, sealed):
    run = spoilt(place, sealed)
    (run / "answers.jsonl").write_text("{}\n")
    (run / "checkpoint-7").mkdir()
    (run / "checkpoint-7" / "model.safetensors").write_bytes(b"x")
    code, said = place.hfft("verify", run)
    assert code == 0 and "answers.jsonl was added" in said
    (run / "LICENSE").write_text("mine")
    (run / "generation_config.json").write_text("{}")
    place.refused("generation_config.json was added", "verify", run, code=4)
    assert place.hfft("seal", run)[0] == 0
    code, said = place.hfft("verify", run)
    assert code == 0 and "was added" not in said


def test_x44_signing_without_its_library_says_what_to_install(place, sealed):
    pytest.importorskip("hfft")
    try:
        import model_signing  # noqa: F401
    except ImportError:
        (place.folder / "key.pem").write_text("x")
        place.refused(
            "pip install 'hfft[sign]'", "seal", spoilt(place, sealed), "--sign", place.folder / "key.pem", code=3
        )
    place.refused("no file", "verify", sealed, "--public-key", place.folder / "nobody.pem")

"""Faults of the Hub and the network, rows H01 to H15: one line, exit code 5, an end within a minute.

Pushing (H11, H12) has its faults in test_hub.py; here a model or a data set is fetched from the stand-in.
"""

import json
import re
import time
from pathlib import Path

import pytest
import tiny
import yaml
from hub_server import READ, Hub, Repo
from huggingface_hub import constants

from hfft import origin, remote
from hfft.cli import main

SHA = re.compile("[0-9a-f]{40}")
COLUMNS = "text,label\n"


def rows(num_rows: int = 24) -> str:
    return COLUMNS + "".join(f"{row['text']},{row['label']}\n" for row in tiny.sentences(num_rows))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """A model's repository."""
    folder = Path(tiny.build("bert", tmp_path_factory.mktemp("bert")))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(monkeypatch, tmp_path, files):
    """The stand-in with the model me/model and the data set me/rows, an empty cache and no pauses."""
    import datasets

    with Hub() as server:
        server.repos["me/model"] = Repo(private=False, branches={"main": [dict(files)]})
        server.repos["datasets/me/rows"] = Repo(private=False, branches={"main": [{"train.csv": rows().encode()}]})
        known = {"ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        known["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (known | {"HF_HUB_CACHE": str(tmp_path / "cache")}).items():
            monkeypatch.setattr(constants, name, value)
        of_data = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_CACHE_HOME": str(tmp_path)}
        of_data["HUB_DATASETS_URL"] = server.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        for name, value in (of_data | {"HF_DATASETS_CACHE": tmp_path / "arrow"}).items():
            monkeypatch.setattr(datasets.config, name, value)
        monkeypatch.setattr(remote, "WAITS", (0.0, 0.0, 0.0))
        monkeypatch.setenv("HF_TOKEN", READ)
        origin._of_hub.cache_clear()
        yield server
    origin._of_hub.cache_clear()


def recipe(folder: Path, **sections) -> str:
    (folder / "rows.csv").write_text(rows())
    content = {
        "task": "text_classification",
        "model": {"name": "me/model"},
        "data": {"path": str(folder / "rows.csv")},
        "train": {"output_dir": str(folder / "run"), "max_steps": 2, "save_steps": 1, "use_cpu": True},
    }
    content = {
        key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value for key, value in content.items()
    }
    content["train"]["save_strategy"] = "steps"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "recipe.yaml")


def refused(capsys, *words: str) -> str:
    """The one line of a command that ends with code 5."""
    started = time.monotonic()
    assert main(list(words)) == 5
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1 and "Traceback" not in said and READ not in said, said
    assert len(errors[0]) <= 320 and time.monotonic() - started < 60
    return errors[0]


GATED = {"X_Error_Code": "GatedRepo", "X_Error_Message": "Access to it is restricted"}
MODEL, TREE, CONFIG = "/api/models/me/model", "/api/models/me/model/tree/", "/resolve/"
FAULTS = {
    "h01": (MODEL, 401, {}, "the token is missing or not valid (401); run `hf auth login`"),
    "h02": (MODEL, 403, GATED, "then `hf auth login`"),
    "h02 a file": (CONFIG, 403, GATED, "then `hf auth login`"),
    "h02 forbidden": (MODEL, 403, {}, "the token may not do that (403)"),
    "h03": (MODEL, 404, {"X_Error_Code": "RepoNotFound"}, "it is not there, or hidden from this token (404)"),
    "h04": (MODEL, 429, {"Retry_After": "120"}, "too many requests (429); it asks to wait 120 s"),
    "h04 a file": (CONFIG, 429, {}, "too many requests (429)"),
    "h05 500": (MODEL, 500, {}, "the Hub has trouble (500)"),
    "h05 503": (TREE, 503, {}, "the Hub has trouble (503)"),
    "h05 502 a file": (CONFIG, 502, {}, "the Hub has trouble (502)"),
    "h06": (MODEL, "html", {}, "does not answer as the Hub does"),
    "h06 the list": (TREE, "html", {}, "does not answer as the Hub does"),
    "h07": (MODEL, "drop", {}, "127.0.0.1"),
    "h07 a file": (CONFIG, "drop", {}, "127.0.0.1"),
    "h08": (CONFIG, "cut", {}, "127.0.0.1"),
    "h09": (MODEL, "hang", {}, "127.0.0.1"),
    "h09 a file": (CONFIG, "hang", {}, "127.0.0.1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_model_that_cannot_be_fetched_is_one_line(name, hub, tmp_path, capsys, monkeypatch):
    route, fault, headers, line = FAULTS[name]
    if fault == "hang":
        monkeypatch.setattr(remote, "LIMITS", (0.3, 0.3, 0.3, None))
    for method in ("GET", "HEAD"):
        hub.fault(method, route, fault, **headers)
    said = refused(capsys, "check", recipe(tmp_path))
    assert "model.name: 'me/model' is no folder here, and the Hub did not give it: " in said and line in said
    if name == "h02":
        assert f"visit {hub.url}/me/model" in said


@pytest.mark.parametrize("fault", [500, "drop", "cut"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_h07_h08_a_fault_that_passes_is_gone_through(name, fault, hub, tmp_path):
    hub.fault("GET", f"/resolve/{hub.repos['me/model'].sha('main')}/{name}", fault, times=2)
    assert main(["check", recipe(tmp_path)]) == 0


def test_h03_the_nearest_folder_here_is_named(hub, tmp_path, capsys, monkeypatch):
    (tmp_path / "me" / "modell").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    del hub.repos["me/model"]
    assert "Did you mean 'me/modell'?" in refused(capsys, "check", recipe(tmp_path))


def test_h03_a_repository_without_safetensors_is_refused_before_its_pickle_is_fetched(hub, tmp_path, capsys):
    there = hub.files("me/model")
    there["pytorch_model.bin"] = there.pop("model.safetensors")
    assert main(["check", recipe(tmp_path)]) == 2
    assert "the repository has no model.safetensors" in capsys.readouterr().err
    assert not [request for request in hub.requests if "pytorch_model.bin" in request]


def test_h04_a_pause_that_is_asked_for_is_made_if_it_is_short(hub, tmp_path, monkeypatch):
    paused: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", paused.append)
    hub.fault("GET", MODEL, 429, times=1, Retry_After="12")
    assert main(["check", recipe(tmp_path)]) == 0 and 12.0 in paused


@pytest.mark.parametrize("seconds", [0.0, 9.9, 28.9])
def test_h05_h09_all_attempts_of_one_call_end_within_a_minute(seconds, monkeypatch):
    """With a server that says nothing for so long each time."""
    monkeypatch.undo()
    clock = [0.0]
    monkeypatch.setattr(remote.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(remote.time, "sleep", lambda wait: clock.__setitem__(0, clock[0] + wait))

    def call():
        clock[0] += seconds
        raise remote._Trouble("no answer", 0.0, lost=True)

    with pytest.raises(remote.Unreachable):
        remote.patiently("asking", call)
    assert clock[0] <= 60
    assert max(limit for limit in remote.LIMITS if limit) <= 29


ROWS = "/api/datasets/me/rows"
DATA_FAULTS = {
    "401": (ROWS, 401, {}, "the token is missing or not valid (401)"),
    "403 gated": (ROWS, 403, GATED, "then `hf auth login`"),
    "404": (ROWS, 404, {"X_Error_Code": "RepoNotFound"}, "it is not there, or hidden from this token (404)"),
    "429": (ROWS, 429, {"Retry_After": "120"}, "too many requests (429); it asks to wait 120 s"),
    "500": (ROWS, 500, {}, "the Hub has trouble (500)"),
    "html": (ROWS, "html", {}, "does not answer as the Hub does"),
    "drop": (ROWS, "drop", {}, "127.0.0.1"),
    "hang": (ROWS, "hang", {}, "127.0.0.1"),
    "500 a file": ("/datasets/me/rows/resolve/", 500, {}, "the Hub has trouble (500)"),
    "404 a list": (ROWS + "/tree/", 500, {}, "the Hub has trouble (500)"),
}


@pytest.mark.parametrize("name", DATA_FAULTS)
def test_h10_a_data_set_that_cannot_be_fetched_is_one_line(name, hub, tmp_path, capsys, monkeypatch):
    route, fault, headers, line = DATA_FAULTS[name]
    if fault == "hang":
        monkeypatch.setattr(remote, "LIMITS", (0.3, 0.3, 0.3, None))
    for method in ("GET", "HEAD"):
        hub.fault(method, route, fault, **headers)
    said = refused(capsys, "check", recipe(tmp_path, data={"path": "me/rows"}))
    assert "data.path: 'me/rows' is no file or folder here, and " in said and line in said


def test_h10_a_data_set_is_fetched_and_trained_on(hub, tmp_path):
    assert main(["train", recipe(tmp_path, data={"path": "me/rows"})]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["data"]["rows_read"] == {"train": 24}


@pytest.mark.parametrize("place", ["{url}/elsewhere.csv", "/etc/passwd", "../other/rows.csv", "zip://a::{url}/b.zip"])
@pytest.mark.parametrize("form", ["one", "list", "split"])
def test_x19_a_data_sets_card_names_no_files_but_its_own(place, form, hub, tmp_path, capsys):
    named = place.replace("{url}", hub.url)
    given = {"one": named, "list": [named], "split": [{"split": "train", "path": [named]}]}[form]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": given}]})
    hub.files("datasets/me/rows")["README.md"] = f"---\n{front}---\n# rows\n".encode()
    assert main(["check", recipe(tmp_path, data={"path": "me/rows"})]) == 2
    assert "which is no file of its own" in capsys.readouterr().err
    assert not [request for request in hub.requests if "elsewhere" in request or "b.zip" in request]


def test_h13_offline_with_a_warm_cache_nothing_is_asked(hub, tmp_path, monkeypatch):
    assert main(["check", recipe(tmp_path)]) == 0
    hub.requests.clear()
    origin._of_hub.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["train", recipe(tmp_path)]) == 0
    assert main(["predict", str(tmp_path / "run"), "a good film"]) == 0
    assert hub.requests == []


def test_h13_offline_with_an_empty_cache_the_line_says_why(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "it is not in the cache, and HF_HUB_OFFLINE=1 forbids to ask" in refused(capsys, "check", recipe(tmp_path))
    assert hub.requests == []


@pytest.mark.slow
def test_h13_without_a_network_the_cache_is_used_or_the_line_comes_soon(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (1.0, 4.0, 15.0))
    assert main(["check", recipe(tmp_path)]) == 0
    capsys.readouterr()
    origin._of_hub.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    assert main(["check", recipe(tmp_path)]) == 0
    assert "in the cache is used" in capsys.readouterr().err
    said = refused(capsys, "check", recipe(tmp_path, model={"name": "me/other"}))
    assert "no answer from 127.0.0.1 (ConnectError), and it is not in the cache" in said
    assert time.monotonic() - started < 30


def test_h14_the_commit_is_kept_and_a_run_that_goes_on_has_the_same(hub, tmp_path, capsys):
    commit = hub.repos["me/model"].sha("main")
    assert main(["train", recipe(tmp_path)]) == 0
    lock = json.loads((tmp_path / "run" / "run.lock.json").read_text())
    assert lock["model"]["name"] == "me/model" and lock["model"]["commit"] == commit
    moved = dict(hub.files("me/model"))
    moved["config.json"] = moved["config.json"].replace(b'"hidden_act": "gelu"', b'"hidden_act": "relu"')
    hub.repos["me/model"].branches["main"].append(moved)
    origin._of_hub.cache_clear()
    capsys.readouterr()
    words = ("train", recipe(tmp_path), "train.max_steps=3", "--resume", "--allow-change", "train")
    assert main(list(words)) == 0
    assert f"commit {commit}, with which this run began" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.lock.json").read_text())["model"]["commit"] == commit
    assert "gelu" in (tmp_path / "run" / "config.json").read_text()
    assert str(tmp_path / "cache") not in (tmp_path / "run" / "config.json").read_text()


def test_h14_an_adapter_tells_the_hubs_name_of_its_base(hub, tmp_path):
    tuned = Path(recipe(tmp_path))
    tuned.write_text(tuned.read_text() + "tuning: [{peft: {peft_type: LORA, r: 2}}]\n")
    assert main(["train", str(tuned)]) == 0
    for config in (tmp_path / "run").rglob("adapter_config.json"):
        assert json.loads(config.read_text())["base_model_name_or_path"] == "me/model", config


def test_h15_nothing_is_asked_but_for_the_model(hub, tmp_path):
    assert main(["train", recipe(tmp_path)]) == 0
    asked = {request.split("?")[0] for request in hub.requests}
    assert [request for request in asked if not re.search(r" /(api/models/)?me/model(/|$)", request)] == []

"""A run is pushed to a stand-in for the Hub and loaded from there by plain code; what goes wrong is one line."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from hub_server import READ, SCOPED, STRANGER, WRITE, Hub
from huggingface_hub import ModelCard, constants

import hfft
from hfft import publish, remote
from hfft.cli import main
from hfft.messages import HubError, InputError
from hfft.recipe import Recipe, export_part

ROOT = Path(__file__).resolve().parent.parent
LORA = [{"peft": {"peft_type": "LORA", "r": 4}}]
DORA = [{"peft": {"peft_type": "LORA", "r": 4, "use_dora": True}}]
KINDS = {
    "full": ("bert", []),
    "lora": ("bert", LORA),
    "dora": ("bert", DORA),
    "vit": ("vit", LORA),
    "timm": ("timm", []),
}
PUBLIC = {"MANIFEST.json", "README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml"}
PUBLIC |= {"run.lock.json"}
TEXT = {"tokenizer.json", "tokenizer_config.json"}


def recipe_of(folder: Path, kind: str = "full", **sections) -> dict:
    name, tuning = KINDS[kind]
    return {
        "task": f"{tiny.CONFIGS[name][0]}_classification",
        "model": {"name": tiny.build(name, folder / "start")},
        "tuning": tuning,
        "train": {"output_dir": str(folder / "run"), "max_steps": 2, "learning_rate": 1e-2, "use_cpu": True},
        **sections,
    }


def rows_of(kind: str, num_rows: int = 24) -> list[dict]:
    return (tiny.sentences if tiny.CONFIGS[KINDS[kind][0]][0] == "text" else tiny.pictures)(num_rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """kind -> the folder of a finished run of it, made at the first call; nobody may change it."""
    made: dict[str, Path] = {}

    def folder(kind: str = "full") -> Path:
        if kind not in made:
            place = tmp_path_factory.mktemp(kind)
            hfft.finetune(recipe_of(place, kind), data=rows_of(kind))
            made[kind] = place / "run"
            (made[kind] / "dropped.jsonl").write_text('{"text": "a private row"}\n')
            (made[kind] / "answers.json").write_text("[]")
        return made[kind]

    return folder


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, which this process takes for the Hub, with a token that may write and no pauses."""
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(remote, "WAITS", (0.0, 0.0, 0.0))
        monkeypatch.setenv("HF_TOKEN", WRITE)
        yield server


def fresh(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess:
    """A new process that knows the stand-in from its environment only, with an empty cache."""
    known = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_XET"}
    env = known | {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=env)


HFFT = ("-c", "import sys; from hfft.cli import main; sys.exit(main())")
CARD = """
import json, sys, torch
from PIL import Image
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, AutoTokenizer
found = []
for repo, inputs in json.loads(sys.argv[1]):
    names = {}
    exec(ModelCard.load(repo).content.split("```python")[1].split("```")[0], names)
    model = names["model"].eval()
    if inputs[0].endswith(".png"):
        encoded = AutoImageProcessor.from_pretrained(repo)([Image.open(x) for x in inputs], return_tensors="pt")
    else:
        encoded = AutoTokenizer.from_pretrained(repo)(inputs, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(**encoded).logits.softmax(-1).tolist()
    found.append([dict(zip(model.config.id2label.values(), row)) for row in scores])
print(json.dumps(found))
"""


def inputs_of(kind: str, folder: Path) -> list[str]:
    rows = rows_of(kind, 6)
    if "text" in rows[0]:
        return [row["text"] for row in rows]
    for i, row in enumerate(rows):
        row["image"].save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(rows))]


@pytest.mark.slow
def test_what_was_pushed_is_loaded_elsewhere_by_its_card_and_answers_as_here(run, hub, tmp_path):
    """The adapter is pushed by a fresh process; another one with an empty cache runs the code on each card."""
    out = fresh(hub, tmp_path / "a", *HFFT, "export", str(run("lora")), "hub", "repo=me/lora", "private=true")
    assert out.returncode == 0, out.stderr
    for kind in ("full", "dora", "vit", "timm"):
        assert main(["export", str(run(kind)), "hub", f"repo=me/{kind}"]) == 0
    jobs = [(f"me/{kind}", inputs_of(kind, tmp_path)) for kind in KINDS]
    out = fresh(hub, tmp_path / "b", "-c", CARD, json.dumps(jobs))
    assert out.returncode == 0, out.stderr[-800:]
    for kind, (_, inputs), theirs in zip(KINDS, jobs, json.loads(out.stdout.splitlines()[-1]), strict=True):
        ours = [answer["scores"] for answer in hfft.load(run(kind)).predict(inputs)]
        assert [list(row) for row in ours] == [list(row) for row in theirs]
        assert all(abs(a[x] - b[x]) <= 1e-6 for a, b in zip(ours, theirs, strict=True) for x in a), kind


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("full", PUBLIC | TEXT),
        ("lora", PUBLIC | TEXT | {"adapter_config.json", "adapter_model.safetensors"}),
        ("vit", PUBLIC | {"adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json"}),
        (
            "dora",
            (PUBLIC | TEXT | {"adapter_config.json", "adapter_model.safetensors"} | {f"base/{x}" for x in TEXT})
            - {"config.json", "model.safetensors"}
            | {"base/config.json", "base/model.safetensors"},
        ),
    ],
)
def test_only_public_files_are_pushed_and_none_tells_of_this_machine(kind, files, run, hub):
    assert main(["export", str(run(kind)), "hub", "repo=me/x"]) == 0
    pushed = hub.files("me/x")
    assert set(pushed) - {".gitattributes"} == files
    assert len(hub.repos["me/x"].branches["main"]) == 2  # the first is the repository's own
    for name, content in pushed.items():
        assert str(run(kind).parent).encode() not in content, name
    assert Recipe.from_dict(publish.told(Recipe.read(run(kind) / "recipe.yaml").to_dict())).model.name == "start"
    if "adapter_config.json" in files:  # where AutoModel.from_pretrained("me/x") looks for the base
        assert json.loads(pushed["adapter_config.json"])["base_model_name_or_path"] == "me/x"


def test_paths_and_passwords_leave_a_recipe_and_nothing_else_does():
    given = {
        "path": {"train": "/tmp/secret/a.csv", "test": "data/b.csv"},
        "url": "https://me:pass@host.org/x.csv?signature=abc",
        "metrics": ["evaluate:/tmp/mine/right", "evaluate:accuracy"],
        "labels": ["/tmp/a", "b"],
        "classes": ["/m/01g317", "/", "a/b"],
        "size": 3,
        "up": "../../home/x",
    }
    assert publish.told(given) == {
        "path": {"train": "a.csv", "test": "data/b.csv"},
        "url": "https://host.org/x.csv",
        "metrics": ["evaluate:right", "evaluate:accuracy"],
        "labels": ["/tmp/a", "b"],
        "classes": ["/m/01g317", "/", "a/b"],
        "size": 3,
        "up": "x",
    }


def test_the_card_on_the_hub_has_a_valid_model_index_and_the_repositorys_name(run, hub):
    assert main(["export", str(run()), "hub", "repo=me/films", "revision=v2"]) == 0
    card = ModelCard(hub.files("me/films", "v2")["README.md"].decode())
    measured = {each.metric_type: each.metric_value for each in card.data.eval_results}
    written = json.loads((run() / "metrics.json").read_text())["eval"]
    assert measured == {k: pytest.approx(v, abs=1e-6) for k, v in written.items() if isinstance(v, float)}
    assert card.data.model_name == "films" and card.data.library_name == "transformers"
    assert {(each.task_type, each.dataset_name) for each in card.data.eval_results} == {
        ("text-classification", "private")
    }
    assert "\n# films\n" in card.content and '.from_pretrained("me/films", revision="v2")' in card.content
    assert "POST /api/validate-yaml" in hub.requests
    assert '"PATH_OR_ID"' in (run() / "README.md").read_text()


@pytest.mark.parametrize(("words", "private"), [([], False), (["private=true"], True), (["private=false"], False)])
def test_the_repository_is_private_or_public_as_asked(words, private, run, hub):
    assert main(["export", str(run()), "hub", "repo=me/x", *words]) == 0
    assert hub.repos["me/x"].private is private


def test_a_public_repository_is_never_taken_for_a_private_one(run, hub, capsys):
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "private=true"]) == 5
    assert "me/x is public already, not private" in capsys.readouterr().err
    assert "adapter_config.json" not in hub.files("me/x")


def test_a_push_goes_to_the_branch_asked_for(run, hub):
    assert main(["export", str(run()), "hub", "repo=me/x", "revision=v2"]) == 0
    assert set(hub.files("me/x")) == {".gitattributes"} and "model.safetensors" in hub.files("me/x", "v2")
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "revision=v2"]) == 0  # the branch is there
    assert "adapter_model.safetensors" in hub.files("me/x", "v2")


def test_a_push_is_a_pull_request_where_asked_also_to_somebody_else(run, hub, capsys, monkeypatch):
    assert main(["export", str(run()), "hub", "repo=me/x", "pull_request=true"]) == 0
    assert "model.safetensors" not in hub.files("me/x") and "model.safetensors" in hub.files("me/x", "refs/pr/1")
    assert f"{hub.url}/me/x/discussions/1" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "pull_request=true"]) == 0
    assert "adapter_config.json" in hub.files("me/x", "refs/pr/2")
    assert main(["export", str(run("lora")), "hub", "repo=me/y", "pull_request=true"]) == 5
    assert "no such repository" in capsys.readouterr().err


def test_an_earlier_pushs_adapter_does_not_stay_beside_a_full_model(run, hub):
    assert main(["export", str(run("dora")), "hub", "repo=me/x"]) == 0
    hub.files("me/x")["LICENSE"] = b"mine"
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    assert set(hub.files("me/x")) == PUBLIC | TEXT | {".gitattributes", "LICENSE"}


def test_an_export_can_be_pushed_instead_of_the_model(run, hub, capsys):
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "what=../.."]) == 2
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "what=merge"]) == 2
    assert f"write `hfft export {run('lora')} merge` first" in capsys.readouterr().err
    assert main(["export", str(run("lora")), "merge"]) == 0
    assert main(["export", str(run("lora")), "hub", "repo=me/x", "what=merge"]) == 0
    assert set(hub.files("me/x")) == PUBLIC | TEXT | {".gitattributes"}
    assert hub.files("me/x")["model.safetensors"] == (run("lora") / "exports/merge/model.safetensors").read_bytes()
    assert str(run("lora").parent).encode() not in hub.files("me/x")["recipe.yaml"]
    assert ModelCard(hub.files("me/x")["README.md"].decode()).data.library_name == "transformers"


# ---- what goes wrong ------------------------------------------------------------------------------------------------
FAULTS = [
    ("GET", "/api/whoami-v2", 401, {}, "the token is missing or not valid (401)"),
    ("GET", "/api/whoami-v2", 500, {}, "the Hub has trouble (500)"),
    ("GET", "/api/whoami-v2", "html", {}, "does not answer as the Hub does"),
    ("POST", "/api/repos/create", 403, {}, "the token may not do that (403): injected 403"),
    ("POST", "/api/repos/create", "drop", {}, "no answer from 127.0.0.1"),
    ("GET", "/tree/", 404, {}, "not there, or hidden from this token (404)"),
    ("POST", "/preupload/", 500, {}, "the Hub has trouble (500)"),
    ("POST", "/objects/batch", 429, {"Retry_After": "120"}, "too many requests (429)"),
    ("PUT", "/lfs/", "drop", {}, "the connection to 127.0.0.1 broke"),
    ("PUT", "/lfs/", 403, {}, "the token may not do that (403)"),
    ("PUT", "/lfs/", 500, {}, "the Hub has trouble (500)"),
    ("POST", "/commit/", 403, {}, "the token may not do that (403)"),
    ("POST", "/commit/", 429, {}, "too many requests (429)"),
    ("POST", "/commit/", "drop", {}, "no answer from 127.0.0.1"),
    ("POST", "/commit/", 413, {}, "the Hub answered 413"),
]


@pytest.mark.parametrize(("method", "route", "fault", "headers", "line"), FAULTS)
def test_a_failed_push_is_one_line_with_the_command_that_pushes_again(
    method, route, fault, headers, line, run, hub, capsys, monkeypatch
):
    before = {path: path.read_bytes() for path in run().rglob("*") if path.is_file()}
    hub.fault(method, route, fault, **headers)
    assert main(["export", str(run()), "hub", "repo=me/x", "private=true"]) == 5
    shown = capsys.readouterr().err
    errors = [
        text for text in shown.splitlines() if not text.startswith("hfft: hub: ") and text.startswith("hfft: error")
    ]
    assert len(errors) == 1 and line in errors[0] and "Traceback" not in shown and WRITE not in shown
    assert {path: path.read_bytes() for path in run().rglob("*") if path.is_file()} == before
    if "me/x" in hub.repos:
        assert set(hub.files("me/x")) == {".gitattributes"}  # all or nothing
    hub.faults.clear()
    again = re.search(r"push it again with `hfft (.*)`", errors[0]).group(1)
    assert again == f"export {run()} hub repo=me/x private=true"
    assert main(shlex.split(again)) == 0
    assert hub.repos["me/x"].private and set(hub.files("me/x")) == PUBLIC | TEXT | {".gitattributes"}


@pytest.mark.parametrize(
    ("method", "route", "fault"),
    [
        ("GET", "/api/whoami-v2", 429), ("POST", "/api/repos/create", 500), ("POST", "/preupload/", "drop"),
        ("PUT", "/lfs/", 503), ("PUT", "/lfs/", "drop"), ("POST", "/commit/", 500), ("POST", "/commit/", "drop"),
    ],
)  # fmt: skip
def test_a_failure_that_passes_is_tried_again_and_told(method, route, fault, run, hub, capsys):
    hub.fault(method, route, fault, times=2)
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    assert capsys.readouterr().err.count("trying again in") == 2
    assert set(hub.files("me/x")) == PUBLIC | TEXT | {".gitattributes"}
    assert len(hub.repos["me/x"].branches["main"]) == 2


def test_the_pause_that_the_server_asks_for_is_made_if_it_is_short(run, hub, capsys, monkeypatch):
    paused: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", paused.append)
    hub.fault("POST", "/commit/", 429, times=1, Retry_After="20")
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    assert paused == [20.0]
    hub.fault("POST", "/commit/", 429, times=1, Retry_After="31")
    assert main(["export", str(run("lora")), "hub", "repo=me/x"]) == 5
    assert paused == [20.0] and "it asks to wait 31 s" in capsys.readouterr().err


def test_a_server_that_says_nothing_is_given_up(run, hub, capsys, monkeypatch):
    monkeypatch.setattr(remote, "LIMITS", (0.2, 0.2, 0.2, None))
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    hub.fault("POST", "/preupload/", "hang")
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 5
    assert "the connection to 127.0.0.1 broke" in capsys.readouterr().err
    hub.fault("GET", "/api/whoami-v2", "hang")
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 5
    assert "no answer from 127.0.0.1 (ReadTimeout)" in capsys.readouterr().err


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(run, hub, capsys):
    hub.fault("POST", "/commit/", "drop", times=1)
    assert main(["export", str(run()), "hub", "repo=me/x", "pull_request=true"]) == 5
    assert sum("/commit/" in request for request in hub.requests) == 1


def test_the_limits_on_the_librarys_client_end_with_the_push(run, hub):
    from huggingface_hub import get_session

    client = get_session()
    before = client.timeout, {kind: list(hooks) for kind, hooks in client.event_hooks.items()}
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    assert (client.timeout, {kind: list(hooks) for kind, hooks in client.event_hooks.items()}) == before


@pytest.mark.slow
def test_a_fault_in_a_fresh_process_is_one_line(run, hub, tmp_path):
    """With the real pauses, the library's own messages and its first look at the environment."""
    hub.fault("PUT", "/lfs/", "drop", times=1)
    hub.fault("POST", "/commit/", 403)
    out = fresh(hub, tmp_path, *HFFT, "export", str(run()), "hub", "repo=me/x")
    lines = [line for line in out.stderr.splitlines() if not line.startswith("hfft: hub:")]
    told = [line for line in lines if "trying again" not in line]
    assert out.returncode == 5 and len(told) == 1 and told[0].startswith("hfft: error: export: hub: pushing to me/x:")
    assert len(lines) == 2 and "trying again in 1 s" in lines[0]


# ---- before training ------------------------------------------------------------------------------------------------
def refused(tmp_path: Path, **options) -> str:
    """What `finetune` says of this export. The data are not there: whoever looks for them says something else."""
    recipe = recipe_of(tmp_path, data={"path": str(tmp_path / "nowhere.csv")}, export=[{"hub": options}])
    with pytest.raises((HubError, InputError)) as caught:
        hfft.finetune(recipe)
    with pytest.raises(type(caught.value)):
        hfft.check(recipe)
    assert not (tmp_path / "run").exists() and len(caught.value.lines) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("token", "repo", "line"),
    [
        (READ, "me/x", "the token 'test' only reads"),
        (SCOPED, "me/x", "the fine-grained token 'test' may write to acme, not to me/x"),
        (WRITE, "you/x", "you is not you"),
        (WRITE, "club/x", "club is not you (me) nor an organisation you may write to (acme)"),
        (WRITE, "x", "'x' has no owner; write user/x"),
        (WRITE, "me/a--b", "Cannot have -- or .. in repo_id"),
        ("hf_" + "Q" * 34, "me/x", "not valid (401)"),
    ],
)
def test_write_rights_are_asked_before_any_row_is_read(token, repo, line, tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    assert line in refused(tmp_path, repo=repo)


def test_a_recipe_proposes_nothing_to_somebody_elses_repository(tmp_path, hub):
    """Who wrote the recipe could have the model sent to himself."""
    assert "pull_request=true`, after training" in refused(tmp_path, repo="you/x", pull_request=True)


def test_an_export_to_push_has_to_be_made_before(tmp_path, hub):
    assert "'merge' is no export before it" in refused(tmp_path, repo="me/x", what="merge")


def test_a_token_of_the_right_scope_may_push(run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SCOPED)
    assert main(["export", str(run()), "hub", "repo=acme/x"]) == 0
    assert "model.safetensors" in hub.files("acme/x")


def test_a_repository_that_this_token_may_not_write_to_is_told_before_training(tmp_path, hub, monkeypatch, run):
    assert main(["export", str(run()), "hub", "repo=me/x"]) == 0
    hub.fault("GET", "/auth-check/write", 403)
    assert "the token may not do that (403)" in refused(tmp_path, repo="me/x")
    assert "is public already, not private" in refused(tmp_path, repo="me/x", private=True)


def test_without_a_way_to_the_hub_nothing_is_trained(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1 forbids it" in refused(tmp_path, repo="me/x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(remote, "find_spec", lambda name: object())
    assert "set HF_HUB_DISABLE_XET=1" in refused(tmp_path, repo="me/x")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(remote, "get_token", lambda: None)
    assert "there is no token" in refused(tmp_path, repo="me/x")
    assert hub.requests == []


def test_a_token_in_a_recipe_or_on_the_command_line_is_refused_without_its_value(run, tmp_path, capsys):
    said = []
    for export, more in (
        ({"repo": "me/x", "token": WRITE}, {}), ({"repo": WRITE}, {}), ({"repo": "me/x"}, {"hub_token": WRITE}),
        ({"repo": "me/x", "hub_token": "short"}, {}),
    ):  # fmt: skip
        recipe = recipe_of(tmp_path, export=[{"hub": export}])
        recipe["train"] |= more
        with pytest.raises(InputError) as caught:
            Recipe.from_dict(recipe)
        said.append(str(caught.value))
    for words in (["token=" + WRITE], ["repo=" + WRITE], [WRITE], ["--token=" + WRITE], ["--hub_token", WRITE]):
        assert main(["export", str(run()), "hub", *words]) == 2
        said.append(capsys.readouterr().err)
    assert main(["train", str(run() / "recipe.yaml"), f"train.hub_token={WRITE}"]) == 2
    said.append(capsys.readouterr().err)
    assert not [text for text in said if WRITE in text or "short" in text]
    for text in (said[i] for i in (0, 1, 2, 3, 4, 5, -1)):
        assert "set HF_TOKEN" in text and "`hf auth login`" in text


def test_options_of_an_export_are_typed_by_its_signature():
    part = export_part("hub", ["repo=me/x", "private=true", "pull_request=false", "revision=v2"])
    assert part.options == {"repo": "me/x", "private": True, "pull_request": False, "revision": "v2"}
    for word, line in (
        ("private=yes", "write true"),
        ("revision=3", "write it in quotes"),
        ("privat=true", "'private'"),
    ):
        with pytest.raises(InputError, match=line):
            export_part("hub", ["repo=me/x", word])
    with pytest.raises(InputError, match="needs repo"):
        export_part("hub", [])


def test_a_recipe_shows_how_to_push(tmp_path):
    text = (ROOT / "recipes" / "vit_cifar_lora.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text.replace("\nexport: ", "\n# was: ").replace("\n# export: ", "\nexport: "))
    recipe = Recipe.read(tmp_path / "recipe.yaml")
    assert [part.name for part in recipe.export] == ["merge", "hub"] and recipe.export[1].options["private"] is True


def test_a_file_with_a_token_in_it_is_not_pushed(run, hub, tmp_path, capsys):
    import shutil

    shutil.copytree(run(), tmp_path / "run")
    with (tmp_path / "run" / "README.md").open("a") as file:
        file.write(f"Load it with token={WRITE}\n")
    assert main(["export", str(tmp_path / "run"), "hub", "repo=me/x"]) == 2
    shown = capsys.readouterr().err
    assert "README.md holds what looks like a Hub token" in shown and WRITE not in shown and "me/x" not in hub.repos


# ---- after training -------------------------------------------------------------------------------------------------
def test_a_recipe_trains_and_pushes_and_a_push_that_fails_leaves_the_whole_run(tmp_path, hub, capsys):
    recipe = recipe_of(tmp_path, "lora", export=["merge", {"hub": {"repo": "me/x", "what": "merge"}}])
    hub.fault("POST", "/commit/", 500)
    with pytest.raises(HubError) as caught:
        hfft.finetune(recipe, data=rows_of("lora"))
    assert hub.requests.index("GET /api/whoami-v2") == 0 and (tmp_path / "run" / "metrics.json").is_file()
    assert hfft.load(tmp_path / "run").predict(["good film"])[0]["label"] in ("neg", "pos")
    hub.faults.clear()
    again = re.search(r"push it again with `hfft (.*)`", str(caught.value)).group(1)
    assert main(shlex.split(again)) == 0
    assert set(hub.files("me/x")) == PUBLIC | TEXT | {".gitattributes"}
    recipe["train"]["output_dir"] = str(tmp_path / "second")
    hfft.finetune(recipe, data=rows_of("lora"))
    assert len(hub.repos["me/x"].branches["main"]) == 3


@pytest.mark.slow
def test_of_two_processes_one_asks_and_pushes(hub, tmp_path):
    rows = "\n".join(f"{row['text']},{row['label']}" for row in tiny.sentences(24))
    (tmp_path / "data.csv").write_text("text,label\n" + rows + "\n")
    recipe = recipe_of(tmp_path, data={"path": str(tmp_path / "data.csv")}, export=[{"hub": {"repo": "me/x"}}])
    Recipe.from_dict(recipe).save(tmp_path / "recipe.yaml")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "hfft/run.py")
    out = fresh(hub, tmp_path / "home", *launch, str(tmp_path / "recipe.yaml"))
    assert out.returncode == 0, out.stderr[-800:]
    assert sum("/commit/" in request for request in hub.requests) == 1
    assert sum("whoami" in request for request in hub.requests) == 2  # before training, and before the push
    assert "model.safetensors" in hub.files("me/x")

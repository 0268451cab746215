"""Lookup: names, nearest names, options from the source, and calls with what a part asks for."""

import pytest

from hfft import lookup
from hfft.lookup import Option, Part
from hfft.messages import InputError


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A package folder with two parts and a task of its own."""
    for kind in lookup.KINDS:
        (tmp_path / kind).mkdir()
    (tmp_path / "tuning" / "scale.py").write_text(
        '"""Scale: multiplies all. And more."""\n\n'
        "def helper(x): ...\n\n"
        'def scale(model, *, by: float, only: list[str] | None = None, train, mode: str = "a", **more):\n'
        "    return model\n"
    )
    (tmp_path / "tuning" / "base.py").write_text("")
    (tmp_path / "tuning" / "_private.py").write_text("")
    (tmp_path / "tuning" / "broken.py").write_text("def broken(:\n")
    (tmp_path / "tuning" / "empty.py").write_text('"""Nothing."""\n')
    (tmp_path / "tasks" / "two_words.py").write_text(
        "class TwoWords(Task):\n"
        '    """Two words.\n\n    More."""\n'
        '    columns: ClassVar[tuple[str, ...]] = ("text", "label?")\n'
        "    size: int = 3\n    name: str\n    items: list = field(default_factory=list)\n"
        "    found: dict = field(init=False, default=None)\n    _own: int = 1\n"
    )
    monkeypatch.setattr(lookup, "PACKAGE", tmp_path)


def test_names_are_the_files_without_base_and_private_ones(parts):
    assert lookup.names("tuning") == ["broken", "empty", "scale"]
    assert lookup.names("export") == []


def test_options_are_the_keyword_only_arguments_but_for_what_the_pipeline_fills(parts):
    assert lookup.options("tuning", "scale") == {
        "by": Option("float", None, True),
        "only": Option("list[str] | None", None, False),
        "mode": Option("str", "a", False),
    }
    assert lookup.takes_more("tuning", "scale")


def test_options_of_a_task_are_its_fields(parts):
    assert lookup.options("tasks", "two_words") == {
        "size": Option("int", 3, False),
        "name": Option("str", None, True),
        "items": Option("list", None, False),
    }
    assert lookup.columns("two_words") == ["text", "label?"]
    assert not lookup.takes_more("tasks", "two_words")


def test_the_summary_is_the_first_sentence(parts):
    assert lookup.summary("tuning", "scale") == "Scale: multiplies all."
    assert lookup.summary("tasks", "two_words") == "Two words."


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("scal", "tuning: unknown name 'scal'. Did you mean 'scale'?"),
        ("quantum", "tuning: unknown name 'quantum'. There are: broken, empty, scale"),
        ("empty", "defines no function 'empty'"),
        ("broken", "broken.py:1: not valid Python: invalid syntax"),
        ("gone.py", "tuning: no file 'gone.py'"),
    ],
)
def test_a_part_that_is_not_there_is_one_line(parts, name, line):
    with pytest.raises(InputError) as error:
        lookup.find("tuning", name)
    assert len(error.value.lines) == 1 and error.value.lines[0].endswith(line)


def test_find_and_call_a_users_own_file(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("def mine(model, *, by, task, train=None, seed=0):\n    return model, by, task, train, seed\n")
    found = lookup.call("tuning", Part(str(own), {"by": 2}), "model", task="t", train="rows", seed=1, other=3)
    assert found == ("model", 2, "t", None, 0)


def test_a_real_part_and_a_real_task_are_found():
    assert lookup.find("objectives", "label_smoothing").__name__ == "label_smoothing"
    assert lookup.find("tasks", "text_classification").__name__ == "TextClassification"


@pytest.mark.parametrize("kind", lookup.KINDS)
def test_every_part_says_what_it_is_and_has_typed_options(kind):
    for name in lookup.names(kind):
        assert lookup.summary(kind, name).endswith(".")
        for key, option in lookup.options(kind, name).items():
            assert option.annotation != "Any", f"{kind}/{name}: {key} has no annotation"


@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [("", "", 0), ("r", "", 1), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "axc", 1),
     ("kitten", "sitting", 3), ("ca", "abc", 3)],
)  # fmt: skip
def test_distance_counts_letters(a, b, steps):
    assert lookup.distance(a, b) == lookup.distance(b, a) == steps


@pytest.mark.parametrize(
    ("word", "near"),
    [("learning_rat", ["learning_rate"]), ("f16", ["bf16", "fp16"]), ("BF16", ["bf16"]), ("x", ["r"]), ("zebra", []),
     ("Learning_Rate", ["learning_rate"]), ("lerning_rte", ["learning_rate"])],
)  # fmt: skip
def test_the_nearest_names_are_found(word, near):
    candidates = ["learning_rate", "bf16", "fp16", "r", "weight_decay"]
    assert lookup.closest(word, candidates) == near
    assert lookup.nearest(word, candidates) == (near[0] if near else None)


def test_the_hint_names_every_candidate_that_is_as_near():
    assert lookup.hint("f16", ["bf16", "fp16"]) == " Did you mean 'bf16' or 'fp16'?"
    assert lookup.hint("zebra", ["bf16"]) == ""

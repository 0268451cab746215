"""8 rows in one batch and 2 processes x 2 x 2 accumulated, in real processes: one result."""

from pathlib import Path

import layouts
import pytest
import tiny
import torch

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(forks, tmp_path_factory) -> dict:
    """What one process finds with 8 x 1, and two with 2 x 2; for all architectures in one launch."""
    folder = tmp_path_factory.mktemp("layouts")
    for name in tiny.NO_BATCHNORM:
        tiny.build(name, folder / name)
    codes, said = forks.run(ROOT / "tests" / "layouts.py", folder, processes=2)
    assert codes == [0, 0], said
    two = torch.load(folder / "found.pt", weights_only=False)
    return {"8x1": layouts.found_by(folder, (8, 1)), "4x2": {"steps": layouts.steps_of(folder, (4, 2))}, "2x2x2": two}


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", tiny.NO_BATCHNORM)
def test_the_gradient_of_two_processes_is_that_of_one(name, tuning, found):
    whole, other = found["8x1"][name, tuning], found["2x2x2"][name, tuning]
    assert len(whole) == len(other) == 2
    for a, b in zip(whole, other, strict=True):
        assert a.norm() > 1e-6 and (a - b).norm() <= 1e-5 * a.norm()


def test_all_processes_have_the_same_gradient(found):
    own = torch.stack([torch.cat(found["2x2x2"][name, "full"]).norm() for name in tiny.NO_BATCHNORM])
    assert torch.equal(own, found["2x2x2"]["norms"])


def test_the_rows_of_each_step_are_the_same_with_buckets_on(found):
    whole, accumulated, shares = (found[layout]["steps"] for layout in ("8x1", "4x2", "2x2x2"))
    two = [first + second for first, second in zip(*shares, strict=True)]
    assert len(whole) == 16 and [sorted(step) for step in accumulated] == [sorted(step) for step in whole]
    assert [sorted(step) for step in two] == [sorted(step) for step in whole]
    assert whole[:8] != whole[8:] and not {*shares[0][0]} & {*shares[1][0]}


@pytest.mark.parametrize("num_rows", layouts.COUNTS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_metrics_do_not_depend_on_the_processes_where_rows_do_not_divide(kind, num_rows, found):
    one, two = found["8x1"][kind, num_rows], found["2x2x2"][kind, num_rows]
    assert one.keys() == two.keys() and "eval_accuracy" in one
    assert two == pytest.approx(one, rel=1e-6)

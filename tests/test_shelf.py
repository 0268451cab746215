"""Pictures kept in memory: the same rows as without, read once, by whatever process."""

import pickle

import datasets
import pytest
import tiny
import torch

from hfft import batches, shelf
from hfft.batches import EpochLoader, GlobalBatches, shuffled
from hfft.recipe import ModelSection
from hfft.tasks.image_classification import ImageClassification


class Counting(ImageClassification):
    """Knows which rows this process encoded."""

    def encode(self, rows, *, train=False):
        """As ever."""
        self.seen = [*getattr(self, "seen", []), *rows["row"]]
        return super().encode(rows, train=train)


@pytest.fixture
def task(tmp_path) -> Counting:
    made = Counting()
    made.uint8 = True
    made.setup(ModelSection(name=tiny.build("vit", tmp_path)))
    return made


def rows(num_rows: int = 10) -> datasets.Dataset:
    found = tiny.pictures(num_rows, size=20)
    return datasets.Dataset.from_list(
        [{"image": row["image"], "label": i % 2, "row": i} for i, row in enumerate(found)]
    )  # fmt: skip


def passed(split: batches.EncodedRows, workers: int = 0, epoch: int = 0) -> dict[int, tuple[torch.Tensor, int]]:
    loader = EpochLoader(split, GlobalBatches(10, 3, shuffled(10, 0)), num_workers=workers, collate_fn=list)
    loader.set_epoch(epoch)
    return {row["row"]: (row["pixel_values"].clone(), row["labels"]) for batch in loader for row in batch}


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_the_same_and_read_once_by_all_loader_processes(workers, task):
    plain = passed(batches.encoded(rows(), task, split="eval", seed=0))
    split = batches.encoded(rows(), task, split="eval", seed=0, cache=True)
    task.seen = []
    first = passed(split, workers)
    assert split.kept.held.all(), "what a worker read lies in the memory of all"
    assert sorted(task.seen) == ([] if workers else list(range(10)))
    task.seen = []
    second = passed(split, 0, epoch=1)
    assert task.seen == []
    for found in (first, second):
        assert all(torch.equal(found[i][0], plain[i][0]) and found[i][1] == plain[i][1] for i in range(10))
        assert isinstance(found[0][1], int)


def test_only_what_is_missing_is_read(task):
    split = batches.encoded(rows(), task, split="eval", seed=0, cache=True)
    split.__getitems__([(0, 4, False), (0, 2, False)])
    task.seen = []
    found = split.__getitems__([(0, 2, False), (0, 7, True), (1, 4, False), (0, 7, False)])
    assert set(task.seen) == {7} and [row["row"] for row in found] == [2, 7, 4, 7]
    assert [row["filler"] for row in found] == [False, True, False, False]


def test_what_takes_more_than_a_quarter_of_the_free_memory_is_not_kept_and_said_so(task, monkeypatch, caplog):
    size = 10 * (3 * 16 * 16 + 8)
    for free, kept in ((4 * size, True), (4 * size - 4, False)):
        monkeypatch.setattr(shelf, "free_memory", lambda free=free: free)
        with caplog.at_level("INFO", "hfft"):
            assert (batches.encoded(rows(), task, split="eval", seed=0, cache=True).kept is not None) == kept
        said = "10 resized pictures stay in memory once read, up to 0.01 MB (train.levers.cache=false turns it off)"
        assert (said if kept else "10 pictures are read anew each time: resized they take 0.01 MB") in caplog.text


def test_augmented_rows_float_pictures_and_spawned_processes_keep_nothing(task):
    def flipped(batch):
        return batch

    assert batches.encoded(rows(), task, split="train", seed=0, augment=[flipped], cache=True).kept is None
    split = batches.encoded(rows(), task, split="eval", seed=0, cache=True)
    assert pickle.loads(pickle.dumps(split.kept)) is None
    task.eight_bit = None
    assert batches.encoded(rows(), task, split="eval", seed=0, cache=True).kept is None


def test_a_picture_of_another_size_than_the_first_is_given_but_not_kept():
    first = {"pixels": torch.zeros(2, 2, dtype=torch.uint8), "labels": 1}
    made = shelf.shelf(3, first, "eval")
    wide = torch.ones(2, 3, dtype=torch.uint8)
    found = made.rows([(0, 1, False)], lambda keys: {"pixels": [wide], "labels": [5]})
    assert torch.equal(found["pixels"][0], wide) and found["labels"] == [5] and not made.held.any()


def test_free_memory_is_some_of_this_machine():
    assert 0 < shelf.free_memory() < 1 << 50

"""Micro-batches in parts of like length."""

from hfft import batches


def test_rows_of_like_length_share_a_part_where_that_saves_more_than_one_more_pass_costs():
    lengths = [5, 50, 5, 48]
    assert [part.tolist() for part in batches.parts(lengths, 8)] == [[1, 3], [0, 2]]
    assert [part.tolist() for part in batches.parts(lengths, 1000)] == [[1, 3, 0, 2]]
    assert [part.tolist() for part in batches.parts([7], 8)] == [[0]]

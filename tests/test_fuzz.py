"""A few hundred damaged files of each kind; thousands by hand: `helpers.fuzz`."""

import pytest

from helpers.fuzz import failures


@pytest.mark.parametrize(
    ("target", "cases"),
    [("torch", 300), ("weights", 20), ("audio", 300), pytest.param("weights", 300, marks=pytest.mark.training)],
)
def test_damaged_files_are_read_or_refused_in_a_line(target, cases):
    assert list(failures(target, cases, most_seconds=30)) == []

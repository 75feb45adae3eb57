"""launch/offline.py: recordings and wheels in parts, and from parts to a dataset again."""

import csv

import numpy as np
import pytest

from flashsr_jax.data.build import build_dataset
from flashsr_jax.data.dataset import Recordings
from flashsr_jax.errors import UserError

import offline


@pytest.fixture
def wheels(tmp_path):
    """Three wheels, of which two fit into a part of 200 kB."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(bytes(90_000))
    return folder


@pytest.mark.training
def test_parts_are_small_and_become_the_same_dataset(dataset, wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "PART_BYTES", 200_000)
    parts = tmp_path / "parts"
    count = offline.pack(str(dataset), wheels, parts, hours=1.0)
    folders = [parts / str(number) for number in range(1, count + 1)]
    assert sorted(parts.iterdir()) == sorted(folders) and count > 4
    assert [len(list(folder.glob("*.whl"))) for folder in folders[:3]] == [2, 1, 0]
    for folder in folders:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert sum(sizes) < 200_000 + max(sizes) + 10_000  # the last recording of a part may go over

    host = tmp_path / "host"
    host.mkdir()
    for folder in folders[2:]:
        folder.rename(host / folder.name)
    offline.join_tables(host)
    build_dataset([host], tmp_path / "set", csv=host / "recordings.csv", min_bandwidth_hz=0, workers=0)
    for split in ("train", "validation"):
        before, after = Recordings(dataset, split), Recordings(tmp_path / "set", split)
        for class_id in range(3):
            seconds = [r.length[r.class_id == class_id].sum() / 48_000 for r in (before, after)]
            assert seconds[1] == pytest.approx(seconds[0], abs=0.1)
        assert set(before.group) == set(after.group)
        assert np.median(after.bandwidth_hz) > 0.95 * np.median(before.bandwidth_hz)


def test_a_part_holds_every_class(dataset, wheels, tmp_path, monkeypatch):
    """So that a host that got only the first parts trains on all classes."""
    monkeypatch.setattr(offline, "PART_BYTES", 400_000)
    offline.pack(str(dataset), wheels, tmp_path / "parts", hours=1.0)
    with (tmp_path / "parts" / "2" / "recordings.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["class"] for row in rows} == {"speech", "music", "effects"}
    assert {row["split"] for row in rows} >= {"validation"}


def test_mistakes_are_said(dataset, wheels, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "kept").touch()
    with pytest.raises(UserError, match="is not empty"):
        offline.pack(str(dataset), wheels, tmp_path / "parts", hours=1.0)
    with pytest.raises(UserError, match="no part with recordings"):
        offline.join_tables(tmp_path / "parts")

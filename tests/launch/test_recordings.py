"""The committed recordings are what their table says, and small enough to be in a repository."""

import csv
from pathlib import Path

import pytest
import soundfile as sf

from flashsr_jax.audio.bandwidth import bandwidth

from helpers import RECORDINGS

with (RECORDINGS / "recordings.csv").open(newline="") as table:
    ROWS = list(csv.DictReader(table))


def test_table_and_files_agree():
    files = {str(path.relative_to(RECORDINGS)) for path in RECORDINGS.glob("*/*/*")}
    assert {row["path"] for row in ROWS} == files
    assert all(row["license"] and row["author"] and row["source_url"] for row in ROWS)


def test_size():
    assert sum(path.stat().st_size for path in RECORDINGS.rglob("*") if path.is_file()) < 6e6


def test_no_group_is_in_two_splits_and_every_class_in_all():
    split_of = {}
    for row in ROWS:
        assert split_of.setdefault((row["class"], row["group"]), row["split"]) == row["split"]
    for split in ("train", "validation", "test"):
        assert {row["class"] for row in ROWS if row["split"] == split} == {"speech", "music", "effects"}


def test_every_format_is_there():
    suffixes = {Path(row["path"]).suffix for row in ROWS}
    assert suffixes == {".wav", ".flac", ".ogg", ".opus", ".mp3"}
    assert {row["channels"] for row in ROWS} == {"1", "2"}
    assert {row["sample_rate"] for row in ROWS} == {"44100", "48000"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_is_decodable_full_band_and_not_clipped(row):
    x_NxC, rate = sf.read(RECORDINGS / row["path"], always_2d=True)
    assert (rate, x_NxC.shape[1]) == (int(row["sample_rate"]), int(row["channels"]))
    assert len(x_NxC) / rate == pytest.approx(float(row["seconds"]), abs=0.01)
    assert abs(x_NxC).max() <= 1.0
    measured = bandwidth(x_NxC[:, (x_NxC**2).sum(0).argmax()], rate)
    assert measured >= 16_000
    assert measured == pytest.approx(float(row["bandwidth_hz"]), abs=1000)

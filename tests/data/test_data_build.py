"""`flashsr data build`: folders of recordings on disk in, a TFDS dataset and its lists out."""

import collections
import csv
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import soxr
import tensorflow_datasets as tfds

from flashsr_jax.audio.formats import SUFFIXES
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.cli import main
from flashsr_jax.data import build, catalogue, stages
from flashsr_jax.data.build import build_dataset
from flashsr_jax.data.dataset import Recordings
from flashsr_jax.data.recording import SEGMENT_SAMPLES, Unusable, decode, segment_lengths
from flashsr_jax.data.stages import hashed_split
from flashsr_jax.errors import UserError

from helpers import RECORDINGS


def noise(seconds: float, rate: int = 48_000, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(int(seconds * rate)).astype(np.float32)


def write(path: Path, x: np.ndarray, rate: int = 48_000, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x, rate, **options)
    return path


def rows(out: Path, name: str) -> list[dict]:
    return list(csv.DictReader((out / name).read_text().splitlines()))


def reasons(out: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in rows(out, "left_out.csv")}


def records(out: Path, split: str) -> list[dict]:
    builder = tfds.builder_from_directory(out)
    return list(builder.as_data_source(split)) if split in builder.info.splits else []


def test_committed_recordings(dataset):
    """Built once for all tests, by the command."""
    listed = {row["path"]: row for row in csv.DictReader((RECORDINGS / "recordings.csv").read_text().splitlines())}
    built = {row["path"]: row for row in rows(dataset, "manifest.csv")}
    assert set(built) == set(listed) and not reasons(dataset)
    for path, row in built.items():
        assert {k: row[k] for k in ("class", "group", "split")} == {
            k: listed[path][k] for k in ("class", "group", "split")
        }
        assert float(row["seconds"]) == pytest.approx(float(listed[path]["seconds"]), abs=0.01)
        assert float(row["bandwidth_hz"]) >= 16_000
    for split in build.SPLITS:
        found = records(dataset, split)
        assert [r["source"].decode() for r in found] == [p for p, row in built.items() if row["split"] == split]
        for record in found:
            row = built[record["source"].decode()]
            assert build.CLASSES[record["class"]] == row["class"] and record["group"].decode() == row["group"]
            assert np.abs(record["audio"]).max() == 32_767


def test_audio_comes_through(tmp_path):
    """A tone keeps frequency, level and phase from 96 kHz, a lossless 48 kHz recording every sample."""
    time_ = np.arange(96_000 * 2) / 96_000
    hiss = noise(2, 96_000, level=1e-3)
    write(tmp_path / "music" / "tone.wav", 0.02 * np.sin(2 * np.pi * 1000 * time_) + hiss, 96_000, subtype="FLOAT")
    x = noise(1.5, seed=3)
    write(tmp_path / "effects" / "noise.flac", x, subtype="PCM_24")
    build_dataset([tmp_path], tmp_path / "out", min_bandwidth_hz=0, workers=0)
    found = {r["source"].decode(): r for split in build.SPLITS for r in records(tmp_path / "out", split)}
    stored = {name: r["audio"] * np.float64(r["gain"]) for name, r in found.items()}
    flac = stored["effects/noise.flac"]
    np.testing.assert_allclose(flac, x, atol=1.1 * found["effects/noise.flac"]["gain"])
    tone = stored["music/tone.wav"]
    assert abs(len(tone) - 96_000) <= 1
    expected = 0.02 * np.sin(2 * np.pi * 1000 * np.arange(len(tone)) / 48_000)
    assert np.sqrt(np.mean((tone - expected)[1000:-1000] ** 2)) < 1.2e-3  # the hiss, and no more


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {}),
        ("a.WAV", {"format": "WAV", "subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {"format": "MP3"}),
        ("a.aiff", {}),
        ("a.AIF", {"format": "AIFF", "subtype": "PCM_24"}),
        ("a.caf", {}),
        ("a.au", {}),
        ("a.w64", {}),
    ],
)
def test_formats(tmp_path, name, options):
    write(tmp_path / "Music" / name, np.stack([noise(2), noise(2, seed=1)], axis=1), **options)
    summary = build_dataset([tmp_path / "Music"], tmp_path / "out", workers=0)
    (row,) = summary.recordings
    assert row["class"] == "music" and float(row["seconds"]) == pytest.approx(2, abs=0.06)
    assert len(records(tmp_path / "out", row["split"])) == 1


def test_every_unusable_recording_is_listed_with_its_reason(tmp_path, capsys):
    data = tmp_path / "data"
    good = noise(1)
    write(data / "speech" / "anna" / "good.wav", good)
    write(data / "speech" / "berta" / "copy.flac", good, subtype="PCM_16")
    write(data / "speech" / "berta" / "other.wav", noise(1, seed=9))
    write(data / "speech" / "anna" / "same again.wav", good)
    write(data / "music" / "silent.wav", np.zeros(48_000))
    write(data / "music" / "empty.wav", np.zeros(0))
    write(data / "music" / "short.wav", noise(0.09))
    write(data / "music" / "22k.wav", noise(1, 22_050), 22_050)
    write(data / "music" / "33M.wav", noise(0.1), 33_570_432)
    write(data / "=1+1" / "music" / "huge.wav", 3e21 * noise(1).astype(np.float32), subtype="FLOAT")
    write(data / "music" / "nan.wav", np.full(48_000, np.nan, np.float32), subtype="FLOAT")
    dull = simulate_low_resolution(noise(2), LowpassFilter("cheby1", 8, 9000.0))
    write(data / "music" / "dull.wav", dull)
    write(data / "stuff" / "unknown.wav", noise(1, seed=4))
    (data / "music" / "text.wav").write_text("this is no audio")
    (data / "music" / "half.flac").write_bytes(write(tmp_path / "x.flac", noise(3)).read_bytes()[:20])
    (data / "music" / "notes.txt").write_text("not a recording, not listed")
    write(data / "music" / "._hidden.wav", noise(1))

    assert main(["data", "build", str(data), "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    out = tmp_path / "out"
    assert reasons(out) == {
        "same again.wav": "duplicate",
        "silent.wav": "silent",
        "empty.wav": "empty",
        "short.wav": "too short",
        "22k.wav": "sample rate too low",
        "33M.wav": "unreadable",
        "huge.wav": "not finite",
        "nan.wav": "not finite",
        "dull.wav": "bandwidth too low",
        "unknown.wav": "no class",
        "text.wav": "unreadable",
        "half.flac": "cut short",
    }
    assert "'=1+1/music/huge.wav" in [row["path"] for row in rows(out, "left_out.csv")]  # no formula
    assert [Path(row["path"]).name for row in rows(out, "manifest.csv")] == ["good.wav", "copy.flac", "other.wav"]
    printed = capsys.readouterr().out
    assert "1 no class: put it in a folder named speech, music, effects, or name its class in a CSV (--csv)" in printed
    assert "1 bandwidth too low" in printed and "speech: validation and test are of groups" in printed
    details = {row["reason"]: row["detail"] for row in rows(out, "left_out.csv") if "33M" not in row["path"]}
    assert "under 16000 Hz" in details["bandwidth too low"]
    assert details["cut short"].startswith("is a flac without a whole header")
    assert details["unreadable"] == "cannot be read as audio (libsndfile: Format not recognised)"


def test_what_a_folder_is_not_searched_for_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "readable", lambda: SUFFIXES)  # as without PyAV
    folder = tmp_path / "music"
    write(folder / "a.wav", noise(2))
    write(folder / "b.flac", noise(2, seed=1)).rename(folder / "b.m4a")
    write(tmp_path / "elsewhere/c.wav", noise(2, seed=2))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "LICENCE").touch()
    write(folder / ".trash/d.wav", noise(2, seed=3))
    build_dataset([folder], tmp_path / "out", workers=0)
    assert [Path(row["path"]).name for row in rows(tmp_path / "out", "manifest.csv")] == ["a.wav"]
    said = f"flashsr: {folder}: passed over: 1 m4a, 1 without a suffix, linked (a link); "
    assert capsys.readouterr().err.startswith(said)
    (folder / "list.csv").write_text("path,class\nb.m4a,music\n")
    build_dataset([folder], tmp_path / "out2", csv=folder / "list.csv", workers=0)
    assert [Path(row["path"]).name for row in rows(tmp_path / "out2", "manifest.csv")] == ["a.wav", "b.m4a"]
    assert ": passed over: 1 without a suffix, linked (a link); " in capsys.readouterr().err


def test_lower_bandwidth_on_request(tmp_path):
    dull = simulate_low_resolution(noise(2), LowpassFilter("cheby1", 8, 9000.0))
    write(tmp_path / "music" / "dull.wav", dull)
    (row,) = build_dataset([tmp_path], tmp_path / "out", min_bandwidth_hz=8000, workers=0).recordings
    assert float(row["bandwidth_hz"]) == pytest.approx(9000, rel=0.1)
    (record,) = records(tmp_path / "out", row["split"])
    assert record["bandwidth_hz"] == pytest.approx(float(row["bandwidth_hz"]), abs=1)


def test_recordings_of_lower_rates_teach_what_they_have(tmp_path):
    """Speech of 22 kHz, of which there is more than of full band: up to where resampling leaves it as it was."""
    write(tmp_path / "speech" / "22k.wav", noise(2, 22_050), 22_050)
    write(tmp_path / "speech" / "16k.wav", noise(2, 16_000), 16_000)
    (row,) = build_dataset([tmp_path], tmp_path / "out", min_bandwidth_hz=9000, workers=0).recordings
    assert (Path(row["path"]).name, row["sample_rate"]) == ("22k.wav", "22050")
    assert float(row["bandwidth_hz"]) == pytest.approx(0.91 * 11_025, abs=1)
    assert reasons(tmp_path / "out") == {"16k.wav": "sample rate too low"}
    loud, dull = noise(1, 16_000), noise(1, 16_000, seed=1)
    dull = np.real(np.fft.irfft(np.fft.rfft(2 * dull) * (np.fft.rfftfreq(16_000, 1 / 16_000) < 3000)))
    file = write(tmp_path / "two.wav", np.stack([dull, loud], axis=1), 16_000, subtype="FLOAT")
    assert decode(file, tmp_path / "samples", 7000).channel == 1


def test_a_channel_is_picked_not_mixed(tmp_path):
    """Of channels in opposite phase a downmix would be silence; dead and dull channels are passed over."""
    x = noise(1)
    dull = simulate_low_resolution(x, LowpassFilter("cheby1", 8, 9000.0))
    for number, channels in enumerate(([x, -x], [0 * x, x], [2 * dull, x], [dull, 1e-6 * x, 0.5 * x])):
        file = write(tmp_path / f"{number}.wav", np.stack(channels, axis=1), subtype="FLOAT")
        decoded = decode(file, tmp_path / "samples", 16_000)
        expected = channels[decoded.channel]
        assert decoded.channel == (0, 1, 1, 2)[number]
        stored = np.fromfile(decoded.file, np.int16) * decoded.gains[0]
        np.testing.assert_allclose(stored, expected, atol=1e-4)


def test_long_recordings_are_cut_into_equal_segments(tmp_path):
    x = noise(50, 44_100)
    x[: 44_100 * 20] *= 1e-3
    write(tmp_path / "effects" / "long.wav", x, 44_100, subtype="FLOAT")
    (tmp_path / "list.csv").write_text("path,class,split\neffects/long.wav,effects,test\n")
    (row,) = build_dataset([], tmp_path / "out", csv=tmp_path / "list.csv", workers=0).recordings
    found = records(tmp_path / "out", row["split"])
    lengths = [len(record["audio"]) for record in found]
    assert lengths == segment_lengths(int(row["samples"])) and len(lengths) == 3
    assert max(lengths) <= SEGMENT_SAMPLES and max(lengths) - min(lengths) <= 3
    assert [record["segment"] for record in found] == [0, 1, 2]
    assert found[0]["gain"] < 0.01 * found[2]["gain"]  # each at full scale: quiet ones keep their resolution


@pytest.mark.training
def test_memory_does_not_grow_with_the_recording(tmp_path):
    minute = np.stack([noise(60), noise(60, seed=1)], axis=1)
    peaks = []
    for minutes in (1, 3):
        with sf.SoundFile(tmp_path / "long.wav", "w", 48_000, 2) as sound:
            for _ in range(minutes):
                sound.write(minute)
        tracemalloc.start()
        decoded = decode(tmp_path / "long.wav", tmp_path / "samples", 16_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert decoded.samples == minutes * 60 * 48_000
    assert peaks[1] < 1.1 * peaks[0]


def test_csv_names_class_group_and_split(tmp_path):
    for number in range(4):
        write(tmp_path / "data" / f"{number}.wav", noise(0.5, seed=number))
    table = tmp_path / "table.csv"
    table.write_text(
        "path,class,group,split\n"
        "data/0.wav,speech,anna,test\n"
        "data/1.wav,music,,\n"
        "data/2.wav,effects,kit,validation\n"
        "data/gone.wav,effects,kit,\n"
    )
    build_dataset([tmp_path / "data"], tmp_path / "out", csv=table, workers=0)
    built = {row["path"]: (row["class"], row["group"], row["split"]) for row in rows(tmp_path / "out", "manifest.csv")}
    assert built == {
        "0.wav": ("speech", "anna", "test"),
        "1.wav": ("music", ".", "train"),
        "2.wav": ("effects", "kit", "validation"),
    }
    assert reasons(tmp_path / "out") == {"3.wav": "no class", "gone.wav": "unreadable"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.wav,music\n", "no column path"),
        ("path,class\na.wav,song\n", "line 2: class 'song' is not one of speech, music, effects"),
        ("path,class,split\na.wav,music,dev\n", "line 2: split 'dev'"),
        ("class,path\nmusic\n", "line 2: no path"),
        ("path,class\na.wav,music\n,music\n", "line 3: no path"),
        ("path,class\na.wav,music\n./a.wav,speech\n", "line 3: ./a.wav is listed before"),
        (None, "cannot be read"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    table = tmp_path / "table.csv"
    if text:
        table.write_text(text)
    with pytest.raises(UserError, match=message):
        build_dataset([tmp_path], tmp_path / "out", csv=table, workers=0)


def test_a_file_is_one_recording_however_its_name_is_written(tmp_path):
    for folder in "abc":
        write(tmp_path / "audio" / folder / "x.wav", noise(0.5, seed=ord(folder)))
    table = tmp_path / "lists" / "table.csv"
    table.parent.mkdir()
    table.write_text("path,class\n" + "".join(f"../audio/{folder}/x.wav,speech\n" for folder in "abc"))
    build_dataset([tmp_path / "audio"], tmp_path / "out", csv=table, workers=0)
    assert [row["path"] for row in rows(tmp_path / "out", "manifest.csv")] == ["a/x.wav", "b/x.wav", "c/x.wav"]
    assert not rows(tmp_path / "out", "left_out.csv")


@pytest.mark.training
def test_groups_are_folders_and_are_never_divided(tmp_path):
    for group in range(40):
        for number in range(2):
            write(tmp_path / "speech" / f"s{group}" / f"{number}.wav", noise(0.2, seed=2 * group + number))
    build_dataset([tmp_path], tmp_path / "out", workers=0)
    splits = {}
    for row in rows(tmp_path / "out", "manifest.csv"):
        assert row["group"] == Path(row["path"]).parent.as_posix()
        assert splits.setdefault(row["group"], row["split"]) == row["split"]
    assert {"train", "test"} <= set(splits.values())  # 40 groups; a function of their names


@pytest.fixture
def first_hour(tmp_path):
    """What a first dataset is made of: three folders, one a class."""
    for number in range(4):
        write(tmp_path / "data" / "speech" / f"{number}.wav", noise(1, seed=number))
    for number in range(2):
        write(tmp_path / "data" / "music" / f"{number}.aiff", noise(30, seed=10 + number))
    write(tmp_path / "data" / "effects" / "rain.wav", noise(60, 44_100, seed=20), 44_100, subtype="FLOAT")
    return tmp_path / "data"


@pytest.mark.training
def test_each_class_of_the_first_dataset_gives_to_validation_and_test(first_hour, tmp_path, capsys):
    assert main(["data", "build", str(first_hour), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    found = [(row["path"], row["split"], float(row["seconds"])) for row in rows(tmp_path / "out", "manifest.csv")]
    assert sorted(found) == [
        ("effects/rain.wav", "train", 49.76),
        ("effects/rain.wav, from 49.76 s", "validation", 5.12),
        ("effects/rain.wav, from 54.88 s", "test", 5.12),
        ("music/0.aiff", "train", 30.0),
        ("music/1.aiff", "train", 19.76),
        ("music/1.aiff, from 19.76 s", "validation", 5.12),
        ("music/1.aiff, from 24.88 s", "test", 5.12),
        ("speech/0.wav", "train", 1.0),
        ("speech/1.wav", "train", 1.0),
        ("speech/2.wav", "validation", 1.0),
        ("speech/3.wav", "test", 1.0),
    ]
    said = capsys.readouterr().out
    for name in ("speech", "music", "effects"):
        assert f"{name}: validation and test are of groups (folders, speakers) that are trained on, too" in said
    original = soxr.resample(noise(60, 44_100, seed=20), 44_100, 48_000, quality="VHQ")
    stretches = [
        r["audio"] * np.float64(r["gain"])
        for split in build.SPLITS
        for r in records(tmp_path / "out", split)
        if r["class"] == build.CLASSES.index("effects")
    ]
    whole = np.concatenate(stretches)
    assert len(whole) == 60 * 48_000
    np.testing.assert_allclose(whole, original, atol=3e-5)  # rounded twice
    for split in build.SPLITS:
        recordings = Recordings(tmp_path / "out", split)
        assert all(np.abs(recordings.read(index)).max() > 0 for index in range(len(recordings.length)))


def test_whole_groups_are_moved_where_a_class_has_three(tmp_path):
    for group in "abcdef":
        for number in range(2):
            write(tmp_path / "music" / group / f"{number}.wav", noise(0.2, seed=ord(group) + number))
    assert {hashed_split(f"music/{group}") for group in "abcdef"} == {"train"}
    build_dataset([tmp_path], tmp_path / "out", workers=0)
    splits = {(row["group"], row["split"]) for row in rows(tmp_path / "out", "manifest.csv")}
    assert sorted(collections.Counter(split for _, split in splits).items()) == [
        ("test", 1),
        ("train", 4),
        ("validation", 1),
    ]


def test_split_shares():
    splits = [hashed_split(f"speaker {number}") for number in range(10_000)]
    assert 400 < splits.count("validation") < 600 and 400 < splits.count("test") < 600


def test_same_inputs_are_recognised_and_others_refused(tmp_path, capsys):
    write(tmp_path / "data" / "music" / "a.wav", noise(0.5))
    arguments = ["data", "build", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(arguments) == 0
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert main(arguments) == 0
    assert "up to date" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    write(tmp_path / "data" / "music" / "b.wav", noise(0.5, seed=1))
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "holds a dataset of other recordings or options" in error and len(error.splitlines()) == 1
    assert main([*arguments, "--overwrite"]) == 0
    assert len(rows(tmp_path / "out", "manifest.csv")) == 2


def test_a_dataset_without_one_of_its_shards_is_built_again(tmp_path, capsys):
    write(tmp_path / "music" / "noise.wav", noise(2))
    command = ["data", "build", str(tmp_path / "music"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    (shard,) = (tmp_path / "out").glob("*.array_record*")
    content = shard.read_bytes()
    shard.unlink()
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err.count(f"{shard} is missing: the dataset is built again") == 1 and "up to date" not in said.out
    assert shard.read_bytes() == content
    assert main(command) == 0 and "up to date" in capsys.readouterr().out


DAMAGES = {"dataset_info.json": "{", "features.json": None, "manifest.csv": "x\n1\n", "left_out.csv": None}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_dataset_is_one_line_to_whoever_reads_it_and_is_built_again(name, tmp_path, capsys):
    write(tmp_path / "music" / "noise.wav", noise(2))
    command = ["data", "build", str(tmp_path / "music"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    file = tmp_path / "out" / name
    content = file.read_bytes()
    file.unlink() if DAMAGES[name] is None else file.write_text(DAMAGES[name])
    if name != "left_out.csv":  # which is for people
        with pytest.raises(UserError, match=r"out: cannot be read \(.*\): build the dataset again"):
            Recordings(tmp_path / "out", "train")
    capsys.readouterr()
    assert main(command) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/out cannot be read (" in line and line.endswith(": the dataset is built again")
    assert file.read_bytes() == content


def test_a_dataset_whose_inputs_cannot_be_read_is_replaced_only_when_asked_for(tmp_path, capsys):
    write(tmp_path / "music" / "noise.wav", noise(0.5))
    command = ["data", "build", str(tmp_path / "music"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    (tmp_path / "out" / "build.json").write_text("{")
    capsys.readouterr()
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/out/build.json is damaged" in line and "--overwrite" in line
    assert main([*command, "--overwrite"]) == 0 and main(command) == 0


def test_a_build_that_is_stopped_while_it_replaces_a_dataset_can_be_started_again(tmp_path, monkeypatch):
    write(tmp_path / "music" / "a.wav", noise(0.5))
    build_dataset([tmp_path / "music"], tmp_path / "out", workers=0)
    write(tmp_path / "music" / "b.wav", noise(0.5, seed=1))

    def stopped(path, *args, real=shutil.rmtree, **options):
        if (Path(path) / "build.json").exists() and Path(path).name != ".out.partial":
            (Path(path) / "build.json").unlink()
            raise KeyboardInterrupt
        real(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_dataset([tmp_path / "music"], tmp_path / "out", workers=0, overwrite=True)
    build_dataset([tmp_path / "music"], tmp_path / "out", workers=0)
    assert len(rows(tmp_path / "out", "manifest.csv")) == 2


def test_names_stay_on_their_line_and_numbers_may_be_those_of_numpy(tmp_path, capsys):
    write(tmp_path / "music" / "a.wav", noise(0.5))
    (tmp_path / "music" / "a\nflashsr: all is well.\x1b[2J").write_text("")
    build_dataset([tmp_path / "music"], tmp_path / "out", workers=0, min_bandwidth_hz=np.float32(16_000))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {tmp_path}/music: passed over: 1 ") and "\x1b" not in line


def test_overwrite_spares_what_is_no_dataset(tmp_path):
    write(tmp_path / "data" / "music" / "a.wav", noise(0.5))
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(UserError, match="no dataset of this program"):
        build_dataset([tmp_path / "data"], tmp_path / "home", workers=0, overwrite=True)
    assert precious.read_text() == "years"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no recordings in the call"),
        (["nowhere"], "nowhere: no such file"),
        (["empty"], "no recordings in .*empty"),
    ],
)
def test_nothing_to_build_from(tmp_path, monkeypatch, sources, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        build_dataset(sources, tmp_path / "out", workers=0)


def test_nothing_usable_leaves_nothing_behind(tmp_path):
    write(tmp_path / "data" / "stuff" / "a.wav", noise(1))
    with pytest.raises(UserError, match="1 no class.*put it in a folder named"):
        build_dataset([tmp_path / "data"], tmp_path / "out", workers=0)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.training
def test_a_killed_build_leaves_no_dataset_and_the_next_one_goes_on_from_there(tmp_path, monkeypatch):
    for number in range(30):
        write(tmp_path / "data" / "music" / str(number) / "a.wav", noise(5, seed=number))
    arguments = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--workers", "1"]
    script = "import sys; from flashsr_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "data", "build", *arguments]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    decoded = tmp_path / ".out.partial" / "decoded"
    while len(list(decoded.glob("*/*.json"))) < 10:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    kept = len(list(decoded.glob("*/*.json")))
    again = []
    monkeypatch.setattr(stages, "decode", lambda path, *rest: again.append(path) or decode(path, *rest))
    build_dataset([tmp_path / "data"], tmp_path / "out", workers=0)
    assert len(again) == 30 - kept
    assert sum(len(records(tmp_path / "out", split)) for split in build.SPLITS) == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out"]


def test_a_build_that_a_full_disk_ended_writes_only_what_is_missing(first_hour, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "SHARD_RECORDS", 2)
    build_dataset([first_hour], tmp_path / "whole", workers=0)
    records_of = stages._records

    def full(part, first, last):
        if part.recording.name == "music/1.aiff":
            raise OSError(errno.ENOSPC, "No space left on device")
        yield from records_of(part, first, last)

    monkeypatch.setattr(stages, "_records", full)
    with pytest.raises(UserError, match=r"No space left on device; the same command goes on from .*/\.out\.partial"):
        build_dataset([first_hour], tmp_path / "out", workers=0)
    partial = tmp_path / ".out.partial"
    done = {path.name: path.stat().st_mtime_ns for path in partial.glob("recordings-*")}
    assert len(done) == 2 and not (tmp_path / "out").exists()
    monkeypatch.setattr(stages, "_records", records_of)
    monkeypatch.setattr(stages, "decode", None)  # not needed again
    build_dataset([first_hour], tmp_path / "out", workers=0)
    assert same_files(tmp_path / "whole", tmp_path / "out") >= 6
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done} == done
    assert not partial.exists()


def same_files(one: Path, other: Path) -> int:
    """Asserts that two folders have the same files in them; how many."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    return len(names)


def test_a_runner_of_beam_builds_the_same_dataset(first_hour, tmp_path, monkeypatch, capsys):
    """Copies, recordings that cannot be used, splits that are filled up, several shards."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    shutil.copy(first_hour / "speech" / "0.wav", first_hour / "speech" / "copy.wav")
    (first_hour / "music" / "text.wav").write_text("this is no audio")
    write(first_hour / "unknown.wav", noise(1, seed=30))
    monkeypatch.setattr(stages, "SHARD_RECORDS", 2)
    build_dataset([first_hour], tmp_path / "local", workers=0)
    command = ["data", "build", str(first_hour), "--out", str(tmp_path / "beam"), "--runner", "DirectRunner"]
    assert main([*command, "--direct_num_workers=1"]) == 0
    assert same_files(tmp_path / "local", tmp_path / "beam") >= 10
    assert reasons(tmp_path / "beam").keys() == {"copy.wav", "text.wav", "unknown.wav"}
    assert main(command) == 0 and "up to date" in capsys.readouterr().out


def test_beam_is_named_where_it_is_not_installed_and_decides_on_its_workers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    command = ["data", "build", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*command, "--runner", "FlinkRunner", "--flink_master=nowhere:8081"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flashsr: FlinkRunner needs apache_beam ") and line.endswith("flashsr_jax[beam]'")
    assert main([*command, "--workers", "2", "--runner", "FlinkRunner"]) == 1
    assert "--workers 2: with --runner, Beam's options say" in capsys.readouterr().err


@pytest.mark.training
def test_workers_change_nothing(tmp_path):
    for number in range(5):
        write(tmp_path / "data" / "music" / f"{number}.wav", noise(0.5, seed=number))
    for workers in (0, 2):
        build_dataset([tmp_path / "data"], tmp_path / f"out{workers}", workers=workers)
    same_files(tmp_path / "out0", tmp_path / "out2")
    assert not multiprocessing.active_children()


def test_decoding_says_why_not(tmp_path):
    with pytest.raises(Unusable) as caught:
        decode(tmp_path / "nothing.wav", tmp_path / "samples", 16_000)
    assert caught.value.reason == "unreadable" and "nothing.wav" in caught.value.detail


class FakeCatalogueDataset:
    """What the TFDS catalogue's vctk gives, without TensorFlow: two speakers, integers of 16 bit."""

    info = SimpleNamespace(features={"audio": SimpleNamespace(sample_rate=48_000)}, splits=["train"])

    def as_data_source(self, split):
        audio = [np.rint(noise(0.5, seed=number) * 32_767).astype(np.int64) for number in range(4)]
        return [{"audio": audio_N, "speaker": number // 2} for number, audio_N in enumerate(audio)]


def test_catalogue_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "builder", lambda name: FakeCatalogueDataset())
    summary = build_dataset([], tmp_path / "out", tfds=["vctk=speech"], workers=0)
    assert [(row["path"], row["class"], row["group"]) for row in summary.recordings] == [
        (f"vctk/train/{number}", "speech", f"vctk/{number // 2}") for number in range(4)
    ]
    by_name = {r["source"].decode(): r for split in build.SPLITS for r in records(tmp_path / "out", split)}
    stored = by_name["vctk/train/3"]
    np.testing.assert_allclose(stored["audio"] * stored["gain"], noise(0.5, seed=3), atol=4e-5)


def test_catalogue_datasets_need_tensorflow(tmp_path, capsys):
    if shutil.which("python") and catalogue.importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    assert main(["data", "build", "--tfds", "vctk=speech", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'flashsr_jax[tf]'" in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["vctk", "vctk=song", "=speech"])
def test_catalogue_names(tmp_path, text):
    with pytest.raises(UserError, match="NAME=CLASS"):
        build_dataset([], tmp_path / "out", tfds=[text])

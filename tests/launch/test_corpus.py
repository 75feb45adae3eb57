"""The corpus of the shipped model: its table is sound, and its held-out clips are what they say. Nothing is fetched."""

import csv
import gzip
import os
import re
import shutil
import subprocess
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.data import CLASSES, SPLITS
from flashsr_jax.errors import UserError

import corpus
from helpers import ROOT

RATE = corpus.SAMPLE_RATE
COMMIT_0 = "0" * 40
TABLE = corpus.read_table()
RULES = [rule for rules in TABLE.values() for rule in rules]
TAKING = [rule for rule in RULES if rule.class_name]


def test_every_row_has_what_it_needs():
    for rule in RULES:
        assert rule.package and rule.version and rule.pattern, rule
        assert not rule.class_name or (rule.class_name in CLASSES and rule.split in SPLITS), rule
        assert not rule.class_name or (rule.group and rule.license and rule.author), rule
        assert rule.class_name or rule.note, f"left out without a reason: {rule}"


def test_a_package_has_one_version():
    versions = {package: {rule.version for rule in rules} for package, rules in TABLE.items()}
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}
    assert len({rule.package for rule in TAKING}) >= 20


def test_a_source_is_a_package_or_a_repository_at_a_commit():
    repositories = [rule for rule in RULES if corpus.is_repository(rule.package)]
    assert {rule.split for rule in repositories if rule.class_name == "speech"} == set(SPLITS)
    for rule in repositories:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", rule.package), rule
        assert re.fullmatch(r"[0-9a-f]{40}", rule.version), rule
    folders = {corpus.folder_name(package) for package in TABLE}
    assert len(folders) == len(TABLE) and not any("/" in folder for folder in folders)


def test_the_list_has_recordings_of_every_repository_and_each_is_decided_by_a_row():
    repositories = [package for package in TABLE if corpus.is_repository(package)]
    for package in repositories:
        names = corpus.listed(package)
        assert names, package
        undecided = [
            name for name in names if not any(corpus.fnmatchcase(name, rule.pattern) for rule in TABLE[package])
        ]
        assert undecided == [], package
    assert corpus.listed("nobody/nothing") == set()


def test_every_held_out_group_has_its_recordings_as_first_measured():
    rows = corpus.read_csv(corpus.HELD_OUT)
    packages = {corpus.folder_name(package): package for package in TABLE}
    for row in rows:
        name = row["path"].split("/", 2)[2]
        rules = TABLE[packages[corpus.source_of(row)]]
        rule = next(rule for rule in rules if corpus.fnmatchcase(name, rule.pattern))
        assert (rule.class_name, rule.group, rule.split) == (row["class"], row["group"], row["split"]), row
    assert {row["group"] for row in rows} == {rule.group for rule in TAKING if rule.split != "train"}
    assert len({row["path"] for row in rows}) == len(rows)


def test_no_group_is_in_two_splits_or_classes():
    homes = defaultdict(set)
    for rule in TAKING:
        homes[rule.group].add((rule.class_name, rule.split))
    assert {group: found for group, found in homes.items() if len(found) > 1} == {}
    for class_name in CLASSES:
        assert {rule.split for rule in TAKING if rule.class_name == class_name} == set(SPLITS)


def test_no_row_is_hidden_behind_an_earlier_one():
    for package, rules in TABLE.items():
        patterns = [rule.pattern for rule in rules]
        assert len(set(patterns)) == len(patterns), package
        assert "*" not in patterns[:-1], package


@pytest.mark.parametrize("word", ["NC", "ND", "non-commercial", "non-free"])
def test_no_licence_forbids_the_use(word):
    assert [rule for rule in TAKING if word.lower() in rule.license.lower().replace(",", "-").split("-")] == []


def test_the_repositorys_own_test_recordings_are_not_trained_on():
    """Recordings of tests/recordings with the split `test` come from groups that the table keeps out of training."""
    with (ROOT / "tests" / "recordings" / "recordings.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    assert rows
    for row in rows:
        for source in row["original_path"].split("; "):
            for rule in TABLE.get(row["package"], []):
                if corpus.fnmatchcase(source, rule.pattern):
                    assert rule.split != "train", (source, rule)
                    break


def tone(seconds, rate=RATE, seed=0, pause=0.0):
    """White noise, with a pause at the end."""
    x_N = 0.2 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    return np.concatenate([x_N, np.zeros(int(pause * rate))]).astype(np.float32)


def made(folder, name, x_N, group, class_name, split="test", rate=RATE, bandwidth_hz=None):
    """A sound file and its row of a dataset's manifest."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    sf.write(folder / name, x_N, rate, subtype="FLOAT")
    return {
        "path": name,
        "class": class_name,
        "group": group,
        "split": split,
        "seconds": f"{len(x_N) / rate:.3f}",
        "sample_rate": str(rate),
        "channel": "0",
        "bandwidth_hz": f"{bandwidth_hz or rate / 2:.0f}",
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two speakers of short words with long pauses, a composer, a kit with a wall, and things to stay out."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = [
        made(folder, f"unpacked/words/{name}-{i:02d}.wav", tone(0.8, seed=i, pause=1.0), name, "speech")
        for name in ("anna", "bert")
        for i in range(14)
    ]
    rows += [
        made(folder, f"unpacked/album/{i}.wav", 2 * tone(30, 44_100, seed=50 + i), "carl", "music", rate=44_100)
        for i in range(2)
    ]
    rows += [
        made(folder, f"unpacked/kit/{i}.wav", tone(3, seed=70 + i), "kit", "effects", "test", RATE, 19_000)
        for i in range(4)
    ]
    rows += [
        made(folder, "unpacked/album/other.wav", tone(12, seed=80), "dora", "music", "train"),
        made(folder, "unpacked/album/dull.wav", tone(12, seed=81), "emil", "music", "test", RATE, 17_000),
        made(folder, "unpacked/album/quiet.wav", 1e-4 * tone(12, seed=82), "fritz", "music"),
        made(folder, "unpacked/album/sparse.wav", tone(2, seed=83, pause=18), "gerd", "music"),
    ]
    return folder, rows


def test_clips_have_the_length_the_level_and_the_activity(manifest, tmp_path):
    folder, rows = manifest
    corpus.write_clips(rows, "test", 3, folder, tmp_path / "test")
    with (tmp_path / "test" / "clips.csv").open(newline="") as lines:
        clips = list(csv.DictReader(lines))
    assert sorted(path.relative_to(tmp_path / "test").as_posix() for path in tmp_path.rglob("*.flac")) == sorted(
        clip["clip"] for clip in clips
    )
    for clip in clips:
        info = sf.info(tmp_path / "test" / clip["clip"])
        assert (info.frames, info.samplerate, info.channels) == (245_760, 48_000, 1), clip
        assert (info.format, info.subtype) == ("FLAC", "PCM_24")
        x_N = sf.read(tmp_path / "test" / clip["clip"])[0]
        assert np.abs(x_N).max() <= corpus.PEAK + 1e-6
        assert corpus.active_share(x_N, corpus.ACTIVE_DB[clip["class"]]) >= 0.7
        assert float(clip["active"]) >= 0.7
    assert {clip["group"] for clip in clips} == {"anna", "bert", "carl", "kit"}


def test_words_of_one_speaker_are_joined_without_their_pauses(manifest):
    folder, rows = manifest
    clips = corpus.held_out_clips(rows, "test", "speech", 8, folder)
    assert [clip.group for clip in clips] == ["anna", "bert"] * 2
    for clip in clips:
        assert len(clip.parts) == 7 and all(f"/{clip.group}-" in part.path for part in clip.parts)
    used = [part.path for clip in clips for part in clip.parts]
    assert len(set(used)) == len(used)


def test_long_recordings_are_cut_in_turn_and_never_twice(manifest):
    folder, rows = manifest
    clips = corpus.held_out_clips(rows, "test", "music", 8, folder)
    assert [clip.parts[0].path[-5] for clip in clips] == ["0", "1"] * 4
    for name in ("0", "1"):
        starts = sorted(clip.start for clip in clips if clip.parts[0].path[-5] == name)
        assert np.diff(starts).min() >= corpus.CLIP_SAMPLES
        assert starts[0] >= 0 and starts[-1] + corpus.CLIP_SAMPLES <= 30 * RATE


def test_the_wall_is_the_lowest_of_the_parts_and_0_without_one(manifest):
    folder, rows = manifest
    assert {clip.wall_hz for clip in corpus.held_out_clips(rows, "test", "effects", 8, folder)} == {19_000}
    assert {clip.wall_hz for clip in corpus.held_out_clips(rows, "test", "music", 8, folder)} == {0}


def test_clips_are_the_same_every_time(manifest, tmp_path):
    folder, rows = manifest
    for name in ("once", "again"):
        corpus.write_clips(rows, "test", 1, folder, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*.*"))
    assert len(files) == 1 + 1 + 1 + 1
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_recordings_in_archives_are_found_and_the_first_matching_row_decides(tmp_path):
    package = tmp_path / "unpacked" / "game"
    sounds = package / "usr/share/game/sounds"
    sounds.mkdir(parents=True)
    (package / "usr/share/doc/game").mkdir(parents=True)
    (package / "usr/share/doc/game/copyright").write_text("MIT")
    (sounds / "picture.png").write_bytes(b"")
    (sounds / "voice.wav").write_bytes(b"")
    with zipfile.ZipFile(sounds / "pack.pk3", "w") as pack:
        pack.writestr("music/tune.ogg", b"")
        pack.writestr("maps/map.bsp", b"")
    corpus.unpack_archives(package)
    corpus.keep_recordings(package)
    left = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    tune = "usr/share/game/sounds/pack.pk3.x/music/tune.ogg"
    assert left == {tune, "usr/share/game/sounds/voice.wav", "usr/share/doc/game/copyright"}

    rules = [
        corpus.Rule("game", "1", "*/music/*", "music", "composer", "train", "MIT", "somebody", ""),
        corpus.Rule("game", "1", "*", "", "", "", "", "", "machine voice"),
    ]
    taken, left_out = corpus.select({"game": rules}, tmp_path)
    assert taken == {f"unpacked/game/{tune}": rules[0]}
    assert [(row["path"], row["detail"]) for row in left_out] == [
        ("unpacked/game/usr/share/game/sounds/voice.wav", "machine voice")
    ]
    assert corpus.read_csv(tmp_path / "recordings.csv") == [
        {"path": f"unpacked/game/{tune}", "class": "music", "group": "composer", "split": "train"}
    ]


@pytest.fixture
def repositories(tmp_path):
    """A folder with recordings of two repositories, as --recordings takes it."""
    folder = tmp_path / "elsewhere"
    rows = []
    for name, repository, path in (
        ("speech/anna/a.opus", "someone/voices", "audio/a.webm"),
        ("speech/anna/b.flac", "someone/voices", "audio/b.wav"),
        ("speech/bert/c.flac", "another/voices", "c.wav"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
        rows.append({"file": name, "source": f"github:{repository}@{COMMIT_0}", "source_path": path})
    corpus.write_csv(folder / "recordings.csv", rows)
    return folder


def test_a_repository_comes_from_a_folder_with_its_files_at_their_paths(repositories, tmp_path):
    unpacked = tmp_path / "unpacked"
    corpus.fetch("someone/voices", COMMIT_0, unpacked, repositories)
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files == {"someone--voices/audio/a.opus", "someone--voices/audio/b.flac"}
    assert (unpacked / "someone--voices/audio/b.flac").read_text() == "speech/anna/b.flac"

    rules = [corpus.Rule("someone/voices", COMMIT_0, "audio/*", "speech", "anna", "test", "CC0-1.0", "Anna", "")]
    taken, _ = corpus.select({"someone/voices": rules}, tmp_path)
    assert set(taken) == {f"unpacked/{file}" for file in files}


STUBS = {  # by the commands' names: what the tests' own do instead, after writing down what they were asked
    "apt-get": 'touch "${3%=*}_1_all.deb"',
    "dpkg-deb": 'cp -r "$PACKAGES/$(basename "$2" _1_all.deb)/." "$3"',
    "ffmpeg": 'cp "$4" "${@: -1}"',
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package `words` and a repository `someone/voices`, and a table of both; what is asked of the commands is in the
    file `asked`. Opus in WebM is a FLAC by that name, since only FFmpeg would read it, which is a stub."""
    packages, origin = tmp_path / "packages", tmp_path / "origin/someone/voices"
    for path in (packages / "words/usr/share/words", packages / "words/usr/share/doc/words", origin / "audio"):
        path.mkdir(parents=True)
    (packages / "words/usr/share/doc/words/copyright").write_text("as the package says")
    (origin / "LICENSE").write_text("as the repository says")
    (origin / "picture.png").write_bytes(b"")
    for i in range(7):
        sf.write(packages / f"words/usr/share/words/{i}.wav", tone(0.8, seed=i), RATE)
        sf.write(origin / f"audio/nora-{i}.{'flac' if i else 'webm'}", tone(0.8, seed=50 + i), RATE, format="FLAC")
    sf.write(origin / "audio/kim-0.wav", tone(0.8, 44_100, seed=90), 44_100)
    sf.write(origin / "audio/kim-unlisted.wav", tone(0.8, seed=91), RATE)
    paths = ["audio/kim-0.wav", "audio/nora-0.webm", *(f"audio/nora-{i}.flac" for i in range(1, 7))]
    lines = "".join(f"someone/voices {path}\nanother/voices audio/kim-unlisted.wav\n" for path in paths)
    (tmp_path / "listed.gz").write_bytes(gzip.compress(lines.encode()))
    monkeypatch.setattr(corpus, "LISTED", tmp_path / "listed.gz")
    subprocess.run(["git", "init", "-q", origin], check=True)
    commit = committed(origin)
    (origin / "audio/kim-0.wav").unlink()  # later than the table's commit
    committed(origin)
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, body in STUBS.items():
        (stubs / name).write_text(f'#!/bin/bash\nset -e\necho "{name} $*" >>{tmp_path}/asked\n{body}\n')
        (stubs / name).chmod(0o755)
    columns = ("package", "version", "pattern", "class", "group", "split", "license", "author", "note")
    rows = (
        ("words", "1", "*", "speech", "anna", "test", "GPL-2.0", "Anna", ""),
        ("someone/voices", commit, "*/nora-*", "speech", "nora", "test", "CC0-1.0", "Nora", ""),
        ("someone/voices", commit, "*", "speech", "kim", "train", "CC-BY-4.0", "Kim", ""),
    )
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    corpus.write_csv(tmp_path / "table.csv", table)
    corpus.write_csv(tmp_path / "held_out.csv.gz", [], ("path", "class"))
    monkeypatch.setattr(corpus, "TABLE", tmp_path / "table.csv")
    monkeypatch.setattr(corpus, "HELD_OUT", tmp_path / "held_out.csv.gz")
    monkeypatch.setattr(corpus, "GITHUB", f"file://{tmp_path}/origin")
    monkeypatch.setenv("PATH", f"{stubs}:{os.environ['PATH']}")
    monkeypatch.setenv("PACKAGES", str(packages))
    return commit


def committed(folder):
    """The commit of all that is in a repository's folder."""
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "voices"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def manifest_of(out):
    with gzip.open(out / "manifest.csv.gz", "rt", newline="") as lines:
        return list(csv.DictReader(lines))


def test_sources_of_both_kinds_become_one_dataset_with_the_repositories_clips_apart(outside, tmp_path):
    out = tmp_path / "out"
    corpus.main([str(out)])
    rows = {f"{row['package']} {row['file']}": row for row in manifest_of(out)}
    assert len(rows) == 7 + 7 + 1
    expected = {
        "words usr/share/words/0.wav": ("1", "GPL-2.0", "anna", "test", "24000"),
        "someone/voices audio/nora-0.opus": (outside, "CC0-1.0", "nora", "test", "24000"),
        "someone/voices audio/kim-0.wav": (outside, "CC-BY-4.0", "kim", "train", "22050"),
    }
    for name, (version, licence, group, split, bandwidth_hz) in expected.items():
        row = rows[name]
        assert (row["version"], row["license"], row["group"], row["split"]) == (version, licence, group, split)
        assert float(row["bandwidth_hz"]) == pytest.approx(float(bandwidth_hz), rel=0.01)
    licences = (out / "licences.md").read_text()
    assert f"| someone/voices | {outside} | speech 0.1 | train, test | CC0-1.0; CC-BY-4.0 | Nora; Kim |" in licences
    assert (out / "copyright/words.txt").read_text() == "as the package says"
    assert (out / "copyright/someone--voices.txt").read_text() == "as the repository says"
    clips = sorted(path.relative_to(out).as_posix() for path in out.rglob("*-[0-9][0-9].flac"))
    assert clips == ["test/speech/anna-01.flac", "test_read/speech/nora-01.flac"]

    before = {path: path.read_bytes() for path in out.rglob("*.flac")}
    asked = (tmp_path / "asked").read_text()
    assert asked.splitlines()[0] == "apt-get download -q words=1"
    shutil.rmtree(out / "unpacked/words")  # as if the first run had ended before it
    corpus.main([str(out)])
    assert (tmp_path / "asked").read_text().removeprefix(asked).split()[:1] == ["apt-get"]
    assert {path: path.read_bytes() for path in out.rglob("*.flac")} == before


def test_recordings_of_lower_rates_for_training_are_a_dataset_of_their_own(outside, tmp_path):
    words = tmp_path / "packages/words/usr/share/words"
    for name, rate in (("held_out", 22_050), ("low", 22_050), ("lowest", 8000)):
        sf.write(words / f"{name}.wav", tone(0.8, rate, seed=70), rate)
    rows = corpus.read_csv(corpus.TABLE)
    low = rows[0] | {"pattern": "*/low*", "group": "ben", "split": "train"}
    corpus.write_csv(corpus.TABLE, [low, *rows])
    out = tmp_path / "out"
    corpus.main([str(out), "--packages", "words"])
    (row,) = corpus.read_csv(out / "dataset_lower" / "manifest.csv")
    assert (Path(row["path"]).name, row["group"], row["split"]) == ("low.wav", "ben", "train")
    assert 9500 < float(row["bandwidth_hz"]) < 11_025
    assert {row["file"].rsplit("/")[-1] for row in manifest_of(out)} == {"low.wav", *(f"{i}.wav" for i in range(7))}
    left = {Path(row["path"]).name: row["reason"] for row in corpus.read_csv(out / "left_out.csv.gz")}
    assert left == {"held_out.wav": "sample rate too low", "lowest.wav": "sample rate too low"}
    corpus.main([str(out), "--packages", "someone/voices"])  # of which none is for it
    assert not (out / "dataset_lower").exists() and {row["package"] for row in manifest_of(out)} == {"someone/voices"}


def test_another_measure_of_the_bandwidth_does_not_change_the_clips(outside, tmp_path, monkeypatch):
    first, again = tmp_path / "first", tmp_path / "again"
    corpus.main([str(first), "--packages", "words"])
    columns = ("path", "class", "group", "split", "seconds", "sample_rate", "channel", "bandwidth_hz")
    rows = [{name: row[name] for name in columns} for row in corpus.read_csv(first / "dataset" / "manifest.csv")]
    corpus.write_csv(corpus.HELD_OUT, rows[::-1])
    monkeypatch.setattr(corpus, "build_dataset", lambda *_, **__: None)
    shutil.copytree(first, again)
    corpus.write_csv(again / "dataset" / "manifest.csv", rows[:2])  # as if the others' band were too low
    corpus.main([str(again), "--packages", "words"])
    clips = corpus.read_csv(again / "test" / "clips.csv")
    assert clips[0]["sources"].split("; ") == [row["path"] for row in rows[::-1]]


def test_a_folder_stands_in_for_the_repositories_and_nothing_is_cloned(outside, tmp_path, monkeypatch):
    corpus.main([str(tmp_path / "cloned"), "--packages", "someone/voices"])
    folder = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "cloned/unpacked/someone--voices/audio", folder)
    rows = [
        {"file": path.name, "source": f"github:someone/voices@{outside}", "source_path": f"audio/{path.stem}.webm"}
        for path in sorted(folder.iterdir())
    ]
    corpus.write_csv(folder / "recordings.csv", rows)
    monkeypatch.setattr(corpus, "GITHUB", "file:///no/such/place")
    corpus.main([str(tmp_path / "copied"), "--packages", "someone/voices", "--recordings", str(folder)])
    assert manifest_of(tmp_path / "copied") == manifest_of(tmp_path / "cloned")
    for clip in ("test_read/speech/nora-01.flac", "test_read/clips.csv"):
        assert (tmp_path / "copied" / clip).read_bytes() == (tmp_path / "cloned" / clip).read_bytes()
    assert not (tmp_path / "copied/copyright/someone--voices.txt").exists()  # a folder of recordings has no notices


def test_what_cannot_be_had_is_said_with_the_way_out(outside, repositories, tmp_path, monkeypatch, capfd):
    out, voices = str(tmp_path / "out"), ["--packages", "someone/voices"]
    monkeypatch.setattr(corpus, "GITHUB", "file:///no/such/place")
    (repositories / "speech/bert/c.flac").unlink()
    for argv, said in (
        (["--packages", "word", "words"], r"--packages word: no source by that name"),
        (voices, r"git .*/no/such/place/someone/voices .*ended with 128: .*--recordings DIR takes someone/voices"),
        ([*voices, "--recordings", str(tmp_path)], r"--recordings \S+: no recordings\.csv in it"),
        ([*voices, "--recordings", str(repositories)], rf"nothing of github:someone/voices@{outside}"),
    ):
        with pytest.raises(UserError, match=said):
            corpus.main([out, *argv])
    with pytest.raises(UserError, match=r"no speech/bert/c\.flac, which its recordings\.csv names"):
        corpus.fetch("another/voices", COMMIT_0, tmp_path / "unpacked", repositories)
    assert not (tmp_path / "unpacked/another--voices").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"apt-get is not installed: words 1 comes with the sources of Debian 12"):
        corpus.main([out, "--packages", "words"])


def test_clips_of_a_split_without_recordings_are_not_written(manifest, tmp_path):
    folder, rows = manifest
    corpus.write_clips(rows, "validation", 3, folder, tmp_path / "validation")
    assert list(tmp_path.iterdir()) == []

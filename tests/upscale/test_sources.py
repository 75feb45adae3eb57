"""Which files `flashsr upscale` takes of folders and patterns, what it says of the rest, what it calls the outputs."""

import importlib.machinery
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import flashsr_jax.upscale.files
from flashsr_jax.cli import main
from flashsr_jax.upscale.sources import Shard, find


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)  # PyAV is not there
    return tmp_path


def record(*paths: str, **options) -> None:
    for path in paths:
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        x = np.random.default_rng(len(path)).uniform(-0.1, 0.1, size=4000)
        sf.write(path, x, 8000, **options)


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        Path(path).touch()


def files(*folders: str) -> list[str]:
    return sorted(str(path) for top in folders or (".",) for path in Path(top).rglob("*") if path.is_file())


# ---- folders


def test_what_a_folder_holds_beside_recordings_is_counted_and_named(upscale, folder):
    record("rec/a.wav", "rec/deep/b.wav", "elsewhere/c.wav")
    touch("rec/talk.m4a", "rec/deep/film.MP4", "rec/other.m4a", "rec/README", "rec/.hidden.m4a", "rec/.trash/d.wav")
    os.symlink(folder / "elsewhere", "rec/linked")
    os.symlink("nowhere.wav", "rec/gone.wav")
    os.symlink(folder / "elsewhere/c.wav", "rec/c.wav")
    os.mkfifo("rec/pipe.wav")
    code, out, err = upscale("-r", "rec", "-o", "better")
    assert (code, out) == (0, [])
    assert err == [
        "flashsr: rec: passed over: 1 without a suffix, 2 m4a, 1 mp4 (pip install 'flashsr_jax[av]' reads films and "
        "their sound), linked (a link), gone.wav (a broken link), pipe.wav (not a file)"
    ]
    assert files("better") == ["better/a.wav", "better/c.wav", "better/deep/b.wav"]


def test_many_kinds_are_said_in_one_line(upscale):
    record("rec/a.wav")
    touch(*(f"rec/file.{chr(ord('a') + kind)}" for kind in range(20)))
    (line,) = upscale("-r", "rec", "-o", "better")[2]
    assert line.endswith("passed over: 1 a, 1 b, 1 c, 1 d, 1 e, 1 f, 1 g, 1 h and 12 more")


def test_a_folder_that_cannot_be_read_is_named(upscale, monkeypatch):
    record("rec/a.wav", "rec/secret/b.wav")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    code, _, err = upscale("-r", "rec", "-o", "better")
    assert (code, err) == (0, ["flashsr: rec: passed over: secret (Permission denied)"])


def test_every_kind_that_can_be_read_is_found(upscale):
    record("rec/a.au", "rec/b.caf", "rec/c.w64", "rec/d.rf64", "rec/g.AIFF")
    record("rec/e.aif", "rec/f.aifc", format="AIFF")
    assert upscale("-r", "rec", "-o", "better") == (0, [], [])
    assert [Path(name).stem for name in files("better")] == list("abcdefg")


def test_films_are_found_where_pyav_is(monkeypatch):
    touch("rec/film.mkv", "rec/talk.m4a")
    pyav = types.ModuleType("av")
    pyav.__spec__ = importlib.machinery.ModuleSpec("av", None)
    monkeypatch.setitem(sys.modules, "av", pyav)
    found = find(["rec"], recursive=True)
    assert [source.name for source in found.sources] == ["rec/film.mkv", "rec/talk.m4a"] and not found.passed_over


@pytest.mark.parametrize("output", ["rec/better", "rec/better/", "./rec/../rec/better", "link"])
def test_the_folder_of_the_outputs_is_no_input(upscale, output):
    record("rec/a.wav", "rec/deep/b.wav")
    os.symlink("rec/better", "link")
    Path("rec/better").mkdir()
    before = files()
    assert upscale("-r", "rec", "-o", output) == (0, [], [])
    assert files() == sorted([*before, "rec/better/a.wav", "rec/better/deep/b.wav"])
    assert upscale("-r", "rec", "-o", output, "--overwrite") == (0, [], [])
    assert len(files("rec")) == 4
    assert upscale("-r", "rec", "-o", "rec", "--overwrite")[0] == 1  # the folder itself: every output is its input


def test_an_output_file_in_the_folder_is_no_input(upscale):
    record("rec/a.wav")
    for _ in range(2):
        assert upscale("-r", "rec", "-o", "rec/b.wav", "--overwrite") == (0, [], [])
    assert files() == ["rec/a.wav", "rec/b.wav"]


def test_what_was_made_here_is_known_by_its_source_beside_it(upscale):
    record("rec/concert-48k.wav", "rec/deep/concert.wav", "rec/talk.flac", "rec/talk-48k.flac", "rec/song-48k.ogg")
    code, _, err = upscale("-r", "rec", "-o", "better")
    assert (code, err) == (0, ["flashsr: rec: passed over: 1 made here before"])
    assert files("better") == [f"better/{name}.wav" for name in ("concert-48k", "deep/concert", "song-48k", "talk")]


def test_pictures_beside_outputs_are_made_here_too(upscale):
    record("rec/a.wav")
    touch("rec/a-48k.wav", "rec/a-48k.png", "rec/cover.png")
    assert upscale("-r", "rec", "-o", "better")[2] == ["flashsr: rec: passed over: 1 png, 2 made here before"]


def test_the_name_beside_the_input_says_the_outputs_rate(upscale):
    record("rec/a.wav")
    for rate, name in (("44100", "a-44.1k.wav"), ("96000", "a-96k.wav")):
        assert upscale("rec/a.wav", "--out-rate", rate) == (0, [], [])
        assert sf.info(f"rec/{name}").samplerate == int(rate)
    record("rec/a-16k.wav")  # of no rate that is made here
    assert upscale("-r", "rec", "-o", "better") == (0, [], ["flashsr: rec: passed over: 2 made here before"])
    assert files("better") == ["better/a-16k.wav", "better/a.wav"]


def test_patterns_name_the_folders_that_nobody_looks_into(upscale):
    record("rec/a.wav", "rec/deep/b.wav")
    assert upscale("rec/*", "-o", "out") == (0, [], ["flashsr: rec/*: passed over: rec/deep (a folder)"])
    assert upscale("rec/**", "-o", "out2") == (0, [], [])
    assert files("out2") == ["out2/a.wav", "out2/b.wav"]
    assert upscale("rec/d*", "-o", "out3") == (1, [], ["flashsr: rec/d*: means no file, but rec/deep (a folder)"])


def test_a_name_that_is_too_long_stops_no_other(upscale):
    record("a.wav")
    name = 300 * "b" + ".wav"
    assert upscale(name, f"{name}*", "a.wav", "-o", "out") == (
        1,
        [],
        [f"flashsr: {name}: no such file", f"flashsr: {name}*: no file has such a name"],
    )
    assert files("out") == ["out/a.wav"]


# ---- names


def test_two_files_of_one_name_in_one_folder_get_two(upscale):
    record("rec/x.wav", "rec/x.flac", "rec/y.wav")
    expected = ["x.flac", "x.wav", "y"]
    assert upscale("-r", "rec", "-o", "better") == (0, [], [])
    assert files("better") == [f"better/{name}.wav" for name in expected]
    assert upscale("-r", "rec") == (0, [], [])
    assert [name for name in files("rec") if "48k" in name] == [f"rec/{name}-48k.wav" for name in expected]
    assert upscale("rec/x.wav", "rec/x.flac", "-o", "named")[0] == 0
    assert files("named") == ["named/x.flac.wav", "named/x.wav.wav"]
    assert upscale("-r", "rec", "-o", "again") == (0, [], ["flashsr: rec: passed over: 3 made here before"])


def test_one_file_twice_is_said(upscale):
    record("a.wav")
    assert upscale("a.wav", "a.wav", "-o", "out") == (1, [], ["flashsr: a.wav: is given twice"])
    assert files("out") == ["out/a.wav"]


@pytest.mark.parametrize(
    ("arguments", "output"),
    [(["x/a.wav", "y/a.wav", "-o", "y"], "y/a.wav"), (["x/a.wav", "x/a-48k.wav"], "x/a-48k.wav")],
)
def test_an_input_is_not_replaced_by_the_output_of_another(upscale, arguments, output):
    record("x/a.wav", "y/a.wav", "x/a-48k.wav")
    before = Path(output).read_bytes()
    code, _, err = upscale(*arguments, "--overwrite")
    said = (
        f"flashsr: x/a.wav: the output {output} is the input {output}: choose another -o, or leave one of the two out"
    )
    assert code == 1 and err[0] == said and Path(output).read_bytes() == before


@pytest.mark.parametrize("flag", ["--overwrite", "--skip-existing"])
def test_two_outputs_that_are_one_file_on_this_disk_are_said(upscale, flag):
    """By linked folders; on other disks by names that differ in capitals alone."""
    record("in/a/x.wav", "in/b/x.wav")
    Path("out/a").mkdir(parents=True)
    os.symlink("a", "out/b")
    said = "the output out/b/x.wav is the output of in/a/x.wav: choose another -o, or leave one of the two out"
    assert upscale("-r", "in", "-o", "out", flag) == (1, [], [f"flashsr: in/b/x.wav: {said}"])


def test_an_output_without_an_audio_suffix_is_a_folder(upscale):
    record("a.wav", "b.wav")
    touch("taken")
    assert upscale("a.wav", "-o", "new/er") == (0, [], [])
    assert upscale("a.wav", "-o", "mix v1.2", "--format", "flac") == (0, [], [])
    assert files("new", "mix v1.2") == ["mix v1.2/a.flac", "new/er/a.wav"]
    assert upscale("a.wav", "-o", "taken") == (
        1,
        [],
        ["flashsr: -o taken: is no folder: end its name in .wav or .flac, or give a folder"],
    )
    assert upscale("a.wav", "b.wav", "-o", "taken")[2] == [
        "flashsr: -o taken: is a file, but there are 2 inputs: give a folder"
    ]


def test_a_link_in_the_place_of_an_output_is_replaced_and_what_it_points_to_stays(upscale):
    record("a.wav", "original.wav")
    before = Path("original.wav").read_bytes()
    os.symlink("original.wav", "link.wav")
    os.symlink("nowhere.wav", "dangling.wav")
    for link in ("link.wav", "dangling.wav"):
        for flag in ([], ["--skip-existing"] if link == "dangling.wav" else []):
            code, _, err = upscale("a.wav", "-o", link, *flag)
            assert code == 1 and err[0].startswith(f"flashsr: a.wav: the output {link} exists") and os.path.islink(link)
        assert upscale("a.wav", "-o", link, "--overwrite") == (0, [], [])
        assert not os.path.islink(link) and sf.info(link).frames == 24_000
    assert Path("original.wav").read_bytes() == before and not Path("nowhere.wav").exists()
    os.symlink("a.wav", "self.wav")
    assert upscale("a.wav", "-o", "self.wav", "--overwrite")[2] == [
        "flashsr: a.wav: the output self.wav is the input itself: choose another -o"
    ]


# ---- pictures


def test_a_picture_is_never_silently_replaced(upscale, monkeypatch):
    record("song.wav")
    touch("o/song.png")
    monkeypatch.setattr(flashsr_jax.upscale.files, "_upscale_file", lambda *_: pytest.fail("work has begun"))
    for flag in ([], ["--skip-existing"]):
        code, _, err = upscale("song.wav", "--spectrogram", "-o", "o/", *flag)
        assert code == 1 and err[0].startswith("flashsr: song.wav: the picture o/song.png exists: choose another -o")
    assert files("o") == ["o/song.png"] and not Path("o/song.png").read_bytes()


def test_a_picture_is_replaced_where_that_is_asked_for(upscale):
    record("song.wav")
    touch("o/song.png", "p/song.png/a")
    assert upscale("song.wav", "--spectrogram", "-o", "o/", "--overwrite") == (0, [], [])
    assert Path("o/song.png").read_bytes().startswith(b"\x89PNG")
    assert upscale("song.wav", "--spectrogram", "-o", "p/", "--overwrite")[2] == [
        "flashsr: song.wav: the picture p/song.png is a folder"
    ]
    os.replace("song.wav", "song.png")  # read by its content
    assert upscale("song.png", "--spectrogram", "-o", "./", "--overwrite")[2] == [
        "flashsr: song.png: the picture song.png is the input itself: choose another -o"
    ]


# ---- what is there already


def test_a_restart_does_what_is_missing(upscale):
    record("rec/a.wav", "rec/b.wav", "rec/c.wav")
    assert upscale("rec/a.wav", "-o", "out/") == (0, [], [])
    before = Path("out/a.wav").stat().st_mtime_ns
    code, out, err = upscale("-r", "rec", "-o", "out", "--skip-existing", "--json")
    assert (code, err) == (0, ["flashsr: 1 of 3 outputs were there already"])
    assert out[0] == '{"input": "rec/a.wav", "output": "out/a.wav", "skipped": true}' and len(out) == 3
    assert Path("out/a.wav").stat().st_mtime_ns == before and files("out") == ["out/a.wav", "out/b.wav", "out/c.wav"]
    Path("out/b.wav").unlink()
    command = ["-r", "rec", "-o", "out", "--skip-existing", "--spectrogram"]
    assert upscale(*command) == (0, [], ["flashsr: 2 of 3 outputs were there already"])
    assert files("out") == [f"out/{name}.{suffix}" for name in "abc" for suffix in ("png", "wav")]
    assert Path("out/a.wav").stat().st_mtime_ns == before
    assert upscale("rec/a.wav", "-o", "rec", "--skip-existing")[0] == 1  # the input is nobody's output


def test_skipping_and_replacing_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        main(["upscale", "a.wav", "--skip-existing", "--overwrite"])
    assert "--overwrite: not allowed with argument --skip-existing" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_a_job_that_is_told_to_stop_leaves_nothing_half_written(weights, told):
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000 * 600), 8000)
    command = [str(Path(sys.executable).with_name("flashsr")), "upscale", "a.wav", "-o", "out/", "--weights", weights]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while not list(Path("out").glob(".*.part.wav")):
        assert process.poll() is None and time.monotonic() - began < 300
        time.sleep(0.05)
    process.send_signal(told)
    assert process.communicate() == (None, "") and process.returncode == 128 + told
    assert files() == ["a.wav"]


def test_under_nohup_a_terminal_may_be_closed(upscale, monkeypatch):
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), 8000)
    survey = flashsr_jax.upscale.files.survey

    def closed(*options):
        signal.raise_signal(signal.SIGHUP)
        return survey(*options)

    monkeypatch.setattr(flashsr_jax.upscale.files, "survey", closed)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert upscale("a.wav", "-o", "b.wav") == (0, [], [])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_may_call_the_command(upscale):
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), 8000)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(upscale, "a.wav", "-o", "b.wav").result() == (0, [], [])


# ---- shards

NAMES = [f"{artist}/{number:02d} Lied ü.wav" for artist in ("a", "b", "c ä") for number in range(30)]


def parts(*inputs: str, count: int = 16) -> list[list[str]]:
    """The places of the files of every shard."""
    sources = find(inputs, recursive=True).sources
    return [[source.key for source in Shard(index, count).of(sources)] for index in range(1, count + 1)]


def test_the_shards_together_have_every_file_once_wherever_it_lies(folder, monkeypatch):
    touch(*(f"here/{name}" for name in NAMES), *(f"mnt/deep/there/{name}" for name in NAMES))
    shards = parts("here")
    assert sorted(name for shard in shards for name in shard) == sorted(NAMES)
    assert sum(map(bool, shards)) > 12 and max(map(len, shards)) < 16  # 90 files in 16 parts
    assert parts(str(folder / "mnt/deep/there")) == shards
    monkeypatch.chdir("here")
    assert parts(".") == parts("../mnt/deep/there/") == shards
    assert parts(*NAMES) == parts(*(str(folder / "mnt/deep/there" / name) for name in NAMES)) == shards
    assert parts("*/*.wav") == parts("../mnt/deep/there/*/*.wav") == parts(str(folder / "mnt/deep/there/**/*.wav"))
    assert parts("*/*.wav") == shards


def test_the_parts_stay_what_they_are():
    """A job that is started again on another version finds its own files."""
    touch(*(f"rec/{name}.wav" for name in "abcdefgh"))
    assert parts("rec", count=3) == [[f"{name}.wav" for name in names] for names in ("adeh", "bf", "cg")]


def test_shards_do_not_depend_on_how_a_file_system_writes_umlauts():
    assert Shard(1, 1000)._has("Lied \u00fc.wav") is Shard(1, 1000)._has("Lied u\u0308.wav")
    composed, decomposed = ([Shard(i, 64)._has(name) for i in range(1, 65)] for name in ("\u00fc", "u\u0308"))
    assert composed == decomposed and sum(composed) == 1
    assert sum(Shard(i, 64)._has(os.fsdecode(b"latin-\xfc.wav")) for i in range(1, 65)) == 1


def test_names_are_the_same_in_every_shard(upscale):
    record("rec/x.wav", "rec/x.flac", "rec/deep/x.wav")
    failures = [upscale("-r", "rec", "-o", "out", "--shard", f"{index}/4") for index in range(1, 5)]
    assert [code for code, _, _ in failures] == [0] * 4
    assert files("out") == ["out/deep/x.wav", "out/x.flac.wav", "out/x.wav.wav"]
    assert sum(int(err[0].split(": ")[2].split()[0]) for _, _, err in failures) == 3
    assert all(err[0].endswith(" of 3 inputs") for _, _, err in failures)
    record("one/y.wav", "two/y.wav")  # a clash is one in every shard, too
    codes = [upscale("-r", "one", "two", "-o", "out2", "--shard", f"{index}/2") for index in (1, 2)]
    said = [line for _, _, err in codes for line in err[1:]]
    assert said == ["flashsr: two/y.wav: out2/y.wav is the output of one/y.wav: give the two different folders"]


def test_the_summary_says_what_all_shards_have_done(upscale):
    record("rec/a.wav", "rec/b.wav", "rec/deep/c.wav", "rec/d.wav")
    Path("rec/broken.wav").write_bytes(b"RIFF")
    several = ["-r", "rec", "-o", "out"]
    code, out, err = upscale(*several, "--summary")
    assert (code, out) == (1, ["0 of 5 outputs are there, 5 are not"])
    assert "flashsr: rec/deep/c.wav: not done yet: out/deep/c.wav is not there" in err and files("out") == []
    for index in (1, 2, 3):
        upscale(*several, "--shard", f"{index}/3")
    Path("out/b.wav").write_bytes(b"RIFF")
    Path("out/d.wav").unlink()
    code, out, err = upscale(*several, "--summary")
    assert (code, out) == (1, ["2 of 5 outputs are there, 3 are not"])
    assert [line.split(": ")[1] for line in err] == ["rec/b.wav", "rec/broken.wav", "rec/d.wav"]
    upscale(*several, "--overwrite", "--shard", "1/1")
    Path("rec/broken.wav").unlink()
    assert upscale(*several, "--summary") == (0, ["4 of 4 outputs are there, 0 are not"], [])
    code, _, err = upscale("rec/a.wav", "-o", "-", "--summary")
    assert code == 1 and "give the -o that the outputs have" in err[0]


def test_a_single_file_is_in_one_shard_and_a_mistake_in_all(upscale):
    record("a.wav")
    codes = [upscale("a.wav", "-o", "b.wav", "--shard", f"{index}/3")[0] for index in (1, 2, 3)]
    assert codes == [0, 0, 0] and files() == ["a.wav", "b.wav"]
    assert [upscale("nothing.wav", "--shard", f"{index}/3")[0] for index in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("shard", ["0/16", "17/16", "2", "2/", "/2", "-1/2", "1.5/2", "a/b", "1/0", "\u00b2/3"])
def test_what_is_no_shard_is_said(capsys, shard):
    with pytest.raises(SystemExit):
        main(["upscale", "a.wav", f"--shard={shard}"])
    assert "write 2/16 for the second of sixteen" in capsys.readouterr().err

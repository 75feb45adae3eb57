"""Write docs/recordings.md: what `flashsr upscale` and `flashsr data build` make of recordings as people have them.

    python launch/recordings_page.py [docs/recordings.md]

The inputs are those of tests/helpers/odd_recordings.py, at 8 kHz for upscaling and 48 kHz for the data set, and those
of tests/helpers/floors.py.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile as sf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.floors import FLOORS, RATE, SOUNDS, dull, loud_band_db, with_floor  # noqa: E402
from helpers.odd_recordings import KINDS, signal  # noqa: E402

FLASHSR = str(Path(sys.executable).with_name("flashsr"))
SECONDS = len(signal(8000)) / 8000
HEAD = f"""# Recordings as people have them

Every kind of input below is read to its end, or refused in one line; nothing is lost in silence.
`launch/recordings_page.py` makes this page: it writes the inputs ({SECONDS} s of noise each,
`tests/helpers/odd_recordings.py`), and runs `flashsr upscale --json` and `flashsr data build` on them.

Beside these:

- m4a, aac, mp4, webm, mkv, wma, ac3 and others are read through PyAV: `pip install 'flashsr_jax[av]'`. Of a film, the
  first audio stream is upscaled; `-o film.mkv` puts it back beside the untouched rest: pictures,
  other sounds, subtitles, and with PyAV 16 or newer chapters and attachments. Those that end before they
  say are cut short.
- Folders: what is passed over is counted by suffix, and linked folders are named, by `flashsr upscale -r` and by
  `flashsr data build`.
- Pipes with names, `/dev/stdin` and process substitution go to a temporary file first, as `-` does.
- Any error of one file is that file's line, and the rest goes on (exit code 1); `--debug` shows the traceback.
- Tags go over with all that mutagen reads: several artists, covers, ReplayGain, MusicBrainz; of wav and aiff also the
  texts that are no ID3, and bext and cue points of wav, moved to the new rate; by what a file is, not by its name. What
  cannot be carried is said (`left_out` of `--json`).
- Of more than two channels, the mask of the input is written (WAVE_FORMAT_EXTENSIBLE, or FLAC's tag for it).

| file | what it is | `flashsr upscale` | `flashsr data build` |
| --- | --- | --- | --- |
"""
FLOORS_HEAD = """
## A floor over the cutoff

Noise, dither or the rounding of a quiet recording lie over the end of its band. The low-pass takes them away before the
networks see them, so that they add what they add to the clean file. The table has the level of what is over the cutoff
in the output, in the loudest fifth of the frames, beside that of the clean file's output, in dB.

| peak, dBFS | floor, dBFS | speech to 3.9 kHz | music to 7.8 kHz |
| ---: | ---: | ---: | ---: |
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", nargs="?", default="docs/recordings.md", help="default %(default)s")
    page = parser.parse_args().page
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, rate in (("in", 8000), ("music", 48_000)):
            for kind in KINDS:  # each in a folder of its own: some differ in their suffix alone
                (folder / part / kind.name).mkdir(parents=True)
                kind.make(folder / part / kind.name / kind.name, rate)
        upscaled = _upscale(folder)
        built = _build(folder)
        rows = [f"| {k.name} | {k.what} | {upscaled[k.name]} | {built[k.name]} |\n" for k in KINDS]
        added = {sound: _added(folder, sound) for sound in SOUNDS}
        floors = [f"| {p} | {f} | {' | '.join(f'{added[s][p, f]:+.1f}' for s in SOUNDS)} |\n" for p, f in FLOORS]
    Path(page).write_text(HEAD + "".join(rows) + FLOORS_HEAD + "".join(floors))


def _upscale(folder: Path) -> dict[str, str]:
    """What is said of each file, by its name."""
    names = [f"in/{kind.name}/{kind.name}" for kind in KINDS]
    command = [FLASHSR, "upscale", *names, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = {}
    for report in map(json.loads, done.stdout.splitlines()):
        remarks = "".join(f"; {remark}" for remark in report.get("remarks", []))
        good = f"{report['seconds']:g} s{remarks}" if "error" not in report else f"refused: {report['error']}"
        said[Path(report["input"]).name] = good
    return said


def _build(folder: Path) -> dict[str, str]:
    """As `_upscale`. Files are listed in a CSV, since a walk takes some suffixes only."""
    names = [f"music/{kind.name}/{kind.name}" for kind in KINDS]
    (folder / "set.csv").write_text("path,class\n" + "".join(f"{name},music\n" for name in names))
    command = [
        FLASHSR,
        "data",
        "build",
        "--csv",
        "set.csv",
        "--out",
        "built",
        "--min-bandwidth",
        "100",
        "--workers",
        "2",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    said = {}
    for file in ("manifest.csv", "left_out.csv"):
        with (folder / "built" / file).open(newline="") as lines:
            for row in csv.DictReader(lines):
                if "seconds" in row:
                    text = f"{float(row['seconds']):g} s"
                else:
                    text = row["detail"] if row["reason"] in row["detail"] else f"{row['reason']}: {row['detail']}"
                said[Path(row["path"]).name] = text
    return said


def _added(folder: Path, sound: str) -> dict[tuple, float]:
    """How much louder the added band is than the clean file's, by peak and floor."""
    x_N = dull(sound)
    kinds = ((0.0, -300.0), *FLOORS)  # clean, and over each floor
    inputs = {kind: with_floor(x_N, *kind) for kind in kinds}
    names = {kind: f"{sound}{number}.wav" for number, kind in enumerate(inputs)}
    for kind, name in names.items():
        sf.write(folder / name, inputs[kind], RATE, subtype="FLOAT")
    subprocess.run([FLASHSR, "upscale", *names.values(), "-o", "out/"], cwd=folder, check=True, capture_output=True)
    over = {}
    for kind, name in names.items():
        y_N, _ = sf.read(folder / "out" / name)
        over[kind] = loud_band_db(y_N, x_N, 1.15 * SOUNDS[sound][1], 20_000) - kind[0]
    return {kind: over[kind] - over[kinds[0]] for kind in FLOORS}


if __name__ == "__main__":
    main()

"""Damaged and made-up files, by the thousand: each is read, or refused in a line.

    PYTHONPATH=tests python -m helpers.fuzz torch|weights|audio CASES [SEED]

A case is a function of the seed and its number. It fails where reading raises anything but a `UserError` (of audio,
anything that `errors.reason` has no words for), writes to standard error by itself, takes over 5 s of CPU time, or
needs over 50 MB more than before.
The lane allows more seconds, since a shared machine takes several times as long for the same work: it looks for hangs.
"""

import contextlib
import io
import itertools
import json
import os
import pickletools
import re
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf

from flashsr_jax.audio.files import survey
from flashsr_jax.errors import UserError, reason
from flashsr_jax.exchange.torch_files import load_torch
from flashsr_jax.weights.store import load_weights, save_weights

from helpers import GOLDEN
from helpers.micro_model import MICRO, micro_params

MOST_SECONDS, MOST_MB = 5, 50
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\0\0\xc0\x7f")
ODD_VALUES = (0, -1, 1, 2, 3, 8, 2**31, 2**63, 1e300, float("nan"), True, None, "", "8", [], [1], [[1]], {}, [8] * 99)
NO_WORDS = "(--debug shows where)"  # of an error that nobody foresaw


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with bits flipped, stretches overwritten, moved or left out, or numbers made extreme."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        start, length = (
            int(rng.integers(max(1, min(len(data), 2 ** int(rng.integers(3, 30)))))),
            int(rng.integers(1, 60)),
        )
        kind = rng.integers(6)
        if kind == 0:
            data = data[:start]
        elif kind == 1 and data:
            data[min(start, len(data) - 1)] ^= 1 << rng.integers(8)
        elif kind == 2:
            data[start : start + length] = rng.bytes(length)
        elif kind == 3:
            data[start:start] = data[start : start + length]
        elif kind == 4:
            del data[start : start + length]
        else:
            data[start : start + 4] = EXTREMES[rng.integers(len(EXTREMES))]
    return bytes(data)


def torch_cases(folder: Path) -> Callable[[np.random.Generator], bytes]:
    """Archives of torch, damaged, and pickles of the pieces of real ones."""
    whole = (GOLDEN / "torch" / "torch_state_dict.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    program = entries["torch_state_dict/data.pkl"]
    places = [place for _, _, place in pickletools.genops(program)] + [len(program)]
    pieces = [program[a:b] for a, b in itertools.pairwise(places)]

    def case(rng: np.random.Generator) -> bytes:
        if rng.random() < 0.3:
            return damaged(whole, rng)
        if rng.random() < 0.5:
            changed = damaged(program, rng)
        else:
            start = int(rng.integers(1, len(pieces)))
            mixed = [pieces[i] for i in rng.integers(len(pieces), size=rng.integers(1, 60))]
            changed = b"".join([*pieces[:start], *mixed, *pieces[start + int(rng.integers(3)) :]])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in (entries | {"torch_state_dict/data.pkl": changed}).items():
                archive.writestr(name, data)
        return file.getvalue()

    return case


def weights_cases(folder: Path) -> Callable[[np.random.Generator], bytes]:
    """Weights files, damaged, and with headers that say other names, types, shapes, places and configurations."""
    save_weights(folder / "good.safetensors", MICRO, micro_params())
    whole = (folder / "good.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    text, body = whole[8 : 8 + size].decode(), whole[8 + size :]

    def odd(rng: np.random.Generator) -> object:
        return ODD_VALUES[rng.integers(len(ODD_VALUES))]

    def case(rng: np.random.Generator) -> bytes:
        if rng.random() < 0.3:
            return damaged(whole, rng)
        header = json.loads(text)
        config = json.loads(header["__metadata__"]["config"])
        kind = rng.integers(4)
        if kind == 0:
            name = list(header)[rng.integers(1, len(header))]
            field = ("dtype", "shape", "data_offsets")[rng.integers(3)]
            types = ("I32", "F64", "F8_E4M3", "BOOL", "U8")
            header[name][field] = types[rng.integers(len(types))] if field == "dtype" else odd(rng)
        elif kind == 1:
            header["".join(map(chr, rng.integers(1, 300, size=8)))] = header.pop(list(header)[-1])
        else:
            network = list(config)[rng.integers(3)]
            field = list(config[network])[rng.integers(len(config[network]))]
            if kind == 2:
                config[network][field] = odd(rng)
            else:
                config[network][field] = int(rng.integers(1, 65))
            header["__metadata__"]["config"] = json.dumps(config)
        changed = json.dumps(header).encode()
        return struct.pack("<Q", len(changed)) + changed + body

    return case


def audio_cases(folder: Path) -> Callable[[np.random.Generator], bytes]:
    """Recordings in several formats, damaged, and of floats and rates as large as those are."""
    x_Nx2 = 0.1 * np.random.default_rng(0).normal(size=(4000, 2))
    kinds = (("WAV", "FLOAT"), ("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))
    wholes = []
    for container, coding in (
        *kinds,
        ("AIFF", "PCM_16"),
        ("AU", "FLOAT"),
        ("CAF", "PCM_24"),
        ("MP3", "MPEG_LAYER_III"),
    ):
        file = io.BytesIO()
        sf.write(file, x_Nx2, 16_000, coding, format=container)
        wholes.append(file.getvalue())

    def case(rng: np.random.Generator) -> bytes:
        if rng.random() < 0.1:
            file = io.BytesIO()
            rate = int(rng.choice([16_000, 2 ** rng.uniform(0, 31)]))
            sf.write(file, x_Nx2 * 10.0 ** rng.integers(-40, 39), rate, "FLOAT", format="WAV")
            return file.getvalue()
        return damaged(wholes[rng.integers(len(wholes))], rng)

    return case


TARGETS = {
    "torch": (torch_cases, "a.pth", load_torch),
    "weights": (weights_cases, "a.safetensors", load_weights),
    "audio": (audio_cases, "a.wav", survey),
}


def failures(target: str, cases: int, seed: int = 0, most_seconds: float = MOST_SECONDS) -> Iterator[str]:
    """What is wrong with the reading of each case that fails: one line each."""
    make, name, read = TARGETS[target]

    def stop(*_: object) -> None:
        raise TimeoutError(f"over {most_seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    try:
        with tempfile.TemporaryDirectory() as folder:
            case, path = make(Path(folder)), Path(folder) / name
            for number in range(-3, cases):  # the first ones load what all need
                path.write_bytes(case(np.random.default_rng([seed, number + 3])))
                with _noise() as noise:
                    problem = _problem(read, path, most_seconds if number >= 0 else 0)
                if problem := problem or "".join(noise):
                    yield f"{target} {number + 3} of seed {seed}: {problem}"
    finally:
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def _noise() -> Iterator[list[str]]:
    """What anything in this process, libraries too, writes to standard error; complete at the end."""
    noise: list[str] = []
    before = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield noise
        finally:
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            noise += [f"writes {line!r}" for line in written.read().decode(errors="replace").splitlines()[:1]]


def _problem(read: Callable[[Path], object], path: Path, most_seconds: float) -> str:
    """What is wrong, or nothing; where `most_seconds` is 0, time and memory are not looked at."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    resident, began = _mb("VmRSS"), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, most_seconds)
    try:
        read(path)
    except TimeoutError as error:
        return str(error)
    except UserError as error:
        if not str(error).isprintable():
            return f"says {str(error)!r}"
    except Exception as error:  # noqa: BLE001 that is what is looked for
        said = reason(error)
        if read is not survey or said.endswith(NO_WORDS):
            return said
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown, seconds = _mb("VmHWM") - resident, time.process_time() - began
    if most_seconds and (grown > MOST_MB or seconds > most_seconds):
        return f"took {seconds:.1f} s and {grown:.0f} MB"
    return ""


def _mb(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    target, cases, seed = sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or ["0"])[0])
    failed = 0
    for line in failures(target, cases, seed):
        print(line, flush=True)
        failed += 1
    print(f"{failed} of {cases} cases failed")
    sys.exit(failed > 0)

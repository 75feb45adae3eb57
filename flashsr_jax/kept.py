"""What takes seconds to find out and stays true: kept beside the compiled programs, for the next process to read.

Each entry is named by a digest of what it is of, of the code that found it out, and of JAX's version, so that none is
ever out of date. Without a folder for compiled programs (`devices.runtime.enable_compilation_cache`) nothing is kept.
"""

import contextlib
import functools
import hashlib
from pathlib import Path

import jax

import flashsr_jax
from flashsr_jax.files import replacing

CODE = ("audio", "models", "upscale")  # rooms that networks, shapes and programs are written in
DIGEST = 32  # bytes at an entry's beginning, by which a damaged one is known


def load(kind: str, of: object) -> bytes | None:
    """What was kept as `kind` of `of` (by its repr); None where nothing was, or it is damaged."""
    path = _path(kind, of)
    if path is None:
        return None
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    digest, data = whole[:DIGEST], whole[DIGEST:]
    return data if hashlib.sha256(data).digest() == digest else None


def save(kind: str, of: object, data: bytes) -> None:
    """Keep `data`. Where the folder cannot be written to, nothing happens: it is found out again next time."""
    path = _path(kind, of)
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(hashlib.sha256(data).digest() + data)


def _path(kind: str, of: object) -> Path | None:
    settings = jax.config
    folder = settings.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None:
        return None
    traced = (settings.jax_enable_x64, settings.jax_default_matmul_precision)  # type: ignore[attr-defined]
    digest = hashlib.sha256(repr((_code(), jax.__version__, traced, of)).encode()).hexdigest()
    return Path(folder) / f"flashsr_jax-{kind}-{digest[:32]}"


@functools.cache
def _code() -> str:
    package = Path(flashsr_jax.__file__).parent
    digest = hashlib.sha256(flashsr_jax.__version__.encode())
    for room in CODE:
        for path in sorted((package / room).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()

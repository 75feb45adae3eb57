"""onnxruntime-web, which runs the graphs in a browser: fetched once, or taken from a folder."""

import base64
import hashlib
import io
import os
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # of the archive
ARCHIVED = "package/dist"  # where the files are in it
FILES = (  # for the CPU, and for WebGPU
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
TIMEOUT = 60  # s without a byte


def runtime_files(cache: Path, folder: str | os.PathLike | None = None) -> dict[str, Path]:
    """The files of onnxruntime-web by name: those of `folder`, or of the cache, into which they are fetched once.

    Raises UserError where a file is missing in `folder`, or the archive cannot be fetched or is another than expected.
    """
    if folder is not None:
        files = {name: Path(folder) / name for name in FILES}
        if missing := [name for name, path in files.items() if not path.is_file()]:
            raise UserError(f"{folder}: has no {missing[0]}: give the folder dist of onnxruntime-web", "runtime")
        return files
    kept = cache / f"onnxruntime-web-{VERSION}"
    files = {name: kept / name for name in FILES}
    if not all(path.is_file() for path in files.values()):
        print(f"flashsr: fetching onnxruntime-web {VERSION} (33 MB, once)", file=sys.stderr)
        _unpack(_fetch(), kept)
    return files


def _fetch() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as response:
            archive = response.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"onnxruntime-web cannot be fetched ({reason}): unpack {URL} from elsewhere and give its folder "
            f"{ARCHIVED} as `runtime`"
        ) from error
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != SHA512:
        raise UserError(f"{URL} is another file than expected: its SHA-512 is not that of version {VERSION}")
    return archive


def _unpack(archive: bytes, folder: Path) -> None:
    """The files that are used; each is complete or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for name in FILES:
            member = tar.extractfile(f"{ARCHIVED}/{name}")
            assert member is not None, name  # the archive is the one whose digest is above
            with replacing(folder / name) as partial:
                partial.write_bytes(member.read())

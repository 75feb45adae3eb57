"""SHA-256 of every file of a folder that was written once and for all, kept in it and compared before it is read.

File formats catch bytes that are missing, not all of those that have changed: of OCDBT's values, which a checkpoint's
arrays are, any bit can flip unnoticed. Folders without checksums, of earlier versions, are taken as they are.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from flashsr_jax.files import replacing

CHECKSUMS_FILE = "checksums.json"


class ChecksumError(Exception):
    """A file has other bytes than were written. The text names it."""


def write_checksums(folder: Path) -> None:
    """Add `CHECKSUMS_FILE`, {file below the folder: SHA-256 in hexadecimal}, to a folder that is complete."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    with replacing(folder / CHECKSUMS_FILE) as partial:
        partial.write_text(json.dumps(digests, indent=1) + "\n")


def verify(folder: Path, parts: Collection[str], index: int = 0, count: int = 1) -> None:
    """Compare the files of the sub-folders `parts` and those that are in none with their checksums.

    Of `count` processes that share the work, this is number `index`. Raises ChecksumError at the first file that
    differs, or is gone.
    """
    path = folder / CHECKSUMS_FILE
    if not path.exists():
        return
    try:
        digests = {str(name): str(digest) for name, digest in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise ChecksumError(f"{CHECKSUMS_FILE} cannot be read") from error
    names = [name for name in sorted(digests) if "/" not in name or name.partition("/")[0] in parts]
    for name in names[index::count]:
        file = folder / name
        if not file.is_file():
            raise ChecksumError(f"{name} is gone")
        if _sha256(file) != digests[name]:
            raise ChecksumError(f"{name} has other bytes than were saved")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

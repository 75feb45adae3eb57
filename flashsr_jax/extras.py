"""Packages that upscaling does without: whatever needs one of them says which line installs it."""

import contextlib
from collections.abc import Iterator

from flashsr_jax.errors import UserError


@contextlib.contextmanager
def needing(extra: str, purpose: str) -> Iterator[None]:
    """Where a third-party package cannot be imported in the block, raise UserError with the line that installs it.

    `extra` is one of setup.py's; `purpose` begins the line. Also a decorator, of a whole `flashsr` word, say.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "flashsr_jax"):
            raise
        raise UserError(f"{purpose} needs {package} ({error}): pip install 'flashsr_jax[{extra}]'") from error

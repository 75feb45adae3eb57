"""`flashsr web` as a user starts it, ended whatever happens."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def served(command: list[str], **options) -> Iterator[tuple[subprocess.Popen, str]]:
    """(its process, its address) once it says that."""

    def hears_interrupts():  # what a shell starts in the background ignores them, tests too
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    options |= {"stdout": subprocess.PIPE, "text": True, "preexec_fn": hears_interrupts}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process, process.stdout.readline().split()[0]
        finally:
            process.kill()

"""What long work shows on the terminal while it runs."""

import sys
import time


class Progress:
    """A line on standard error that says how far something is and how long it will take. At the end of a `with` block
    the line is wiped. Where standard error is no terminal, a line of its own each `log_every` seconds; None: nothing.
    """

    def __init__(self, title: str = "", log_every: float | None = None):
        self._title = f"{title}  " if title else ""
        self._began = self._logged = time.monotonic()
        self._terminal, self._log_every = sys.stderr.isatty(), log_every

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def show(self, share: float, done: str = "") -> None:
        """Say that `share` (0 to 1) of it is done, in words of one's own or in per cent, and the time that is left."""
        if not share:
            return
        left = round((time.monotonic() - self._began) * (1 - share) / share)
        self.say(f"{done or f'{100 * share:3.0f} %'}  {left // 60}:{left % 60:02d} left")

    def say(self, text: str) -> None:
        """Replace the line's text."""
        self._write(self._title + text)

    def close(self, outcome: str) -> None:
        """Say how it ended, and leave the line."""
        self.say(outcome + "\n")

    def _write(self, line: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif line and self._log_every is not None and time.monotonic() - self._logged >= self._log_every:
            self._logged = time.monotonic()
            print(line.rstrip(), file=sys.stderr, flush=True)

"""A stand-in for a terminal on standard error."""

import io


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Every state of a line that was written over and over."""
        return self.getvalue().split("\r\x1b[K")[1:]

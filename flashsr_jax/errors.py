"""The one exception that command lines turn into a single line instead of a traceback, and the line of any other."""

import os
import re
import sys
import traceback

DEBUG = "FLASHSR_DEBUG"  # in the environment: show tracebacks, too (`--debug`)


class UserError(ValueError):
    """A mistake in the input or the configuration. Its text is one line that names it and says what to change.

    `argument` is the parameter whose value is at fault, where the text begins with that value: code that does not know
    how it is called states the fact, and the command line puts the option's name before it. Parameters that the text
    itself names stand in backquotes, which the command line makes options of, too.
    """

    def __init__(self, text: str, argument: str | None = None):
        super().__init__(text)
        self.argument = argument

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.argument}={text}" if self.argument else text


def reason(error: Exception) -> str:
    """One line that says what went wrong with a file, without its name, which the caller says.

    To be called where the error is handled: `--debug` shows its traceback.
    """
    show_traceback()
    if isinstance(error, UserError):
        return str(error)
    if libsndfile := said_by_libsndfile(error):
        return f"cannot be read as audio (libsndfile: {libsndfile})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    kind, text = type(error).__name__, str(error).strip().partition("\n")[0]
    return f"{kind}: {text} (--debug shows where)" if text else f"{kind} (--debug shows where)"


def one_line(text: str) -> str:
    """A text as a line for a terminal: names of files and tags may hold what ends a line, or what terminals obey."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def said_by_libsndfile(error: Exception) -> str | None:
    """The cause in libsndfile's own words; None for other errors."""
    text = getattr(error, "error_string", None)
    return text and text.strip().rstrip(".").removeprefix("Error : ")


def show_traceback() -> None:
    """Print the traceback of the error that is being handled where `--debug` asks for it."""
    if os.environ.get(DEBUG):
        traceback.print_exc(file=sys.stderr)

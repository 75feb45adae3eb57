"""The one exception that command lines turn into a single line instead of a traceback, and the line of any other."""


class UserError(ValueError):
    """A mistake in the input or the configuration. Its text is one line that names it and says what to change."""


def reason(error: Exception) -> str:
    """One line that says what went wrong with a file, without its name, which the caller says."""
    if isinstance(error, UserError):
        return str(error)
    if libsndfile := getattr(error, "error_string", None):
        return f"cannot be read as audio: {libsndfile.strip().rstrip('.')}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}; --debug shows where" if first else f"{type(error).__name__}; --debug shows where"

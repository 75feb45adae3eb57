"""The one exception that command lines turn into a single line instead of a traceback."""


class UserError(ValueError):
    """A mistake in the input or the configuration. Its text is one line that names it and says what to change."""

"""The one exception that command lines turn into a single line instead of a traceback."""


class UserError(ValueError):
    """A mistake in the input or the configuration. Its text is one line that names it and says what to change.

    `argument` is the parameter whose value is at fault, where the text begins with that value: code that does not know
    how it is called states the fact, and the command line puts the option's name before it.
    """

    def __init__(self, text: str, argument: str | None = None):
        super().__init__(text)
        self.argument = argument

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.argument}={text}" if self.argument else text

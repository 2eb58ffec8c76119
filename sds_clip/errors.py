"""What ends a command with one line instead of a traceback."""


class CliError(Exception):
    """The user gave something that cannot be used; the message says what to do."""

"""The one exception that stands for bad input."""


class InputError(ValueError):
    """Something the caller can mend: a file, a flag, a value.

    The message is one line that names what is wrong and where. Commands
    print it without a traceback and exit with status 2.
    """

"""The one exception that stands for bad input, and how its message ends."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the caller can mend: a file, a flag, a value.

    The message is one line that names what is wrong and where. Commands
    print it without a traceback and exit with status 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that ends a message, if a known name is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""

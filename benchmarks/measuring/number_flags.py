"""Flags that are lists of numbers."""

from absl import flags

from sparsectr.errors import InputError


def ascending(
    flag: str, *, at_least: int = 1, count: int = 1
) -> tuple[int, ...]:
    """Returns a flag that is a list of ascending whole numbers.

    Args:
        flag: Its name.
        at_least: What the least of them may be.
        count: How many there have to be.

    Raises:
        InputError: If it is not.
    """
    texts = getattr(flags.FLAGS, flag)
    try:
        found = tuple(int(text) for text in texts)
    except ValueError:
        found = None
    if (
        found is None
        or len(found) < count
        or found != tuple(sorted({*found, at_least - 1})[1:])
    ):
        raise InputError(
            f"--{flag} must be ascending, {count} or more numbers of at least "
            f"{at_least}. Received: {','.join(texts)}"
        )
    return found

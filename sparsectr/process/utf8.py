"""Texts as they are sent and stored."""

from sparsectr.errors import InputError


def to_utf8(text: str | bytes, where: str) -> bytes:
    r"""Returns the bytes of a text. Bytes are taken as they are.

    Args:
        text: The text.
        where: What it is, for the error.

    Raises:
        InputError: If it holds a lone surrogate, as Python makes one of a
            broken `\ud83d` in JSON and of bytes that are not UTF-8.
    """
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} has half of a character (a lone surrogate), which "
            f"UTF-8 does not hold. Received: {text!a}"
        ) from error

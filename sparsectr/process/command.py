"""What every command line does alike: flags, help, errors, exit status."""

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from absl import app, flags

from sparsectr.errors import InputError

_BAD_INPUT = 2
_INTERRUPTED = 130


def run(
    main: Callable[[list[str]], int | None],
    whose_flag: Callable[[str], str | None] = lambda name: None,
    *,
    arguments: str | None = None,
) -> None:
    """Parses the flags, runs `main` and exits.

    Bad input (`InputError`, a flag that does not parse) and what the file
    system refuses (`OSError`) end in one line on stderr and status 2. Any
    other exception is a defect of ours and keeps its traceback. `--help`
    prints the docstring of the main module and its flags.

    Args:
        main: The command. It gets `[program]` and its arguments, and what it
            returns is the exit status (`None` for 0).
        whose_flag: What to say of an unknown flag, by its name.
        arguments: What the arguments beside the flags are, one at least;
            `None` for a command whose every option is a flag.
    """
    try:
        _run(main, whose_flag, arguments)
    except SystemExit as exit_:
        _leave_before_tensorflow_io(exit_.code)
        raise
    except BaseException:
        if "tensorflow_io" in sys.modules:
            traceback.print_exc()
            _leave_before_tensorflow_io(1)
        raise


def picture_to_write(flag: str) -> Path | None:
    """Returns the PNG file that a flag names, if it can be written.

    Called before the work, so that it is not refused after it.

    Raises:
        InputError: If it is no PNG file, or its folder is not there.
    """
    value = flags.FLAGS[flag].value
    if value is None:
        return None
    path = Path(value)
    if path.suffix != ".png":
        raise InputError(f"--{flag} must end in .png. Received: {path}")
    if not path.parent.is_dir():
        raise InputError(f"--{flag}: there is no folder {path.parent}.")
    if path.is_dir():
        raise InputError(f"--{flag}: {path} is a folder.")
    return path


@contextlib.contextmanager
def needs_matplotlib() -> Iterator[None]:
    """Around an import: says in one line that matplotlib is missing.

    Raises:
        InputError: If it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise InputError(
            "The picture needs matplotlib, which the extra `plots` installs: "
            "pip install 'sparsectr[plots]'"
        ) from error


def _run(
    main: Callable[[list[str]], int | None],
    whose_flag: Callable[[str], str | None],
    arguments: str | None,
) -> None:
    try:
        app.run(
            main,
            flags_parser=functools.partial(
                _parse_flags, whose_flag=whose_flag, wanted=arguments
            ),
        )
    except InputError as error:
        _exit_with_error(str(error))
    except OSError as error:
        _exit_with_error(". ".join([_describe(error), *_notes(error)]))
    except KeyboardInterrupt as error:
        print(". ".join(["interrupted", *_notes(error)]), file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _leave_before_tensorflow_io(status: object) -> None:
    """Ends a process that has tensorflow-io in it.

    Its file systems abort a process that ends as usual, after all work is
    done (tensorflow/io issues 1912 and 2039).
    """
    if "tensorflow_io" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(bool(status)))


def _parse_flags(
    arguments: list[str],
    whose_flag: Callable[[str], str | None],
    wanted: str | None,
) -> list[str]:
    try:
        remaining = flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        hint = whose_flag(error.flagname)
        _exit_with_error(
            f"{error}{f'. {hint}' if hint else ''} (--help lists the flags)"
        )
    except flags.Error as error:
        _exit_with_error(f"{error} (--help lists the flags)")
    except SystemExit:
        # A help flag has answered. absl exits with 1 then, which scripts
        # would read as a failure.
        sys.exit(0)
    if wanted is not None:
        if len(remaining) == 1:
            _exit_with_error(f"{wanted} is missing (--help says more)")
    elif len(remaining) > 1:
        _exit_with_error(
            f"Unexpected argument {remaining[1]!r}: every option is a flag "
            "(--help lists them)"
        )
    return remaining


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _exit_with_error(message: str) -> NoReturn:
    print("error:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(_BAD_INPUT)

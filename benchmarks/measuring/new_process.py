"""Runs a function in a process of its own."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from sparsectr.errors import InputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_new_process(
    function: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """Returns what a function returns in a process that begins with nothing.

    So memory is that of the function alone, XLA reads its flags anew, and
    this process stays without what the other one imports.

    Args:
        function: Of a module.
        *arguments: Its arguments.
        **named: Its arguments.

    Raises:
        InputError: If the process was killed, as for want of memory.
    """
    # Spawned, and not forked, which would begin with all that is here.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise InputError(
                f"The process that ran {function.__module__} was killed; the "
                f"machine may lack the memory for {arguments}."
            ) from error

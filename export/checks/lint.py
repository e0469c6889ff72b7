"""What a server would refuse, or answer wrongly, found without running it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.raw_tensors import Tensor
from export.checks.c_api import (
    Signature,
    TensorInfo,
    read_checkpoint,
    signatures_of,
)
from export.checks.lint_graph import (
    XLA_PREFIX,
    check_operations,
    check_reached,
    xla_bucket,
)
from export.checks.weight_digest import weight_digest
from export.graph.signature import signature_json, signatures
from export.messages.graph_messages import SavedModel
from export.requests.warm_up import FILE_NAME, MAX_RECORDS, read_warm_up
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

Contract = Mapping[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]

# Trained weights are never equal, small untrained ones may be.
_MOST_REPEATED = 0.1


def lint(path: Path) -> list[str]:
    """Returns what is wrong with a version, a line for each thing.

    Args:
        path: Folder of the version.

    Raises:
        InputError: If it is no version: a file is missing or damaged.
    """
    meta_graph = read_meta_graph(path)
    contract, found = read_contract(path)
    served = signatures_of(meta_graph)
    return [
        *found,
        *_check_signatures(contract, served),
        *check_operations(meta_graph.graph_def),
        *check_reached(meta_graph.graph_def, served),
        *_check_weights(path),
        *_check_warm_up(path, served),
    ]


def read_meta_graph(path: Path) -> Any:
    """Returns the graph that a server loads.

    Raises:
        InputError: If the folder holds no SavedModel.
    """
    file = path / "saved_model.pb"
    try:
        saved = SavedModel.FromString(file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path} is not a SavedModel: no {file.name}.") from (
            error
        )
    except DecodeError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise InputError(f"{file} has no graph with the tag serve.")


def read_contract(path: Path) -> tuple[Contract, list[str]]:
    """Returns the signatures that a version must have.

    They follow from its schema and its configuration.

    Args:
        path: Folder of the version.

    Returns:
        Inputs and outputs by signature; and a line if `signature.json` says
        something else.

    Raises:
        InputError: If one of the files is missing or damaged.
    """
    schema_values = read_extra(path, "schema.json")
    config_values = dict(read_extra(path, "config.json"))
    config_values.pop("data_dir", None)
    written = read_extra(path, "signature.json")
    store_values = read_extra(path, "store.json")
    try:
        schema = DatasetSchema.from_dict(schema_values)
        config = Config.from_dict(config_values)
        fingerprint = written["fingerprint"]
        buckets = Buckets.from_dict(written["buckets"])
        vocabularies = store_values["vocabularies"]
        compiled = [
            xla_bucket(name)
            for name in written["signatures"]
            if name.startswith(XLA_PREFIX)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path / 'assets.extra'}: {error}") from error
    expected = signature_json(
        schema,
        config.model,
        fingerprint=fingerprint,
        buckets=buckets.to_dict(),
        vocabularies=vocabularies,
        xla_buckets=compiled,
    )
    problems = []
    # Through JSON, which has lists where Python has tuples.
    if json.loads(json.dumps(expected)) != written:
        problems.append(
            "signature.json is not what schema.json, store.json and "
            "config.json ask for"
        )
    return signatures(schema, config.model, compiled), problems


def read_extra(path: Path, name: str) -> dict[str, Any]:
    """Returns a JSON object of `assets.extra`.

    Raises:
        InputError: If it is missing or damaged.
    """
    file = path / "assets.extra" / name
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} has no assets.extra/{name}.") from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is damaged: not an object")
    return values


def _check_signatures(
    contract: Contract, served: Mapping[str, Signature]
) -> Iterator[str]:
    for name in sorted(served.keys() - contract.keys()):
        yield f"signature {name} is not in the contract"
    for name, (inputs, outputs) in contract.items():
        if name not in served:
            yield f"signature {name} is missing"
            continue
        yield from _check_tensors(
            f"{name}, input", inputs, served[name].inputs, is_input=True
        )
        yield from _check_tensors(
            f"{name}, output", outputs, served[name].outputs, is_input=False
        )


def _check_tensors(
    where: str,
    expected: tuple[Tensor, ...],
    served: Mapping[str, TensorInfo],
    *,
    is_input: bool,
) -> Iterator[str]:
    for tensor in expected:
        if tensor.name not in served:
            yield f"{where} {tensor.name} is missing"
            continue
        info = served[tensor.name]
        if info.dtype != tensor.dtype:
            yield (
                f"{where} {tensor.name} is {info.dtype} and must be "
                f"{tensor.dtype}"
            )
        # What comes out may have a size that the graph does not know yet.
        if not _fits(tensor.shape, info.shape, may_be_open=not is_input):
            yield (
                f"{where} {tensor.name} has shape {_text(info.shape)} and must "
                f"have {_text(tensor.shape)}"
            )
    for name in sorted(served.keys() - {tensor.name for tensor in expected}):
        yield f"{where} {name} is not in the contract"


def _fits(
    expected: tuple[str | int, ...],
    served: tuple[int | None, ...] | None,
    *,
    may_be_open: bool,
) -> bool:
    if served is None:
        return may_be_open
    return len(expected) == len(served) and all(
        size is None
        if isinstance(axis, str) or (size is None and may_be_open)
        else size == axis
        for axis, size in zip(expected, served, strict=True)
    )


def _text(shape: tuple[Any, ...] | None) -> str:
    if shape is None:
        return "of any rank"
    sizes = ("open" if size is None else str(size) for size in shape)
    return f"[{', '.join(sizes)}]"


def _check_weights(path: Path) -> Iterator[str]:
    """Looks for weights that are there twice."""
    total = repeated = 0
    first: dict[str, str] = {}
    example = ""
    for name, value in read_variables(path):
        total += value.nbytes
        digest = weight_digest(value)
        if digest in first:
            repeated += value.nbytes
            example = example or f"{first[digest]} and {name}"
        first.setdefault(digest, name)
    if repeated > _MOST_REPEATED * total:
        yield (
            f"weights are stored twice: {repeated} of {total} bytes repeat, "
            f"such as {example}"
        )


def read_variables(path: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yields name and value of each numeric variable of a version.

    Raises:
        InputError: If they cannot be read.
    """
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    for name, value in read_checkpoint(path / "variables" / "variables"):
        yield name.removesuffix(suffix), value


def _check_warm_up(
    path: Path, served: Mapping[str, Signature]
) -> Iterator[str]:
    file = path / "assets.extra" / FILE_NAME
    if not file.exists():
        yield f"there are no warm-up records (assets.extra/{FILE_NAME})"
        return
    records = read_warm_up(file)
    if len(records) > MAX_RECORDS:
        yield f"{len(records)} warm-up records, {MAX_RECORDS} at most"
    for name in sorted(served.keys() - {name for name, _ in records}):
        yield f"signature {name} has no warm-up record"
    said: set[Any] = set()
    for number, (name, inputs) in enumerate(records):
        if name not in served:
            if name not in said:
                said.add(name)
                yield f"warm-up record {number} is for {name}, no signature"
            continue
        for problem in _check_record(served[name].inputs, inputs):
            # One record is like the next, and one line says it.
            if (name, problem) not in said:
                said.add((name, problem))
                yield f"warm-up record {number} ({name}) {problem}"


def _check_record(
    expected: Mapping[str, TensorInfo], inputs: Mapping[str, Any]
) -> Iterator[str]:
    for name in sorted(expected.keys() - inputs.keys()):
        yield f"has no input {name}"
    for name, value in inputs.items():
        if name not in expected:
            yield f"has the unknown input {name}"
            continue
        info = expected[name]
        dtype = "string" if value.dtype == object else value.dtype.name
        if dtype != info.dtype:
            yield f"has {dtype} for {name}, which must be {info.dtype}"
        if info.shape is not None and not _holds(info.shape, value.shape):
            yield (
                f"has shape {_text(value.shape)} for {name}, which must have "
                f"{_text(info.shape)}"
            )


def _holds(shape: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
    return len(shape) == len(found) and all(
        size in (None, other) for size, other in zip(shape, found, strict=True)
    )

"""A good export, broken on purpose: one thing at a time, and really.

Where the graph itself is to be another one, the version is loaded, wrapped
and saved again as a careless exporter would have written it.
"""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.requests.raw_tensors import PROBABILITY
from export.graph.signature import WHOLE_PASS
from export.messages.graph_messages import SavedModel
from export.requests.warm_up import FILE_NAME, read_warm_up, write_warm_up

Function = Callable[[dict[str, Any]], dict[str, Any]]


def save_again(
    path: pathlib.Path,
    *,
    change_specs: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    change_call: Callable[[Function], Function] | None = None,
    change_model: Callable[[Any, Any], None] | None = None,
) -> None:
    """Writes a version's graph again with another `serving_default`.

    Args:
        path: Folder of the version; its other files stay as they are.
        change_specs: Gives other inputs.
        change_call: Gives another function around the one there was.
        change_model: Changes what is saved: the new module, and the old one.
    """
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    module = tf.Module()
    module.loaded = loaded
    if change_model is not None:
        change_model(module, loaded)

    def endpoint(name: str) -> Any:
        old = signatures[name]
        specs = {
            key: tf.TensorSpec(spec.shape, spec.dtype, name=key)
            for key, spec in old.structured_input_signature[1].items()
        }

        def call(inputs: dict[str, Any]) -> dict[str, Any]:
            return old(**inputs)

        if name == WHOLE_PASS:
            specs = change_specs(specs) if change_specs else specs
            call = change_call(call) if change_call else call
        return tf.function(lambda **inputs: call(inputs)).get_concrete_function(
            **specs
        )

    partial = path.with_name("partial")
    tf.saved_model.save(
        module, str(partial), {name: endpoint(name) for name in signatures}
    )
    for name in ("assets", "variables"):
        shutil.rmtree(path / name, ignore_errors=True)
        if (partial / name).exists():
            shutil.move(partial / name, path / name)
    shutil.move(partial / "saved_model.pb", path / "saved_model.pb")
    shutil.rmtree(partial)


def edit_graph(
    path: pathlib.Path, change: Callable[[dict[str, Any], Any], None]
) -> None:
    """Changes the signatures in `saved_model.pb`, and nothing else.

    Args:
        path: Folder of the version.
        change: Gets the signatures by name, and the graph.
    """
    file = path / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    (graph,) = saved.meta_graphs
    change({entry.key: entry.value for entry in graph.signature_def}, graph)
    file.write_bytes(saved.SerializeToString())


def renamed_input(path: pathlib.Path) -> None:
    def change(signatures: dict[str, Any], graph: Any) -> None:
        (entry,) = (
            entry
            for entry in signatures[WHOLE_PASS].inputs
            if entry.key == "behavior_time"
        )
        entry.key = "behavior_times"

    edit_graph(path, change)


def missing_signature(path: pathlib.Path) -> None:
    def change(signatures: dict[str, Any], graph: Any) -> None:
        (place,) = (
            place
            for place, entry in enumerate(graph.signature_def)
            if entry.key == "score"
        )
        del graph.signature_def[place]

    edit_graph(path, change)


def float_ids(path: pathlib.Path) -> None:
    def change_specs(specs: dict[str, Any]) -> dict[str, Any]:
        name = "behavior_cate"
        return {**specs, name: tf.TensorSpec([None, None], "float32", name)}

    def change_call(call: Function) -> Function:
        return lambda inputs: call(
            inputs
            | {"behavior_cate": tf.cast(inputs["behavior_cate"], "int64")}
        )

    save_again(path, change_specs=change_specs, change_call=change_call)


def frozen_dims(path: pathlib.Path) -> None:
    def change_specs(specs: dict[str, Any]) -> dict[str, Any]:
        return {
            name: tf.TensorSpec([None, 32], spec.dtype, name)
            if name.startswith("behavior_")
            else spec
            for name, spec in specs.items()
        }

    save_again(path, change_specs=change_specs)


def python_function(path: pathlib.Path) -> None:
    def change_call(call: Function) -> Function:
        def changed(inputs: dict[str, Any]) -> dict[str, Any]:
            found = call(inputs)[PROBABILITY]
            same = tf.py_function(lambda x: x, [found], tf.float32)
            return {PROBABILITY: tf.ensure_shape(same, [None, None])}

        return changed

    save_again(path, change_call=change_call)


def doubled_weights(path: pathlib.Path) -> None:
    def change_model(module: Any, loaded: Any) -> None:
        # As `ExportArchive.track` does: the endpoints use one of the copies.
        module.copies = [tf.Variable(v) for v in variables(loaded)]

    save_again(path, change_model=change_model)


def altered_weight(path: pathlib.Path) -> None:
    def change_model(module: Any, loaded: Any) -> None:
        variable = max(variables(loaded), key=lambda v: v.shape.num_elements())
        variable.assign(variable + 0.01)

    save_again(path, change_model=change_model)


def half_output(path: pathlib.Path) -> None:
    def change_call(call: Function) -> Function:
        return lambda inputs: {
            PROBABILITY: tf.cast(call(inputs)[PROBABILITY], tf.float16)
        }

    save_again(path, change_call=change_call)


def wrong_warm_up_dtype(path: pathlib.Path) -> None:
    file = path / "assets.extra" / FILE_NAME
    records = [
        (
            name,
            {
                key: value.astype(np.int32) if key == "request_time" else value
                for key, value in inputs.items()
            },
        )
        for name, inputs in read_warm_up(file)
    ]
    write_warm_up(file, records, "sparsectr")


def swapped_vocabulary(path: pathlib.Path) -> None:
    """The two most frequent categories change places."""
    file = path / "assets" / "cate.txt"
    first, second, *rest = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([second, first, *rest]) + "\n", "utf-8")


def compiled_by_default(path: pathlib.Path) -> None:
    def change_call(call: Function) -> Function:
        def double(value: Any) -> Any:
            return value * 2.0 / 2.0

        compiled = tf.function(double, jit_compile=True)
        return lambda inputs: {PROBABILITY: compiled(call(inputs)[PROBABILITY])}

    save_again(path, change_call=change_call)


def variables(loaded: Any) -> list[Any]:
    """Returns the variables of a loaded version."""
    found = {
        id(value): value
        for signature in loaded.signatures.values()
        for value in signature.variables
    }
    return list(found.values())

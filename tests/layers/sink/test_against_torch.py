"""Sinks equal what PyTorch's attention has of them.

`tests/golden/torch_sinks.json` was written by PyTorch 2.14, in a process
without TensorFlow:

    import json, torch
    torch.manual_seed(0)
    golden = {}
    for option in ("add_zero_attn", "add_bias_kv"):
        layer = torch.nn.MultiheadAttention(
            6, 3, bias=False, batch_first=True, **{option: True})
        query, rows = torch.randn(2, 3, 6), torch.randn(2, 5, 6)
        mask = torch.rand(2, 5) < 0.6
        mask[1] = False
        output, _ = layer(query, rows, rows, key_padding_mask=~mask)
        golden[option] = {
            "query": query, "rows": rows, "key_mask": mask, "output": output,
            **dict(layer.named_parameters())}
    text = json.dumps(golden, default=lambda tensor: tensor.tolist())
    open("tests/golden/torch_sinks.json", "w").write(text + "\\n")
"""

import json
import pathlib

import numpy as np
import pytest

from sparsectr.layers.attention.full_attention import FullAttention
from sparsectr.layers.encoding.no_encoding import NoEncoding
from sparsectr.layers.sink.key_value_sink import KeyValueSink
from sparsectr.layers.sink.learned_sink import LearnedSink
from sparsectr.layers.sink.off_by_one_sink import OffByOneSink
from sparsectr.layers.sink.sink import Sink
from sparsectr.ops.places import places_of_history, places_of_request

FILE = pathlib.Path(__file__).parents[2] / "golden" / "torch_sinks.json"
GOLDEN = json.loads(FILE.read_text())
HEADS, WIDTH = 3, 6


@pytest.mark.parametrize(
    ("option", "sink"),
    [
        ("add_zero_attn", OffByOneSink()),
        ("add_zero_attn", LearnedSink([0.0] * HEADS)),
        ("add_bias_kv", KeyValueSink()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_equals_torch(option: str, sink: Sink) -> None:
    golden = {
        name: np.array(values, bool if name == "key_mask" else "float32")
        for name, values in GOLDEN[option].items()
    }
    layer = FullAttention(HEADS, NoEncoding(), sink)
    layer.build((None, None, WIDTH))
    kernels = np.split(golden["in_proj_weight"], 3)
    for name, kernel in zip(
        ("query", "key", "value", "output"),
        (*kernels, golden["out_proj.weight"]),
        strict=True,
    ):
        getattr(layer, f"{name}_projection").kernel.assign(kernel.T)
    if option == "add_bias_kv":
        sink.key.assign(golden["bias_k"][0, 0])
        sink.value.assign(golden["bias_v"][0, 0])
    mask = golden["key_mask"]
    history = places_of_history(mask.astype("int64"))
    plan = layer.plan(history, golden["rows"], for_history=False)
    keys, values = layer.encode(golden["rows"], None, plan)
    request = places_of_request(np.full(len(mask), 2, "int64"))
    outputs = layer(golden["query"], keys, values, (), mask, request)
    np.testing.assert_allclose(outputs, golden["output"], rtol=1e-5, atol=1e-6)
    # Of the second request no key is valid.
    assert np.any(outputs[1] != 0) == (option == "add_bias_kv")

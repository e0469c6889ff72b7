"""The paper's equations as float64 NumPy loops, obvious rather than fast.

Written from the paper and from the project's specification, never from the
Keras code, so that the two can disagree.
"""

from tests.reference.attention import (
    evo_attention,
    full_attention,
    gate,
    global_attention,
    local_attention,
    mlp,
    transition_attention,
)
from tests.reference.sparse_ctr import (
    binary_cross_entropy,
    forward,
    prediction_layer,
    rms_norm,
    sparse_block,
    swiglu,
)
from tests.reference.times import (
    chunk_time,
    initial_slopes,
    is_weekend,
    temporal_bias,
    time_chunks,
    zone_of,
)

__all__ = [
    "binary_cross_entropy",
    "chunk_time",
    "evo_attention",
    "forward",
    "full_attention",
    "gate",
    "global_attention",
    "initial_slopes",
    "is_weekend",
    "local_attention",
    "mlp",
    "prediction_layer",
    "rms_norm",
    "sparse_block",
    "swiglu",
    "temporal_bias",
    "time_chunks",
    "transition_attention",
    "zone_of",
]

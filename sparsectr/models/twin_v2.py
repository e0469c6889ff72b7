"""TWIN-V2 (Si et al., CIKM 2024).

Axes: B batch, L history length, C candidates, k retrieved, d width, H heads,
n_c behaviors of a cluster.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from sparsectr.models.ranking_model import Auxiliary, Inputs, UserState
from sparsectr.models.twin import TWIN
from sparsectr.ops.clusters import Clusters, cluster_means, make_clusters
from sparsectr.ops.local_time import local_time
from sparsectr.ops.tensor import Tensor
from sparsectr.ops.trace import Trace
from sparsectr.schema import NUM_RESERVED_IDS, OUT_OF_VOCABULARY_ID
from sparsectr.time_zone import SECONDS_PER_DAY

if TYPE_CHECKING:
    from configs.models.twin_v2 import TWINV2Recipe


@keras.saving.register_keras_serializable(package="sparsectr")
class TWINV2(TWIN):
    """TWIN, whose behaviors are clusters that count for all they hold.

        e_c = mean of e_i, i in c;   t_c = mean of t_i
        alpha'_ch = alpha_ch + ln n_c
        long = [softmax over the k best of head h](alpha'_ch) [e_c, gap_c] W_v

    Arguments, call arguments and returns are those of `RankingModel`. By
    ln n_c a cluster of n equal behaviors weighs what the n would.

    Clusters are made in `encode_user`, of what was known when the day of the
    request began, by the data set's time zone: of earlier behaviors those of
    one category and one action, `max_cluster_size` at a time. The day's own
    behaviors stay single, as do those whose category is unknown.

    The state is the embedded history and its clusters with their keys,
    `[L, d]` each, biases `[L, H]`, times and sizes. It holds for the day of
    the request, and is declared bound to the request's time: on the next day
    the same history has other clusters.

    Cost:
        That of TWIN, and a sort of L numbers and sums of L rows in
        `encode_user`. There are as many slots as behaviors: fewer clusters
        make nothing cheaper here, but the k best of them hold more of a
        history.

    Differs from the paper:
        Clusters are not those of recursive k-means on frozen embeddings,
        computed offline in five groups by how much of a video was watched:
        that would be too dear for every prefix of a history, and would tell
        of behaviors after the request. Ids are averaged as rows, where it has
        those of the member that is nearest to the centroid. One hidden layer
        in the head, unless the preset says more.
    """

    recipe: "TWINV2Recipe"

    def encode_search(
        self,
        inputs: Inputs,
        features: Tensor,
        behaviors: Tensor,
        training: bool,
    ) -> UserState:
        """Returns the clusters, with their keys and biases."""
        clusters = self._clusters(inputs)
        state = super().encode_search(inputs, features, behaviors, training)
        state["clusters"] = behaviors
        # One sum for all: keys and biases of means are means of those.
        widths = [rows.shape[-1] for rows in state.values()]
        means = cluster_means(
            ops.concatenate(list(state.values()), axis=-1), clusters
        )
        found, start = {}, 0
        for name, width in zip(state, widths, strict=True):
            found[name] = means[..., start : start + width]
            start += width
        time = ops.expand_dims(inputs["behavior_time"], -1)
        found["cluster_time"] = cluster_means(time, clusters)[..., 0]
        return {**found, "cluster_size": clusters.size}

    def _clusters(self, inputs: Inputs) -> Clusters:
        """Returns who belongs together."""
        time = ops.convert_to_tensor(inputs["behavior_time"])
        zone = self.schema.time_zone
        today = local_time(inputs["request_time"], zone) // SECONDS_PER_DAY
        day = local_time(time, zone) // SECONDS_PER_DAY  # [B, L]
        is_single = day >= ops.expand_dims(today, 1)
        group = ops.zeros_like(time)
        for field in self.recipe.group_fields(self.schema):
            size = self.schema.table(field.table).size or 0
            ids = inputs[f"behavior_{field.name}"]
            outside = ops.logical_or(ids < 0, ids >= size)
            ids = ops.where(outside, OUT_OF_VOCABULARY_ID, ids)
            # A number of its own for each combination, if 2**62 are enough.
            group = (group * size + ops.cast(ids, "int64")) % (1 << 62)
            category = ids
        is_single = ops.logical_or(is_single, category < NUM_RESERVED_IDS)
        return make_clusters(
            group, is_single, time > 0, self.recipe.max_cluster_size
        )

    def long_interest(
        self,
        state: UserState,
        inputs: Inputs,
        candidates: Tensor,
        behaviors: Tensor,
        training: bool,
        trace: Trace | None,
    ) -> tuple[Tensor, dict[str, Auxiliary]]:
        """Returns what the k best clusters of each head say."""
        size = state["cluster_size"]
        if trace is not None:
            trace.record("cluster_size", size)
        count = ops.cast(ops.maximum(size, 1), "float32")
        interest = self.read_found(
            {**state, "time": state["cluster_time"]},
            inputs,
            candidates,
            state["clusters"],
            training,
            trace,
            log_count=ops.log(count),
        )
        return interest, {}

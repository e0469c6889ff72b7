"""DIN, TWIN and HSTU from PyTorch's own layers, as public code builds them.

Sizes, inputs and heads are those of this package's models with their default
recipes, so that a training step of either does the same work. Axes: B batch, L
history length, C candidates, d width, H heads.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sparsectr.schema import DatasetSchema

WIDTH, EMBEDDING_DIM, NUM_HEADS, HEAD_UNITS = 32, 32, 8, 32
NUM_RECENT = NUM_RETRIEVED = 50
NUM_TIME_BUCKETS = 128

Batch = Mapping[str, Any]


class Inputs(nn.Module):
    """Ids and numbers of a request to rows of width d."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        self.schema = schema
        self.tables = nn.ModuleDict(
            {
                table.name: nn.Embedding(
                    table.size or 0, EMBEDDING_DIM, sparse=True
                )
                for table in schema.tables
            }
        )
        self.behavior = nn.Linear(
            EMBEDDING_DIM * len(schema.behavior_fields), WIDTH
        )
        self.candidate = nn.Linear(
            EMBEDDING_DIM * len(schema.candidate_fields)
            + len(schema.candidate_dense_fields),
            WIDTH,
        )
        self.user_width = EMBEDDING_DIM * len(schema.user_fields)

    def forward(self, batch: Batch) -> tuple[Any, Any, Any]:
        """Returns behaviors `[B, L, d]`, candidates `[B, C, d]`, the user."""
        behaviors = self.behavior(self._ids(batch, "behavior"))
        numbers = [
            torch.log1p(batch[f"candidate_{n.name}"])[..., None]
            for n in self.schema.candidate_dense_fields
        ]
        ids = self._ids(batch, "candidate")
        candidates = self.candidate(torch.cat([ids, *numbers], -1))
        return behaviors, candidates, self._ids(batch, "user")

    def _ids(self, batch: Batch, prefix: Any) -> Any:
        return torch.cat(
            [
                self.tables[field.table](batch[f"{prefix}_{field.name}"])
                for field in self.schema.ids(prefix)
            ],
            -1,
        )


class Head(nn.Module):
    """The fair head, `[32, 1]`, on rows of candidates and the user."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, HEAD_UNITS), nn.ReLU(), nn.Linear(HEAD_UNITS, 1)
        )

    def forward(self, rows: list[Any], user: Any) -> Any:
        """Returns logits `[B, C]`."""
        count = rows[0].shape[1]
        users = user[:, None].expand(-1, count, -1)
        return self.layers(torch.cat([*rows, users], -1))[..., 0]


class DIN(nn.Module):
    """Zhou et al. 2018, with the tensor of all pairs that it is known for."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        self.inputs = Inputs(schema)
        self.unit = nn.Sequential(
            nn.Linear(4 * WIDTH, 80),
            nn.Sigmoid(),
            nn.Linear(80, 40),
            nn.Sigmoid(),
            nn.Linear(40, 1),
        )
        self.head = Head(2 * WIDTH + self.inputs.user_width)

    def forward(self, batch: Batch) -> Any:
        """Returns logits `[B, C]`."""
        behaviors, candidates, user = self.inputs(batch)
        shape = (-1, candidates.shape[1], behaviors.shape[1], -1)
        query = candidates[:, :, None].expand(*shape)
        key = behaviors[:, None].expand(*shape)
        pairs = torch.cat([query, key, query - key, query * key], -1)
        weights = self.unit(pairs)[..., 0]  # [B, C, L]
        weights = weights * (batch["behavior_time"] > 0)[:, None]
        return self.head([weights @ behaviors, candidates], user)


class TargetAttention(nn.Module):
    """Multi-head attention of candidates to some behaviors."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            WIDTH, NUM_HEADS, bias=False, batch_first=True
        )

    def forward(self, query: Any, keys: Any, mask: Any) -> Any:
        """Returns `[B, Q, d]`; `mask` is True for what is not read."""
        return self.attention(
            query, keys, keys, key_padding_mask=mask, need_weights=False
        )[0]


class TWIN(nn.Module):
    """Chang et al. 2023: the k best behaviors of each candidate."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        self.inputs = Inputs(schema)
        self.short, self.long = TargetAttention(), TargetAttention()
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = Head(3 * WIDTH + self.inputs.user_width)

    def forward(self, batch: Batch) -> Any:
        """Returns logits `[B, C]`."""
        behaviors, candidates, user = self.inputs(batch)
        padding = batch["behavior_time"] == 0
        newest = behaviors[:, -NUM_RECENT:]
        short = self.short(candidates, newest, padding[:, -NUM_RECENT:])
        scores = self.query(candidates) @ self.key(behaviors).transpose(1, 2)
        scores = scores.masked_fill(padding[:, None], float("-inf"))
        count = min(NUM_RETRIEVED, behaviors.shape[1])
        best = scores.topk(count, -1).indices  # [B, C, k]
        rows = torch.arange(len(behaviors))[:, None, None]
        found, unread = behaviors[rows, best], padding[rows, best]
        size = candidates.shape[:2]
        long = self.long(
            candidates.flatten(0, 1)[:, None],
            found.flatten(0, 1),
            unread.flatten(0, 1),
        )
        return self.head(
            [short, long.unflatten(0, size)[:, :, 0], candidates], user
        )


class HSTU(nn.Module):
    """Zhai et al. 2024, two layers, all pairs of rows."""

    def __init__(self, schema: DatasetSchema, num_layers: int = 2) -> None:
        super().__init__()
        self.inputs = Inputs(schema)
        self.layers = nn.ModuleList(HSTULayer() for _ in range(num_layers))
        self.head = Head(WIDTH + self.inputs.user_width)

    def forward(self, batch: Batch) -> Any:
        """Returns logits `[B, C]`."""
        behaviors, candidates, user = self.inputs(batch)
        length, count = behaviors.shape[1], candidates.shape[1]
        times = batch["behavior_time"]
        asked = batch["request_time"][:, None].expand(-1, count)
        time = torch.cat([times, asked], 1)
        gap = (time[:, :, None] - time[:, None]).abs().clamp(min=1).float()
        bucket = (gap.log() / 0.301).long().clamp(max=NUM_TIME_BUCKETS)
        place = torch.arange(length + count).clamp(max=length)
        is_behavior = torch.arange(length + count) < length
        allowed = (place[:, None] >= place) & is_behavior
        allowed |= torch.eye(length + count, dtype=torch.bool)
        valid = torch.cat([times > 0, asked > 0], 1)
        allowed = allowed & valid[:, None]
        distance = (place[:, None] - place).clamp(min=0)
        x = torch.cat([behaviors, candidates], 1)
        for layer in self.layers:
            x = layer(x, bucket, distance, allowed)
        return self.head([x[:, length:]], user)


class HSTULayer(nn.Module):
    """Pointwise attention with gates, and no softmax."""

    def __init__(self, longest: int = 2048, normalizer: float = 1024.0) -> None:
        super().__init__()
        self.norm, self.out_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.of_time = nn.Parameter(0.02 * torch.randn(NUM_TIME_BUCKETS + 1))
        self.of_place = nn.Parameter(0.02 * torch.randn(longest))
        self.normalizer = normalizer

    def forward(self, x: Any, bucket: Any, distance: Any, allowed: Any) -> Any:
        """Returns `[B, N, d]`."""
        rows = nn.functional.silu(self.project(self.norm(x)))
        gate, *others = rows.chunk(4, -1)
        value, query, key = (
            part.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2)
            for part in others
        )
        bias = self.of_time[bucket] + self.of_place[distance]  # [B, N, N]
        scores = query @ key.transpose(2, 3) + bias[:, None]
        weights = nn.functional.silu(scores) / self.normalizer
        weights = weights * allowed[:, None]
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return x + self.out(gate * self.out_norm(mixed))


MODELS: dict[str, Any] = {"din": DIN, "twin": TWIN, "hstu": HSTU}


class Step:
    """One training step on a batch: sparse updates of tables, Adam.

    Args:
        name: Of `MODELS`.
        schema: The fields.
        batch: As the reader makes it.
        rate: Learning rate.
    """

    def __init__(
        self, name: str, schema: DatasetSchema, batch: Batch, rate: float
    ) -> None:
        self._model = MODELS[name](schema)
        tables = list(self._model.inputs.tables.parameters())
        of_tables = {id(table) for table in tables}
        rest = [p for p in self._model.parameters() if id(p) not in of_tables]
        self._optimizers = [
            torch.optim.SparseAdam(tables, rate),
            torch.optim.Adam(rest, rate),
        ]
        self._batch = {k: torch.as_tensor(v) for k, v in batch.items()}

    def __call__(self) -> float:
        """Returns the loss."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            self._model(self._batch), self._batch["label"]
        )
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        return float(loss)

"""A subgraph as one exported graph: packed tokens in, user embeddings out, wherever PyTorch runs and without userfm.

`exported` gives what torch.export makes of it: a graph of PyTorch's own operators, its weights and item contents
inside. Saved with torch.export.save, it is loaded with torch.export.load in a process that has torch alone, or compiled
ahead of time (AOTInductor). Whoever feeds it needs the tokenizer or its tokens: `exported_inputs` says what goes in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as sizes

from foundation.attention.blocked import QUERIES
from foundation.config import Backend
from foundation.errors import ModelError
from foundation.jagged import EventBatch, last_times, requests_at, times_asked
from foundation.model import FoundationModel
from foundation.subgraph import Subgraph

BACKENDS = (Backend.BLOCKED, Backend.REFERENCE)  # made of PyTorch's own operators
TRAINING = ("begin_T", "opening_T")  # of an EventBatch, read by lessons only


def exported(subgraph: Subgraph, batch: EventBatch, backend: Backend = Backend.BLOCKED) -> ExportedProgram:
    """The graph of `subgraph(batch, at_B)`, for any number of users and tokens, none included.

    It takes what `exported_inputs` makes of a batch and gives float32 [B, space.width]. batch: any batch of the
    subgraph with two users or more, of which the graph keeps nothing. A moment before a user's last event stops it with
    an assertion. backend: blocked or reference, whichever the model computes with. Raises ModelError for another
    backend or a smaller batch.
    """
    if backend not in BACKENDS:
        raise ModelError(
            f"the {backend} backend can't be part of a graph that runs on torch alone: export with backend "
            "'blocked' or 'reference', which give the same vectors"
        )
    if min(batch.users, batch.tokens) < 2:
        raise ModelError("an export is made from an example of two users and two events or more: give a larger batch")
    told = exported_inputs(batch)
    shapes = {name: {0: Dim.AUTO} for name in told}
    # Otherwise the graph would refuse one user alone.
    with sizes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(_Encoder(subgraph.model, backend).eval(), (told,), dynamic_shapes=(shapes,))
    # The example is somebody's events, and would be saved with the graph.
    program.example_inputs = (({name: torch.zeros_like(value) for name, value in told.items()},), {})
    return program


def exported_inputs(batch: EventBatch, at_B: Tensor | None = None) -> dict[str, Tensor]:
    """What an exported graph takes: the tensors of a batch by name, and at_B, float64 epoch seconds [B] at which to
    encode; None: each user's last event."""
    told = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name not in TRAINING}
    return {**told, "at_B": batch.start_B + last_times(batch) if at_B is None else at_B}


class _Encoder(nn.Module):
    """`Subgraph.forward` of plain tensors."""

    def __init__(self, model: FoundationModel, backend: Backend) -> None:
        super().__init__()
        self.model = _encoding(model, backend)

    def forward(self, told: Mapping[str, Tensor]) -> Tensor:
        """float32 [B, space.width]; told: as `exported_inputs` makes it."""
        tensors = dict(told)
        at_B = F.pad(tensors.pop("at_B"), (0, 1))
        batch = _with_a_stranger(EventBatch(**tensors, **dict.fromkeys(TRAINING, told["time_T"])))
        time_B = times_asked(batch, at_B)
        torch._assert_async(
            (time_B >= last_times(batch)).all(),
            "a row asks for a moment before the user's last event: pass only events before the request",
        )
        context_BC = time_B.new_zeros(batch.users, len(self.model.config.context), dtype=torch.int64)
        user_BD = self.model.user_vectors(self.model(batch, requests_at(batch, time_B, context_BC)))
        return user_BD[:-1].float()


def _with_a_stranger(batch: EventBatch) -> EventBatch:
    """The same with a user more, of as many empty events as make two blocks of attention: what may be none or one, of
    users, events or blocks, would be another graph. Each is a group of its own, or every block of memory would be
    padded to the size of all of them."""
    longer = {"B": 1, "T": QUERIES + 1}
    padded = {}
    for field in fields(batch):
        value, shape = getattr(batch, field.name), field.name.rpartition("_")[2]
        if shape != "B1":
            padded[field.name] = F.pad(value, (0, 0) * (value.ndim - 1) + (0, longer[shape[0]]))
    group_T = torch.arange(longer["T"], device=batch.group_T.device)
    padded["group_T"] = torch.cat([batch.group_T, group_T])
    return EventBatch(**padded, offset_B1=torch.cat([batch.offset_B1, batch.offset_B1[-1:] + longer["T"]]))


def _encoding(model: FoundationModel, backend: Backend) -> FoundationModel:
    """The same model, its attention computed by this backend, without what candidates alone read: no user vector
    knows of it."""
    copied = copy.deepcopy(model)
    copied.config = copied.trunk.config = replace(model.config, backend=backend)
    copied.target_attention = None
    return copied

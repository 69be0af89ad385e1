"""What a lesson hides, so that the model learns to do without it: context, attributes of users, whole histories, items'
own rows.

As dropout of inputs does for whole modalities (Neverova et al., ModDrop, arXiv:1501.00102; Volkovs et al., DropoutNet,
NeurIPS 2017, for users and items that are new). A row is hidden for all of a lesson, from whoever reads it: an item
that nobody met is new in the history of whoever takes it first as well as among the candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from foundation.config import ItemGate, ModelConfig
from foundation.item_age import NOTHING_HIDDEN, Hidden, bin_ages
from foundation.jagged import EventBatch, Requests, group_offsets
from tokenization.arrays import Floats
from tokenization.schema.rules import ClockFacet
from training.errors import TrainingError
from training.item_ages import cold_rate

# What the clock says of a user's earlier events, which somebody new has not.
SINCE = (ClockFacet.GAP.value, ClockFacet.TENURE.value)


DAY = 86_400.0
MEASURED = -1.0  # the share of what is asked for that nobody had met before, as the log has it


@dataclass(frozen=True)
class IdDropout:
    """Of which items a lesson hides the rows.

    share: of all items; -1 for as many as the log's own cold rate (`cold_rate`). young: share of the items that were
    just met which are hidden besides, half as many of those that were met for `young_seconds`, and so on; that needs a
    model with `item_gate`. shuffled: share of the items that read another's row as candidates, so that no row can be
    learned by heart.
    """

    share: float = 0.0
    young: float = 0.0
    young_seconds: float = 14 * DAY
    shuffled: float = 0.0

    def __post_init__(self) -> None:
        for name in ("share", "young", "shuffled"):
            value = getattr(self, name)
            if not 0 <= value <= 1 and not (name == "share" and value == MEASURED):
                raise TrainingError(f"id_dropout: {name!r} is a share, from 0 to 1, got {value}")
        if not 0 < self.young_seconds < math.inf:
            raise TrainingError(f"id_dropout: 'young_seconds' must be above 0, got {self.young_seconds}")

    def check(self, config: ModelConfig) -> None:
        """Raises TrainingError where the model can't tell who is young."""
        if self.young and config.item_gate is ItemGate.OFF:
            raise TrainingError(
                "`id_dropout.young` asks how old items are, which this model does not read: set `item_gate=age`"
            )

    def resolved(self, events: EventBatch, end: float, item_column: int) -> IdDropout:
        """The same with a share as this log has it, where that is asked for. end: epoch seconds of the last event."""
        return replace(self, share=cold_rate(events, end, item_column)) if self.share == MEASURED else self


def hidden_rows(dropout: IdDropout, config: ModelConfig, count_V: Floats, draw: np.random.Generator) -> Hidden:
    """Whose rows one lesson hides; the same on all ranks that draw alike. count_V: meetings of each item."""
    hidden, codes = NOTHING_HIDDEN, len(count_V)
    if dropout.share or dropout.young:
        ages = bin_ages(config.repeat.time_unit) if config.item_gate is ItemGate.AGE else (math.inf,)
        share_A = [dropout.share + dropout.young * 2.0 ** -(max(age, 0.0) / dropout.young_seconds) for age in ages]
        draw_V = torch.from_numpy(draw.random(codes)).float()
        hidden = replace(hidden, draw_V=draw_V, share_A=torch.tensor(share_A))
    if dropout.shuffled:
        others_V = draw.choice(np.flatnonzero(count_V > 0), codes)
        row_V = np.where(draw.random(codes) < dropout.shuffled, others_V, np.arange(codes))
        hidden = replace(hidden, row_V=torch.from_numpy(row_V))
    return hidden


def some_told(code_NC: Tensor, share: float, draw: np.random.Generator) -> Tensor:
    """int64 [N, C] codes of which a share of the rows tells nothing; of the rest, each code is hidden with half that
    probability."""
    keep_N1 = draw.random((len(code_NC), 1)) >= share
    keep_NC = draw.random(tuple(code_NC.shape)) >= share / 2
    return torch.where(torch.from_numpy(keep_N1 & keep_NC), code_NC, 0)


def some_rows(row_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the rows, at least one of those that there are, the same in every epoch."""
    if share == 1:
        return row_N
    kept = max(round(share * len(row_N)), 1)
    return np.asarray(np.sort(np.random.default_rng([seed, kept]).permutation(row_N)[:kept]))


def some_later(events: EventBatch, row_N: Tensor, share: float, draw: np.random.Generator) -> Tensor:
    """int64 [N]: tokens at the beginning of each row that a lesson leaves out, of a share of the rows any number that
    leaves something before the row's last group; of the others none.

    So lessons hold many short histories at any time of the year, cut in the middle of a group too: users of a few
    events, who would otherwise be seen only where the log begins.
    """
    if not share:
        return torch.zeros_like(row_N)
    border_G1 = group_offsets(events)
    begin_N, end_N = events.offset_B1[row_N], events.offset_B1[row_N + 1]
    last_N = border_G1[torch.searchsorted(border_G1, end_N) - 1]  # where each row's last group begins
    part_N = torch.from_numpy(draw.random(len(row_N)) * (draw.random(len(row_N)) < share))
    return (part_N * (last_N - begin_N)).long()


def some_new(
    requests: Requests, batch: EventBatch, config: ModelConfig, share: float, draw: np.random.Generator
) -> Requests:
    """The same requests, a share of them as if their user were new: without any event before them, and without what
    the clock says of such. Context and attributes stay."""
    new_R = torch.from_numpy(draw.random(len(requests)) < share)
    since_C = torch.tensor([facet.name in SINCE for facet in config.context], dtype=torch.bool)
    return replace(
        requests,
        end_R=torch.where(new_R, batch.offset_B1[:-1][requests.user_R], requests.end_R),
        time_R=torch.where(new_R, 0.0, requests.time_R),
        context_RC=torch.where(new_R[:, None] & since_C, 0, requests.context_RC),
    )

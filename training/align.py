"""A run's vectors in the directions of an earlier space: the map is fitted on what both models know, and judged on what
it was not fitted on.

Both models read the same histories, as far as the run has learned them, so that what differs between two vectors of a
user is the models alone. Items count by how often they were met: of what was hardly ever met two trainings know nothing
that they could agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from foundation import pretrained
from foundation.alignment import Alignment, Shared, cosines, fit_blocks, scale, together
from foundation.bands import widths_between
from foundation.card import aligned_card
from foundation.folder import Identity, identify
from foundation.repeat import FIRST_ITEM
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.ids import canonical
from tokenization.corpus.corpus import Corpus
from training.errors import RunError
from training.metrics import Interval, bootstrap
from training.push import USERS
from training.reading import tokens_for
from training.run import Run
from training.training_set import Until, select_users, trainable_events

MOST_USERS = 20_000  # more would not move a map of some ten thousand numbers
HELD_OUT = 0.2  # of the entities of each kind, to judge by
LEAST = 2  # times as many entities to fit on as the widest band has dimensions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Judged:
    """One kind of entity, users or items: mean cosine of held-out ones with themselves in the other space, before and
    after the map, with intervals over entities, an item counting by how often it was met; how much longer the other
    space's vectors are, which no rotation changes."""

    fitted: int
    held_out: int
    before: Interval
    after: Interval
    scale: float


@dataclass(frozen=True)
class Fit:
    """A map, and what it does. dots: most that a product of a user and an item changes by it, in units of the lengths
    of the two."""

    alignment: Alignment
    users: Judged
    items: Judged
    dots: float


@dataclass(frozen=True)
class Known:
    """The same users and items as two models see them, the one to be mapped first."""

    users: Shared
    items: Shared


def align(
    run: Run, to: Path, bands: Sequence[int] = (), progress: Progress = lambda stage, done, total: None
) -> tuple[Fit, Space]:
    """Fit the map of a run's model into the directions of another, and keep it in the run's model directory.

    to: a model directory. bands: first dimensions that are to stay usable alone, those that the model learned
    where left out. An earlier map of the run is replaced; weights and heads stay as they are.

    Returns the fit, and the space in which the run's vectors leave from now on. Raises RunError where the two can't be
    aligned, ModelError where a directory is none.
    """
    mine, other = Subgraph.from_pretrained(run.model), Subgraph.from_pretrained(to)
    check_lineage(mine.space, other)
    widths = widths_between(bands or mine.model.config.bands, mine.model.config.width)
    fit = fitted(known(mine, other, Corpus.open(run.corpus), run.until, progress), other.aligned_space, widths)
    held = pretrained.load(run.model)
    card = aligned_card(held.card, told(fit))
    return fit, identify(run.model, Identity(held.space, card, fit.alignment))


def check_lineage(mine: Space, other: Subgraph) -> None:
    """Raises RunError where the other's space is none that this one could succeed."""
    theirs = other.aligned_space
    if theirs.name != mine.name:
        raise RunError(f"{mine.name} can't be aligned to {theirs.name}: take an earlier model of the same log's name")
    if theirs.width != mine.width:
        raise RunError(
            f"vectors of the run are {mine.width} wide, those of {theirs.origin} {theirs.width}: a rotation changes no "
            "width; train with the same `--set width`"
        )
    if other.space.fingerprint == mine.fingerprint:
        raise RunError(f"{theirs.origin} is of the same weights as the run: align it to the model that was before")
    grown = {entry.rpartition("@")[2] for entry in theirs.lineage}
    if mine.fingerprint[:12] in grown or mine.fingerprint in theirs.frames:
        raise RunError(f"{theirs.origin} came after {mine.origin}: align the later one to the earlier one")


def known(mine: Subgraph, other: Subgraph, corpus: Corpus, until: Until, progress: Progress) -> Known:
    """What both models make of the corpus's users and of the items that both have, in the other's aligned space."""
    rows = np.linspace(0, corpus.tokens().num_rows - 1, min(MOST_USERS, corpus.tokens().num_rows)).astype(np.int64)
    progress("users", 0, 2)
    source_BD, has_B = _users(mine, corpus, until, rows)
    progress("users", 1, 2)
    target_BD, _ = _users(other, corpus, until, rows)
    progress("users", 2, 2)
    users = Shared(source_BD[has_B], other.aligned(target_BD)[has_B], torch.ones(int(has_B.sum())))
    return Known(users, _items(mine, other))


def fitted(known: Known, target: Space, widths: Sequence[int] = (), held_out: float = HELD_OUT) -> Fit:
    """The map that brings most of the known entities together, judged on those that it was not fitted on.

    Raises RunError where there are too few, ModelError for widths that are none.
    """
    width = target.width - 1
    widths = tuple(widths) or (width,)
    kinds = [(chosen(kind, ~judge_N), chosen(kind, judge_N)) for kind, judge_N in _with_held_out(known, held_out)]
    weighty = sum(int((learn.weight_N > 0).sum()) for learn, _ in kinds)
    if weighty < LEAST * max(widths):
        raise RunError(
            f"{weighty} users and items that both models know are too few for a map of {max(widths)} dimensions: align "
            "on a corpus with more, or in narrower blocks"
        )
    turns = fit_blocks(together([learn for learn, _ in kinds]), widths)
    frames = (*target.frames, target.fingerprint)
    alignment = Alignment(turns, target.origin, frames)
    users, items = (_judged(alignment, learn, judge, sum(widths)) for learn, judge in kinds)
    return Fit(alignment, users, items, dots_moved(alignment, known.users.source_ND, known.items.source_ND))


def dots_moved(alignment: Alignment, user_BD: Tensor, item_ND: Tensor, most: int = 512) -> float:
    """Most that a product of a user and an item changes by the map, by the lengths of the two; of some of them."""
    user_BD, item_ND = user_BD[:most], item_ND[:most]
    before_BN = user_BD @ item_ND.T
    after_BN = alignment(user_BD) @ alignment(item_ND).T
    lengths_BN = user_BD.norm(dim=1)[:, None] * item_ND.norm(dim=1)[None]
    return float(((after_BN - before_BN).abs() / lengths_BN.clamp(min=1e-12)).max())


def told(fit: Fit) -> list[str]:
    """The fit in words, as lines of a list."""
    lines = [f"Vectors leave in the directions of {fit.alignment.aligned_to}, by a rotation that is part of the space."]
    for name, judged in (("users", fit.users), ("items", fit.items)):
        lines.append(
            f"{name}: cosine with themselves there {judged.after.mean:.3f} ({judged.after.low:.3f} to "
            f"{judged.after.high:.3f}), without the map {judged.before.mean:.3f}, of {judged.held_out:,} that it was "
            f"not fitted on; {judged.fitted:,} that it was; lengths there are {judged.scale:.2f} times as great"
        )
    return [*lines, f"products of users and items change by at most {fit.dots:.0e} of their lengths"]


def _users(subgraph: Subgraph, corpus: Corpus, until: Until, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """float32 [B, D] of these users, unaligned, and whether each has an event; read until the run's end of learning."""
    tokens = tokens_for(subgraph.tokenizer, corpus).take(pa.array(rows))
    _, batch = subgraph.pack(tokens)
    batch = trainable_events(batch, corpus.split, until)
    parts = []
    with torch.inference_mode():
        for start in range(0, batch.users, USERS):
            chosen_N = torch.arange(start, min(start + USERS, batch.users))
            parts.append(subgraph(select_users(batch, chosen_N)))
    return torch.cat(parts), batch.offset_B1.diff() > 0


def _items(mine: Subgraph, other: Subgraph) -> Shared:
    """Items that have an id in both, each counting by how often it was met before the run's split."""
    mine_ids, other_ids = (_item_ids(subgraph) for subgraph in (mine, other))
    if mine_ids.type != other_ids.type:
        raise RunError(f"items are {mine_ids.type} here and {other_ids.type} there: align models of the same log")
    there_N = pc.index_in(mine_ids, value_set=other_ids)
    here_N = np.flatnonzero(there_N.is_valid())
    code_N = torch.from_numpy(here_N) + FIRST_ITEM
    other_N = torch.from_numpy(there_N.drop_null().to_numpy().astype(np.int64)) + FIRST_ITEM
    met_N = torch.from_numpy(mine.tokenizer.items.count[code_N.numpy()]).float()
    with torch.inference_mode():
        return Shared(mine.model.item_vectors(code_N), other.aligned(other.model.item_vectors(other_N)), met_N)


def _item_ids(subgraph: Subgraph) -> pa.Array:
    items = subgraph.tokenizer.items
    return canonical(items.ids.decode(np.arange(FIRST_ITEM, len(items), dtype=np.int32)))


def held_out_of(known: Known, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """bool [users], [items]: those that a map is judged by and not fitted on, always the same."""
    draw = np.random.default_rng(0)
    users, items = (torch.from_numpy(draw.random(len(kind.weight_N)) < share) for kind in (known.users, known.items))
    return users, items


def chosen(kind: Shared, chosen_N: Tensor) -> Shared:
    """Some of the entities."""
    return Shared(kind.source_ND[chosen_N], kind.target_ND[chosen_N], kind.weight_N[chosen_N])


def _with_held_out(known: Known, share: float) -> list[tuple[Shared, Tensor]]:
    return list(zip((known.users, known.items), held_out_of(known, share), strict=True))


def _judged(alignment: Alignment, learn: Shared, judge: Shared, width: int) -> Judged:
    before_N = cosines(judge.source_ND, judge.target_ND, width)
    after_N = cosines(alignment(judge.source_ND), judge.target_ND, width)
    before, after = (weighted_mean(cosine_N, judge.weight_N) for cosine_N in (before_N, after_N))
    lengths = scale(judge.source_ND, judge.target_ND, width)
    return Judged(int((learn.weight_N > 0).sum()), int((judge.weight_N > 0).sum()), before, after, lengths)


def weighted_mean(value_N: Tensor, weight_N: Tensor) -> Interval:
    """The mean with its 95 % bootstrap interval over the entities of any weight."""
    counted_N = weight_N > 0
    share_N = weight_N[counted_N].double() / weight_N[counted_N].double().mean().clamp(min=1e-12)
    return bootstrap((value_N[counted_N] * share_N).numpy()[:, None])[0]

"""What a run of a billion users takes: the arithmetic of docs/scale.md, printed by `python -m training.scale`.

Weights are counted on a model without memory (`torch.device("meta")`); what a step holds of them and beside them is
arithmetic, which the tests compare with what autograd holds of a small step. Nothing of it was run on a GPU.

Numbers are bytes and FLOPs of one rank, unless it is said otherwise. D width, V items, T tokens of a lesson, R its
requests, P their pairs with own items, M negatives of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from foundation.attention.blocked import FEWEST_QUERIES, QUERIES
from foundation.config import FacetConfig, ItemConfig, ModelConfig, RepeatConfig, Switch
from foundation.embedding import ItemContent
from foundation.lesson import DAY, Objectives
from foundation.model import FoundationModel
from foundation.objectives.blocks import ELSEWHERE
from foundation.repeat import feature_count, told_feature_count
from training.parallel import Precision, Scoring, Tables, Weights
from training.recipes import Recipe

FLOAT = 4  # bytes of float32, in which everything is held
MOMENTS = 3  # a weight and Adam's two moments of it
OUTSIDE_ATTENTION = 14  # numbers of width D that a layer holds of a token, without the keys and values that it gathers
IN_BFLOAT16 = 1.25  # of them, what bfloat16 does not halve: the two that stay in float32, and norms
OF_A_ROW = 8  # copies of a row in play: looked up, with content, as of the end, gathered for own items; gradients
OF_A_PAIR = 12  # numbers of the repeat path's width that each of its two paths holds of a pair


@dataclass(frozen=True)
class Scale:
    """A recipe on so many ranks."""

    recipe: Recipe
    ranks: int

    @cached_property
    def model(self) -> FoundationModel:
        """The model, without memory."""
        with torch.device("meta"):
            return FoundationModel(self.recipe.model, content_of_nothing(self.recipe.model.item))

    @property
    def requests(self) -> int:
        """R: of as many rows as fit a lesson."""
        sampling = self.recipe.sampling
        return sampling.tokens // (sampling.history or sampling.tokens) * sampling.requests

    @property
    def pairs(self) -> int:
        """P at most: were every event of a row before every request, and each of another item."""
        return self.requests * (self.recipe.sampling.history or self.recipe.sampling.tokens)

    @property
    def contests(self) -> int:
        """Softmaxes over items in a step."""
        told = self.recipe.objectives
        return sum(share > 0 for share in (told.next, told.embedding, told.future)) + self.recipe.model.horizons - 1

    @property
    def in_play(self) -> int:
        """Distinct items whose rows a rank looks at in a step, at most."""
        return min(self.recipe.sampling.tokens + self._own_negatives, self.recipe.model.item.codes)

    @property
    def _own_negatives(self) -> int:
        shared = self.recipe.parallelism.scoring is Scoring.OWNERS
        return self.recipe.sampling.negatives // (self.ranks if shared else 1)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Numbers of weights: the item tables, the trunk's layers, all others."""
        found = {"tables": 0, "layers": 0, "rest": 0}
        for name, weight in self.model.named_parameters():
            table = name.startswith(("tower.id.", "tower.bias."))
            found["tables" if table else "layers" if name.startswith("trunk.blocks.") else "rest"] += weight.numel()
        return found

    @property
    def dense(self) -> int:
        """Weights that are no rows of items."""
        return self.counts["layers"] + self.counts["rest"]

    def memory(self) -> dict[str, int]:
        """Bytes at the peak of a step, by what holds them."""
        model, plan = self.recipe.model, self.recipe.parallelism
        cut = plan.weights is Weights.SHARDED
        layer = self.counts["layers"] // model.layers
        rows = math.ceil(self.counts["tables"] / (self.ranks if plan.tables is Tables.ROWS else 1))
        # FSDP2 gathers one layer while another is at work, and the rest for the whole step; DDP has buckets.
        at_once = 2 * (2 * layer + self.counts["rest"]) if cut else self.dense * (plan.weights is Weights.DDP)
        return {
            "item rows, with Adam's two moments": rows * FLOAT * MOMENTS,
            "item rows in play, with gradients": self.in_play * model.width * FLOAT * OF_A_ROW,
            "dense weights, gradients, two moments": self.dense // (self.ranks if cut else 1) * FLOAT * (MOMENTS + 1),
            "dense weights and gradients gathered at once": at_once * FLOAT,
            "what is known of items": sum(one.numel() * one.element_size() for one in self.model.buffers()),
            "places of items in a step": model.item.codes * 9,
            "states of the trunk": self.trunk_bytes(),
            "requests with own items": self.pair_bytes(),
            "contests": self.contest_bytes(),
        }

    def layer_bytes(self) -> int:
        """What a layer of the trunk holds for its backward pass."""
        model = self.recipe.model
        numbers = OUTSIDE_ATTENTION + 2 * _keys(model) / _queries(model)
        if self.recipe.parallelism.precision is Precision.BFLOAT16:
            # Who sees whom stands in the type of the queries, once a layer.
            numbers = numbers / 2 + IN_BFLOAT16 + _keys(model) / model.width / 2
        return int(self._state_bytes * numbers)

    def trunk_bytes(self) -> int:
        """What the whole trunk holds: who sees whom once, and of layers that are made again their states and one."""
        model, seen = self.recipe.model, self.recipe.sampling.tokens * _keys(self.recipe.model) * FLOAT
        if self.recipe.parallelism.recompute is Switch.ON:
            return self._state_bytes * (model.layers + 1) + seen + self.layer_bytes()
        return self._state_bytes + seen + self.layer_bytes() * model.layers

    @property
    def _state_bytes(self) -> int:
        return self.recipe.sampling.tokens * self.recipe.model.width * FLOAT

    def pair_bytes(self) -> int:
        """What the repeat path holds of requests and their users' own items."""
        model = self.recipe.model
        if model.repeat_path is Switch.OFF:
            return 0
        features = feature_count(model.repeat) + told_feature_count(model.repeat, len(model.context))
        ages = 4 * len(model.repeat.half_lives) + 8  # of every meeting: weights, products with them, places
        return self.pairs * FLOAT * (3 * features + 2 * OF_A_PAIR * model.repeat.width + ages)

    def contest_bytes(self) -> int:
        """What contests hold: states and shares of categories, of all ranks where negatives have owners; one block of
        logits, and its gradient."""
        model, shared = self.recipe.model, self.recipe.parallelism.scoring is Scoring.OWNERS
        rows = self.requests * (self.ranks if shared else 1)
        states = 2 * self.contests * rows * model.width
        lifts = 4 * rows * sum(size for _, size in model.item.categories)
        shown = 6 * self.contests * self.pairs
        return FLOAT * (states + lifts + shown + 2 * min(rows * self._own_negatives, ELSEWHERE))

    def flops(self) -> dict[str, float]:
        """FLOPs of a step, by what takes them."""
        model, tokens = self.recipe.model, self.recipe.sampling.tokens
        # Forward once, backward twice as much, and forward again where it is recomputed.
        passes = 3 + (self.recipe.parallelism.recompute is Switch.ON)
        return {
            "products of layers": 2.0 * passes * tokens * self.counts["layers"],
            "attention": 4.0 * passes * tokens * _keys(model) * model.width * model.layers,
            "contests": 8.0 * self.contests * self.requests * self.recipe.sampling.negatives * model.width,
        }

    def wire(self) -> dict[str, int]:
        """Bytes that a rank sends in a step."""
        model, plan = self.recipe.model, self.recipe.parallelism
        others = (self.ranks - 1) / self.ranks
        # Gathered twice (forward, backward) and summed to the owners; or summed all around.
        dense = (3 if plan.weights is Weights.SHARDED else 2) * self.dense
        rows = 3 * self.in_play * (model.width + 1) if plan.tables is Tables.ROWS else 0
        lifts = sum(size for _, size in model.item.categories)
        states = 2 * self.requests * (self.contests * model.width + lifts) * self.ranks
        return {
            "dense weights and gradients": int(dense * others * FLOAT),
            "item rows and gradients": int(rows * others * FLOAT),
            "states to the owners of negatives": int(states * others * FLOAT) * (plan.scoring is Scoring.OWNERS),
        }


def imagined(items: int) -> Recipe:
    """A shop nobody has: eight facets, two kinds of categories, semantic IDs, and no text vector of an item."""
    facets = [("item", items, "entity"), ("action", 10, "action"), ("surface", 18, "context"), ("hour", 26, "context")]
    facets += [("weekday", 9, "context"), ("price", 66, "outcome"), ("duration", 66, "outcome"), ("gap", 34, "outcome")]
    model = ModelConfig(
        facets=tuple(FacetConfig(name, size, role) for name, size, role in facets),
        item=ItemConfig("item", items, (("department", 42), ("category", 4_002)), 0, semantic_ids=(1_026,) * 4),
        repeat=RepeatConfig((*(2.0**power * DAY for power in range(1, 9)), math.inf), DAY),
        targets=(("action", 0.1),),
    )
    return Recipe(model, objectives=Objectives(future=0.3))


def content_of_nothing(item: ItemConfig) -> ItemContent:
    """A vocabulary of which nothing is known, on whatever device is the default."""
    return ItemContent(
        category_VC=torch.zeros(item.codes, len(item.categories), dtype=torch.int64),
        text_UX=torch.zeros(1, item.text_width),
        text_row_V=torch.zeros(item.codes, dtype=torch.int64),
        recent_V=torch.zeros(item.codes),
        media_VM=torch.zeros(item.codes, item.media_width),
        semantic_VL=torch.zeros(item.codes, len(item.semantic_ids), dtype=torch.int64),
    )


def _queries(model: ModelConfig) -> int:
    window = max(model.windows)
    return min(max(window, FEWEST_QUERIES), QUERIES)


def _keys(model: ModelConfig) -> int:
    """Keys that a block of queries reads, as `attention.blocked` lays them out: sinks, and whole eights of others."""
    return math.ceil((_queries(model) + max(model.windows) - 1) / 8) * 8 + model.attention.sinks

"""The arithmetic of a run that nobody here can make, beside what small steps really hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foundation.config import Switch
from foundation.jagged import Stream
from foundation.transformer import Trunk
from tokenization.corpus.corpus import Corpus
from training import billion
from training.beginning import initial_model
from training.billion import GPU_BYTES, HUGE, LARGE, SCALES, TABLES, WORLD
from training.data import Position, lessons
from training.parallel import Parallelism, Precision, Ranks, place
from training.parallel.exchange import Owned
from training.parallel.layers import lay_out_layers
from training.recipes import Recipe, check
from training.scale import Scale
from training.training_set import TrainingSet, read_training_set

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
RECOMPUTED = Parallelism(recompute=Switch.ON)
HALF = Parallelism(precision=Precision.BFLOAT16)


@contextmanager
def held(module: nn.Module) -> Iterator[Callable[[], int]]:
    """How many bytes autograd holds for the backward pass of what is computed inside, weights not counted."""
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    found: dict[int, Tensor] = {}

    def hold(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        yield lambda: sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("name", SCALES)
def test_a_large_recipe_is_sound_and_its_ranks_have_room_for_it(name: str) -> None:
    scale = SCALES[name]
    check(scale.recipe)
    assert Recipe.from_json(scale.recipe.to_json()) == scale.recipe
    assert all(weight.is_meta for weight in scale.model.parameters())
    assert 0 < sum(scale.memory().values()) < (1 - WORLD.lost) * GPU_BYTES


@pytest.mark.parametrize("name", SCALES)
def test_weights_are_as_many_as_a_model_without_memory_has(name: str) -> None:
    scale = SCALES[name]
    model, width = scale.recipe.model, scale.recipe.model.width
    assert scale.counts["tables"] == model.item.codes * (width + 1)
    assert scale.counts["layers"] == model.layers * (12 * width**2 + 2 * width)
    assert sum(scale.counts.values()) == sum(weight.numel() for weight in scale.model.parameters())
    # What a rank has of the tables is what the rows are cut into.
    most = max(len(Owned(Ranks(rank, scale.ranks), model.item.codes).own) for rank in range(scale.ranks))
    assert scale.memory()["item rows, with Adam's two moments"] == most * (width + 1) * 4 * 3


@pytest.mark.parametrize("plan", [Parallelism(), HALF, RECOMPUTED, replace(HALF, recompute=Switch.ON)])
@pytest.mark.parametrize(("width", "window", "layers"), [(64, 64, 3), (128, 128, 2)])
def test_the_trunk_holds_what_arithmetic_says(
    recipe: Recipe, plan: Parallelism, width: int, window: int, layers: int
) -> None:
    tokens, row = 2_048, 512
    attention = replace(recipe.model.attention, windows=(window,))
    model = replace(recipe.model, width=width, layers=layers, heads=width // 32, attention=attention)
    trunk = Trunk(model)
    lay_out_layers(trunk, plan)
    place_T = torch.arange(tokens) % row
    stream = Stream(torch.arange(tokens + 1), torch.arange(0, tokens + 1, row), place_T, place_T.double())
    with held(trunk) as count:
        trunk(torch.randn(tokens, width, requires_grad=True), stream)
    sampling = replace(recipe.sampling, tokens=tokens)
    scale = Scale(replace(recipe, model=model, sampling=sampling, parallelism=plan), 1)
    told = scale.trunk_bytes()
    if plan.recompute is Switch.ON:  # one layer, and who sees whom, are held later, when it is made again
        told = (layers + 1) * tokens * width * 4
        assert scale.trunk_bytes() - told - scale.layer_bytes() == tokens * 2 * window * 4
    assert count() == pytest.approx(told, rel=0.1)


@dataclass(frozen=True)
class OfLesson(Scale):
    """The arithmetic of one lesson, with its own numbers of requests and of pairs instead of the most there may be."""

    requests_of_it: int = 0
    pairs_of_it: int = 0

    @property
    def requests(self) -> int:
        return self.requests_of_it

    @property
    def pairs(self) -> int:
        return self.pairs_of_it


def test_a_whole_step_holds_what_arithmetic_says_or_less(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    wide = replace(recipe.model, width=64, layers=2, repeat=replace(recipe.model.repeat, width=32))
    recipe = replace(recipe, model=wide, sampling=replace(recipe.sampling, tokens=1_000, requests=12))
    model = initial_model(training_set, kiosk_corpus, recipe)
    placed = place(model, Parallelism(), recipe.objectives, Ranks.alone(), torch.device("cpu"))
    _, lesson = next(lessons(training_set, wide, recipe.sampling, recipe.seed, Position()))
    with held(placed.model) as count:
        placed.losses(lesson)
    recipe = replace(recipe, sampling=replace(recipe.sampling, tokens=lesson.batch.tokens))
    pairs = len(model(lesson.batch, lesson.requests).own.request_P)
    told = OfLesson(recipe, 1, len(lesson.requests), pairs).memory()
    names = ("states of the trunk", "requests with own items", "contests", "item rows in play, with gradients")
    told_here = sum(told[name] for name in names)
    assert 0.5 * told_here < count() < told_here


def test_requests_and_pairs_are_the_most_there_may_be(training_set: TrainingSet, recipe: Recipe) -> None:
    recipe = replace(recipe, sampling=replace(recipe.sampling, tokens=64, history=16, requests=3))
    scale = Scale(recipe, 1)
    assert (scale.requests, scale.pairs) == (12, 12 * 16)


def test_events_in_memory_take_what_the_page_says(kiosk_corpus: Corpus, recipe: Recipe) -> None:
    events = read_training_set(kiosk_corpus, recipe.model).events
    tensors = [getattr(events, one.name) for one in fields(events) if one.name.endswith(("_T", "_TF"))]
    found = sum(tensor.element_size() * tensor.numel() for tensor in tensors) / events.tokens
    assert found == billion.EVENT_BYTES * (len(recipe.model.facets) + 3) + 1


def test_more_ranks_hold_less_of_the_tables_and_more_items_take_more() -> None:
    more = replace(LARGE, ranks=16)
    rows = "item rows, with Adam's two moments"
    assert more.memory()[rows] * 2 == LARGE.memory()[rows]
    assert HUGE.memory()[rows] == pytest.approx(100e6 * 1_025 * 12 / 64)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_tables_that_the_command_prints(name: str) -> None:
    assert TABLES[name]() in PAGE, f"docs/scale.md: put in the table {name!r} of `python -m training.billion`"


def test_the_page_says_what_is_assumed() -> None:
    for said in ("989 TFLOP/s", "30 %", "50 GB/s", "$2.50", "2 TB", "10 %"):
        assert said in PAGE, said
    assert (WORLD.flops, WORLD.reached, WORLD.wire, WORLD.dollars) == (989e12, 0.3, 50e9, 2.5)
    assert (WORLD.host, WORLD.lost) == (2e12, 0.1)


def test_the_page_says_what_recomputing_saves() -> None:
    plan = replace(HUGE.recipe.parallelism, recompute=Switch.OFF)
    plain = replace(HUGE, recipe=replace(HUGE.recipe, parallelism=plan))
    assert f"its trunk would hold {plain.trunk_bytes() / 1e9:,.0f} GB" in PAGE

"""How layers compute changes what a step costs, and not what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from foundation.config import Rotary, Switch
from foundation.jagged import stream_of
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from foundation.transformer import Trunk
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, lessons
from training.parallel import Compiler, Parallelism, Placed, Precision, Ranks, place
from training.parallel.layers import lay_out_layers
from training.recipes import Recipe
from training.step import learn
from training.training_set import TrainingSet

CPU = torch.device("cpu")
PLAIN = Parallelism()


@pytest.fixture(scope="session")
def recipe(recipe: Recipe) -> Recipe:
    """Two layers with memory, turned by places and by times, that drop something out."""
    attention = replace(recipe.model.attention, memory=2, memory_block=4, rotary=Rotary.BOTH)
    return replace(recipe, model=replace(recipe.model, layers=2, attention=attention, dropout=0.1))


@pytest.fixture(autouse=True)
def _graphs_of_ones_own() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def learned(
    corpus: Corpus, training_set: TrainingSet, recipe: Recipe, plan: Parallelism, steps: int = 1
) -> tuple[float, dict[str, Tensor]]:
    """The loss of the last of some lessons, and the gradients of all."""
    model = initial_model(training_set, corpus, recipe)
    placed = place(model.train(), plan, recipe.objectives, Ranks.alone(), CPU)
    stream = lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position())
    loss = 0.0
    for step in range(steps):
        torch.manual_seed(step)
        loss, _ = learn(placed, (next(stream)[1],), recipe, step)
    return loss, {name: weight.grad.to_dense() for name, weight in placed.model.named_parameters()}


def held_bytes(placed: Placed, lesson: Lesson) -> int:
    """What autograd holds from the forward to the backward pass."""
    seen: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        placed.losses(lesson)
    return sum(seen.values())


def test_recomputed_layers_have_the_same_loss_and_gradients_bit_for_bit(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    loss, slopes = learned(kiosk_corpus, training_set, recipe, PLAIN)
    again, found = learned(kiosk_corpus, training_set, recipe, replace(PLAIN, recompute=Switch.ON))
    assert again == loss
    for name, slope in slopes.items():
        assert torch.equal(found[name], slope), name


def test_recomputed_layers_hold_less(kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe) -> None:
    wide = replace(recipe, model=replace(recipe.model, width=64, layers=6))
    _, lesson = next(lessons(training_set, wide.model, wide.sampling, wide.seed, Position()))
    held = []
    for switch in Switch:
        model = initial_model(training_set, kiosk_corpus, wide).train()
        plan = replace(PLAIN, recompute=switch)
        held.append(held_bytes(place(model, plan, wide.objectives, Ranks.alone(), CPU), lesson))
    assert held[0] < 0.6 * held[1]  # on, off


def test_a_bfloat16_step_stays_near_a_float32_one(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    loss, slopes = learned(kiosk_corpus, training_set, recipe, PLAIN)
    near, found = learned(kiosk_corpus, training_set, recipe, replace(PLAIN, precision=Precision.BFLOAT16))
    assert near != loss
    assert near == pytest.approx(loss, rel=5e-3)
    all_of_it = torch.cat([slope.flatten() for slope in slopes.values()])
    difference = torch.cat([(found[name] - slope).flatten() for name, slope in slopes.items()])
    assert difference.norm() < 0.05 * all_of_it.norm()
    assert {slope.dtype for slope in found.values()} == {torch.float32}  # master weights


class Watched(nn.Module):
    """Writes down the types of what a module is given, and makes."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        self.types += [given[0].dtype, made.dtype]


def test_in_bfloat16_products_alone_are_half_and_times_stay_float64(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    model: FoundationModel = initial_model(training_set, kiosk_corpus, recipe)
    placed = place(model, replace(PLAIN, precision=Precision.BFLOAT16), recipe.objectives, Ranks.alone(), CPU)
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position()))
    block, product = Watched(), Watched()
    placed.model.trunk.blocks[0].register_forward_hook(block)
    placed.model.trunk.blocks[0].feed_in.register_forward_hook(product)
    found = placed.losses(lesson)
    assert block.types == [torch.float32, torch.float32]  # what goes from layer to layer
    assert product.types[1] == torch.bfloat16
    assert {loss.total.dtype for loss in found} == {torch.float32}
    assert stream_of(lesson.batch).time_T.dtype == torch.float64


def test_the_model_itself_computes_as_before_when_it_is_trained_otherwise(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    model = initial_model(training_set, kiosk_corpus, recipe).eval()
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position()))
    before = model(lesson.batch, lesson.requests).bare_RD
    placed = place(model, replace(PLAIN, precision=Precision.BFLOAT16), recipe.objectives, Ranks.alone(), CPU)
    assert torch.equal(model(lesson.batch, lesson.requests).bare_RD, before)
    assert not torch.equal(placed.model(lesson.batch, lesson.requests).bare_RD, before)
    assert all(
        one is other for one, other in zip(model.parameters(), placed.model.parameters(), strict=True)
    )  # and learns by it


def assert_layers_agree(recipe: Recipe, compiler: Compiler) -> None:
    """Layers of the recipe, plain and compiled, over batches of several sizes: states and gradients agree."""
    torch.manual_seed(0)
    plain, compiled = Trunk(recipe.model).eval(), Trunk(recipe.model).eval()
    compiled.load_state_dict(plain.state_dict())
    lay_out_layers(compiled, replace(PLAIN, compile=compiler))
    counts = torch._dynamo.utils.counters["stats"]
    graphs = counts["unique_graphs"]
    for tokens in (9, 33, 120):
        x_TD = torch.randn(tokens, recipe.model.width)
        seen_THK = torch.randn(tokens, recipe.model.heads, recipe.model.width // recipe.model.heads)
        slopes = []
        for trunk in (plain, compiled):
            trunk.zero_grad()
            made_TD = x_TD
            for block in trunk.blocks:
                made_TD = block.finished(made_TD + block.projected(made_TD).sum((1, 2, 3))[:, None], seen_THK)
            made_TD.square().sum().backward()
            slopes.append(
                [made_TD.detach(), *(weight.grad for weight in trunk.blocks.parameters() if weight.grad is not None)]
            )
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert counts["unique_graphs"] - graphs <= 4 * recipe.model.layers  # not one a batch


def test_traced_layers_are_not_traced_anew_for_every_batch(recipe: Recipe) -> None:
    assert_layers_agree(recipe, Compiler.AOT_EAGER)


@pytest.mark.slow
def test_compiled_layers_find_what_plain_ones_find(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe
) -> None:
    """By inductor, on whatever this machine has: on a CPU that takes a C++ compiler."""
    assert_layers_agree(recipe, Compiler.INDUCTOR)
    still = replace(recipe, model=replace(recipe.model, dropout=0.0))
    loss, slopes = learned(kiosk_corpus, training_set, still, PLAIN, steps=3)
    plan = replace(PLAIN, compile=Compiler.INDUCTOR, recompute=Switch.ON)
    same, found = learned(kiosk_corpus, training_set, still, plan, steps=3)
    assert same == pytest.approx(loss, rel=1e-4)
    for name, slope in slopes.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-3, atol=1e-5, msg=name)

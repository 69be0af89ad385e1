"""Operations are counted as torch counts them, and only those that the model asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foundation.attention.reference import visible
from foundation.attention.sight import memory_blocks, see, sink_ends
from foundation.config import AttentionConfig, Backend, ModelConfig
from foundation.jagged import EventBatch, Stream, stream_of
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.repeat import FIRST_ITEM
from foundation.repeat import own_pairs as pairs_met
from foundation.transformer import Trunk
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, lessons
from training.flops import (
    FORWARD_AND_BACKWARD,
    attended_pairs,
    lesson_flops,
    named_peak,
    own_pairs,
    peak_flops,
    trunk_flops,
)
from training.recipes import Recipe
from training.training_set import TrainingSet


@pytest.fixture(scope="module")
def lesson(training_set: TrainingSet, recipe: Recipe) -> Lesson:
    return first_lesson(training_set, recipe)


def first_lesson(training_set: TrainingSet, recipe: Recipe) -> Lesson:
    found = lessons(training_set, recipe.model, recipe.sampling, 0, Position(), objectives=recipe.objectives)
    return next(found)[1]


def config_of(recipe: Recipe, layers: int, attention: AttentionConfig) -> ModelConfig:
    return replace(recipe.model, layers=layers, attention=attention, backend=Backend.REFERENCE)


def one_group(batch: EventBatch) -> EventBatch:
    """All of a batch as the one group of one user, in which everybody sees everybody."""
    alone = torch.tensor([0, batch.tokens])
    return replace(
        batch,
        group_T=torch.zeros_like(batch.group_T),
        offset_B1=alone,
        start_B=batch.start_B[:1],
        attribute_BA=batch.attribute_BA[:1],
    )


def counted(config: ModelConfig, stream: Stream) -> int:
    """What torch counts of a trunk, forward and backward."""
    trunk = Trunk(config)
    x_TD = torch.ones(len(stream.place_T), config.width, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        trunk(x_TD, stream).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("layers", [1, 3])
def test_a_trunk_in_which_every_token_sees_every_other_is_what_torch_counts(
    lesson: Lesson, recipe: Recipe, layers: int
) -> None:
    config, batch = config_of(recipe, layers, AttentionConfig(windows=(0,))), one_group(lesson.batch)
    assert attended_pairs(config, batch) == layers * batch.tokens**2
    ours = trunk_flops(config, batch.tokens) + 4 * config.width * attended_pairs(config, batch)
    assert FORWARD_AND_BACKWARD * ours == counted(config, stream_of(batch))


@pytest.mark.parametrize(
    "attention",
    [
        AttentionConfig(windows=(8, 0)),
        AttentionConfig(windows=(8, 8), sinks=3),
        AttentionConfig(windows=(4, 16), sinks=2, memory=2, memory_block=4),
    ],
)
def test_only_what_a_token_sees_counts(lesson: Lesson, recipe: Recipe, attention: AttentionConfig) -> None:
    config, stream = config_of(recipe, 2, attention), stream_of(lesson.batch)
    border_G1, offset_B1 = stream.border_G1, stream.offset_B1
    blocks = memory_blocks(border_G1, offset_B1, attention)
    seen = 0
    for window in config.windows:
        sight = see(border_G1, offset_B1, sink_ends(border_G1, offset_B1, attention), blocks, window, attention)
        slots = len(blocks.end_N) * blocks.rank if attention.memory else 0
        seen += int(visible(sight, lesson.batch.tokens, lesson.batch.tokens + slots).sum())
    assert attended_pairs(config, lesson.batch) == seen < 2 * lesson.batch.tokens**2


def test_own_items_are_those_that_the_repeat_path_meets(
    lesson: Lesson, recipe: Recipe, training_set: TrainingSet, kiosk_corpus: Corpus
) -> None:
    model = initial_model(training_set, kiosk_corpus, recipe)
    met = pairs_met(model.meetings(lesson.batch, lesson.requests))
    assert own_pairs(recipe.model, lesson) == int((met.code_P >= FIRST_ITEM).sum()) > 0


def whole(training_set: TrainingSet, corpus: Corpus, recipe: Recipe) -> tuple[int, int]:
    """Of a whole lesson's losses and gradients: what we count, and what torch does."""
    model, lesson = initial_model(training_set, corpus, recipe), first_lesson(training_set, recipe)
    with FlopCounterMode(display=False) as counter:
        sum(loss.share * loss.total for loss in losses(model, lesson, recipe.objectives)).backward()  # type: ignore[union-attr]
    return lesson_flops(recipe.model, recipe.objectives, lesson).step, counter.get_total_flops()


def variants(recipe: Recipe) -> Sequence[Recipe]:
    later = replace(recipe, objectives=Objectives(future=0.3, embedding=0.0))
    return [recipe, later, replace(recipe, model=replace(recipe.model, width=64, layers=3, bands=(16,)))]


@pytest.mark.parametrize("number", range(3))
def test_a_lesson_counts_less_than_what_is_computed_for_it_and_not_much_less(
    training_set: TrainingSet, kiosk_corpus: Corpus, recipe: Recipe, number: int
) -> None:
    ours, done = whole(training_set, kiosk_corpus, variants(recipe)[number])
    assert 0.9 * done < ours <= done


def test_more_of_anything_takes_more(lesson: Lesson, recipe: Recipe) -> None:
    config, objectives = recipe.model, recipe.objectives
    least = lesson_flops(config, objectives, lesson)
    wider, deeper = (replace(config, width=32), replace(config, layers=2))
    assert lesson_flops(deeper, objectives, lesson).trunk == 2 * least.trunk
    assert lesson_flops(wider, objectives, lesson).trunk == 4 * least.trunk
    assert lesson_flops(config, replace(objectives, future=0.3), lesson).scores > least.scores
    assert least.step == 3 * (least.trunk + least.attention + least.items + least.scores)


def test_a_known_device_counts_by_its_name_and_an_unknown_one_not_at_all() -> None:
    assert named_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert named_peak("NVIDIA H100 PCIe") == 756e12
    assert named_peak("NVIDIA A100-SXM4-80GB") == 312e12
    assert named_peak("NVIDIA L40S") == 362e12
    assert named_peak("NVIDIA L40") != named_peak("NVIDIA L4")
    assert named_peak("Tesla T4") is None


def test_a_processor_is_measured_once_and_draws_nothing() -> None:
    before = torch.random.get_rng_state()
    first = peak_flops(torch.device("cpu"))
    assert first is not None
    assert first > 1e8
    assert peak_flops(torch.device("cpu")) == first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_of_a_device_that_nobody_knows_nothing_is_said() -> None:
    assert peak_flops(torch.device("meta")) is None

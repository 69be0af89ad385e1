"""What a loss will weigh, told before it is computed, is what it weighs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foundation.config import CandidateConfig, ModelConfig, Switch
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.foretold import loss_weights
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus

EVERYTHING = Objectives(future=0.3, impressions=1.0, layerwise=0.2, distill=0.2)


def some_targets(config: ModelConfig, batch: EventBatch, requests: Requests, seed: int) -> Targets:
    """Any tokens at all, some of them without an item, without a facet, or wanted by nobody."""
    draw = torch.Generator().manual_seed(seed)
    token_E = torch.randint(0, batch.tokens, (60,), generator=draw)
    columns = [config.facet_names.index(name) for name, _ in config.targets]
    facet_EF = batch.facet_TF[token_E][:, columns] * torch.randint(0, 2, (60, len(columns)), generator=draw)
    reward_E = torch.randint(0, 3, (60,), generator=draw).float() / 2
    request_E = torch.randint(0, len(requests), (60,), generator=draw).sort().values
    item_E = batch.facet_TF[token_E, config.item_column]
    return Targets(request_E, item_E, facet_EF, torch.rand(60, generator=draw), reward_E)


@pytest.fixture(scope="module")
def full(config: ModelConfig) -> ModelConfig:
    """Everything that makes a loss, but for target-aware scores."""
    return replace(
        config,
        layers=2,
        intents=("kind", "action"),
        category_targets=("brand",),
        gap_bins=8,
        interests=2,
        bands=(8,),
    )


def lesson_of(config: ModelConfig, batch: EventBatch, asked: Requests) -> Lesson:
    some = torch.arange(0, len(asked), 40)
    requests = Requests(asked.user_R[some], asked.end_R[some], asked.time_R[some], asked.context_RC[some])
    # One of them reads nothing, as somebody new does.
    end_R = torch.cat([batch.offset_B1[requests.user_R[:1]], requests.end_R[1:]])
    requests = replace(requests, end_R=end_R)
    targets = tuple(some_targets(config, batch, requests, ahead) for ahead in range(config.horizons))
    codes = torch.arange(FIRST_ITEM, config.item.codes)
    future = replace(some_targets(config, batch, requests, 9), facet_EF=torch.zeros(60, 0, dtype=torch.int64))
    return Lesson(batch, requests, targets, Negatives(codes, torch.zeros(len(codes))), future)


@pytest.mark.parametrize(
    "objectives",
    [Objectives(), EVERYTHING, Objectives(next=0.0, embedding=0.0), Objectives(own=Switch.OFF, future=1.0)],
)
def test_every_loss_weighs_what_was_foretold(
    full: ModelConfig, kiosk_corpus: Corpus, batch: EventBatch, asked: Requests, objectives: Objectives
) -> None:
    config = full if objectives.own is Switch.ON else replace(full, repeat_path=Switch.OFF)
    model = FoundationModel(config, item_content(kiosk_corpus.tokenizer.items))
    lesson = lesson_of(config, batch, asked)
    expected = {loss.name: float(loss.weight) for loss in losses(model, lesson, objectives)}
    found = {name: float(weight) for name, weight in loss_weights(model, lesson, objectives).items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(set(found.values())) >= 4  # not all of one kind


def test_the_codes_of_next_items_weigh_what_the_items_do(
    coded: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    objectives, lesson = Objectives(codes=0.5), lesson_of(coded.config, batch, asked)
    expected = {loss.name: float(loss.weight) for loss in losses(coded, lesson, objectives)}
    found = {name: float(weight) for name, weight in loss_weights(coded, lesson, objectives).items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert "codes" in found


def test_target_aware_scores_are_refused(
    full: ModelConfig, kiosk_corpus: Corpus, batch: EventBatch, asked: Requests
) -> None:
    aware = replace(full, candidates=CandidateConfig(layers=1))
    model = FoundationModel(aware, item_content(kiosk_corpus.tokenizer.items))
    with pytest.raises(ModelError, match=r"can't be foretold: leave out `candidates\.layers`"):
        loss_weights(model, lesson_of(aware, batch, asked), Objectives())

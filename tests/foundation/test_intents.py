"""Intents, categories and gaps: what the model guesses besides items, and what of it reaches the items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.config import ModelConfig
from foundation.embedding import item_content
from foundation.intents import Intents
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives.targets import Negatives, Targets
from foundation.pretrained import load, save
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus

INTENTS = ("kind", "action")


@pytest.fixture(scope="module")
def rich(config: ModelConfig) -> ModelConfig:
    return replace(config, intents=INTENTS, category_targets=("kind", "brand"), gap_bins=8)


def fresh(config: ModelConfig, corpus: Corpus) -> FoundationModel:
    torch.manual_seed(0)
    items = corpus.tokenizer.items
    return FoundationModel(config, item_content(items, torch.from_numpy(items.count).float()))


@pytest.fixture(scope="module")
def model(rich: ModelConfig, kiosk_corpus: Corpus, shake) -> FoundationModel:
    return shake(fresh(rich, kiosk_corpus)).eval()


@pytest.fixture(scope="module")
def lesson(rich: ModelConfig, batch: EventBatch, asked: Requests) -> Lesson:
    """One request in thirty, with one target, its group's first token, at each horizon; some met no interest."""
    some = torch.arange(0, len(asked), 30)
    requests = Requests(*(getattr(asked, name)[some] for name in ("user_R", "end_R", "time_R", "context_RC")))
    token_E = requests.end_R
    columns = [[facet.name for facet in rich.facets].index(name) for name, _ in rich.targets]
    item_E, facet_EF = batch.facet_TF[token_E, rich.item_column], batch.facet_TF[token_E][:, columns]
    reward_E = (torch.arange(len(some)) % 3 > 0).float()
    target = Targets(torch.arange(len(some)), item_E, facet_EF, 0.5 + torch.rand(len(some)), reward_E)
    codes = torch.arange(FIRST_ITEM, rich.item.codes)
    return Lesson(batch, requests, (target,) * rich.horizons, Negatives(codes, torch.zeros(len(codes))))


def test_they_start_as_if_they_were_not_there(
    config: ModelConfig, kiosk_corpus: Corpus, batch: EventBatch, asked: Requests
) -> None:
    plain = fresh(config, kiosk_corpus)
    guessing = fresh(replace(config, intents=INTENTS), kiosk_corpus)
    missing, more = guessing.load_state_dict(plain.state_dict(), strict=False)
    assert more == []
    assert {name.split(".")[0] for name in missing} == {"intents"}
    one, other = plain(batch, asked), guessing(batch, asked)
    assert torch.equal(one.bare_RD, other.bare_RD)
    assert torch.equal(one.told_RD, other.told_RD)
    assert one.intents == ()
    assert [logit_RC.shape[1] for logit_RC in other.intents] == [size for _, size in guessing.config.intent_sizes]


def test_what_is_expected_is_added_through_a_projection(rich: ModelConfig, shake) -> None:
    torch.manual_seed(0)
    intents = shake(Intents(rich))
    state_RD = torch.randn(3, rich.width)
    found_RD, logits = intents(state_RD)
    for row in range(3):
        expected_D = torch.zeros(rich.width)
        for logit_RC, table in zip(logits, intents.tables, strict=True):
            for code, share in enumerate(torch.softmax(logit_RC[row], 0)):
                expected_D = expected_D + share * table.weight[code]
        torch.testing.assert_close(found_RD[row], state_RD[row] + intents.out.weight @ expected_D)


@pytest.mark.parametrize("part", ["heads", "tables", "out"])
def test_items_are_predicted_from_them_bare_told_and_stored(
    model: FoundationModel, kiosk_corpus: Corpus, batch: EventBatch, asked: Requests, part: str
) -> None:
    changed = fresh(model.config, kiosk_corpus).eval()
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in getattr(changed.intents, part).parameters():
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    one, other = model(batch, asked), changed(batch, asked)
    assert not torch.allclose(one.bare_RD, other.bare_RD)
    assert not torch.allclose(one.told_RD, other.told_RD)
    assert not torch.allclose(model.user_vectors(one), changed.user_vectors(other))


def test_intents_know_nothing_of_the_request_or_of_what_came(
    model: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    request = replace(asked, context_RC=asked.context_RC * 0, time_R=asked.time_R + 5e5)
    later = torch.arange(batch.tokens)[:, None] >= asked.end_R[:1]
    changed = replace(batch, facet_TF=torch.where(later, batch.facet_TF.flip(0), batch.facet_TF))
    before, one, two = model(batch, asked), model(batch, request), model(changed, asked)
    for logit_RC, same_RC, still_RC in zip(before.intents, one.intents, two.intents, strict=True):
        assert torch.equal(logit_RC, same_RC)
        torch.testing.assert_close(logit_RC[0], still_RC[0])
    # So does the guess of the gap, whose answer is the request's time.
    assert model.gap_head is not None
    assert torch.equal(*(model.gap_head(model.horizons[0](states.bare_RD)) for states in (before, one)))


def test_their_losses_are_cross_entropies_of_what_came(
    model: FoundationModel, lesson: Lesson, rich: ModelConfig
) -> None:
    objectives = Objectives(intent=0.2, category=0.3, gap=0.4)
    found = {loss.name: loss for loss in losses(model, lesson, objectives)}
    states, target = model(lesson.batch, lesson.requests), lesson.targets[0]
    bare = torch.log_softmax(states.intents[1], 1)
    action_E = target.facet_EF[:, 1]
    expected = -(bare[target.request_E, action_E] * target.weight_E).sum()
    torch.testing.assert_close(found["intent.action"].total, expected)
    wanted_E = (target.item_E >= FIRST_ITEM) & (target.reward_E > 0)
    assert 0 < int(wanted_E.sum()) < len(wanted_E)
    categories = [name for name, _ in rich.item.categories]
    kind_E = model.tower.category_VC[target.item_E, categories.index("kind")]
    kinds = [("intent.kind", states.intents[0])]
    for horizon, suffix in enumerate(("", "_2", "_3")):
        kinds.append((f"category.kind{suffix}", model.category_heads[0](model.horizons[horizon](states.bare_RD))))
    for name, logit_RC in kinds:
        log_share_E = torch.log_softmax(logit_RC, 1)[target.request_E, kind_E]
        torch.testing.assert_close(found[name].total, -(log_share_E * target.weight_E)[wanted_E].sum())
        torch.testing.assert_close(found[name].weight, target.weight_E[wanted_E].sum())
    assert float(found["gap"].weight) == len(lesson.requests)
    shares = {name: loss.share for name, loss in found.items()}
    assert shares["intent.kind"] == 0.2
    assert shares["category.brand_2"] == pytest.approx(0.1)
    assert shares["gap"] == 0.4


def test_every_weight_of_them_gets_a_gradient_and_items_move_the_guess(model: FoundationModel, lesson: Lesson) -> None:
    assert model.intents is not None
    every = {loss.name: loss for loss in losses(model, lesson, Objectives())}
    parts = [*model.intents.parameters(), *model.category_heads.parameters(), *model.gap_head.parameters()]  # type: ignore[union-attr]
    for gradient in torch.autograd.grad(sum(loss.total for loss in every.values()), parts, retain_graph=True):  # type: ignore[arg-type]
        assert gradient.any()
    for gradient in torch.autograd.grad(every["next"].total, list(model.intents.parameters())):
        assert gradient.any()


def test_a_saved_model_has_them(
    model: FoundationModel, kiosk_corpus: Corpus, batch: EventBatch, asked: Requests, tmp_path: Path
) -> None:
    save(model, kiosk_corpus.tokenizer, tmp_path, "kiosk", 1, 5.0, "# Card\n")
    read = load(tmp_path).model
    assert read.config == model.config
    with torch.inference_mode():
        assert torch.equal(read.user_vectors(read(batch, asked)), model.user_vectors(model(batch, asked)))

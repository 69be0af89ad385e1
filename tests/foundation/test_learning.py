"""Every loss beside what the finished model says: what is trained is what is asked of it later."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from foundation.bands import cut
from foundation.config import ModelConfig, Switch
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Loss, Objectives, check_objectives
from foundation.model import FoundationModel
from foundation.objectives.contests import wanted
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus


def targets_of(config: ModelConfig, batch: EventBatch, requests: Requests, ahead: int) -> Targets:
    """The tokens of the group `ahead` groups after each request's own, found by a loop."""
    rows, tokens = [], []
    for row in range(len(requests)):
        end = int(requests.end_R[row])
        group = int(batch.group_T[end]) + ahead
        for token in range(end, int(batch.offset_B1[requests.user_R[row] + 1])):
            if int(batch.group_T[token]) == group:
                rows.append(row)
                tokens.append(token)
    names = [facet.name for facet in config.facets]
    facets = batch.facet_TF[tokens][:, [names.index(name) for name, _ in config.targets]]
    weight = 0.5 + torch.rand(len(rows), generator=torch.Generator().manual_seed(ahead))
    ones = torch.ones(len(rows))
    return Targets(torch.tensor(rows), batch.facet_TF[tokens, config.item_column], facets, weight, ones)


@pytest.fixture(scope="module")
def lesson(config: ModelConfig, batch: EventBatch, asked: Requests) -> Lesson:
    """Some requests over all histories; every item is a negative that is drawn exactly once."""
    some = torch.arange(0, len(asked), 60)
    requests = Requests(asked.user_R[some], asked.end_R[some], asked.time_R[some], asked.context_RC[some])
    targets = tuple(targets_of(config, batch, requests, ahead) for ahead in range(config.horizons))
    codes = torch.arange(FIRST_ITEM, config.item.codes)
    return Lesson(batch, requests, targets, Negatives(codes, torch.zeros(len(codes))))


def found(model: FoundationModel, lesson: Lesson) -> dict[str, Loss]:
    return {loss.name: loss for loss in losses(model, lesson, Objectives(later=0.3, embedding=0.2))}


def cross_entropy(logit_RV: Tensor, target: Targets) -> Tensor:
    """Over the whole catalogue, of the targets that are items."""
    known = target.item_E >= FIRST_ITEM
    log_share_RV = torch.log_softmax(logit_RV[:, FIRST_ITEM:], dim=1)
    loss_E = -log_share_RV[target.request_E[known], target.item_E[known] - FIRST_ITEM]
    return (loss_E * target.weight_E[known]).sum() / target.weight_E[known].sum()


def mean(loss: Loss) -> Tensor:
    return loss.total / loss.weight


def test_there_is_a_loss_for_each_horizon_facet_and_the_stored_vectors(model: FoundationModel, lesson: Lesson) -> None:
    shares = {name: loss.share for name, loss in found(model, lesson).items()}
    facets = {f"{name}{ahead}": 0.1 / 3 for name in ("quantity", "action") for ahead in ("", "_2", "_3")}
    assert shares == pytest.approx({"next": 1.0, "embedding": 0.2, "next_2": 0.3, "next_3": 0.3, **facets})


def test_over_all_items_the_next_loss_is_the_cross_entropy_of_the_models_scores(
    model: FoundationModel, lesson: Lesson
) -> None:
    states = model(lesson.batch, lesson.requests)
    expected = cross_entropy(model.scores(states, model.item_vectors()), lesson.targets[0])
    torch.testing.assert_close(mean(found(model, lesson)["next"]), expected, rtol=1e-4, atol=1e-4)


def test_over_all_items_the_embedding_loss_is_that_of_the_stored_dot_product(
    model: FoundationModel, lesson: Lesson
) -> None:
    states = model(lesson.batch, lesson.requests)
    expected = cross_entropy(model.user_vectors(states) @ model.item_vectors().T, lesson.targets[0])
    torch.testing.assert_close(mean(found(model, lesson)["embedding"]), expected, rtol=1e-4, atol=1e-4)


def test_later_horizons_and_facets_read_the_state_that_knows_no_context(model: FoundationModel, lesson: Lesson) -> None:
    untold = replace(lesson, requests=replace(lesson.requests, context_RC=lesson.requests.context_RC * 0))
    one, other = found(model, lesson), found(model, untold)
    changed = {name for name in one if not torch.equal(one[name].total, other[name].total)}
    assert changed == {"next"}


def test_facet_losses_are_cross_entropies_over_their_codes(model: FoundationModel, lesson: Lesson) -> None:
    bare_RD = model(lesson.batch, lesson.requests).bare_RD
    every = found(model, lesson)
    for column, (name, _) in enumerate(model.config.targets):
        for ahead, suffix in enumerate(("", "_2", "_3")):
            target = lesson.targets[ahead]
            log_share = torch.log_softmax(model.facet_heads[column](model.horizons[ahead](bare_RD)), dim=1)
            there = target.facet_EF[:, column] > 0
            weight = target.weight_E[there]
            loss = -log_share[target.request_E[there], target.facet_EF[there, column]]
            torch.testing.assert_close(
                mean(every[name + suffix]), (loss * weight).sum() / weight.sum(), rtol=1e-4, atol=1e-5
            )


def test_over_all_items_the_future_loss_is_that_of_the_stored_dot_product_for_the_window(
    model: FoundationModel, lesson: Lesson
) -> None:
    window = Targets(*(torch.cat([getattr(t, field.name) for t in lesson.targets]) for field in fields(Targets)))
    objectives = Objectives(future=0.5)
    loss = {one.name: one for one in losses(model, replace(lesson, future=window), objectives)}["future"]
    states = model(lesson.batch, lesson.requests)
    expected = cross_entropy(model.user_vectors(states) @ model.item_vectors().T, window)
    torch.testing.assert_close(mean(loss), expected, rtol=1e-4, atol=1e-4)
    assert loss.share == 0.5


def test_earlier_layers_learn_the_next_items_by_the_last_ones_projection(
    model: FoundationModel, lesson: Lesson
) -> None:
    every = {loss.name: loss for loss in losses(model, lesson, Objectives(layerwise=0.4, distill=0.6))}
    states, (earlier_RD,) = model.with_layers(lesson.batch, lesson.requests)
    early_RV, last_RV = (
        model.horizons[0](state_RD) @ model.item_vectors()[:, :-1].T + model.item_vectors()[:, -1]
        for state_RD in (earlier_RD, states.bare_RD)
    )
    torch.testing.assert_close(mean(every["layer_1"]), cross_entropy(early_RV, lesson.targets[0]), rtol=1e-4, atol=1e-4)
    told_RV, said_RV = (torch.log_softmax(logit_RV[:, FIRST_ITEM:], 1) for logit_RV in (last_RV, early_RV))
    divergence = (told_RV.exp() * (told_RV - said_RV)).sum(1).mean()
    torch.testing.assert_close(mean(every["distill_1"]), divergence, rtol=1e-4, atol=1e-4)
    assert (every["layer_1"].share, every["distill_1"].share) == (0.4, 0.6)
    # What is learned of the first layer moves the first block and not the second.
    blocks = [[*block.parameters()] for block in model.trunk.blocks]
    for name in ("layer_1", "distill_1"):
        gradients = [
            torch.autograd.grad(every[name].total, part, retain_graph=True, allow_unused=True) for part in blocks
        ]
        assert all(gradient is not None and gradient.any() for gradient in gradients[0])
        assert all(gradient is None for gradient in gradients[1])


def test_they_change_nothing_else(model: FoundationModel, lesson: Lesson) -> None:
    plain, more = (
        {loss.name: loss.total for loss in losses(model, lesson, objectives)}
        for objectives in (Objectives(), Objectives(layerwise=0.4, distill=0.6))
    )
    assert set(more) - set(plain) == {"layer_1", "distill_1"}
    assert all(torch.equal(more[name], total) for name, total in plain.items())


def test_an_earlier_layer_reads_nothing_of_what_it_is_asked_for(model: FoundationModel, lesson: Lesson) -> None:
    requests = replace(lesson.requests, user_R=lesson.requests.user_R[:1], end_R=lesson.requests.end_R[:1])
    requests = replace(requests, time_R=requests.time_R[:1], context_RC=requests.context_RC[:1])
    ahead_T1 = torch.arange(lesson.batch.tokens)[:, None] >= requests.end_R
    facet_TF = torch.where(ahead_T1, lesson.batch.facet_TF.flip(0), lesson.batch.facet_TF)
    before, after = (
        model.with_layers(batch, requests)[1][0] for batch in (lesson.batch, replace(lesson.batch, facet_TF=facet_TF))
    )
    torch.testing.assert_close(before, after)


def test_a_single_layer_has_no_earlier_one(config: ModelConfig, kiosk_corpus: Corpus, lesson: Lesson) -> None:
    shallow = FoundationModel(replace(config, layers=1), item_content(kiosk_corpus.tokenizer.items))
    with pytest.raises(ModelError, match="a trunk of one layer has no earlier one to learn: give `layers` 2"):
        losses(shallow, lesson, Objectives(distill=0.1))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"later": -0.1}, "objective 'later' must be at least 0, got -0.1"),
        ({"stale_seconds": 0.0}, "objective 'stale_seconds' must be above 0"),
        ({"future_groups": 0}, "objective 'future_groups' must be above 0"),
        ({"future_seconds": float("nan")}, "objective 'future_seconds' must be at least 0, got nan"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        Objectives(**settings)  # type: ignore[arg-type]


def test_each_request_learns_as_if_it_were_alone(model: FoundationModel, lesson: Lesson) -> None:
    """Candidates of one request are none of another's: so that lessons may be divided among ranks."""
    few = Negatives(torch.tensor([3, 17, 30]), torch.tensor([-1.0, -0.5, -2.0]))
    together = found(model, replace(lesson, negatives=few))
    totals = dict.fromkeys(together, 0.0)
    for row in range(len(lesson.requests)):
        requests = Requests(*(getattr(lesson.requests, name)[[row]] for name in ("user_R", "end_R", "time_R")), None)  # type: ignore[arg-type]
        requests = replace(requests, context_RC=lesson.requests.context_RC[[row]])
        targets = tuple(
            Targets(
                torch.zeros(int((t.request_E == row).sum()), dtype=torch.int64),
                *(getattr(t, name)[t.request_E == row] for name in ("item_E", "facet_EF", "weight_E", "reward_E")),
            )
            for t in lesson.targets
        )
        alone = found(model, Lesson(lesson.batch, requests, targets, few))
        for name, loss in alone.items():
            totals[name] += float(loss.total.detach())
    for name, loss in together.items():
        assert totals[name] == pytest.approx(float(loss.total.detach()), rel=1e-4)


def test_every_weight_gets_a_gradient(model: FoundationModel, lesson: Lesson) -> None:
    model.zero_grad()
    torch.stack([mean(loss) * loss.share for loss in found(model, lesson).values()]).sum().backward()
    # Nobody in this lesson is without a history.
    silent = {
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.to_dense().any()
    }
    model.zero_grad()
    assert silent == {"empty_D"}


def test_a_lesson_without_a_target_weighs_nothing(model: FoundationModel, lesson: Lesson) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    no_facet, no_weight = torch.zeros(0, len(model.config.targets), dtype=torch.int64), torch.zeros(0)
    nothing = Targets(none, none, no_facet, no_weight, no_weight)
    for loss in found(model, replace(lesson, targets=(nothing,) * 3)).values():
        assert (loss.total.item(), loss.weight.item()) == (0.0, 0.0)


def test_a_target_facet_admitted_after_training_counts_as_unknown(model: FoundationModel, lesson: Lesson) -> None:
    def with_code(code: int) -> Lesson:
        targets = tuple(replace(t, facet_EF=torch.full_like(t.facet_EF, code)) for t in lesson.targets)
        return replace(lesson, targets=targets)

    later, unknown = (found(model, with_code(code)) for code in (10_000, 1))
    assert all(torch.equal(later[name].total, unknown[name].total) for name in later)


def test_bands_learn_what_the_first_dimensions_of_both_sides_say(
    model: FoundationModel, config: ModelConfig, lesson: Lesson, kiosk_corpus: Corpus
) -> None:
    items = kiosk_corpus.tokenizer.items
    content = item_content(items, torch.from_numpy(items.count).float())
    banded = FoundationModel(replace(config, bands=(4, 8)), content).eval()
    banded.load_state_dict(model.state_dict())
    objectives = Objectives(embedding=0.2)
    said = {loss.name: loss for loss in losses(banded, lesson, objectives)}
    assert said.keys() - found(model, lesson).keys() == {"embedding_4", "embedding_8"}
    user_RD = model.user_vectors(model(lesson.batch, lesson.requests))
    for band in (4, 8):
        logit_RV = cut(user_RD, band) @ cut(model.item_vectors(), band).T
        target = wanted(lesson.targets[0])
        share_RV = torch.log_softmax(logit_RV[:, FIRST_ITEM:], 1)
        plain = -(share_RV[target.request_E, target.item_E - FIRST_ITEM] * target.weight_E).sum()
        torch.testing.assert_close(said[f"embedding_{band}"].total, plain, rtol=1e-4, atol=1e-3)
        assert said[f"embedding_{band}"].share == pytest.approx(0.1)


def test_an_item_is_somebodys_by_any_one_of_the_interests(
    model: FoundationModel, config: ModelConfig, lesson: Lesson, kiosk_corpus: Corpus
) -> None:
    items = kiosk_corpus.tokenizer.items
    content = item_content(items, torch.from_numpy(items.count).float())
    several = FoundationModel(replace(config, interests=3), content).eval()
    several.load_state_dict(model.state_dict(), strict=False)
    said = {loss.name: loss for loss in losses(several, lesson, Objectives(interest=0.2))}
    assert said.keys() - found(model, lesson).keys() == {"interests"}
    found_RID = several.interest_vectors(several(lesson.batch, lesson.requests))
    logit_RV = (found_RID @ several.item_vectors().T).logsumexp(1)
    target = wanted(lesson.targets[0])
    share_RV = torch.log_softmax(logit_RV[:, FIRST_ITEM:], 1)
    plain = -(share_RV[target.request_E, target.item_E - FIRST_ITEM] * target.weight_E).sum()
    torch.testing.assert_close(said["interests"].total, plain, rtol=1e-4, atol=1e-3)
    assert said["interests"].share == pytest.approx(0.2)


def test_own_items_compete_without_the_repeat_path_unless_they_are_left_out(
    config: ModelConfig, lesson: Lesson, kiosk_corpus: Corpus
) -> None:
    items = kiosk_corpus.tokenizer.items
    content = item_content(items, torch.from_numpy(items.count).float())
    torch.manual_seed(0)
    model = FoundationModel(replace(config, repeat_path=Switch.OFF), content).eval()
    few = replace(lesson, negatives=Negatives(torch.tensor([FIRST_ITEM]), torch.zeros(1)))
    own, none = (
        next(loss.total for loss in losses(model, few, Objectives(own=switch)) if loss.name == "embedding")
        for switch in (Switch.ON, Switch.OFF)
    )
    assert own > none  # more stand against the same targets
    user_RD, item_VD, target = (
        model.user_vectors(model(few.batch, few.requests)),
        model.item_vectors(),
        wanted(few.targets[0]),
    )
    logit_RV = user_RD @ item_VD.T
    shown_RV = torch.full_like(logit_RV, -torch.inf)
    shown_RV[:, FIRST_ITEM] = logit_RV[:, FIRST_ITEM]
    shown_RV[target.request_E, target.item_E] = logit_RV[target.request_E, target.item_E]
    share_RV = torch.log_softmax(shown_RV, 1)
    torch.testing.assert_close(none, -(share_RV[target.request_E, target.item_E] * target.weight_E).sum())


def test_the_repeat_path_needs_own_items_that_compete(config: ModelConfig) -> None:
    with pytest.raises(ModelError, match="give `repeat_path=off` too, or leave out `own=off`"):
        check_objectives(config, Objectives(own=Switch.OFF))

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.config import ItemGate
from foundation.item_age import bin_ages
from foundation.learning import losses
from foundation.repeat import FIRST_ITEM
from foundation.space import Space
from foundation.subgraph import Subgraph
from tests.conftest import KINDS, Kiosk
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, batches, lessons
from training.dropout import MEASURED, IdDropout, hidden_rows, some_later, some_told
from training.errors import TrainingError
from training.holdout import Columns, hold_out
from training.item_ages import cold_rate
from training.optimisers import Optimisers
from training.recipes import Name, Recipe, named, with_overrides
from training.scorers import inputs, model_scorers
from training.training_set import TrainingSet, read_training_set, recent_counts, select_users


@pytest.fixture(scope="module")
def members(recipe: Recipe, club_corpus: Corpus) -> Recipe:
    """The same numbers, and the attributes of the club's members."""
    model = replace(recipe.model, attributes=tuple(club_corpus.tokenizer.users.sizes.items()))
    return replace(recipe, model=model)


@pytest.fixture(scope="module")
def known(club_corpus: Corpus, members: Recipe) -> TrainingSet:
    return read_training_set(club_corpus, members.model)


def first_lesson(known: TrainingSet, recipe: Recipe, **sampling: float):
    changed = replace(recipe.sampling, tokens=10_000, **sampling)
    return next(lessons(known, recipe.model, changed, 0, Position()))[1]


@given(rows=st.integers(0, 40), columns=st.integers(0, 4), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_a_share_of_the_rows_tells_nothing_and_no_code_becomes_another(
    rows: int, columns: int, share: float, seed: int
) -> None:
    code = torch.arange(1, rows * columns + 1).view(rows, columns)
    told = some_told(code, share, np.random.default_rng(seed))
    assert ((told == code) | (told == 0)).all()
    assert torch.equal(some_told(code, 0.0, np.random.default_rng(seed)), code)
    assert not some_told(code, 1.0, np.random.default_rng(seed)).any()


def test_attributes_are_hidden_for_a_share_of_the_users(known: TrainingSet, members: Recipe) -> None:
    whole = first_lesson(known, members, attribute_dropout=0.0)
    assert torch.equal(whole.batch.attribute_BA, known.events.attribute_BA[known.trainable])
    some = first_lesson(known, members, attribute_dropout=0.5).batch.attribute_BA
    assert ((some == whole.batch.attribute_BA) | (some == 0)).all()
    hidden = float(((some == 0) & (whole.batch.attribute_BA > 0)).sum() / (whole.batch.attribute_BA > 0).sum())
    assert 0.35 < hidden < 0.9
    assert torch.equal(known.events.attribute_BA[:28] > 0, torch.ones(28, 2, dtype=torch.bool))  # the log's own stay


def test_a_share_of_the_users_is_learned_from_the_same_in_every_epoch(known: TrainingSet, members: Recipe) -> None:
    some = replace(members.sampling, users=0.25)
    first, second = (np.unique(np.concatenate(batches(known, some, 3, epoch))) for epoch in (0, 1))
    assert np.array_equal(first, second)
    assert len(first) == round(0.25 * known.users)
    assert not np.array_equal(first, np.unique(np.concatenate(batches(known, some, 4, 0))))
    with pytest.raises(TrainingError, match="'users' is a share, above 0 to 1, got 0"):
        replace(some, users=0.0)


@given(share=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_begin_later_and_something_stays_before_their_last_group(
    known: TrainingSet, share: float, seed: int
) -> None:
    rows = torch.from_numpy(known.trainable)
    skipped = some_later(known.events, rows, share, np.random.default_rng(seed))
    assert (skipped >= 0).all()
    if share == 0:
        assert not skipped.any()
    for row, skip in zip(rows.tolist(), skipped.tolist(), strict=True):
        begin, end = known.events.offset_B1[row : row + 2].tolist()
        last = known.events.group_T[end - 1]
        assert known.events.group_T[begin + skip] < last or skip == 0
    if share == 1:
        assert skipped.any()


def test_whoever_begins_later_is_read_as_if_nothing_had_been_before(known: TrainingSet, members: Recipe) -> None:
    whole, cut = first_lesson(known, members), first_lesson(known, members, history_cut=1.0)
    assert cut.batch.users == whole.batch.users
    assert cut.batch.tokens < whole.batch.tokens
    length_B = cut.batch.offset_B1.diff()
    for user, length in enumerate(length_B.tolist()):
        begin, end = cut.batch.offset_B1[user : user + 2].tolist()
        until = int(whole.batch.offset_B1[user + 1])
        assert torch.equal(cut.batch.facet_TF[begin:end], whole.batch.facet_TF[until - length : until])
    assert len(cut.requests) > 0


def test_a_share_of_the_requests_reads_no_event_as_those_of_a_new_user(known: TrainingSet, members: Recipe) -> None:
    plain = first_lesson(known, members, history_dropout=0.0)
    lesson = first_lesson(known, members, history_dropout=0.4)
    new_R = lesson.requests.end_R == lesson.batch.offset_B1[:-1][lesson.requests.user_R]
    assert 0.2 < float(new_R.float().mean()) < 0.6
    names = [facet.name for facet in members.model.context]
    since = [names.index("gap")]
    others = [place for place in range(len(names)) if place not in since]
    assert not lesson.requests.context_RC[new_R][:, since].any()
    assert torch.equal(lesson.requests.context_RC[:, others], plain.requests.context_RC[:, others])
    assert torch.equal(lesson.requests.context_RC[~new_R], plain.requests.context_RC[~new_R])
    assert torch.equal(lesson.requests.end_R[~new_R], plain.requests.end_R[~new_R])
    for one, other in zip(lesson.targets, plain.targets, strict=True):  # asked for is the same
        assert torch.equal(one.item_E, other.item_E)
        assert torch.equal(one.request_E, other.request_E)


def test_gradients_reach_attributes_and_the_state_of_nobody(
    known: TrainingSet, members: Recipe, club_corpus: Corpus
) -> None:
    model = initial_model(known, club_corpus, members)
    lesson = first_lesson(known, members, history_dropout=0.4)
    sum(loss.share * loss.total for loss in losses(model, lesson, members.objectives)).backward()
    assert model.empty_D.grad.abs().sum() > 0
    assert model.attributes.out.weight.grad.abs().sum() > 0


def test_users_that_are_selected_keep_their_attributes(known: TrainingSet) -> None:
    some = select_users(known.events, torch.tensor([4, 1, 29]))
    assert torch.equal(some.attribute_BA, known.events.attribute_BA[[4, 1, 29]])


def test_a_recipe_takes_attributes_from_the_tokenizer_and_then_asks_for_new_users(
    club_corpus: Corpus, kiosk_corpus: Corpus
) -> None:
    recipe = named(Name.DEFAULT, club_corpus)
    assert dict(recipe.model.attributes) == club_corpus.tokenizer.users.sizes
    assert recipe.sampling.history_dropout > 0
    plain = named(Name.DEFAULT, kiosk_corpus)
    assert (plain.model.attributes, plain.sampling.history_dropout) == ((), 0.0)
    assert Recipe.from_json(recipe.to_json()) == recipe
    off = {"repeat_path": "off", "category_affinity": "off", "groups": "sequence", "attribute_dropout": "0.5"}
    changed = with_overrides(recipe, off)
    assert (changed.model.repeat_path, changed.model.groups) == ("off", "sequence")
    assert Recipe.from_json(changed.to_json()) == changed


@pytest.fixture(scope="module")
def subgraph(known: TrainingSet, members: Recipe, club_corpus: Corpus) -> Subgraph:
    """A model of lessons in which half the requests are those of new users."""
    recipe = replace(members, sampling=replace(members.sampling, tokens=400, history_dropout=0.5))
    model = initial_model(known, club_corpus, recipe)
    optimisers = Optimisers(model, recipe.optimisation)
    stream = lessons(known, recipe.model, recipe.sampling, 0, Position())
    for _ in range(100):
        found = losses(model, next(stream)[1], recipe.objectives)
        sum(loss.share * loss.total / torch.clamp(loss.weight, min=1) for loss in found).backward()
        optimisers.step(1.0)
    return Subgraph(model.eval(), club_corpus.tokenizer, Space("club", 1, "", model.width, 0.0))


def test_a_user_with_nothing_but_attributes_is_offered_what_such_users_buy(subgraph: Subgraph, club: Kiosk) -> None:
    ids, batch = subgraph.tokenize(club.events.slice(0, 0), club.users.slice(28))
    assert ids.to_pylist() == [f"new-{kind}" for kind in KINDS]
    item_N = subgraph.tokenizer.items.ids.ids.to_numpy()
    for score_BN in (subgraph.score(batch), subgraph(batch) @ subgraph.item_vectors().T):
        best_BK = score_BN[:, FIRST_ITEM:].topk(5, dim=1).indices.numpy()
        liked = (item_N[best_BK] - 100) % len(KINDS) == np.arange(len(KINDS))[:, None]
        assert liked.mean() > 0.6  # by chance a fifth


def test_a_user_of_whom_nothing_is_known_is_offered_what_is_popular(
    trained, training_set: TrainingSet, kiosk: Kiosk
) -> None:
    subgraph = Subgraph.from_pretrained(trained.model)
    _, batch = subgraph.tokenize(kiosk.events.slice(0, 0), pa.table({"customer": ["somebody"]}))
    recent_V = recent_counts(training_set, subgraph.model.config.item_column)
    met = (recent_V > 0).nonzero().flatten()
    rank = recent_V[met].argsort().argsort().double()
    for score_BV in (subgraph.score(batch), subgraph(batch) @ subgraph.item_vectors().T):
        assert torch.isfinite(score_BV[:, FIRST_ITEM:]).all()
        found = score_BV[0, met].argsort().argsort().double()
        assert float(torch.corrcoef(torch.stack([rank, found]))[0, 1]) > 0.8


def test_whoever_is_judged_is_known_by_the_attributes_and_by_no_event_of_the_target(
    subgraph: Subgraph, club_corpus: Corpus
) -> None:
    tokens = club_corpus.tokens()
    held = hold_out(tokens, Columns.of(club_corpus.tokenizer), club_corpus.split)
    requests = held.requests(0, 4)
    batch, _, _ = inputs(subgraph, requests)
    rows = [tokens["user_id"].to_pylist().index(user) for user in requests.user_ids.to_pylist()]
    everybody = subgraph.pack(tokens)[1]
    assert torch.equal(batch.attribute_BA, everybody.attribute_BA[rows])
    nothing = tokens
    for name in ("user.likes", "user.age"):
        place = tokens.schema.get_field_index(name)
        nothing = nothing.set_column(place, name, pa.array(np.zeros(tokens.num_rows, np.int32)))
    other = hold_out(nothing, Columns.of(club_corpus.tokenizer), club_corpus.split).requests(0, 4)
    for scorer in model_scorers(subgraph).values():
        assert not np.allclose(scorer(requests)[:, 2:], scorer(other)[:, 2:], atol=1e-2)


@given(share=st.floats(0, 1), young=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_rows_are_hidden_at_the_share_and_those_of_young_items_more_often(
    recipe: Recipe, share: float, young: float, seed: int
) -> None:
    gated = replace(recipe.model, item_gate=ItemGate.AGE)
    count_V = np.ones(4_000)
    hidden = hidden_rows(IdDropout(share=share, young=young), gated, count_V, np.random.default_rng(seed))
    code = torch.arange(4_000)
    if not (share or young):
        assert not hidden.some
        return
    ages = bin_ages(gated.repeat.time_unit)
    kept_A = [float(hidden.kept(code, torch.full_like(code, place)).mean()) for place in range(len(ages))]
    assert kept_A[-1] == pytest.approx(1 - share, abs=0.05)  # an age nobody knows is not young
    assert kept_A[1] == pytest.approx(max(1 - share - young, 0.0), abs=0.05)
    assert kept_A[1:] == sorted(kept_A[1:])


def test_some_candidates_read_the_row_of_another_item_that_was_met(recipe: Recipe) -> None:
    count_V = np.arange(3_000) % 2.0
    hidden = hidden_rows(IdDropout(shuffled=0.3), recipe.model, count_V, np.random.default_rng(0))
    moved = hidden.row_V != torch.arange(3_000)
    assert 0.27 < float(moved.float().mean()) < 0.33
    assert (count_V[hidden.row_V[moved].numpy()] > 0).all()


def test_lessons_hide_as_many_rows_as_the_log_has_cold_meetings(training_set: TrainingSet, recipe: Recipe) -> None:
    events, column = training_set.events, recipe.model.item_column
    rate = cold_rate(events, training_set.end, column)
    assert IdDropout(share=MEASURED).resolved(events, training_set.end, column).share == rate
    sampling = replace(recipe.sampling, id_dropout=IdDropout(share=0.5))
    lesson = next(lessons(training_set, recipe.model, sampling, 0, Position()))[1]
    plain = next(lessons(training_set, recipe.model, recipe.sampling, 0, Position()))[1]
    assert torch.equal(lesson.negatives.code_M, plain.negatives.code_M)  # nothing else is drawn otherwise
    assert torch.equal(lesson.requests.end_R, plain.requests.end_R)
    assert lesson.hidden.some
    assert not plain.hidden.some


@pytest.mark.parametrize("gate", list(ItemGate))
def test_a_hidden_item_is_read_by_its_content_wherever_it_stands(
    training_set: TrainingSet, recipe: Recipe, kiosk_corpus: Corpus, gate: ItemGate
) -> None:
    """All rows hidden: whatever stands in them, the losses are the same, and no gradient reaches them."""
    told = replace(recipe, model=replace(recipe.model, item_gate=gate))
    sampling = replace(told.sampling, id_dropout=IdDropout(share=1.0))
    lesson = next(lessons(training_set, told.model, sampling, 0, Position()))[1]
    model = initial_model(training_set, kiosk_corpus, told)
    found = losses(model, lesson, told.objectives)
    sum(loss.share * loss.total for loss in found).backward()
    gradient = model.tower.id.weight.grad
    assert gradient is None or not gradient.to_dense().any()
    with torch.no_grad():
        model.tower.id.weight.add_(1.0)
        model.tower.bias.weight.add_(1.0)
    for one, other in zip(found, losses(model, lesson, told.objectives), strict=True):
        torch.testing.assert_close(one.total, other.total, rtol=1e-4, atol=1e-3)


def test_the_settings_of_id_dropout_are_read_and_checked(recipe: Recipe, kiosk_corpus: Corpus) -> None:
    changed = with_overrides(recipe, {"id_dropout.share": "-1", "item_gate": "age", "id_dropout.young": "0.3"})
    assert Recipe.from_json(changed.to_json()) == changed
    assert changed.sampling.id_dropout == IdDropout(share=MEASURED, young=0.3)
    with pytest.raises(TrainingError, match="set `item_gate=age`"):
        with_overrides(recipe, {"id_dropout.young": "0.3"})
    with pytest.raises(TrainingError, match="'shuffled' is a share, from 0 to 1, got 2"):
        IdDropout(shuffled=2)

"""What is asked about cold products, new users and velocity, on a log in which it can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import velocity
from benchmarks.cold_items import category_popularity, cold_items, content_neighbours, grid, recall, scores
from benchmarks.cold_start import JOBS, SETTINGS, _ticks, recipe_for
from benchmarks.cold_users import described, knowing_last, last_tokens
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Part, Requests, hold_out

PART = Part.VALIDATION


def lines_of(corpus: Corpus) -> list[tuple[int, int, float]]:
    """(row, item, time) of every token with an item."""
    tokens = corpus.tokens()
    items, times = tokens["product"].to_pylist(), tokens["time"].to_pylist()
    return [
        (row, item, time)
        for row, (some, when) in enumerate(zip(items, times, strict=True))
        for item, time in zip(some, when, strict=True)
        if item > 1
    ]


@pytest.fixture(scope="module")
def later(kiosk_corpus: Corpus) -> Corpus:
    """The kiosk's log, whose later halves of items are taken to be new: whoever met them before the cut did not."""
    tokens, cut = kiosk_corpus.tokens(), kiosk_corpus.split.validation
    assert cut is not None
    column = tokens.schema.get_field_index("product")
    hidden = pa.array(
        [
            [0 if item % 4 == 3 and time < cut else item for item, time in zip(items, times, strict=True)]
            for items, times in zip(tokens["product"].to_pylist(), tokens["time"].to_pylist(), strict=True)
        ],
        tokens.schema.field(column).type,
    )
    changed = tokens.set_column(column, tokens.schema.field(column), hidden)

    class Told:
        split, tokenizer = kiosk_corpus.split, kiosk_corpus.tokenizer

        def tokens(self) -> pa.Table:
            return changed

    return Told()  # type: ignore[return-value]


def test_cold_is_what_nobody_met_before_the_cut_and_somebody_meets_in_the_part(later: Corpus) -> None:
    cut, end = later.split.validation, later.split.time
    met = {item for _, item, time in lines_of(later) if time < cut}
    taken = {(row, item) for row, item, time in lines_of(later) if cut <= time < end and item not in met}
    assert taken
    cold = cold_items(later, PART)
    rows = cold.held.asked.row
    found = {
        (int(rows[user]), int(cold.cold_C[place]))
        for user, place in zip(cold.truth.users, cold.truth.codes, strict=True)
    }
    assert found == {(row, item) for row, item in taken if row in set(rows.tolist())}
    assert set(cold.cold_C.tolist()) <= {item for _, item in taken}


def test_requests_for_cold_products_read_nothing_of_the_part(later: Corpus) -> None:
    cold = cold_items(later, PART)
    for _, requests in cold.held.chunks(4):
        times = [time for row in requests.history["time"].to_pylist() for time in row]
        assert max(times) < later.split.validation
        assert not requests.context.any()
        assert (requests.at == later.split.validation).all()


def test_who_knows_the_truth_has_every_cold_product_among_the_first(later: Corpus) -> None:
    cold = cold_items(later, PART)
    score_UC = np.zeros((len(cold), len(cold.cold_C)), np.float32)
    score_UC[cold.truth.users, cold.truth.codes] = 1.0
    assert (recall(cold, score_UC, k=50) == 1.0).all()
    assert (recall(cold, -score_UC, k=1) == 0.0).any()


def test_scorers_are_asked_for_the_cold_products_alone(later: Corpus) -> None:
    cold, codes = cold_items(later, PART), len(later.tokenizer.items)

    def by_code(requests: Requests) -> np.ndarray:
        return np.tile(np.arange(codes, dtype=np.float32), (len(requests), 1))

    found = scores(cold, {"code": by_code})["code"]
    assert (found == cold.cold_C).all()
    assert found.shape == (len(cold), len(cold.cold_C))


def test_products_of_the_categories_of_a_history_are_nearest_to_it(later: Corpus) -> None:
    cold, items = cold_items(later, PART), later.tokenizer.items
    for settings in grid():
        score_UC = content_neighbours(cold, items, settings)
        assert score_UC.shape == (len(cold), len(cold.cold_C))
        assert np.isfinite(score_UC).all()
    kind_V = items.categories["kind"]
    popular_UC = category_popularity(cold, items, "kind")
    recent = cold.held.before.time >= cold.at - 28 * 86_400.0
    for place, code in enumerate(cold.cold_C):
        expected = (kind_V[cold.held.before.item[recent]] == kind_V[code]).sum()
        assert (popular_UC[:, place] == expected).all()


def test_a_history_is_cut_to_its_last_tokens(club_corpus: Corpus) -> None:
    tokens = club_corpus.tokens()
    for events in (0, 1, 3):
        found = last_tokens(tokens, events)
        assert found.schema == tokens.schema
        for name in ("product", "time"):
            for one, other in zip(found[name].to_pylist(), tokens[name].to_pylist(), strict=True):
                assert one == (other[-events:] if events else [])
        assert found["user.likes"].equals(tokens["user.likes"])


def test_somebody_without_an_event_is_told_no_gap_and_keeps_the_rest(club_corpus: Corpus) -> None:
    tokenizer = club_corpus.tokenizer
    held = hold_out(club_corpus.tokens(), Columns.of(tokenizer), club_corpus.split, PART)
    seen: list[Requests] = []

    def scorer(requests: Requests) -> np.ndarray:
        seen.append(requests)
        return np.zeros((len(requests), 1), np.float32)

    asked = held.requests(0, 6)
    for events in (0, 1):
        knowing_last(scorer, events, tokenizer)(asked)
    nothing, one = seen
    names = [facet.name for facet in tokenizer.context_facets]
    gap = names.index("gap")
    others = [place for place in range(len(names)) if place != gap]
    assert asked.context[:, gap].any()
    assert not nothing.context[:, gap].any()
    assert (nothing.context[:, others] == asked.context[:, others]).all()
    assert (one.context == asked.context).all()
    assert {len(times) for times in one.history["time"].to_pylist()} == {1}


def test_described_is_who_has_attributes(club_corpus: Corpus, kiosk_corpus: Corpus) -> None:
    tokens = club_corpus.tokens()
    known = described(tokens, club_corpus.tokenizer)
    assert 0 < known.sum() < len(known) or known.all()
    assert not described(kiosk_corpus.tokens(), kiosk_corpus.tokenizer).any()


def test_places_count_the_items_that_stand_before(later: Corpus) -> None:
    found, codes = velocity.debuts(later, PART), len(later.tokenizer.items)
    rng = np.random.default_rng(0)
    table = rng.permuted(np.tile(np.arange(codes, dtype=np.float32), (len(found.held), 1)), axis=1)
    served: list[int] = []

    def scorer(requests: Requests) -> np.ndarray:
        served.append(len(requests))
        return table[sum(served[:-1]) : sum(served)]

    place_P = velocity.places(found, scorer)
    for pair in range(0, len(place_P), 5):
        score_V = table[found.user_P[pair]]
        assert 2 ** place_P[pair] == pytest.approx(1 + (score_V > score_V[found.item_P[pair]]).sum())


def test_a_new_item_is_held_against_old_ones_that_sell_as_much() -> None:
    """Old ones that one user takes stand at 2^3, those that two take at 2^1."""
    found = velocity.Debuts(
        held=[None] * 3,  # type: ignore[arg-type]
        user_P=np.array([0, 0, 1, 1, 2, 2]),
        item_P=np.arange(6),
        met_P=np.array([90, 90, 1, 1, 0, 8]),
        taken_P=np.array([1, 2, 1, 1, 2, 2]),
        new_P=np.array([False, False, True, True, True, True]),
        old_P=np.array([True, True, False, False, False, False]),
    )
    gaps = velocity.behind(found, np.array([3.0, 1.0, 4.0, 2.0, 5.0, 1.0]))
    assert gaps[0].mean == pytest.approx(4.0)
    assert gaps[1].mean == pytest.approx(0.0)
    assert gaps[velocity.MEETINGS.index(8)].mean == pytest.approx(0.0)
    assert np.isnan(gaps[2].mean)
    assert velocity.caught_up(gaps) == 1.0
    assert velocity.caught_up([replace(gaps[0])] + [gaps[0]] * (len(velocity.MEETINGS) - 1)) == float("inf")


def test_every_model_is_of_settings_that_there_are_and_one_has_no_content(kiosk_corpus: Corpus) -> None:
    assert {name for name, _ in JOBS} == set(SETTINGS)
    without = recipe_for(kiosk_corpus, "without content", 0)
    default = recipe_for(kiosk_corpus, "default", 0)
    assert (without.model.item.categories, without.model.item.text_width) == ((), 0)
    assert default.model.item.categories
    assert recipe_for(kiosk_corpus, "gated", 1).model.item_gate == "age"


def test_bins_are_written_as_what_they_hold() -> None:
    assert _ticks((0, 1, 2, 4)) == ["0", "1", "2–3", "4 and more"]

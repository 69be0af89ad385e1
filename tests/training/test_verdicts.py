"""Verdicts follow from the figures and from nothing else."""

from __future__ import annotations

import pytest

from training.verdicts import Outcome, verdicts


@pytest.mark.parametrize(
    ("low", "high", "outcome", "said"),
    [
        (0.001, 0.02, Outcome.MET, "beats"),
        (-0.02, -0.001, Outcome.MISSED, "loses"),
        (-0.001, 0.02, Outcome.INCONCLUSIVE, "can't be told apart"),
        (0.0, 0.02, Outcome.INCONCLUSIVE, "not a win"),
    ],
)
def test_the_model_wins_only_with_the_whole_interval_above_zero(
    low: float, high: float, outcome: Outcome, said: str
) -> None:
    gap = {"ndcg@10": (low + high) / 2, "low": low, "high": high}
    (verdict,) = verdicts({"evaluation": {"model_minus_personal_decayed": gap}})
    assert verdict.outcome is outcome
    assert said in verdict.text


@pytest.mark.parametrize(("recall", "outcome"), [(0.09, Outcome.MET), (0.08, Outcome.MISSED)])
def test_new_items_need_one_and_a_half_times_popularity(recall: float, outcome: Outcome) -> None:
    evaluation = {"model": {"new": {"recall@50": recall}}, "popularity": {"new": {"recall@50": 0.055}}}
    assert [v.outcome for v in verdicts({"evaluation": evaluation})] == [outcome]


@pytest.mark.parametrize(("ndcg", "outcome"), [(0.09, Outcome.MET), (0.086, Outcome.MISSED)])
def test_the_embedding_must_be_above_popularity(ndcg: float, outcome: Outcome) -> None:
    evaluation = {"embedding": {"all": {"ndcg@10": ndcg}}, "popularity": {"all": {"ndcg@10": 0.086}}}
    assert [v.outcome for v in verdicts({"evaluation": evaluation})] == [outcome]


def test_heads_and_probes_are_judged_one_by_one() -> None:
    label = {"embedding": 0.4, "baseline": 0.3, "embedding_minus_baseline": {"mean": 0.1, "low": -0.1, "high": 0.3}}
    head = {"ndcg@10": 0.1, "baseline_ndcg@10": 0.2}
    found = verdicts({"heads": {"item_to_item": head}, "probe": {"household_size": label}})
    assert [v.outcome for v in found] == [Outcome.MISSED, Outcome.INCONCLUSIVE]
    assert "item-to-item" in found[0].text
    assert "household size" in found[1].text


def test_no_figures_no_verdicts() -> None:
    assert verdicts({}) == []

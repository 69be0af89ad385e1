"""What the figures say, in plain sentences: met, missed, or not to be told apart.

The sentences are made from the figures alone, so a report can't claim what its numbers don't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Figures = Mapping[str, Any]
NEW_RECALL_FACTOR = 1.5


class Outcome(StrEnum):
    """How a comparison ended."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """One comparison and how it ended."""

    outcome: Outcome
    text: str


def verdicts(figures: Figures) -> list[Verdict]:
    """A verdict for every comparison that the figures of a report.json allow; what is missing is passed
    over."""
    evaluation = figures.get("evaluation", {})
    found = [_against_decayed(evaluation), _on_new(evaluation), _embedding(evaluation)]
    found += [_head(name, head) for name, head in figures.get("heads", {}).items()]
    found += [_probe(name, label) for name, label in figures.get("probe", {}).items()]
    return [verdict for verdict in found if verdict]


def _against_decayed(evaluation: Figures) -> Verdict | None:
    gap = evaluation.get("model_minus_personal_decayed")
    if gap is None:
        return None
    span = f"{gap['ndcg@10']:+.4f} NDCG@10, 95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}"
    if gap["low"] > 0:
        return Verdict(Outcome.MET, f"The model beats the decayed personal count ({span}).")
    if gap["high"] < 0:
        return Verdict(Outcome.MISSED, f"The model loses to the decayed personal count ({span}).")
    return Verdict(
        Outcome.INCONCLUSIVE, f"The model and the decayed personal count can't be told apart ({span}); not a win."
    )


def _on_new(evaluation: Figures) -> Verdict | None:
    model, popular = (_at(evaluation, name, "new", "recall@50") for name in ("model", "popularity"))
    if model is None or not popular:
        return None
    ratio = model / popular
    text = (
        f"On products new to the user the model's Recall@50 is {model:.3f}, {ratio:.2f} times popularity's "
        f"{popular:.3f}; the bar is {NEW_RECALL_FACTOR}."
    )
    return Verdict(Outcome.MET if ratio >= NEW_RECALL_FACTOR else Outcome.MISSED, text)


def _embedding(evaluation: Figures) -> Verdict | None:
    ours, popular = (_at(evaluation, name, "all", "ndcg@10") for name in ("embedding", "popularity"))
    if ours is None or popular is None:
        return None
    text = f"By dot product alone the embeddings reach NDCG@10 {ours:.3f}; popularity reaches {popular:.3f}."
    return Verdict(Outcome.MET if ours > popular else Outcome.MISSED, text)


def _head(name: str, head: Figures) -> Verdict:
    ours, base = head["ndcg@10"], head["baseline_ndcg@10"]
    text = f"The {name.replace('_', '-')} head reaches NDCG@10 {ours:.3f}; its popularity baseline {base:.3f}."
    return Verdict(Outcome.MET if ours > base else Outcome.MISSED, text)


def _probe(name: str, label: Figures) -> Verdict | None:
    gap = label.get("embedding_minus_baseline")
    if gap is None:
        return None
    text = (
        f"A linear probe reads {name.replace('_', ' ')} off the user embedding with a rank correlation of "
        f"{label['embedding']:.3f}, off purchase counts with {label['baseline']:.3f}"
    )
    if gap["low"] > 0:
        return Verdict(Outcome.MET, f"{text}.")
    if gap["high"] < 0:
        return Verdict(Outcome.MISSED, f"{text}: the counts say more.")
    return Verdict(Outcome.INCONCLUSIVE, f"{text}; the difference is within the noise.")


def _at(evaluation: Figures, name: str, part: str, metric: str) -> float | None:
    value = evaluation.get(name, {}).get(part, {}).get(metric)
    return None if value is None else float(value)

from __future__ import annotations

from foundation.card import Told, judged_card, new_card
from foundation.model import FoundationModel
from tokenization.corpus.corpus import Corpus

TOLD = Told(data=["9 events of 2 users"], training=["3 steps"])
SECTIONS = ("What it is for", "Size", "What it reads", "Data", "Training", "Evaluation", "Limits", "Licence")


def test_a_card_tells_what_whoever_takes_the_model_must_know(model: FoundationModel, kiosk_corpus: Corpus) -> None:
    card = new_card(model, kiosk_corpus.tokenizer, TOLD)
    assert card.startswith("# kiosk\n")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
    total = sum(weight.numel() for weight in model.parameters())
    for said in (
        f"{total:,} parameters",
        "2 layers of width 16, 2 heads, windows of 12 tokens",
        "- 9 events of 2 users",
        "- 3 steps",
        "Told at a request: store",
        "Predicts: product, quantity, action",
        "None is recorded here",
        "Subgraph.from_pretrained(",
        "popularity",
        "give away attributes",
        "None is stated",
    ):
        assert said in card, said
    assert max(len(line) for line in card.splitlines()) <= 120


def test_figures_take_the_place_of_those_that_stood_there(model: FoundationModel, kiosk_corpus: Corpus) -> None:
    card = new_card(model, kiosk_corpus.tokenizer, TOLD)
    judged = judged_card(card, ["NDCG@10 0.2"])
    assert "## Evaluation\n\n- NDCG@10 0.2\n\n## Limits" in judged
    assert "None is recorded" not in judged
    assert judged_card(judged, ["NDCG@10 0.3"]) == judged.replace("0.2", "0.3")
    assert judged_card("# Somebody's own\n", ["NDCG@10 0.3"]) == "# Somebody's own\n"

"""A run is judged on what it never saw, by its own corpus only, and every scorer gets the same requests."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation import pretrained
from foundation.embedding import item_content
from foundation.model import FoundationModel
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training import metrics, recipes
from training.errors import EvaluationError, RunError
from training.evaluate import evaluate_run, note_on_card, refuse_other_split, standard_baselines
from training.holdout import Columns, Part, hold_out
from training.ranking import Slice, evaluate
from training.scorers import inputs, model_scorers

DAY = 86400
SCHEMA = {
    "schema": 1,
    "name": "shop",
    "user": "user",
    "time": {"column": "time"},
    "group": "basket",
    "entities": {"product": {"column": "product", "candidates": True}},
    "context": {"store": {"kind": "category"}},
    "outcome": {"quantity": {"kind": "number"}},
    "targets": {"product": 1.0, "quantity": 0.1},
    "split": {"time": "1970-03-02", "validation": "1970-02-15"},
}


def shop_events() -> pa.Table:
    """40 users, a basket of three products every few days over 90 days."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        for day in np.sort(rng.choice(90, 14, replace=False)):
            basket = {"user": user, "time": int(day * DAY + 3600), "basket": f"{user}-{day}", "store": f"s{day % 3}"}
            rows += [
                {**basket, "product": f"p{item}", "quantity": float(rng.integers(1, 5))}
                for item in rng.choice(20, 3, replace=False)
            ]
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def events() -> pa.Table:
    return shop_events()


@pytest.fixture(scope="module")
def corpus(events: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    tokenizer = Tokenizer.fit(EventSchema.from_dict(SCHEMA), events)
    return write_corpus(tmp_path_factory.mktemp("corpus") / "shop", [tokenizer.transform(events)], tokenizer, {})


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    model = FoundationModel(recipes.small(corpus).model, item_content(corpus.tokenizer.items)).eval()
    pretrained.save(model, corpus.tokenizer, folder / "model", "shop", 1, 0.0, card="")
    (folder / "run.json").write_text(json.dumps({"split": asdict(corpus.split), "until": "validation"}))
    return folder


def test_a_run_is_judged_beside_its_baselines(run: Path, corpus: Corpus) -> None:
    found = evaluate_run(run, corpus)
    figures = found.figures()
    assert set(found.judged) == {"embedding", "model", "popularity", "personal_count", "personal_decayed"}
    for name in found.judged:
        for part in ("all", "repeat", "new"):
            assert {"recall@10", "recall@50", "ndcg@10"} <= figures[name][part].keys()
        assert 0 < figures[name]["coverage@10"] <= 1
    assert {"ndcg@10", "low", "high"} == figures["model_minus_personal_decayed"].keys()
    assert figures["protocol"]["told"] == ["store", "hour", "weekday", "gap"]
    json.dumps(figures, allow_nan=False)


def test_the_target_group_changes_no_score(run: Path, corpus: Corpus, events: pa.Table) -> None:
    """Items and outcomes of everything from the target group on are replaced; every scorer must not notice."""
    subgraph = Subgraph.from_pretrained(run / "model")
    columns = Columns.of(corpus.tokenizer)
    after = np.array(events["time"]) >= corpus.split.time
    product = np.where(after, "p0", np.array(events["product"].to_pylist()))
    quantity = np.where(after, 99.0, np.array(events["quantity"]))
    changed = events.drop_columns(["product", "quantity"])
    changed = changed.append_column("product", pa.array(product)).append_column("quantity", pa.array(quantity))
    scores, truths = [], []
    for log in (events, changed):
        tokens = corpus.tokenizer.transform(log)
        held = hold_out(tokens, columns, corpus.split)
        requests = held.requests(0, len(held))
        scorers = {
            **model_scorers(subgraph),
            **standard_baselines(tokens, columns, corpus.split, Part.TEST, len(corpus.tokenizer.items), clock=True),
        }
        scores.append({name: scorer(requests) for name, scorer in scorers.items()})
        truths.append(held.truth.codes.tolist())
    assert truths[0] != truths[1]
    for name in scores[0]:
        np.testing.assert_array_equal(scores[0][name], scores[1][name], err_msg=name)


def test_the_context_of_the_request_reaches_the_model_only_where_it_is_told(run: Path, corpus: Corpus) -> None:
    score = model_scorers(Subgraph.from_pretrained(run / "model"))["model"]
    columns = Columns.of(corpus.tokenizer)
    told = hold_out(corpus.tokens(), columns, corpus.split)
    untold = hold_out(corpus.tokens(), columns, corpus.split, told=False)
    assert told.asked.context.any(axis=0).all()
    assert not untold.asked.context.any()
    assert score(untold.requests(0, 4)).shape == score(told.requests(0, 4)).shape


def test_a_users_score_does_not_depend_on_its_chunk(run: Path, corpus: Corpus) -> None:
    score = model_scorers(Subgraph.from_pretrained(run / "model"))["model"]
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split)
    apart = np.concatenate([score(requests) for _, requests in held.chunks(7)])
    np.testing.assert_allclose(score(held.requests(0, len(held))), apart, atol=1e-4)


def test_both_rows_of_the_model_are_what_its_subgraph_says_in_either_order(run: Path, corpus: Corpus) -> None:
    subgraph = Subgraph.from_pretrained(run / "model")
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split)
    scorers = model_scorers(subgraph)
    for requests, order in (
        (held.requests(0, 5), ("embedding", "model")),
        (held.requests(5, 9), ("model", "embedding")),
    ):
        batch, at_B, context_BC = inputs(subgraph, requests)
        with torch.no_grad():
            expected = {
                "embedding": subgraph(batch, at_B) @ subgraph.item_vectors().T,
                "model": subgraph.score(batch, at_B, context_BC),
            }
        for name in order:
            np.testing.assert_allclose(scorers[name](requests), expected[name].numpy(), atol=1e-5)


def test_another_split_is_refused(run: Path, corpus: Corpus) -> None:
    other = Split("time", 5.0, 4.0, None)
    with pytest.raises(EvaluationError, match=r"split kind=time.* and the corpus has .*time=5\.0"):
        refuse_other_split(run, other)
    refuse_other_split(run, corpus.split)


def test_a_run_on_all_data_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"split": asdict(corpus.split), "until": "end"}))
    for part in Part:
        with pytest.raises(EvaluationError, match="all data"):
            refuse_other_split(tmp_path, corpus.split, part)


def test_a_run_that_learned_the_validation_part_is_judged_on_the_test_part_alone(
    tmp_path: Path, corpus: Corpus
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"split": asdict(corpus.split), "until": "test"}))
    refuse_other_split(tmp_path, corpus.split, Part.TEST)
    with pytest.raises(EvaluationError, match="has learned the validation part"):
        refuse_other_split(tmp_path, corpus.split, Part.VALIDATION)


def test_settings_are_chosen_on_what_lies_between_training_and_test(run: Path, corpus: Corpus) -> None:
    tokens, columns = corpus.tokens(), Columns.of(corpus.tokenizer)
    found = evaluate_run(run, corpus, Part.VALIDATION)
    held_out = hold_out(tokens, columns, corpus.split, Part.VALIDATION)
    baselines = standard_baselines(
        tokens, columns, corpus.split, Part.VALIDATION, len(corpus.tokenizer.items), clock=True
    )
    expected = evaluate(held_out, baselines, len(corpus.tokenizer.items))
    for name in baselines:
        np.testing.assert_array_equal(
            found.judged[name].values[Slice.ALL]["ndcg@10"], expected.judged[name].values[Slice.ALL]["ndcg@10"]
        )
    assert found.protocol["part"] == "validation"


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"split": {"kind": "time"}}'])
def test_a_folder_that_is_no_run_is_named(tmp_path: Path, corpus: Corpus, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="userfm train"):
        refuse_other_split(tmp_path, corpus.split)


def test_tokens_of_another_tokenizer_are_refused(run: Path, events: pa.Table, tmp_path: Path) -> None:
    fewer = events.filter(np.array(events["product"].to_pylist()) != "p3")
    tokenizer = Tokenizer.fit(EventSchema.from_dict(SCHEMA), fewer)
    other = write_corpus(tmp_path / "other", [tokenizer.transform(fewer)], tokenizer, {})
    with pytest.raises(RunError, match="tokens of another tokenizer than the model: 'product' has other codes"):
        evaluate_run(run, other)


def test_a_log_without_times_tunes_its_half_life_in_positions(token_table, random_log) -> None:
    log = {u: [(float(g), g, i, s) for _, g, i, s in tokens] for u, tokens in random_log(7).items()}
    tokens, columns, split = token_table(log), Columns("product"), Split("last_items", None, None, 1)
    scorers = standard_baselines(tokens, columns, split, Part.TEST, 21, clock=False)
    found = evaluate(hold_out(tokens, columns, split), scorers, 21).judged
    assert metrics.mean(found["personal_decayed"].values[Slice.ALL]["recall@50"]) > 0.9


def test_figures_of_a_run_are_noted_on_its_card(tmp_path: Path) -> None:
    names, measures = ("model", "embedding", "popularity", "personal_decayed"), ("recall@10", "ndcg@10")
    figures = {
        **{key: {"all": dict.fromkeys(measures, 0.125)} for key in names},
        "intervals": {key: {"all": {key_0: {"low": 0.1, "high": 0.3} for key_0 in measures}} for key in names},
        "protocol": {
            "split": {"kind": "time", "time": 5.0, "validation": 3.0, "last_items": None},
            "told": ["till"],
        },
    }
    note_on_card(tmp_path, figures)  # a model without a card stays without
    card = tmp_path / "model" / "README.md"
    card.parent.mkdir()
    card.write_text("# Shop\n\n## Evaluation\n\nNone.\n\n## Limits\n")
    note_on_card(tmp_path, figures)
    assert card.read_text().startswith("# Shop\n\n## Evaluation\n\n- split: kind=time, time=5.0")
    assert "told till\n- model, recall@10: 0.1250 (0.1000 to 0.3000)\n" in card.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.errors import ModelError
from foundation.explanation import occlusion
from foundation.subgraph import Subgraph

DAY = 86_400.0
PLANTED, OTHERS = 139, (100, 105, 110, 115)


@pytest.fixture(scope="module")
def subgraph(folder: Path) -> Subgraph:
    return Subgraph.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokens(subgraph: Subgraph) -> pa.Table:
    """Twenty visits, each to buy something usual; on the seventh day the planted article, once."""
    days = [*range(20), 7]
    articles = [*(OTHERS[day % 4] for day in range(20)), PLANTED]
    return subgraph.tokenizer.transform(
        pa.table(
            {
                "customer": ["eve"] * 21,
                "time": [day * DAY + 3600 for day in days],
                "visit": [f"v{day}" for day in days],
                "action": ["buy"] * 21,
                "store": ["s1"] * 21,
                "article": articles,
                "coupon": pa.nulls(21, pa.string()),
                "quantity": [1.0] * 21,
                "shelf": ["a"] * 21,
            }
        )
    )


def only(tokens: pa.Table, kept: np.ndarray) -> pa.Table:
    """The one row with some of its tokens."""
    columns = {"user_id": tokens["user_id"]}
    for name in tokens.column_names[1:]:
        values = tokens[name].combine_chunks().flatten().take(pa.array(kept))
        columns[name] = pa.ListArray.from_arrays(pa.array([0, len(kept)], pa.int32()), values)
    return pa.table(columns)


def code_of(subgraph: Subgraph, article: int) -> int:
    return int(subgraph.tokenizer.items.ids.encode(pa.array([article]))[0])


def test_the_planted_event_weighs_most_for_its_item(subgraph: Subgraph, tokens: pa.Table) -> None:
    found = occlusion(subgraph, tokens, code_of(subgraph, PLANTED)).to_pylist()
    assert found[0]["item_id"] == PLANTED
    assert found[0]["time"] == 7 * DAY + 3600
    assert found[0]["weight"] > 2 * abs(found[1]["weight"])
    other = occlusion(subgraph, tokens, code_of(subgraph, OTHERS[0])).to_pylist()
    assert other[0]["item_id"] != PLANTED


def test_each_event_weighs_what_the_score_loses_without_it(subgraph: Subgraph, tokens: pa.Table) -> None:
    item = code_of(subgraph, PLANTED)
    found = occlusion(subgraph, tokens, item, at=30 * DAY).sort_by("position")
    _, whole = subgraph.pack(tokens)
    at_B = torch.tensor([30 * DAY], dtype=torch.float64)
    with torch.no_grad():
        score = subgraph.score(whole, at_B)[0, item]
    assert found["position"].to_pylist() == list(range(21))
    assert (np.diff(found["time"].to_numpy()) >= 0).all()
    with torch.no_grad():
        less = subgraph.score(subgraph.pack(only(tokens, np.delete(np.arange(21), 3)))[1], at_B)[0, item]
    assert found["weight"][3].as_py() == pytest.approx(float(score - less), abs=1e-4)


def test_heaviest_come_first_and_only_the_last_are_tried(subgraph: Subgraph, tokens: pa.Table) -> None:
    found = occlusion(subgraph, tokens, code_of(subgraph, PLANTED), last=5)
    assert sorted(found["position"].to_pylist()) == [16, 17, 18, 19, 20]
    assert (np.diff(found["weight"].to_numpy()) <= 0).all()


def test_the_context_of_the_request_is_read(subgraph: Subgraph, tokens: pa.Table) -> None:
    item = code_of(subgraph, PLANTED)
    context = torch.from_numpy(subgraph.tokenizer.encode_context({"store": ["s2"]}).astype(np.int64))[0]
    plain, told = (
        occlusion(subgraph, tokens, item, context_C=c).sort_by("position")["weight"] for c in (None, context)
    )
    assert not np.allclose(plain.to_numpy(), told.to_numpy(), atol=1e-3)


def test_a_history_of_one_event_and_of_none_can_be_explained(subgraph: Subgraph, tokens: pa.Table) -> None:
    one = occlusion(subgraph, only(tokens, np.arange(1)), 5)
    assert one.num_rows == 1
    assert np.isfinite(one["weight"].to_numpy()).all()
    assert occlusion(subgraph, only(tokens, np.arange(0)), 5).num_rows == 0


def test_several_users_or_no_candidate_are_refused(subgraph: Subgraph, tokens: pa.Table) -> None:
    with pytest.raises(ModelError, match="explain one user at a time, got 2 rows"):
        occlusion(subgraph, pa.concat_tables([tokens, tokens]), 5)
    for code in (0, 1, len(subgraph.tokenizer.items)):
        with pytest.raises(ModelError, match=f"item code {code} is no candidate"):
            occlusion(subgraph, tokens, code)

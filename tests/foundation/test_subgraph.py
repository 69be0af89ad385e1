from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from foundation.errors import ModelError
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph, rows_of
from tokenization.corpus.corpus import Corpus

Names = tuple[str, ...]


@pytest.fixture(scope="module")
def subgraph(folder: Path) -> Subgraph:
    return Subgraph.from_pretrained(folder)


def of(kiosk, *customers: str) -> pa.Table:
    return kiosk.events.filter(pc.is_in(kiosk.events["customer"], pa.array(customers)))


def test_events_become_one_vector_a_user_in_the_order_of_their_ids(subgraph: Subgraph, kiosk) -> None:
    users, batch = subgraph.tokenize(of(kiosk, "c07", "c03"))
    assert users.to_pylist() == ["c03", "c07"]
    vectors = subgraph(batch)
    assert vectors.shape == (2, subgraph.space.width)
    assert vectors.dtype == torch.float32
    alone = subgraph(subgraph.tokenize(of(kiosk, "c07"))[1])
    torch.testing.assert_close(alone[0], vectors[1], rtol=1e-4, atol=1e-5)


def test_polars_pandas_and_arrow_are_read_alike(subgraph: Subgraph, kiosk) -> None:
    events = of(kiosk, "c01")
    frames = [events, polars.from_arrow(events), events.to_pandas()]
    first, *others = [subgraph(subgraph.tokenize(frame)[1]) for frame in frames]
    for other in others:
        assert torch.equal(first, other)


def test_the_order_and_the_chunks_of_the_rows_have_no_influence(subgraph: Subgraph, kiosk) -> None:
    events = of(kiosk, "c01", "c02")
    shuffled = events.take(pa.array(np.random.default_rng(0).permutation(events.num_rows)))
    pieces = pa.concat_tables([shuffled.slice(0, 7), shuffled.slice(7)])
    found = [subgraph(subgraph.tokenize(table)[1]) for table in (events, pieces)]
    assert torch.equal(*found)


def test_a_batch_from_the_corpus_and_live_events_give_the_same_vectors(
    subgraph: Subgraph, kiosk, kiosk_corpus: Corpus
) -> None:
    stored = subgraph(subgraph.pack(kiosk_corpus.users(pa.array(["c05", "c09"])))[1])
    torch.testing.assert_close(subgraph(subgraph.tokenize(of(kiosk, "c05", "c09"))[1]), stored, rtol=1e-4, atol=1e-5)


def test_it_is_frozen_until_it_is_told_otherwise(folder: Path, kiosk) -> None:
    subgraph = Subgraph.from_pretrained(folder)
    head = nn.Linear(subgraph.space.width, 1)
    _, batch = subgraph.tokenize(of(kiosk, "c05", "c09"))
    downstream = nn.ModuleList([subgraph, head])
    head(subgraph(batch)).sum().backward()
    assert all(weight.grad is None for weight in subgraph.parameters())
    assert {name for name, weight in downstream.named_parameters() if weight.requires_grad} == {"1.weight", "1.bias"}

    assert subgraph.trainable() is subgraph
    head(subgraph(batch)).sum().backward()
    trunk = subgraph.model.trunk
    for weight in (trunk.blocks[0].feed_in.weight, subgraph.model.pooling.state.weight, subgraph.model.tower.id.weight):
        assert weight.grad is not None
        assert weight.grad.to_dense().abs().sum() > 0


LAST_LAYER = ("model.trunk.blocks.1.", "model.trunk.norm.")
POOLING = ("model.empty_D", "model.bare_repeat.", "model.pooling.")


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (Subgraph.frozen, ()),
        (Subgraph.trainable_pooling, POOLING),
        (lambda subgraph: subgraph.trainable_from(1), (*POOLING, *LAST_LAYER)),
        (lambda subgraph: subgraph.trainable_from(-1), (*POOLING, *LAST_LAYER)),
        (lambda subgraph: subgraph.trainable_from(0), (*POOLING, *LAST_LAYER, "model.trunk.blocks.0.")),
    ],
)
def test_what_learns_is_told_by_name(folder: Path, free: Callable[[Subgraph], Subgraph], expected: Names) -> None:
    subgraph = free(Subgraph.from_pretrained(folder).trainable())
    names = [name for name, _ in subgraph.named_parameters()]
    learning = [name for name, weight in subgraph.named_parameters() if weight.requires_grad]
    assert learning == [name for name in names if name.startswith(expected)]


def test_all_that_is_trainable_receives_a_gradient(folder: Path, kiosk) -> None:
    """DDP waits for every weight that is to be trained."""
    subgraph = Subgraph.from_pretrained(folder).trainable()
    subgraph(subgraph.tokenize(kiosk.events)[1]).square().sum().backward()
    received = {name for name, weight in subgraph.named_parameters() if weight.grad is not None}
    assert received == {name for name, weight in subgraph.named_parameters() if weight.requires_grad}
    idle = {name.split(".")[1] for name, weight in subgraph.named_parameters() if name not in received}
    assert idle == {"conditioning", "told_repeat", "affinity", "horizons", "facet_heads", "tower"}
    assert all(not weight.grad.is_sparse for weight in subgraph.parameters() if weight.grad is not None)


def test_a_frozen_subgraph_stays_in_eval_mode_whatever_is_around_it(folder: Path) -> None:
    outer = nn.ModuleList([Subgraph.from_pretrained(folder), nn.Linear(2, 2)]).train()
    subgraph = outer[0]
    assert isinstance(subgraph, Subgraph)
    assert outer[1].training
    assert not any(module.training for module in subgraph.model.modules())
    assert all(module.training for module in subgraph.trainable_from(-1).model.modules())
    assert not any(module.training for module in outer.eval().modules())
    outer.train()
    assert not any(module.training for module in subgraph.frozen().model.modules())


def test_a_deep_copy_says_the_same_and_goes_its_own_way(folder: Path, kiosk) -> None:
    subgraph = Subgraph.from_pretrained(folder).trainable_from(-1)
    _, batch = subgraph.tokenize(of(kiosk, "c05", "c09"))
    before = subgraph(batch)
    copied = copy.deepcopy(subgraph)
    assert torch.equal(copied(batch), before)
    assert copied.tokenizer is subgraph.tokenizer
    assert [w.requires_grad for w in copied.parameters()] == [w.requires_grad for w in subgraph.parameters()]
    with torch.no_grad():
        for weight in copied.parameters():
            weight += 0.1
    assert not torch.allclose(copied(batch), before)
    assert torch.equal(subgraph(batch), before)


def test_the_state_of_a_module_around_it_is_restored(folder: Path, kiosk) -> None:
    def outer() -> nn.ModuleDict:
        return nn.ModuleDict({"users": Subgraph.from_pretrained(folder), "head": nn.Linear(17, 1)})

    one, other = outer(), outer()
    with torch.no_grad():
        for weight in one.parameters():
            weight += 0.1
    other.load_state_dict(one.state_dict())
    _, batch = one["users"].tokenize(of(kiosk, "c05", "c09"))
    assert torch.equal(*(found["head"](found["users"](batch)) for found in (one, other)))


def test_double_precision_and_autocast_give_the_vectors_of_float(subgraph: Subgraph, kiosk) -> None:
    _, batch = subgraph.tokenize(of(kiosk, "c05", "c09"))
    expected, scores = subgraph(batch), subgraph.score(batch)[:, FIRST_ITEM:]
    double = copy.deepcopy(subgraph).double()
    assert double(batch).dtype == torch.float64
    torch.testing.assert_close(double(batch).float(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(double.score(batch)[:, FIRST_ITEM:].float(), scores, rtol=1e-4, atol=1e-4)
    for half in (torch.bfloat16, torch.float16):
        cut = copy.deepcopy(subgraph).to(half)
        assert (cut(batch).float() - expected).norm() < 0.05 * expected.norm()
        assert torch.isfinite(cut.score(batch)[:, FIRST_ITEM:]).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert (subgraph(batch).float() - expected).norm() < 0.05 * expected.norm()
        assert torch.isfinite(subgraph.score(batch)[:, FIRST_ITEM:]).all()


def test_a_model_of_many_candidates_runs_it_once_per_user(subgraph: Subgraph, kiosk) -> None:
    events = of(kiosk, "c05", "c07", "c09")
    customer = np.array(["c09", "c05"])[np.random.default_rng(0).integers(0, 2, 500)]
    encoded: list[int] = []
    handle = subgraph.register_forward_hook(lambda module, given, user_BD: encoded.append(len(user_BD)))
    user_ids, batch = subgraph.tokenize(events)
    user_BD = subgraph(batch)
    row_ND = user_BD[rows_of(user_ids, customer)]
    handle.remove()
    assert encoded == [3]
    assert row_ND.shape == (500, subgraph.space.width)
    for row, name in enumerate(customer[:20]):
        assert torch.equal(row_ND[row], user_BD[user_ids.to_pylist().index(name)])
    with pytest.raises(ModelError, match="2 rows are of users who are not in the batch: tokenize their events too"):
        rows_of(user_ids, ["c05", "c30", "nobody"])


def test_a_later_moment_is_another_vector_and_an_earlier_one_is_refused(subgraph: Subgraph, kiosk) -> None:
    _, batch = subgraph.tokenize(of(kiosk, "c05"))
    last = batch.start_B + batch.time_T[-1]
    assert torch.equal(subgraph(batch, last), subgraph(batch))
    assert not torch.allclose(subgraph(batch, last + 40 * 86_400), subgraph(batch), atol=1e-3)
    with pytest.raises(ModelError, match="before the user's last event"):
        subgraph(batch, last - 1)


def test_scores_rank_candidates_only_and_read_the_context(subgraph: Subgraph, kiosk) -> None:
    _, batch = subgraph.tokenize(of(kiosk, "c05"))
    context = torch.from_numpy(subgraph.tokenizer.encode_context({"store": ["s1"]}).astype(np.int64))
    bare, told = subgraph.score(batch), subgraph.score(batch, context_BC=context)
    assert bare.shape == (1, len(subgraph.tokenizer.items))
    assert (bare[:, :FIRST_ITEM] == -torch.inf).all()
    assert torch.isfinite(bare[:, FIRST_ITEM:]).all()
    assert not torch.allclose(bare[:, FIRST_ITEM:], told[:, FIRST_ITEM:], atol=1e-3)


def test_ids_never_seen_in_training_read_as_unknown(subgraph: Subgraph, kiosk) -> None:
    """A new customer buys a new article in a new store, with a new coupon."""
    strange = pa.table(
        {
            "customer": ["nobody", "nobody"],
            "time": [1.0e7, 1.1e7],
            "visit": ["x", "y"],
            "action": ["steal", "redeem"],
            "store": ["elsewhere", None],
            "article": pa.array([987_654, None], pa.int64()),
            "coupon": [None, "new"],
            "quantity": [1e9, None],
            "shelf": ["cellar", None],
        }
    )
    users, batch = subgraph.tokenize(strange)
    assert users.to_pylist() == ["nobody"]
    assert batch.facet_TF[0, :2].tolist() == [1, 1]
    assert torch.isfinite(subgraph(batch)).all()
    assert torch.isfinite(subgraph.score(batch)[:, FIRST_ITEM:]).all()


def test_codes_admitted_after_training_read_as_unknown(subgraph: Subgraph, kiosk_corpus: Corpus) -> None:
    """Tokens of a tokenizer that has grown since."""
    tokens = kiosk_corpus.users(pa.array(["c05", "c09"]))
    names = [facet.name for facet in subgraph.tokenizer.facets]

    def with_code(code: int) -> pa.Table:
        table = tokens
        for name in names:
            column = table[name].combine_chunks()
            codes = column.flatten().to_numpy().copy()
            codes[-1] = code
            lists = pa.ListArray.from_arrays(column.offsets, pa.array(codes))
            table = table.set_column(table.schema.get_field_index(name), name, lists)
        return table

    found = [subgraph.pack(with_code(code))[1] for code in (5_000, 1)]
    later, unknown = ((subgraph(batch), subgraph.score(batch)) for batch in found)
    for one, other in zip(later, unknown, strict=True):
        assert torch.equal(one, other)
    context = torch.full((2, len(subgraph.model.config.context)), 5_000)
    assert torch.isfinite(subgraph.score(found[0], context_BC=context)[:, FIRST_ITEM:]).all()


def test_an_empty_log_has_nobody_in_it(subgraph: Subgraph, kiosk) -> None:
    users, batch = subgraph.tokenize(kiosk.events.slice(0, 0))
    assert len(users) == 0
    assert subgraph(batch).shape == (0, subgraph.space.width)


def test_what_each_layer_says_of_a_user_ends_with_the_state(subgraph: Subgraph, kiosk) -> None:
    _, batch = subgraph.tokenize(kiosk.events)
    with torch.no_grad():
        found = subgraph.layers(batch)
        assert found.shape == (batch.users, subgraph.model.config.layers, subgraph.model.config.width)
        torch.testing.assert_close(found[:, -1], subgraph.states(batch).bare_RD)
        assert not torch.allclose(found[:, 0], found[:, -1])


def test_a_model_of_one_vector_a_user_says_so(subgraph: Subgraph, kiosk) -> None:
    _, batch = subgraph.tokenize(kiosk.events)
    with pytest.raises(ModelError, match="train one with `--set interests=4`"):
        subgraph.interests(batch)

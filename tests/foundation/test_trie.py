from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.errors import ModelError
from foundation.trie import CodeTrie, Copies

FIRST, SIZES = 2, (3, 4)
catalogues = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12)


def trie_of(codes: list[tuple[int, int]], log_weight: Tensor | None = None) -> CodeTrie:
    """A trie of items that have these codes, from code 2 on."""
    semantic_VL = torch.tensor([(0, 0)] * FIRST + codes)
    return CodeTrie.of(semantic_VL, torch.zeros(len(semantic_VL)) if log_weight is None else log_weight, FIRST, SIZES)


def codes_in(trie: CodeTrie) -> dict[int, tuple[int, ...]]:
    """The codes of each item, read off the trie."""
    end_I = trie.end_V[trie.item_I]
    columns = [level.code_N[trie.paths(end_I)[:, number]] for number, level in enumerate(trie.levels)]
    return dict(zip(trie.item_I.tolist(), map(tuple, torch.stack(columns, 1).tolist()), strict=True))


@given(catalogues)
def test_every_item_stands_at_the_end_of_its_codes(codes: list[tuple[int, int]]) -> None:
    trie = trie_of(codes)
    assert codes_in(trie) == {FIRST + place: code for place, code in enumerate(codes)}
    assert len(trie.levels[1]) == len(set(codes))
    row_A, item_A = trie.items(torch.arange(len(trie.levels[1])))
    assert torch.equal(trie.end_V[item_A], row_A)
    assert sorted(item_A.tolist()) == list(range(FIRST, FIRST + len(codes)))


@given(catalogues, st.data())
def test_of_some_items_it_is_that_of_a_catalogue_without_the_others(
    codes: list[tuple[int, int]], data: st.DataObject
) -> None:
    trie = trie_of(codes)
    kept = data.draw(st.sets(st.integers(FIRST, FIRST + len(codes) - 1), min_size=1))
    some = trie.only(torch.tensor(sorted(kept)))
    assert codes_in(some) == {item: codes[item - FIRST] for item in kept}
    assert len(some.levels[0]) == len({codes[item - FIRST][0] for item in kept})
    gone = [item for item in range(len(trie.end_V)) if item not in kept]
    assert (some.end_V[gone] == -1).all()
    again = some.only(torch.tensor(sorted(kept)))
    for one, other in zip(some.levels, again.levels, strict=True):
        assert torch.equal(one.key_N, other.key_N)
        assert torch.equal(one.begin_P1, other.begin_P1)


@given(catalogues, st.data())
def test_shares_are_those_of_what_is_met_beneath_and_only_children_have_one(
    codes: list[tuple[int, int]], data: st.DataObject
) -> None:
    count = data.draw(st.lists(st.integers(1, 9), min_size=len(codes), max_size=len(codes)))
    trie = trie_of(codes, torch.log(torch.tensor([1.0] * FIRST + list(map(float, count)))))
    first_1S = trie.levels[0].shares(torch.zeros(1, dtype=torch.int64))
    for code in range(SIZES[0]):
        under = sum(n for (one, _), n in zip(codes, count, strict=True) if one == code)
        assert float(first_1S[0, code].exp()) == pytest.approx(under / sum(count), rel=1e-5)
    parents = torch.arange(len(trie.levels[0]))
    second_NS = trie.levels[1].shares(parents)
    torch.testing.assert_close(second_NS.exp().sum(1), torch.ones(len(parents)))
    for parent, code in enumerate(trie.levels[0].code_N.tolist()):
        assert {s for s in range(SIZES[1]) if second_NS[parent, s] > -torch.inf} == {b for a, b in codes if a == code}
        for child in {b for a, b in codes if a == code}:
            place = trie.levels[1].child(torch.tensor([parent]), torch.tensor([child]))
            assert trie.levels[1].parents()[place] == parent
            assert trie.levels[1].code_N[place] == child


def test_where_there_is_no_item_there_is_no_trie() -> None:
    with pytest.raises(ModelError, match="at least one item and one level"):
        CodeTrie.of(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2), FIRST, SIZES)
    with pytest.raises(ModelError, match="declare `semantic_ids`"):
        CodeTrie.of(torch.zeros(5, 0, dtype=torch.int64), torch.zeros(5), FIRST, ())
    with pytest.raises(ModelError, match="none of these items"):
        trie_of([(1, 1)]).only(torch.tensor([0]))


def test_copies_add_up_along_the_paths() -> None:
    trie = trie_of([(1, 1), (1, 2), (2, 1), (1, 1)])
    copies = Copies(torch.tensor([0, 0, 0, 2]), torch.tensor([2, 3, 5, 4]), torch.tensor([0.5, 0.3, 0.2, 1.0]))
    request_Q, node_Q, share_Q = copies.at(trie, 0)
    assert (request_Q.tolist(), node_Q.tolist()) == ([0, 2], [0, 1])
    torch.testing.assert_close(share_Q, torch.tensor([1.0, 1.0]))
    ends = trie.end_V[torch.tensor([2, 3, 4, 4])]
    found = copies.of_ends(trie, torch.tensor([0, 0, 0, 2]), ends)
    torch.testing.assert_close(found, torch.tensor([0.7, 0.3, 0.0, 1.0]))
    found = copies.of_items(torch.tensor([0, 1, 2]), torch.tensor([5, 5, 4]), 6)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.0, 1.0]))

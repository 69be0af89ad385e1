"""Where a lesson's requests stand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.asking import AFTER_CUT, soon_after


@given(st.lists(st.tuples(st.lists(st.booleans(), max_size=9), st.booleans()), max_size=6))
def test_a_row_that_was_cut_is_asked_right_behind_the_cut_and_others_everywhere(
    rows: list[tuple[list[bool], bool]],
) -> None:
    owner_G = torch.tensor([row for row, (groups, _) in enumerate(rows) for _ in groups], dtype=torch.int64)
    askable_G = torch.tensor([can for groups, _ in rows for can in groups], dtype=torch.bool)
    found = soon_after(owner_G, askable_G, torch.tensor([cut for _, cut in rows], dtype=torch.bool)).tolist()
    for groups, cut in rows:
        asked, found = found[: len(groups)], found[len(groups) :]
        places = [place for place, can in enumerate(groups) if can]
        expected = places[:AFTER_CUT] if cut else places
        assert [place for place, one in enumerate(asked) if one] == expected

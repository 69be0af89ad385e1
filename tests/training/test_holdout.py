"""What is held out, and what a request may know of it: nothing but its time and context."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tokenization.tokenizer.split import Split
from training.errors import EvaluationError
from training.holdout import Columns, Part, hold_out

COLUMNS = Columns("product", ("store",))
CUT = Split("time", 100.0, 50.0, None)
LAST = Split("last_items", None, None, 1)

# time, group, item, store
LOG = {
    "next basket": [(10, 0, 2, 2), (60, 1, 3, 2), (60, 1, 4, 2), (110, 2, 2, 3), (110, 2, 5, 3), (120, 3, 6, 2)],
    "mailing first": [(10, 0, 2, 2), (105, 1, 0, 0), (111, 2, 3, 4)],
    "stopped before": [(10, 0, 2, 2), (70, 1, 3, 2)],
    "cold": [(50, 0, 0, 0), (130, 1, 2, 2)],
    "at the cut": [(60, 0, 4, 2), (100, 1, 4, 2)],
    "only a mailing after": [(60, 0, 4, 2), (140, 1, 0, 0)],
}


def rows(sets) -> list[list[int]]:
    return [sets.codes[a:b].tolist() for a, b in zip(sets.offsets, sets.offsets[1:], strict=False)]


def test_the_next_group_with_candidates_after_the_cut_is_asked_for(token_table) -> None:
    held = hold_out(token_table(LOG), COLUMNS, CUT)
    assert held.user_ids.to_pylist() == ["next basket", "mailing first", "at the cut"]
    assert rows(held.truth) == [[2, 5], [3], [4]]
    assert rows(held.seen) == [[2, 3, 4], [2], [4]]
    assert held.cold == 1


def test_a_told_request_knows_when_and_where_and_all_that_came_before(token_table) -> None:
    held = hold_out(token_table(LOG), COLUMNS, CUT)
    requests = held.requests(0, 3)
    assert requests.at.tolist() == [110.0, 111.0, 100.0]
    assert requests.context.tolist() == [[3], [4], [2]]
    assert requests.history["time"].to_pylist() == [[10, 60, 60], [10, 105], [60]]
    assert requests.history["product"].to_pylist() == [[2, 3, 4], [2, 0], [4]]
    assert requests.user_ids.to_pylist() == requests.history["user_id"].to_pylist()


def test_an_untold_request_is_made_at_the_cut_and_knows_nothing_after_it(token_table) -> None:
    requests = hold_out(token_table(LOG), COLUMNS, CUT, told=False).requests(0, 3)
    assert requests.at.tolist() == [100.0, 100.0, 100.0]
    assert requests.context.tolist() == [[0], [0], [0]]
    assert requests.history["time"].to_pylist() == [[10, 60, 60], [10], [60]]


def test_validation_ends_where_the_test_begins(token_table) -> None:
    held = hold_out(token_table(LOG), COLUMNS, CUT, Part.VALIDATION)
    assert held.user_ids.to_pylist() == ["next basket", "stopped before"]
    assert rows(held.truth) == [[3, 4], [3]]
    assert held.before.time.max() < 50.0


def test_by_last_items_the_last_group_is_the_test_and_the_one_before_it_validation(token_table) -> None:
    test = hold_out(token_table(LOG), COLUMNS, LAST)
    assert test.user_ids.to_pylist() == ["next basket", "mailing first", "stopped before", "at the cut"]
    assert rows(test.truth) == [[6], [3], [3], [4]]
    assert test.requests(0, 1).history["product"].to_pylist() == [[2, 3, 4, 2, 5]]
    validation = hold_out(token_table(LOG), COLUMNS, LAST, Part.VALIDATION)
    assert rows(validation.truth) == [[2, 5]]
    assert validation.cold == 3  # whose group before the last is the first one with a candidate
    assert validation.requests(0, 1).history["product"].to_pylist() == [[2, 3, 4]]


def test_an_untold_request_by_last_items_is_made_at_the_last_known_event(token_table) -> None:
    requests = hold_out(token_table(LOG), COLUMNS, LAST, told=False).requests(0, 2)
    assert requests.at.tolist() == [110.0, 105.0]
    assert requests.context.tolist() == [[0], [0]]


def test_baselines_count_every_users_items_before_the_cut_and_none_after(token_table) -> None:
    before = hold_out(token_table(LOG), COLUMNS, CUT).before
    assert before.time.max() < 100.0
    assert len(before.item) == 8
    last = hold_out(token_table(LOG), COLUMNS, LAST).before
    assert sorted(last.item[last.row == 0].tolist()) == [2, 2, 3, 4, 5]


def test_items_outside_the_vocabulary_are_truth_that_nobody_can_hit(token_table) -> None:
    held = hold_out(token_table({"u": [(1, 0, 2, 2), (101, 1, 1, 2), (101, 1, 1, 2), (101, 1, 3, 2)]}), COLUMNS, CUT)
    assert rows(held.truth) == [[3]]
    assert held.unknown.tolist() == [2]


def test_context_that_differs_inside_the_group_is_not_told(token_table) -> None:
    held = hold_out(token_table({"u": [(1, 0, 2, 2), (101, 1, 3, 2), (101, 1, 4, 3)]}), COLUMNS, CUT)
    assert held.asked.context.tolist() == [[0]]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("split", [CUT, LAST])
def test_no_request_changes_with_what_it_is_asked_to_predict(token_table, random_log, split, told) -> None:
    log = random_log(1)
    cut = Split("time", 50 * 86400.0, 20 * 86400.0, None) if split is CUT else split
    held = hold_out(token_table(log), COLUMNS, cut, told=told)
    known = dict(zip(held.user_ids.to_pylist(), held.asked.known.tolist(), strict=True))
    changed = {
        user: [
            (time, group, 20 - item if item and place >= known.get(user, 99) else item, store)
            for place, (time, group, item, store) in enumerate(tokens)
        ]
        for user, tokens in log.items()
    }
    again = hold_out(token_table(changed), COLUMNS, cut, told=told)
    assert held.user_ids == again.user_ids
    assert rows(held.truth) != rows(again.truth)
    one, other = held.requests(0, len(held)), again.requests(0, len(again))
    assert one.history.equals(other.history)
    assert one.at.tolist() == other.at.tolist()
    assert one.context.tolist() == other.context.tolist()
    assert all((getattr(held.before, f) == getattr(again.before, f)).all() for f in ("row", "item", "time"))


def test_chunks_are_the_requests_in_order(token_table, random_log) -> None:
    held = hold_out(token_table(random_log(2)), COLUMNS, LAST)
    chunks = list(held.chunks(7))
    assert [start for start, _ in chunks] == list(range(0, len(held), 7))
    joined = pa.concat_tables([requests.history for _, requests in chunks])
    assert joined.equals(held.requests(0, len(held)).history)


def test_a_split_behind_everything_is_an_error_that_says_so(token_table) -> None:
    with pytest.raises(EvaluationError, match="nobody has candidates"):
        hold_out(token_table(LOG), COLUMNS, Split("time", 1e9, None, None))


def test_a_missing_column_is_named_with_the_nearest(token_table) -> None:
    with pytest.raises(EvaluationError, match=r"no column 'produkt'.*'product'"):
        hold_out(token_table(LOG), Columns("produkt"), CUT)


def test_a_column_that_would_not_be_cut_is_refused(token_table) -> None:
    table = token_table(LOG).append_column("total", pa.array(range(len(LOG))))
    with pytest.raises(EvaluationError, match="'total'"):
        hold_out(table, COLUMNS, CUT)


def test_tokens_in_several_pieces_are_read_as_one(token_table) -> None:
    table = token_table(LOG)
    pieces = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert rows(hold_out(pieces, COLUMNS, CUT).truth) == rows(hold_out(table, COLUMNS, CUT).truth)

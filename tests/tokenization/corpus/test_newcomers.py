from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Kiosk
from tokenization.corpus.corpus import Corpus
from tokenization.corpus.newcomers import with_newcomers
from tokenization.errors import SourceError


def of(kiosk: Kiosk, ids: list[str]) -> pa.Table:
    return kiosk.events.filter(pa.array([user in ids for user in kiosk.events["customer"].to_pylist()]))


@given(
    active=st.lists(st.sampled_from(["c00", "c07", "c28"]), unique=True),
    told=st.lists(st.sampled_from(["c00", "c07", "c99", "a", "zz"]), unique=True),
)
@settings(max_examples=25)
def test_everybody_has_one_row_and_the_rows_of_the_log_are_those_without_newcomers(
    club: Kiosk, club_corpus: Corpus, active: list[str], told: list[str]
) -> None:
    tokenizer = club_corpus.tokenizer
    liked = {"c00": "apple", "a": "milk"}
    likes = [liked.get(user) for user in told]
    codes = tokenizer.users.vocabularies["likes"]
    users = pa.table(
        {"customer": pa.array(told, pa.string()), "likes": pa.array(likes, pa.string()), "age": [30.0] * len(told)}
    )
    found = with_newcomers(tokenizer, of(club, active), users)
    assert found["user_id"].to_pylist() == sorted({*active, *told})
    plain = {row["user_id"]: row for row in tokenizer.transform(of(club, active), users).to_pylist()}
    for row in found.to_pylist():
        if row["user_id"] in plain:
            assert row == plain[row["user_id"]]
        else:
            assert not any(row[name] for name in found.column_names if name[:5] != "user_" and name[:5] != "user.")
            expected = codes.encode(pa.array([liked.get(row["user_id"])], pa.string()))
            assert row["user.likes"] == expected[0]
            assert row["user.age"] > 0


def test_an_id_is_one_whether_it_is_written_as_a_number_or_as_text(kiosk_corpus: Corpus, kiosk: Kiosk) -> None:
    tokenizer = kiosk_corpus.tokenizer
    events = of(kiosk, ["c05"]).set_column(0, "customer", pa.array([17] * of(kiosk, ["c05"]).num_rows))
    assert with_newcomers(tokenizer, events, pa.table({"customer": ["17", "4"]}))["user_id"].to_pylist() == [4, 17]
    mixed = with_newcomers(tokenizer, events, pa.table({"customer": ["17", "bob"]}))
    assert mixed["user_id"].to_pylist() == ["17", "bob"]
    assert len(mixed["time"][0]) > 0
    nothing = with_newcomers(tokenizer, events.slice(0, 0), pa.table({"customer": [8, 3]}))
    assert nothing["user_id"].to_pylist() == [3, 8]


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [(["a", None], "row 1 of the users table has no customer"), (["a", "a"], "has a customer 2 times")],
)
def test_users_without_an_id_or_with_one_id_twice_are_refused(
    kiosk_corpus: Corpus, kiosk: Kiosk, ids: list[str | None], sentence: str
) -> None:
    for events in (kiosk.events.slice(0, 9), kiosk.events.slice(0, 0)):
        with pytest.raises(SourceError, match=sentence):
            with_newcomers(kiosk_corpus.tokenizer, events, pa.table({"customer": ids}))

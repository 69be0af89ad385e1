from __future__ import annotations

import json
from dataclasses import replace

import pytest

from foundation.errors import ModelError
from foundation.space import Space

SPACE = Space(
    "kiosk", 3, "f" * 64, 17, 1.5e9, lineage=("kiosk-v1", "kiosk-v2"), aligned_to="kiosk-v2", frames=("a" * 64,)
)


def test_a_space_is_read_as_it_was_written() -> None:
    assert Space.from_json(SPACE.to_json()) == SPACE
    assert Space.from_json(replace(SPACE, lineage=(), aligned_to=None).to_json()) == replace(
        SPACE, lineage=(), aligned_to=None
    )
    assert SPACE.id == "kiosk-v3"
    assert SPACE.metric == "dot"


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"lineage": []}', SPACE.to_json().replace("width", "wide")])
def test_what_is_no_space_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ModelError, match=r"this is no space description .*: take space\.json of a model directory"):
        Space.from_json(text)


def test_a_space_that_was_written_before_there_were_frames_is_read() -> None:
    told = json.loads(SPACE.to_json())
    del told["frames"]
    assert Space.from_json(json.dumps(told)) == replace(SPACE, frames=())


def test_a_frozen_model_accepts_its_own_space_and_an_aligned_successor_and_no_other() -> None:
    fitted_on = Space("kiosk", 1, "a" * 64, 17, 1.4e9)
    for offered in (fitted_on, replace(fitted_on, version=9), SPACE):
        fitted_on.expect(offered)
    stranger = replace(SPACE, frames=("b" * 64,))
    with pytest.raises(
        ModelError, match=rf"fingerprint {'a' * 64}, the vectors are of kiosk-v3 with {'f' * 64}.*fit it"
    ):
        fitted_on.expect(stranger)
    assert not SPACE.accepts(fitted_on)  # the way is one: an older space knows nothing of a later one
    assert not fitted_on.accepts(replace(SPACE, width=9))

from __future__ import annotations

from dataclasses import replace

import pytest

from foundation.errors import ModelError
from foundation.space import Space

SPACE = Space("kiosk", 3, "f" * 64, 17, 1.5e9, lineage=("kiosk-v1", "kiosk-v2"), aligned_to="kiosk-v2")


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

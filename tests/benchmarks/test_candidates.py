from __future__ import annotations

import pytest
import torch

from benchmarks.candidates import HISTORY, _long_history, gains
from benchmarks.trials import Outcome
from foundation.jagged import EventBatch
from tokenization.corpus.corpus import Corpus


def test_the_long_history_is_the_end_of_one_users(kiosk_corpus: Corpus) -> None:
    events = EventBatch.from_tokens(kiosk_corpus.tokens(), ["product"])
    user = _long_history(events)
    longest = int(torch.diff(events.offset_B1).argmax())
    begin, end = int(events.offset_B1[longest]), int(events.offset_B1[longest + 1])
    assert user.tokens == min(end - begin, HISTORY)
    assert torch.equal(user.facet_TF, events.facet_TF[end - user.tokens : end])


def test_gains_are_paired_with_every_rival() -> None:
    def outcome(**values: list[float]) -> Outcome:
        return Outcome(["a", "b"], dict(values), 1, 1.0, 1)

    on = outcome(target_aware=[0.5, 0.7], model=[0.4, 0.6], embedding=[0.1, 0.3])
    found = gains([on], [outcome(model=[0.3, 0.5], embedding=[0.2, 0.2])])
    for other, gain in (("model", 0.1), ("embedding", 0.4), ("off", 0.2)):
        told = f"target_aware_minus_{other}"
        assert [found[f"{told}{end}"] for end in ("", "_low", "_high")] == pytest.approx([gain] * 3)
    assert found["on.model"] == pytest.approx(0.5)
    assert found["off.embedding"] == pytest.approx(0.2)

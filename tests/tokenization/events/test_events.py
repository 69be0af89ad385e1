from __future__ import annotations

import numpy as np
import pyarrow as pa

from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema


def test_some_of_the_events_are_events_too(schema: EventSchema, log: pa.Table) -> None:
    events = clean(log, schema).events
    some = events.take(np.array([8, 0]))
    assert len(some) == 2
    assert some.users.decode().to_pylist() == ["bob", "ann"]
    assert some.declared is not None
    assert some.declared.decode().to_pylist() == [5, 1]
    assert some.numbers["quantity"].tolist() == [2.0, 2.0]
    assert some.groups.users.to_pylist() == ["ann", "bob"]
    np.testing.assert_array_equal(some.times, events.times[[8, 0]])

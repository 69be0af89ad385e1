from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tokenization.events.cleaning import clean
from tokenization.job.freezing import freeze
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

Declare = Callable[..., EventSchema]


def test_frozen_events_become_the_tokens_that_they_would_have_become(
    tmp_path: Path, schema: EventSchema, log: pa.Table, items: pa.Table
) -> None:
    tokenizer = Tokenizer.fit(schema, log, items)
    events = clean(log, schema).events
    thawed = freeze(events, tmp_path / "events").thaw()
    assert thawed.groups.users.equals(events.groups.users)
    assert tokenizer.transform(thawed).equals(tokenizer.transform(events))
    part = np.flatnonzero(events.users.index == 1)
    assert tokenizer.transform(thawed.take(part)).equals(tokenizer.transform(events.take(part)))


def test_every_kind_of_facet_can_be_frozen(tmp_path: Path, declare: Declare, log: pa.Table) -> None:
    outcome = {
        "tags": {"kind": "set"},
        "title": {"kind": "text"},
        "image": {"kind": "vector"},
        "since": {"kind": "timestamp"},
    }
    schema = declare(group=None, items=None, outcome=outcome, targets=None)
    rows = log.num_rows
    log = log.append_column("tags", pa.array([["a", "b"], None, []] * (rows // 3)))
    log = log.append_column("title", pa.array(["Green tea", None, "milk"] * (rows // 3)))
    log = log.append_column("image", pa.array([[0.5, 1.0], None, [2.0, 3.0]] * (rows // 3)))
    log = log.append_column("since", pa.array(["2024-01-01", None, "2024-02-01"] * (rows // 3)))
    tokenizer = Tokenizer.fit(schema, log)
    events = clean(log, schema).events
    thawed = freeze(events, tmp_path / "events").thaw()
    assert thawed.declared is None
    assert tokenizer.transform(thawed).equals(tokenizer.transform(events))


def test_no_events_can_be_frozen_too(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    thawed = freeze(clean(log.slice(0, 0), schema).events, tmp_path / "events").thaw()
    assert len(thawed) == 0
    assert thawed.users.values.type == pa.string()


def test_what_is_thawed_can_not_be_changed(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    thawed = freeze(clean(log, schema).events, tmp_path / "events").thaw()
    with pytest.raises(ValueError, match="read-only"):
        thawed.times[0] = 0.0

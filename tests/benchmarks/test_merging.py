from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.merging import RULES, _difference, declared
from tokenization.schema.event_schema import EventSchema


def test_each_rule_is_the_example_with_another_merging(tmp_path: Path) -> None:
    read = {name: EventSchema.from_yaml(declared(rules, tmp_path / f"{name}.yaml")) for name, rules in RULES.items()}
    assert len({str(schema.merge) for schema in read.values()}) == len(RULES)
    assert len({str(schema.model_dump(exclude={"merge"})) for schema in read.values()}) == 1
    assert not read["none"].merge.same_item_in_group
    assert read["pairs"].merge.pairs is not None
    assert read["pairs"].merge.same_item_within == 86_400


def test_the_difference_is_paired_over_those_whom_every_run_judges() -> None:
    values = {
        "none": [{"a": 0.2, "b": 0.4, "c": 1.0}, {"a": 0.4, "b": 0.4}],
        "pairs": [{"b": 0.5, "a": 0.3}, {"b": 0.5, "a": 0.5, "d": 0.0}],
    }
    found = _difference("none", "pairs", values)
    assert found["households"] == 2
    assert found["pairs_minus_none"] == pytest.approx(0.1)
    assert found["pairs_minus_none_low"] == pytest.approx(0.1) == found["pairs_minus_none_high"]
    assert found["seeds_apart"] == pytest.approx(0.1)

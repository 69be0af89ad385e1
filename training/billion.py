"""A billion users and a hundred million items: the tables of docs/scale.md, `python -m training.billion`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.recipes import huge, large
from training.scale import FLOAT, MOMENTS, Scale, imagined

GPU_BYTES = 80e9
EVENT_BYTES = 8  # of each facet of an event in memory, and of its times, its group and its offset


@dataclass(frozen=True)
class World:
    """What is assumed, and not measured.

    flops: that an H100 promises in bfloat16 (its data sheet, dense), reached: the share of it that a trunk of this kind
    is hoped to reach. wire: bytes a second between GPUs of different hosts. dollars: of a GPU-hour. host: bytes of
    memory of a machine of 8 GPUs. lost: share of a GPU's memory that is never free for tensors.
    """

    users: float = 1e9
    items: int = 100_000_000
    events_a_user: float = 200.0
    events_a_day: float = 1e9
    flops: float = 989e12
    reached: float = 0.3
    wire: float = 50e9
    dollars: float = 2.5
    host: float = 2e12
    lost: float = 0.1


WORLD = World()
LARGE, HUGE = Scale(large(imagined(10_000_000)), 8), Scale(huge(imagined(WORLD.items)), 64)
SCALES = {"large": LARGE, "huge": HUGE}


def step_seconds(scale: Scale) -> tuple[float, float]:
    """Of a step: the products, and what goes over the wire, were neither hidden behind the other."""
    return sum(scale.flops().values()) / (WORLD.flops * WORLD.reached), sum(scale.wire().values()) / WORLD.wire


def tokens_a_second(scale: Scale) -> float:
    """Of all ranks, with nothing hidden."""
    return scale.ranks * scale.recipe.sampling.tokens / sum(step_seconds(scale))


def recipes() -> str:
    """What the recipes are."""
    rows = [
        ("GPUs of 80 GB", [f"{one.ranks}" for one in SCALES.values()]),
        ("items", [f"{one.recipe.model.item.codes:,}" for one in SCALES.values()]),
        ("width × layers", [f"{one.recipe.model.width:,} × {one.recipe.model.layers}" for one in SCALES.values()]),
        ("tokens of a row", [f"{one.recipe.sampling.history:,}" for one in SCALES.values()]),
        ("tokens a rank and step", [f"{one.recipe.sampling.tokens:,}" for one in SCALES.values()]),
        ("requests a rank and step", [f"{one.requests:,}" for one in SCALES.values()]),
        ("negatives a step", [f"{one.recipe.sampling.negatives:,}" for one in SCALES.values()]),
        ("weights of item rows", [_billions(one.counts["tables"]) for one in SCALES.values()]),
        ("weights of layers", [_billions(one.counts["layers"]) for one in SCALES.values()]),
        ("other weights", [_billions(one.counts["rest"]) for one in SCALES.values()]),
        *(
            (f"`{name}`", [str(getattr(one.recipe.parallelism, name)) for one in SCALES.values()])
            for name in ("weights", "tables", "scoring", "precision", "recompute")
        ),
    ]
    return _table(("", *SCALES), rows)


def memory() -> str:
    """Gigabytes of one rank."""
    found = [one.memory() for one in SCALES.values()]
    rows = [(name, [_gigabytes(parts[name]) for parts in found]) for name in found[0]]
    rows.append(("**together**", [f"**{_gigabytes(sum(parts.values()))}**" for parts in found]))
    rows.append(("of so many", [_gigabytes(GPU_BYTES * (1 - WORLD.lost)) for _ in found]))
    return _table(("GB of one rank", *SCALES), rows)


def speed() -> str:
    """What a step and a pass take."""
    scales = list(SCALES.values())
    passes = [WORLD.users * WORLD.events_a_user / tokens_a_second(one) for one in scales]
    rows = [
        ("TFLOP a rank and step", [f"{sum(one.flops().values()) / 1e12:,.1f}" for one in scales]),
        ("MFLOP a token", [f"{sum(one.flops().values()) / one.recipe.sampling.tokens / 1e6:,.0f}" for one in scales]),
        ("seconds of products", [f"{step_seconds(one)[0]:.3f}" for one in scales]),
        ("GB sent a rank and step", [_gigabytes(sum(one.wire().values())) for one in scales]),
        ("seconds of sending", [f"{step_seconds(one)[1]:.3f}" for one in scales]),
        ("tokens a second, all ranks", [f"{tokens_a_second(one):,.0f}" for one in scales]),
        ("billions of tokens a day", [f"{tokens_a_second(one) * 86_400 / 1e9:,.0f}" for one in scales]),
        ("days for 200 events of a billion users", [f"{one / 86_400:.1f}" for one in passes]),
        ("GPU-hours of that pass", [f"{s.ranks * one / 3_600:,.0f}" for s, one in zip(scales, passes, strict=True)]),
        ("dollars of that pass", [_dollars(s, one) for s, one in zip(scales, passes, strict=True)]),
        ("minutes for a day's billion events", [f"{WORLD.events_a_day / tokens_a_second(s) / 60:.0f}" for s in scales]),
    ]
    return _table(("", *SCALES), rows)


def store() -> str:
    """What is written of it, in gigabytes."""
    width, rows = HUGE.model.width, WORLD.users + WORLD.items
    events, facets = WORLD.users * WORLD.events_a_user, len(HUGE.recipe.model.facets)
    found = [
        (f"vectors of width {width:,}, float32", rows * width * FLOAT),
        ("the same of their first 128 dimensions (`bands`)", rows * 128 * FLOAT),
        ("ids, hashes of ids, times", rows * 32),
        (f"a corpus of {facets} facets of 4 bytes and a time of 8, not compressed", events * (facets * 4 + 8)),
        ("the model, float32", (HUGE.counts["tables"] + HUGE.dense) * FLOAT),
    ]
    return _table(("`huge`, a billion users", "GB"), [(name, [f"{size / 1e9:,.0f}"]) for name, size in found])


def breaks() -> str:
    """What is more than a machine has, the worst first: what it takes here, and up to where it holds."""
    facets = len(HUGE.recipe.model.facets)
    event, row = EVENT_BYTES * (facets + 3) + 1, (HUGE.recipe.model.width + 1) * FLOAT
    process, host, events = WORLD.host / 8, WORLD.host, WORLD.users * WORLD.events_a_user
    ranks = HUGE.recipe.sampling.shards
    until = f"{process * ranks / event:,.0f} events"
    held = [
        ("events of a rank's own users, in its memory", events * event / ranks, process, until),
        ("a checkpoint on rank 0, whole and as bytes", 2 * MOMENTS * WORLD.items * row, host, _items(host / row / 6)),
        ("first weights of 8 processes", 8 * WORLD.items * row, host, _items(host / row / 8)),
        ("256-wide texts of all items, on a GPU", WORLD.items * 256 * FLOAT, 30e9, _items(30e9 / 256 / FLOAT)),
        ("stored vectors, mapped by one server", (WORLD.users + WORLD.items) * row, host, f"{host / row:,.0f} rows"),
    ]
    ordered = sorted(held, key=lambda one: one[2] / one[1])
    rows = [(name, [_gigabytes(takes), _gigabytes(has), until]) for name, takes, has, until in ordered]
    return _table(("what", "GB it takes", "GB there are", "holds until"), rows)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Markdown, the numbers to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows)])


def _billions(number: int) -> str:
    return f"{number / 1e9:,.2f} billion" if number >= 1e9 else f"{number / 1e6:,.0f} million"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f}"


def _items(number: float) -> str:
    return f"{number / 1e6:,.0f} million items"


def _dollars(scale: Scale, seconds: float) -> str:
    return f"{scale.ranks * seconds / 3_600 * WORLD.dollars:,.0f}"


TABLES = {"recipes": recipes, "memory": memory, "speed": speed, "store": store, "breaks": breaks}

if __name__ == "__main__":
    for name, made in TABLES.items():
        print(f"{name}\n\n{made()}\n")

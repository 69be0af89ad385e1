"""A first declaration out of a log itself: what each column seems to be, and why.

Names are hints, values decide. Whatever can't be told is said in a comment of the draft, with the likeliest taken;
where no column can be the user, the time or the item, there is no draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats
from tokenization.drafting import naming
from tokenization.drafting.placing import Placed, place_facets
from tokenization.drafting.profiles import Profile, Shape, codes_of, determined, joint, profile, runs_of
from tokenization.errors import SchemaError, nearest
from tokenization.ids import Ids


@dataclass(frozen=True)
class Pick:
    """A column that was chosen for something, and why."""

    column: str
    why: str
    unit: str = ""


@dataclass(frozen=True)
class Draft:
    """What a log seems to be.

    rows: those looked at. clock: the column of times, its unit "" of stamps; or of positions. span: the first and the
    last of them, times as seconds since 1970 UTC. day_level: actions whose times are all midnights. others: entity
    types beside the items, by name. left_out: columns that nothing reads, and why. repeated: share of rows that say of
    the same item in the same group what another says.
    """

    rows: int
    user: Pick
    clock: Pick
    positions: bool
    span: tuple[float, float]
    item: Pick
    item_name: str
    action: Pick | None
    day_level: tuple[str, ...]
    group: Pick | None
    event_id: Pick | None
    others: Mapping[str, Pick]
    facets: tuple[Placed, ...]
    left_out: Mapping[str, str]
    repeated: float


def draft(table: pa.Table, user: str | None = None, time: str | None = None, item: str | None = None) -> Draft:
    """Say what the columns of a log are.

    Args:
        table: its rows, or the first of them.
        user, time, item: columns that are known to be these.

    Raises:
        SchemaError: a column that was named is not there, or none can be the user, the time or the item.
    """
    _check(table, [name for name in (user, time, item) if name is not None])
    columns = {name: profile(name, table.column(name)) for name in table.column_names}
    free = {name: found for name, found in columns.items() if found.shape not in _WHY_NOT}
    clock, positions = _clock(free, time, {user, item})
    free = _without(free, clock)
    whose = _user(free, columns[clock.column], user, item)
    free = _without(free, whose)
    about = _item(free, item)
    free = _without(free, about)
    action = _action(free, table)
    free = _without(free, action)
    event_id = _event_id(free)
    free = _without(free, event_id)
    users, items = columns[whose.column].codes, columns[about.column].codes
    moments = _moments(columns[clock.column], positions)
    group, loose = _group(free, users, codes_of(moments))
    free = {name: found for name, found in _without(free, group).items() if name not in loose}
    others = _others(free, columns[about.column])
    item_name = naming.facet_name(about.column, others, stem=True)
    sets = joint(users, columns[group.column].codes if group else codes_of(moments))
    facets = place_facets(_without(free, *others.values()), users, items, sets, {item_name, *others})
    known = moments[np.isfinite(moments)]
    nothing = {name: _WHY_NOT[found.shape] for name, found in columns.items() if found.shape in _WHY_NOT}
    return Draft(
        rows=table.num_rows,
        user=whose,
        clock=clock,
        positions=positions,
        span=(float(known.min()), float(known.max())),
        item=about,
        item_name=item_name,
        action=action,
        day_level=() if action is None or positions else _day_level(table.column(action.column), moments),
        group=group,
        event_id=event_id,
        others=others,
        facets=tuple(facet for facet in facets if facet.section),
        left_out=nothing | loose | {facet.column: facet.why for facet in facets if not facet.section},
        repeated=_repeated([sets, items, *([columns[action.column].codes] if action else [])]),
    )


_WHY_NOT = {Shape.EMPTY: "it holds nothing", Shape.NESTED: "it is nested; write what matters of it into columns"}


def _check(table: pa.Table, told: list[str]) -> None:
    names = table.column_names
    if table.num_rows < 2:
        raise SchemaError("a log of fewer than two rows tells nothing; give one with more")
    for name in told:
        if name not in names:
            raise SchemaError(f"the log has no column {name!r}; {nearest(name, names)}")
        if told.count(name) > 1:
            raise SchemaError(f"column {name!r} can be only one of the user, the time and the item; name three columns")
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"the log has column {name!r} {names.count(name)} times; rename all but one")


def _without(columns: Mapping[str, Profile], *picks: Pick | None) -> dict[str, Profile]:
    taken = {pick.column for pick in picks if pick}
    return {name: found for name, found in columns.items() if name not in taken}


def _moments(column: Profile, positions: bool) -> Floats:
    return column.numbers if positions else column.seconds()


def _clock(columns: Mapping[str, Profile], time: str | None, taken: set[str | None]) -> tuple[Pick, bool]:
    """The column of times, or of positions, and which of the two it is."""
    if time is not None:
        if time not in columns or columns[time].shape not in (Shape.STAMP, Shape.WHOLE, Shape.FRACTIONAL):
            raise SchemaError(f"column {time!r} holds neither times nor numbers; name another by --time")
        found = columns[time]
        stamp = found.shape is Shape.STAMP or found.unit is not None
        return Pick(time, "you said so", "" if found.shape is Shape.STAMP else found.unit or ""), not stamp
    free = [found for name, found in columns.items() if name not in taken]
    stamps = [found for found in free if found.shape is Shape.STAMP]
    named = {found.name: naming.place(found.name, naming.TIME) for found in free}
    numbers = [found for found in free if found.unit is not None and named[found.name] is not None]
    ranked = sorted(
        (found for found in (*stamps, *numbers) if found.share > 0.5),
        key=lambda found: (named[found.name] is None, named[found.name] or 0, -found.share, -found.distinct),
    )
    if ranked:
        best, *rest = ranked
        why = "its values are times" if best.shape is Shape.STAMP else "its name says time, its numbers are of our days"
        return Pick(best.name, why + _beside(rest), "" if best.shape is Shape.STAMP else best.unit or ""), False
    ordinals = [found for found in free if found.shape is Shape.WHOLE and naming.likeness(found.name, naming.POSITION)]
    if ordinals:
        best = max(ordinals, key=lambda found: naming.likeness(found.name, naming.POSITION))
        return Pick(best.name, "no column holds times, and its name says that it orders events"), True
    raise SchemaError("no column holds times, nor says that it orders events; name it by --time COLUMN")


def _beside(rest: list[Profile]) -> str:
    return f"; so are those of {', '.join(found.name for found in rest)}" if rest else ""


def _user(columns: Mapping[str, Profile], clock: Profile, user: str | None, item: str | None) -> Pick:
    if user is not None:
        return _named(columns, user, "--user")
    able = [
        found
        for name, found in columns.items()
        if name != item and found.named and found.share > 0.5 and 2 <= found.distinct < found.rows
    ]
    hinted = [(naming.likeness(found.name, naming.USER), found) for found in able]
    best = max((rank for rank, _ in hinted), default=0)
    if best:
        likely = [found for rank, found in hinted if rank == best]
        return Pick(likely[0].name, "its name says so, and users have several events each" + _beside(likely[1:]))
    able = [found for found in able if not _says_otherwise(found.name)]
    if not able:
        raise SchemaError("no column can be the user: ids that come again; name it by --user COLUMN")
    for found in able:
        starts = np.flatnonzero(np.diff(found.codes, prepend=-2))
        steps = np.diff(clock.numbers)
        steps[starts[1:] - 1] = 0.0
        if runs_of(found.codes) == found.distinct and not (steps < 0).any():
            return Pick(found.name, "its name does not say so, but its rows stand together in the order of time; check")
    return Pick(able[0].name, "nothing tells; it is the first column of ids that come again. CHECK, or use --user")


def _says_otherwise(name: str) -> bool:
    stems = (naming.ITEM, naming.ACTION, naming.GROUP, naming.CONTEXT, naming.NUMBER, naming.DURATION)
    return any(naming.likeness(name, known) for known in stems)


def _item(columns: Mapping[str, Profile], item: str | None) -> Pick:
    if item is not None:
        return _named(columns, item, "--item")
    able = [found for found in columns.values() if found.named and found.shape is not Shape.FLAG and found.distinct > 1]
    hinted = [(naming.likeness(found.name, naming.ITEM), found) for found in able]
    hinted = [(rank + naming.is_identity(found.name), found) for rank, found in hinted if rank]
    best = max((rank for rank, _ in hinted), default=0)
    if best:
        likely = [found for rank, found in hinted if rank == best]
        return Pick(likely[0].name, "its name says so" + _beside(likely[1:]))
    others = (naming.ACTION, naming.GROUP, naming.CONTEXT, naming.NUMBER, naming.DURATION, naming.USER)
    able = [
        found
        for found in able
        if found.distinct < found.rows and not any(naming.likeness(found.name, stems) for stems in others)
    ]
    if not able:
        raise SchemaError("no column can be the item: ids of what events are about; name it by --item COLUMN")
    most = max(able, key=lambda found: (naming.is_identity(found.name), found.distinct))
    return Pick(most.name, "no name says so; of the columns that may be ids it has the most values. CHECK")


def _named(columns: Mapping[str, Profile], name: str, option: str) -> Pick:
    found = columns.get(name)
    if found is None or not (found.named or found.shape is Shape.STAMP):
        raise SchemaError(f"column {name!r} can't hold ids; name another by {option}")
    return Pick(name, "you said so")


def _action(columns: Mapping[str, Profile], table: pa.Table) -> Pick | None:
    """What kind of event a row is: few values, and a name that says so or values that are verbs of logs."""
    able = [found for found in columns.values() if found.named and 2 <= found.distinct <= 100 and found.share > 0.5]
    exact = [found for found in able if naming.likeness(found.name, naming.ACTION) == 3]
    for found in sorted(exact, key=lambda found: naming.words(found.name) == ["type"]):
        return Pick(found.name, f"its name says so, and it has {found.distinct} values")
    for found in able:
        values = pc.unique(table.column(found.name)).drop_null().cast(pa.string()).to_pylist()
        verbs = [value for value in values if naming.VERBS.intersection(["_".join(naming.words(value))])]
        if found.shape is Shape.WORDS and 2 * len(verbs) > len(values):
            return Pick(found.name, f"{len(verbs)} of its {len(values)} values are what users do, such as {verbs[0]!r}")
    return None


def _day_level(column: pa.ChunkedArray, moments: Floats) -> tuple[str, ...]:
    """Actions of which only the date is known, where of others the time is."""
    actions = Ids.of(column, "action")
    known = np.isfinite(moments) & ~actions.missing
    all_of = np.bincount(actions.index[known], minlength=len(actions.values))
    midnight = np.bincount(actions.index[known & (moments % 86_400 == 0)], minlength=len(actions.values))
    days = np.flatnonzero((midnight == all_of) & (all_of > 1))
    return tuple(actions.values.cast(pa.string()).take(pa.array(days)).to_pylist()) if len(days) < len(all_of) else ()


def _event_id(columns: Mapping[str, Profile]) -> Pick | None:
    for name, found in columns.items():
        if found.named and found.distinct == found.rows and "_".join(naming.words(name)) in naming.ROW:
            return Pick(name, "every row has one of its own; a repeated row is known by it")
    return None


def _group(columns: Mapping[str, Profile], users: Codes, times: Codes) -> tuple[Pick | None, dict[str, str]]:
    """The column of baskets or requests; and columns that might be one and are better not read at all."""
    loose: dict[str, str] = {}
    able = [
        (rank, found)
        for name, found in columns.items()
        if found.named and found.distinct > 1 and (rank := naming.place(name, naming.GROUP)) is not None
        if rank < len(naming.GROUP) or naming.is_identity(name)
    ]
    for _, found in sorted(able, key=lambda pair: pair[0]):
        at_once = determined(times, joint(users, found.codes))
        if np.isnan(at_once):
            continue  # every row is a group of its own
        kind = next(word for word in naming.GROUP if word in naming.words(found.name))
        if at_once > 0.95 or kind in naming.AT_ONCE:
            return Pick(found.name, f"{at_once:.0%} of its groups of several rows have one time"), loose
        loose[found.name] = (
            f"only {at_once:.0%} of these have one time, and a group is a set without order; "
            "declare it as `group` if the order inside does not matter"
        )
    return None, loose


def _others(columns: Mapping[str, Profile], item: Profile) -> dict[str, Pick]:
    """Other types of things that events are about: ids in the rows that have no item."""
    found: dict[str, Pick] = {}
    for name, column in columns.items():
        apart = column.named and not (column.given & item.given).any()
        if apart and item.share < 1 and (naming.is_identity(name) or naming.likeness(name, naming.THING)):
            taken = np.any(
                [columns[pick.column].given for pick in found.values()] or [np.zeros(item.rows, bool)], axis=0
            )
            if not (taken & column.given).any():
                why = "its rows have no item, so they are about something else"
                found[naming.facet_name(name, found, stem=True)] = Pick(name, why)
    return found


def _repeated(keys: list[Codes]) -> float:
    """Share of the rows that say the same of the same item in the same group as another row."""
    whole = keys[0]
    for key in keys[1:]:
        whole = joint(whole, key)
    known = whole[whole >= 0]
    return 1 - len(np.unique(known)) / len(known) if len(known) else 0.0

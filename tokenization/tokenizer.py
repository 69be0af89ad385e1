"""Events → tokens. One pure function for a whole log and for one user's last minutes: same events, same tokens."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Integers, Longs
from tokenization.cleaning import clean, numbers_of
from tokenization.content import ItemTable
from tokenization.errors import SchemaError, SourceError, VocabularyError, nearest
from tokenization.events import Events
from tokenization.facets import ClockCodec, Facet, FacetKind, NumberCodec, Role
from tokenization.grouping import Groups
from tokenization.ids import Ids, column_of
from tokenization.merging import Merged, in_order, merge, settle
from tokenization.rules import Kind
from tokenization.schema import EventSchema
from tokenization.sources import TableLike, items_rule, read_events, read_items
from tokenization.split import Split, resolve
from tokenization.vocabulary import FIRST, Vocabulary

FORMAT = 1
CLOCK_FACETS = ("hour", "weekday", "gap")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Everything that turns events of one schema into tokens, fitted on what lies before the split.

    schema: the declaration. split: its split, resolved to times. vocabularies: of the action, the entities
    and the categories, by facet name. numbers: codecs by facet name. items: what is known of the candidates.
    """

    schema: EventSchema
    split: Split
    vocabularies: Mapping[str, Vocabulary]
    numbers: Mapping[str, NumberCodec]
    items: ItemTable

    @classmethod
    def fit(
        cls,
        schema: EventSchema,
        events: Events | TableLike,
        items: TableLike | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tokenizer:
        """Fit vocabularies and codecs on the events before the split, and on nothing after it.

        Args:
            events: the whole log; a path, a table in memory, or what `cleaning.clean` returned.
            items: the table that `schema.items` declares. Items that no event before the split has are
                candidates too; without this table, they are unknown.
            progress: called with (texts done, texts in all) while item texts become vectors.

        Raises:
            SourceError: the tables don't hold what the schema declares, or no event lies before the split.
            SchemaError: an action known to the day is misspelt, so that it would leak into its day.
        """
        events = _events(events, schema)
        _check_days(schema, events)
        groups = events.groups
        split = resolve(schema.split, groups)
        fitted = split.trains(groups)[groups.of_event]
        if not fitted.any():
            raise SourceError(f"no event of {schema.name!r} lies before the split; move `split` to a later time")
        before, times = events.take(fitted), groups.time[groups.of_event][fitted]
        vocabularies = {name: Vocabulary.fit(column, times) for name, column in before.ids.items()}
        seen = vocabularies[schema.candidates]
        table = ItemTable.bare(seen)
        if items is not None:
            table = ItemTable.build(seen, read_items(items, schema), items_rule(schema), progress)
        vocabularies[schema.candidates] = table.ids
        codes = {name: vocabularies[name].encode_ids(column) for name, column in before.ids.items()}
        merged = _merge(schema, before, _place(schema, before, groups.of_event[fitted], codes), {})
        numbers = {name: NumberCodec.fit(values) for name, values in merged.numbers.items()}
        return cls(schema, split, vocabularies, numbers, table)

    @cached_property
    def facets(self) -> tuple[Facet, ...]:
        """What the model reads of a token, in this order: action, entities, context, clock, outcome."""
        schema = self.schema
        action = [self._facet("action", Role.ACTION, FacetKind.CATEGORY)] if schema.action else []
        entities = [self._facet(name, Role.ENTITY, FacetKind.ID) for name in schema.entities]
        context, outcome = (
            [self._facet(name, role, FacetKind(rule.kind.value)) for name, rule in rules.items()]
            for role, rules in ((Role.CONTEXT, schema.context), (Role.OUTCOME, schema.outcome))
        )
        return (*action, *entities, *context, *self._clock_facets(), *outcome)

    def _facet(self, name: str, role: Role, kind: FacetKind) -> Facet:
        codec = self.numbers[name] if kind is FacetKind.NUMBER else self.vocabularies[name]
        return Facet(name, kind, role, codec.size)

    def _clock_facets(self) -> tuple[Facet, ...]:
        if self.schema.time is None:
            return ()
        sizes = (ClockCodec.HOURS, ClockCodec.WEEKDAYS, ClockCodec.GAPS)
        return tuple(
            Facet(name, FacetKind(name), Role.CONTEXT, size) for name, size in zip(CLOCK_FACETS, sizes, strict=True)
        )

    @property
    def context_facets(self) -> tuple[Facet, ...]:
        """The facets known when a request is made, in the order of `encode_context`."""
        return tuple(facet for facet in self.facets if facet.role is Role.CONTEXT)

    def transform(self, events: Events | TableLike) -> pa.Table:
        """Events of any number of users → one row a user, in the order of their ids.

        Tokens are in the order of time. Inside a group the order is canonical: entity type, its code, action,
        all other codes. So neither the order nor the chunking of the rows has any influence, and what other
        users did has none either. Users and ids never seen in training are fine.

        Returns:
            Columns user_id; time list<double> (seconds since 1970 UTC, or positions); group list<int32> (0,
            1, 2.. within the user); each facet list<int32>; `<name>.value` list<float> of each number, null =
            absent; events list<int32>, how many events the token holds.

        Raises:
            SourceError: a column is missing, or a row makes no sense (`cleaning.clean` tells good from bad).
        """
        events = _events(events, self.schema)
        codes = {name: self.vocabularies[name].encode_ids(column) for name, column in events.ids.items()}
        place = _place(self.schema, events, events.groups.of_event, codes)
        merged = settle(_merge(self.schema, events, place, codes), place)
        of_token = events.groups.of_event[merged.rows]
        return _rows(self._columns(merged, events.groups, of_token), merged, events.groups, of_token)

    def _columns(self, merged: Merged, groups: Groups, of_token: Longs) -> dict[str, Codes]:
        """[t] codes of every facet, in the order of `facets`."""
        clock: dict[str, Codes] = {}
        if self.schema.time is not None:
            codes = ClockCodec(self.schema.time.zone).encode(groups.time, groups.previous)
            clock = {name: c[of_token] for name, c in zip(CLOCK_FACETS, codes, strict=True)}
        numbers = {name: self.numbers[name].encode(values) for name, values in merged.numbers.items()}
        found = {**merged.codes, **clock, **numbers}
        return {facet.name: found[facet.name] for facet in self.facets}

    def encode_context(
        self,
        context: Mapping[str, Sequence[object] | pa.Array],
        at: Floats | None = None,
        previous: Floats | None = None,
    ) -> Codes:
        """What n requests say of themselves, as the model reads it.

        Args:
            context: [n] values by name of a declared context facet; a facet left out, or None, is absent.
            at: [n] times of the requests, seconds since 1970 UTC, for hour, weekday and gap.
            previous: [n] times of the users' last groups, for the gap; NaN = none.

        Returns:
            [n, C] codes of `context_facets`.

        Raises:
            SourceError: a name that is no declared context facet, or columns of different length.
        """
        known = list(self.schema.context)
        for name in context:
            if name not in known:
                raise SourceError(f"no context facet is called {name!r}; {nearest(name, known)}")
        lengths = {len(column) for column in (*context.values(), *(a for a in (at, previous) if a is not None))}
        if len(lengths) > 1:
            raise SourceError(f"the context columns have {sorted(lengths)} rows; give one value a request in each")
        out = np.zeros((lengths.pop() if lengths else 0, len(self.context_facets)), np.int32)
        codes = {name: self._encode_values(name, column) for name, column in context.items()}
        if at is not None and self.schema.time is not None:
            before = np.full(len(at), np.nan) if previous is None else np.asarray(previous, np.float64)
            clock = ClockCodec(self.schema.time.zone).encode(np.asarray(at, np.float64), before)
            codes |= dict(zip(CLOCK_FACETS, clock, strict=True))
        for place, facet in enumerate(self.context_facets):
            if facet.name in codes:
                out[:, place] = codes[facet.name]
        return out

    def _encode_values(self, name: str, column: Sequence[object] | pa.Array) -> Codes:
        values = column if isinstance(column, pa.Array) else column_of(column, name)
        if self.schema.context[name].kind is Kind.NUMBER:
            return self.numbers[name].encode(numbers_of(values))
        return self.vocabularies[name].encode_ids(Ids.of(values, name))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides tokens: rules, codecs, vocabularies. Equal fingerprints, equal tokens."""
        return self.prefix_fingerprint({name: v.size for name, v in self._all_vocabularies.items()})

    def prefix_fingerprint(self, sizes: Mapping[str, int]) -> str:
        """The fingerprint this tokenizer had when its vocabularies had so many codes, whatever they grew by since.

        Args:
            sizes: numbers of codes, 0 and 1 included, by name of a vocabulary, `item.<column>` for the categories of
                items; of a vocabulary that is not named no id counts.

        Raises:
            VocabularyError: a vocabulary has fewer codes.
        """
        # What is as by default is left out, so that a rule which a later userfm adds changes no fingerprint.
        told_elsewhere = {"name", "revision", "targets", "split", "items"}
        rules = self.schema.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=told_elsewhere)
        vocabularies = self._all_vocabularies
        told = {
            "format": FORMAT,
            "rules": rules,
            "facets": [facet.name for facet in self.facets],
            "numbers": {name: codec.edges for name, codec in self.numbers.items()},
            "vocabularies": {n: v.prefix_hash(sizes.get(n, FIRST) - FIRST) for n, v in vocabularies.items()},
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def _all_vocabularies(self) -> dict[str, Vocabulary]:
        return {**self.vocabularies, **{f"item.{name}": v for name, v in self.items.vocabularies.items()}}

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, vocabularies and the item table as Arrow files; made if absent."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            if name != self.schema.candidates:
                vocabulary.save(folder / f"vocabulary.{name}.arrow")
        self.items.save(folder)
        told = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "schema": self.schema.to_dict(),
            "split": asdict(self.split),
            "numbers": {name: codec.edges for name, codec in self.numbers.items()},
            "vocabularies": sorted(self.vocabularies),
        }
        (folder / "tokenizer.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read what `save` wrote; runs no code.

        Raises:
            VocabularyError: a file is missing or damaged, or was written by a newer version.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VocabularyError(f"{folder} holds no tokenizer: {error}") from error
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            found = told.get("format") if isinstance(told, dict) else None
            raise VocabularyError(f"{folder} has tokenizer format {found}, this userfm reads {FORMAT}")
        if missing := {"fingerprint", "schema", "split", "numbers", "vocabularies"} - told.keys():
            raise VocabularyError(f"{folder} is damaged: its tokenizer.json has no {min(missing)}")
        schema = EventSchema.from_dict(told["schema"])
        items = ItemTable.load(folder)
        vocabularies = {
            name: items.ids if name == schema.candidates else Vocabulary.load(folder / f"vocabulary.{name}.arrow")
            for name in told["vocabularies"]
        }
        numbers = {name: NumberCodec(tuple(edges)) for name, edges in told["numbers"].items()}
        loaded = cls(schema, Split(**told["split"]), vocabularies, numbers, items)
        if loaded.fingerprint != told["fingerprint"]:
            raise VocabularyError(f"{folder} is damaged: its files don't have the fingerprint that it states")
        return loaded


def _events(events: Events | TableLike, schema: EventSchema) -> Events:
    if isinstance(events, Events):
        return events
    sound, bad = clean(read_events(events, schema), schema)
    if bad.num_rows:
        why = bad["reason"][0].as_py()
        raise SourceError(f"{bad.num_rows} of {bad.num_rows + len(sound)} events make no sense, the first: {why}")
    return sound


def _check_days(schema: EventSchema, events: Events) -> None:
    """A misspelt action would take effect at the beginning of its day, and leak; one that is merely absent is fine."""
    if schema.action is None:
        return
    actions = events.ids["action"].values.cast(pa.string()).to_pylist()
    free = [action for action in actions if action not in schema.action.day_level]
    for name in schema.action.day_level:
        if name not in actions and difflib.get_close_matches(name, free, n=1):
            raise SchemaError(f"action.day_level: no event has the action {name!r}; {nearest(name, free)}")


def _place(schema: EventSchema, events: Events, of_event: Longs, codes: Mapping[str, Codes]) -> list[Integers]:
    """Keys [n] of the canonical order: group, entity type, entity, action."""
    kind, entity = np.zeros((2, len(events)), np.int32)
    for number, name in enumerate(schema.entities, start=1):
        kind[~events.ids[name].missing] = number
        entity += codes[name]
    return [of_event, kind, entity, *([codes["action"]] if schema.action else [])]


def _merge(schema: EventSchema, events: Events, place: Sequence[Integers], codes: Mapping[str, Codes]) -> Merged:
    """Tokens in the order of `place`. What merges is decided by the ids themselves rather than by their codes, so
    that two unknown products stay two."""
    if not schema.merge.same_item_in_group:
        return in_order(place, codes, events.numbers)
    itself = np.arange(len(events))  # an event about nothing is like no other
    for name in schema.entities:
        given = ~events.ids[name].missing
        itself[given] = events.ids[name].index[given]
    action = [events.ids["action"].index + 1] if schema.action else []
    return merge([*place, itself, *action], codes, events.numbers)


def _rows(columns: Mapping[str, Codes], merged: Merged, groups: Groups, of_token: Longs) -> pa.Table:
    sizes = np.bincount(groups.user[of_token], minlength=len(groups.users))
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())

    def lists(values: NDArray[Any]) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(values))

    def floats(values: Floats) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float32), mask=np.isnan(values)))

    return pa.table(
        {
            "user_id": groups.users,
            "time": lists(groups.time[of_token]),
            "group": lists(groups.ordinal[of_token]),
            **{name: lists(codes) for name, codes in columns.items()},
            **{f"{name}.value": floats(values) for name, values in merged.numbers.items()},
            "events": lists(merged.events),
        }
    )

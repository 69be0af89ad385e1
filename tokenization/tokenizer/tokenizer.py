"""Events → tokens. One pure function for a whole log and for one user's last minutes: same events, same tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Longs
from tokenization.codes.codecs import NumberCodec, clock_codes, distance_codes, span_codes
from tokenization.codes.counting import CODES_OF_A_VECTOR, Seen
from tokenization.codes.users import UserCodecs
from tokenization.codes.vocabulary import FIRST, Vocabulary
from tokenization.errors import SourceError, VocabularyError, nearest
from tokenization.events.cleaning import clean, read_facets, refuse
from tokenization.events.events import Events
from tokenization.events.grouping import Groups, complete_before, join, resume
from tokenization.events.live import A_FEW, Finder, events_of, events_of_table
from tokenization.ids import column_of
from tokenization.items.content import ItemTable, TextVectors
from tokenization.items.released import since_release
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.merging.adjacency import ItemClass, continues
from tokenization.merging.merging import Merging, settle
from tokenization.merging.pairs import PairTable
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import ClockFacet
from tokenization.sources.tables import TableLike, items_rule, read_events, read_items, read_users, users_rule
from tokenization.tokenizer import fitting, tokenizer_files
from tokenization.tokenizer.encoding import distances, encode, encode_facet, merge_events, merge_keys, place_of
from tokenization.tokenizer.facets import LASTED, Facet, Role, facets_of, merging_of
from tokenization.tokenizer.fingerprint import prefix_fingerprint, sizes_of, state
from tokenization.tokenizer.fitting import Observed
from tokenization.tokenizer.lasting import may_last, of_lasting, said_at_start
from tokenization.tokenizer.split import Split, resolve
from tokenization.tokenizer.tokens import Tokens

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Everything that turns events of one schema into tokens, fitted on what lies before the split.

    schema: the declaration. split: its split, resolved to times. vocabularies: of the action, the entities, the
    categories, members of sets and words of texts, by facet name. numbers: codecs of numbers and durations. items:
    what is known of the candidates. pairs: the learned table of events that merge. centroids: of the vector facets.
    users: how users' attributes become codes.
    """

    schema: EventSchema
    split: Split
    vocabularies: Mapping[str, Vocabulary]
    numbers: Mapping[str, NumberCodec]
    items: ItemTable
    pairs: PairTable | None
    centroids: Mapping[str, ResidualKMeans]
    users: UserCodecs

    @classmethod
    def fit(
        cls,
        schema: EventSchema,
        events: Events | TableLike,
        items: TableLike | None = None,
        progress: Progress | None = None,
        users: TableLike | None = None,
    ) -> Tokenizer:
        """Fit vocabularies and codecs on the events before the split, and on nothing after it.

        Args:
            events: the whole log; a path, a table in memory, or what `cleaning.clean` returned.
            items: the table that `schema.items` declares. Items that no event before the split has are
                candidates too; without this table, they are unknown.
            progress: called with (texts done, texts in all) while item texts become vectors.
            users: the table that `schema.users` declares.

        Raises:
            SourceError: the tables don't hold what the schema declares, or no event lies before the split.
            SchemaError: an action known to the day is misspelt, so that it would leak into its day.
        """
        events = _events(events, schema, {})
        known = None if items is None else read_items(items, schema)
        split = resolve(schema.split, fitting.moments(schema, events))
        observed = fitting.observe(schema, split, events, known)
        return cls.of(
            schema, split, observed, known, progress, None if users is None else read_users(users, users_rule(schema))
        )

    @classmethod
    def of(
        cls,
        schema: EventSchema,
        split: Split,
        observed: Observed,
        items: pa.Table | None = None,
        progress: Progress | None = None,
        users: pa.Table | None = None,
        texts: TextVectors | None = None,
    ) -> Tokenizer:
        """The tokenizer of what `fitting.observe` found in every part of a log; raises what `fit` does.

        Args:
            items, users: the columns of these tables that the schema declares. texts: of the items, where somebody has
                read them already.
        """
        fitting.check(schema, observed)
        vocabularies = {name: Vocabulary.fit(seen, fitting.admit(schema, name)) for name, seen in observed.seen.items()}
        known = vocabularies[schema.candidates]
        table = ItemTable.bare(known)
        if items is not None:
            table = since_release(ItemTable.build(known, items, items_rule(schema), progress, texts), items, schema)
        vocabularies[schema.candidates] = table.ids
        attributes = UserCodecs({}, {})
        if users is not None:
            attributes = UserCodecs.fit(users_rule(schema), users, observed.users)
        return cls(
            schema,
            split,
            vocabularies,
            {name: NumberCodec.fit(tally) for name, tally in observed.numbers.items()},
            table,
            PairTable.learn(observed.runs, schema.merge.pairs.number) if schema.merge.pairs else None,
            {
                name: ResidualKMeans.fit(sample.vectors, schema.facets[name].levels, CODES_OF_A_VECTOR)
                for name, sample in observed.vectors.items()
                if len(sample.vectors)
            },
            attributes,
        )

    @cached_property
    def facets(self) -> tuple[Facet, ...]:
        """What the model reads of a token, in this order: action, entities, context, clock, outcome."""
        return facets_of(self.schema, self.vocabularies, self.numbers)

    @property
    def context_facets(self) -> tuple[Facet, ...]:
        """The facets known when a request is made, in the order of `encode_context`."""
        return tuple(facet for facet in self.facets if facet.role is Role.CONTEXT)

    def transform(
        self, events: Events | TableLike, users: TableLike | None = None, after: pa.Table | None = None
    ) -> pa.Table:
        """What `encode` gives, as the table that a corpus keeps: one row a user, see `Tokens.table`."""
        return self.encode(events, users, after).table()

    def encode(
        self, events: Events | TableLike, users: TableLike | None = None, after: pa.Table | None = None
    ) -> Tokens:
        """Events of any number of users → tokens, user after user in the order of their ids.

        Tokens are in the order of time. Inside a group the order is canonical: entity type, its code, action,
        all other codes. So neither the order nor the chunking of the rows has any influence, and what other
        users did has none either. Users and ids never seen in training are fine.

        Args:
            events: a path, a table in memory, a list of mappings of column → value, or what `cleaning.clean` returned.
            users: what is known of the users, as `schema.users` declares; those without a row are fine.
            after: how far the users had come before these events (`Corpus.ends`): user_id, first and last (times of the
                first and the last group), groups (their number). Users without a row begin here.

        Raises:
            SourceError: a column is missing, or a row makes no sense (`cleaning.clean` tells good from bad).
        """
        events = _events(events, self.schema, self._finders)
        groups, joined = self._groups(events)
        if after is not None:
            groups = resume(groups, after)
        codes: Mapping[str, Codes] = encode(self.schema, self.vocabularies, self.centroids, events)
        numbers: Mapping[str, Floats] = {**events.numbers, **distances(events, groups.time[groups.of_event])}
        place = place_of(self.schema, events, groups.of_event, codes)
        lasting = of_lasting(events, groups)
        if lasting is not None:
            keys = merge_keys(self.schema, events, place, joined)
            codes, numbers = said_at_start(self.schema, events, groups, lasting, keys, (codes, numbers))
        merged = settle(merge_events(self.schema, events, place, joined, codes, numbers, self._merging), place)
        of_token = groups.of_event[merged.rows]
        numbers = dict(merged.numbers)
        lasted = numbers.pop(LASTED, np.zeros(len(of_token)))
        attributes: dict[str, Codes] = {}
        if self.schema.users is not None and self.users.sizes:
            known = None if users is None else read_users(users, self.schema.users)
            attributes = self.users.encode(self.schema.users, known, groups.users)
        return Tokens(
            groups.users,
            np.append(0, np.cumsum(np.bincount(groups.user[of_token], minlength=len(groups.users)))),
            groups.time[of_token],
            groups.ordinal[of_token],
            lasted if may_last(self.schema) else None,
            self._columns(merged.codes, numbers, groups, of_token),
            numbers,
            merged.events,
            attributes,
        )

    @cached_property
    def _finders(self) -> dict[str, Finder]:
        return {name: vocabulary.find for name, vocabulary in self.vocabularies.items()}

    @cached_property
    def _merging(self) -> Merging:
        return merging_of(self.schema)

    def _groups(self, events: Events) -> tuple[Groups, NDArray[np.bool_] | None]:
        """Groups with those joined that are one token; [n] the events of such, None where nothing is ever joined."""
        groups, merge = events.groups, self.schema.merge
        if merge.same_item_within is None and self.pairs is None:
            return groups, None
        again = continues(self.schema, events, groups, self.pairs, self._classes)
        begun = np.append(again[1:], False) if len(again) else again
        return join(groups, again), (again | begun)[groups.of_event]

    @cached_property
    def _classes(self) -> ItemClass | None:
        pairs = self.schema.merge.pairs
        if pairs is None or pairs.by is None or pairs.by not in self.items.categories:
            return None
        classes = self.items.vocabularies[pairs.by].decode(self.items.categories[pairs.by][FIRST:])
        return ItemClass(self.items.ids.ids, classes.cast(pa.string()))

    def _columns(
        self, codes: Mapping[str, Codes], numbers: Mapping[str, Floats], groups: Groups, of_token: Longs
    ) -> dict[str, Codes]:
        """[t] codes of every column, in the order of `facets`."""
        clock: dict[str, Codes] = {}
        if self.schema.time is not None:
            zone = self.schema.time.zone
            # A request for a group is made when it begins: how long it lasted is known only afterwards, and of other
            # groups only those that were complete by then.
            said = clock_codes(self.schema.clock_facets, zone, groups.start, complete_before(groups), groups.first)
            clock = {name: column[of_token] for name, column in said.items()}
            if ClockFacet.AGE in self.schema.clock_facets:
                clock[ClockFacet.AGE.value] = self._age(codes[self.schema.candidates], groups.time[of_token])
        found = {**codes, **clock, **self._number_codes(numbers)}
        return {facet.name: found[facet.name] for facet in self.facets}

    def _age(self, items: Codes, times: Floats) -> Codes:
        """[t] since the item is known, see `Vocabulary.first_seen`: zero before, absent where that is not known."""
        first = np.append(self.items.first_seen, np.nan)
        return span_codes(times - first[np.where(items < len(self.items), items, -1)])

    def encode_context(
        self,
        context: Mapping[str, Sequence[object] | pa.Array],
        at: Floats | None = None,
        previous: Floats | None = None,
        first: Floats | None = None,
    ) -> Codes:
        """What n requests say of themselves, as the model reads it.

        Args:
            context: [n] values by name of a declared context facet; a facet left out, or None, is absent.
            at: [n] times of the requests, seconds since 1970 UTC, for what the clock says.
            previous, first: [n] times of the users' last groups and of their first, for gap and tenure; NaN = none.

        Returns:
            [n, C] codes of `context_facets`.

        Raises:
            SourceError: a name that is no declared context facet, or columns of different length.
        """
        known = list(self.schema.context)
        for name in context:
            if name not in known:
                raise SourceError(f"no context facet is called {name!r}; {nearest(name, known)}")
        told = [column for column in (at, previous, first) if column is not None]
        lengths = {len(column) for column in (*context.values(), *told)}
        if len(lengths) > 1:
            raise SourceError(f"the context columns have {sorted(lengths)} rows; give one value a request in each")
        out = np.zeros((lengths.pop() if lengths else 0, len(self.context_facets)), np.int32)
        codes: dict[str, Codes] = {}
        for name, column in context.items():
            codes |= self._encode_values(name, column if isinstance(column, pa.Array) else column_of(column, name), at)
        if at is not None and self.schema.time is not None:
            nothing = np.full(len(at), np.nan)
            codes |= clock_codes(
                self.schema.clock_facets,
                self.schema.time.zone,
                np.asarray(at, np.float64),
                nothing if previous is None else np.asarray(previous, np.float64),
                nothing if first is None else np.asarray(first, np.float64),
            )
        for place, facet in enumerate(self.context_facets):
            if facet.name in codes:
                out[:, place] = codes[facet.name]
        return out

    def _encode_values(self, name: str, column: pa.Array, at: Floats | None) -> dict[str, Codes]:
        zone = self.schema.time.zone if self.schema.time else "UTC"
        rule = self.schema.context[name]
        read = read_facets({name: rule}, {rule.column: column}, len(column), zone)
        spans = {} if at is None else distances(read, np.asarray(at, np.float64))
        return encode_facet(name, rule, read, self.vocabularies, self.centroids) | self._number_codes(
            {**read.numbers, **spans}
        )

    def _number_codes(self, numbers: Mapping[str, Floats]) -> dict[str, Codes]:
        """[n] codes of numbers by quantile, and of spans since a stamp by powers of two."""
        return {
            name: self.numbers[name].encode(values) if name in self.numbers else distance_codes(values)
            for name, values in numbers.items()
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides tokens: rules, codecs, vocabularies. Equal fingerprints, equal tokens."""
        return self.prefix_fingerprint(sizes_of(self))

    def prefix_fingerprint(self, sizes: Mapping[str, int]) -> str:
        """The fingerprint this tokenizer had when its vocabularies had so many codes, whatever they grew by since.

        Args:
            sizes: numbers of codes, 0 and 1 included, by name of a vocabulary, `item.<column>` for the categories of
                items, `user.<column>` for those of users; of a vocabulary that is not named no id counts.

        Raises:
            VocabularyError: a vocabulary has fewer codes.
        """
        return prefix_fingerprint(self, sizes)

    @cached_property
    def state(self) -> str:
        """SHA-256 (hex) of what decides tokens, now and after growing: the fingerprint, and who waits for a code."""
        return state(self)

    def without_waiting(self) -> Tokenizer:
        """The same without the ids that wait for a code, for whoever reads with it and does not let it grow."""
        settled = {name: replace(v, waiting=Seen.nothing()) for name, v in self.vocabularies.items()}
        table = replace(self.items, ids=settled[self.schema.candidates])
        return replace(self, vocabularies=settled, items=table)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, and the rest as Arrow files; the folder is made if absent."""
        tokenizer_files.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read what `save` wrote; runs no code.

        Raises:
            VocabularyError: a file is missing or damaged, or was written by a newer version.
        """
        parts, fingerprint, state = tokenizer_files.load(Path(folder))
        loaded = cls(**parts)
        if loaded.fingerprint != fingerprint or state not in (None, loaded.state):
            raise VocabularyError(f"{folder} is damaged: its files don't have the fingerprint that it states")
        return loaded


def _events(events: Events | TableLike, schema: EventSchema, known: Mapping[str, Finder]) -> Events:
    if isinstance(events, Events):
        return events
    if isinstance(events, list):
        return events_of(events, schema, known)
    if isinstance(events, pa.Table) and events.num_rows <= A_FEW:
        return events_of_table(events, schema, known)
    return refuse(clean(read_events(events, schema), schema))

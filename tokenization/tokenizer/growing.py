"""A tokenizer that has met more of the log: ids seen since get codes at the end, and no code ever changes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tokenization.codes.vocabulary import ABSENT, Vocabulary
from tokenization.events.events import Events
from tokenization.items.content import ItemTable
from tokenization.items.released import since_release
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import items_rule
from tokenization.tokenizer import fitting
from tokenization.tokenizer.fitting import Observed
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer

_EVERYTHING = Split("time", math.inf, math.inf, None)


def meet(schema: EventSchema, events: Events) -> Observed:
    """What `grow_by` needs to know of some events; of several users' it joins by `|`."""
    return fitting.observe(schema, _EVERYTHING, events)


def grow(tokenizer: Tokenizer, events: Events, items: pa.Table | None = None) -> Tokenizer:
    """What `grow_by` makes of events that are all in memory."""
    return grow_by(tokenizer, meet(tokenizer.schema, events), items)


def grow_by(tokenizer: Tokenizer, seen: Observed, items: pa.Table | None = None) -> Tokenizer:
    """The tokenizer with codes for what it meets for the first time, or has met often enough by now.

    Items of a newer items table come first, in the order of their ids. Ids, members of sets and words follow that were
    in all events fitted on and appended, with these, as often as the schema admits, in the order of first sight.
    Whoever was in fewer goes on waiting. Of an item that gets its code here it is noted since when it is known: its
    release, where the table says it, else when it was first met. Nothing else is fitted: numbers keep their bins,
    `counts` goes on telling of what lies before the split alone, and nothing changes of what has a code. So the prefix
    of a trained model is untouched, and with it the age of an item that it knows, or knows not to have been met.

    Args:
        items: as `schema.items` declares; of an item that it does not list nothing is known but its events.

    Returns:
        `tokenizer` itself, where nothing is new.

    Raises:
        SourceError: as `ItemTable.build`, or a time of release that is none.
        VocabularyError: an id is text where those so far are whole numbers.
    """
    schema, before = tokenizer.schema, tokenizer.items
    met = {name: vocabulary.meet(seen.seen[name]) for name, vocabulary in tokenizer.vocabularies.items()}
    table = replace(before, ids=met[schema.candidates])
    if items is not None:
        table = since_release(table.grow(items, items_rule(schema)), items, schema, len(before))
        met[schema.candidates] = table.ids
    grown = {name: vocabulary.admit(fitting.admit(schema, name)) for name, vocabulary in met.items()}
    if all(grown[name] is vocabulary for name, vocabulary in tokenizer.vocabularies.items()):
        return tokenizer
    return replace(tokenizer, vocabularies=grown, items=_with_items(table, grown[schema.candidates]))


def _with_items(table: ItemTable, ids: Vocabulary) -> ItemTable:
    """Rows without category, text and media for items that the table does not have yet."""
    new = len(ids) - len(table.ids)
    nothing = np.zeros((new, table.vectors.shape[1]), np.float32)
    return replace(
        table,
        ids=ids,
        categories={n: np.append(codes, np.full(new, ABSENT, np.int32)) for n, codes in table.categories.items()},
        text=pa.concat_arrays([table.text, pa.array([""] * new, table.text.type)]),
        # Row 0 is that of no item, which has no text either.
        text_of=np.append(table.text_of, np.full(new, table.text_of[0], table.text_of.dtype)),
        media={n: np.concatenate([m, np.zeros((new, m.shape[1]), m.dtype)]) for n, m in table.media.items()},
        semantic=table.semantic.grow(nothing) if table.semantic and new else table.semantic,
    )

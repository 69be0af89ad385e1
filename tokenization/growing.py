"""A tokenizer that has met more of the log: ids seen since get codes at the end, and no code ever changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tokenization import fitting
from tokenization.arrays import Codes
from tokenization.content import ItemTable
from tokenization.events import Events
from tokenization.split import Split
from tokenization.tokenizer import Tokenizer
from tokenization.vocabulary import ABSENT, Vocabulary

_EVERYTHING = Split("time", math.inf, math.inf, None)


def grow(tokenizer: Tokenizer, events: Events) -> Tokenizer:
    """The tokenizer with codes for what it meets in `events` for the first time.

    Ids, members of sets and words get one in the order of first sight, as in fitting, if these events have them as
    often as the schema admits. Nothing else is fitted: numbers keep their bins, and what is counted (`counts`,
    `first_seen`) goes on telling of what lies before the split alone. So the prefix of a trained model is untouched.
    Of items first met here nothing is known but their events.

    Returns:
        `tokenizer` itself, where nothing is new.
    """
    seen = fitting.observe(tokenizer.schema, _EVERYTHING, events).seen
    grown = {
        name: vocabulary.grow(Vocabulary.fit(seen[name], fitting.admit(tokenizer.schema, name)).ids)
        for name, vocabulary in tokenizer.vocabularies.items()
    }
    if all(len(grown[name]) == len(vocabulary) for name, vocabulary in tokenizer.vocabularies.items()):
        return tokenizer
    return replace(
        tokenizer, vocabularies=grown, items=_with_items(tokenizer.items, grown[tokenizer.schema.candidates])
    )


def _with_items(table: ItemTable, ids: Vocabulary) -> ItemTable:
    """Rows without category and text for items that the table does not have yet."""
    new = len(ids) - len(table.ids)
    categories: Mapping[str, Codes] = {
        name: np.append(codes, np.full(new, ABSENT, np.int32)) for name, codes in table.categories.items()
    }
    text = pa.concat_arrays([table.text, pa.array([""] * new, table.text.type)])
    # Row 0 is that of no item, which has no text either.
    text_of = np.append(table.text_of, np.full(new, table.text_of[0], table.text_of.dtype))
    return replace(table, ids=ids, categories=categories, text=text, text_of=text_of)

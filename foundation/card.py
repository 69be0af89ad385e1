"""The model card, README.md of a model directory: what a model is, what it learned from, and what it is not for.

Its sections follow Mitchell et al., Model Cards for Model Reporting, arXiv:1810.03993.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from foundation.config import ModelConfig
from foundation.model import FoundationModel
from foundation.space import Space
from tokenization.tokenizer.tokenizer import Tokenizer

EVALUATION = "## Evaluation"
ALIGNMENT = "## Alignment"
LIMITS = "## Limits"
UNTOLD = "Nothing was told."


@dataclass(frozen=True)
class Told:
    """What only whoever trained a model knows, as lines of a list: of the data and its split, of the training."""

    data: Sequence[str]
    training: Sequence[str]


def new_card(model: FoundationModel, tokenizer: Tokenizer, told: Told) -> str:
    """The card of a model that was trained from nothing."""
    name = tokenizer.schema.name
    return _page(f"# {name}", model, tokenizer, _listed(told.data), _listed(told.training))


def grown_card(model: FoundationModel, tokenizer: Tokenizer, space: Space, learned: str, before: str) -> str:
    """The card of weights that changed after they were saved.

    learned: what changed them, a paragraph. before: the card of the model that it grew from, quoted at the end.
    """
    data = f"It grew from {space.lineage[-1]}, whose data came first: see below."
    page = _page(f"# {space.name}, trained further", model, tokenizer, data, learned or UNTOLD)
    quoted = "\n".join(f"> {line}".rstrip() for line in before.splitlines())
    return page if not before else f"{page}\n## The card of {space.lineage[-1]}\n\n{quoted}\n"


def judged_card(card: str, figures: Sequence[str]) -> str:
    """The card with these figures, as lines of a list, in place of those that stood there."""
    return _with_section(card, EVALUATION, figures)


def aligned_card(card: str, lines: Sequence[str]) -> str:
    """The card with what is told of the map into an earlier space, before its limits, in place of an earlier map's."""
    if re.search(rf"^{ALIGNMENT}$", card, re.MULTILINE):
        return _with_section(card, ALIGNMENT, lines)
    section = f"{ALIGNMENT}\n\n{_listed(lines)}\n\n"
    if not re.search(rf"^{LIMITS}$", card, re.MULTILINE):
        return f"{card.rstrip()}\n\n{section}" if card else section
    return re.sub(rf"^{LIMITS}$", lambda _: section + LIMITS, card, count=1, flags=re.MULTILINE)


def _with_section(card: str, title: str, lines: Sequence[str]) -> str:
    section = f"{title}\n\n{_listed(lines)}\n\n"
    return re.sub(rf"^{title}\n.*?(?=^## |\Z)", lambda _: section, card, count=1, flags=re.MULTILINE | re.DOTALL)


def _page(title: str, model: FoundationModel, tokenizer: Tokenizer, data: str, training: str) -> str:
    config = model.config
    return f"""{title}

A userfm foundation model: it reads what users did and gives each user a vector, each {config.item.facet} a vector, and
scores of what a user will do next.

```python
from userfm import Subgraph

subgraph = Subgraph.from_pretrained("path/of/this/folder")
user_ids, batch = subgraph.tokenize(events)  # columns as in tokenizer/tokenizer.json
user_vectors = subgraph(batch)  # float32 [users, {model.width}]
```

## What it is for

Recommending, searching and ranking of {config.item.facet}, and as a part of models that predict what users do.
It is not for decisions about persons that matter to them (credit, insurance, work, health, law), nor for users of
another business or of another kind of log than it learned from: nobody has looked at what it says of those.

## Size

{_listed(_sizes(model))}

## What it reads

{_listed(_inputs(config, tokenizer))}

## Data

{data}

## Training

{training}

{EVALUATION}

None is recorded here. Judge it on your own log before you rely on it (`userfm evaluate`).

{LIMITS}

- It knows items, places and habits until its last event; later ids read as unknown, new items by their text and
  categories alone.
- The last dimension of a vector is popularity: rankings lean to what many had, and what few have is found less well.
  Leave that dimension out where direction alone is wanted.
- Behaviour tells much about persons. A vector may give away attributes that nobody asked for (age, income, health):
  treat it as personal data, and measure what it gives away before you pass it on.
- What one user did is not stored in it by name, but weights may remember rare histories, and erasing a user's data
  unlearns nothing: for that it is trained again.
- It learned from what users were shown, and repeats that choice.

## Licence

None is stated: whoever publishes this folder writes it here. The code that reads it is Apache-2.0.
"""


def _sizes(model: FoundationModel) -> list[str]:
    config = model.config
    tables = {id(table.weight) for table in model.modules() if isinstance(table, nn.Embedding)}
    counts = [(weight.numel(), id(weight) in tables) for weight in model.parameters()]
    total, embedded = sum(size for size, _ in counts), sum(size for size, is_table in counts if is_table)
    return [
        f"{total:,} parameters, {embedded:,} of them in tables of embeddings; float32",
        f"{config.layers} layers of width {config.width}, {config.heads} heads, {_windows(config)}",
        f"{config.horizons} horizons: the next so many groups are predicted at once",
        f"vectors of {model.width} dimensions, the last one popularity; users and items meet by dot product",
        f"{config.item.codes:,} codes of {config.item.facet}, {_rows(model)}",
    ]


def _rows(model: FoundationModel) -> str:
    gate = model.tower.gate
    if gate is None:
        return "whose own rows count alike at every age"
    if gate.constant:
        return "whose own rows would count by their age, but the log told none: the share is constant"
    return "whose own rows count by their age: vectors are of a moment, young items' soon of another"


def _windows(config: ModelConfig) -> str:
    seen = ["all that came before" if window == 0 else f"{window} tokens" for window in config.attention.windows]
    return "windows of " + ", ".join(seen)


def _inputs(config: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    items = [name for name, _ in config.item.categories]
    known = [*items, *(["text"] if config.item.text_width else []), *(["vectors"] if config.item.media_width else [])]
    return [
        f"Reads: {_named(facet.name for facet in config.facets)}",
        f"Told at a request: {_named(facet.name for facet in config.context)}",
        f"Knows of users: {_named(config.attribute_names)}",
        f"Predicts: {_named(tokenizer.schema.weights)}",
        f"Knows of items: {_named(known)}",
        f"Vocabularies: tokenizer {tokenizer.fingerprint[:12]}, revision {tokenizer.schema.revision} of its schema",
    ]


def _named(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) if lines else UNTOLD

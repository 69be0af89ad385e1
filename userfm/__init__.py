"""One foundation model of user behaviour: event logs in, user and item embeddings out.

Everything here is loaded when it is first asked for, so `import userfm` needs nothing but Python, and
`userfm.client` nothing but numpy, grpcio and protobuf. What an extra brings fails with the line that installs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from userfm.imports import missing, refuse_foreign

if TYPE_CHECKING:
    from foundation.export import exported as exported
    from foundation.export import exported_inputs as exported_inputs
    from foundation.heads import Heads as Heads
    from foundation.model import FoundationModel as FoundationModel
    from foundation.subgraph import Subgraph as Subgraph
    from foundation.subgraph import rows_of as rows_of
    from serving.store import EmbeddingStore as EmbeddingStore
    from tokenization.corpus.corpus import Corpus as Corpus
    from tokenization.errors import UserfmError as UserfmError
    from tokenization.schema.event_schema import EventSchema as EventSchema
    from tokenization.tokenizer.tokenizer import Tokenizer as Tokenizer
    from userfm.client import EmbeddingClient as EmbeddingClient

__version__ = "0.1.0"

__all__ = [
    "Corpus",
    "EmbeddingClient",
    "EmbeddingStore",
    "EventSchema",
    "FoundationModel",
    "Heads",
    "Run",
    "Subgraph",
    "Tokenizer",
    "UserfmError",
    "__version__",
    "exported",
    "exported_inputs",
    "recommend",
    "rows_of",
]

# Name → where it lives, and the extra that brings what it needs.
_PUBLIC = {
    "Corpus": ("tokenization.corpus.corpus", "model"),
    "EmbeddingClient": ("userfm.client", ""),
    "EmbeddingStore": ("serving.store", "serve"),
    "EventSchema": ("tokenization.schema.event_schema", "model"),
    "FoundationModel": ("foundation.model", "model"),
    "Heads": ("foundation.heads", "model"),
    "Run": ("training.run", "train"),
    "Subgraph": ("foundation.subgraph", "model"),
    "Tokenizer": ("tokenization.tokenizer.tokenizer", "model"),
    "UserfmError": ("tokenization.errors", ""),
    "exported": ("foundation.export", "model"),
    "exported_inputs": ("foundation.export", "model"),
    "recommend": ("training.recommend", "train"),
    "rows_of": ("foundation.subgraph", "model"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'userfm' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
    module, extra = _PUBLIC[name]
    package = module.partition(".")[0]
    if package != __name__:
        refuse_foreign(f"userfm.{name}", package)
    try:
        value = getattr(importlib.import_module(module), name)
    except ImportError as error:
        sentence = missing(f"userfm.{name}", extra, error)
        if sentence is None:
            raise
        raise ImportError(sentence, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

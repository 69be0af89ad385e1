"""Tokens of a corpus as a model reads them: of the tokenizer it was trained with, or of a later or earlier revision."""

from __future__ import annotations

import pyarrow as pa

from tokenization.corpus.corpus import Corpus
from tokenization.errors import SchemaError
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.translation import translation
from training.errors import RunError


def tokens_for(tokenizer: Tokenizer, corpus: Corpus) -> pa.Table:
    """The corpus's tokens as those of the model's `tokenizer`.

    What the model does not know is left out: facets that were added, and values whose code was given after it was
    trained, which read as unknown. What it knows and the corpus has no more is absent.

    Raises:
        RunError: some code means one thing to the model and another in the corpus.
    """
    if corpus.tokenizer.fingerprint == tokenizer.fingerprint:
        return corpus.tokens()
    try:
        return translation(corpus.tokenizer, tokenizer).apply(corpus.tokens())
    except SchemaError as error:
        raise RunError(f"{corpus.folder} has tokens of another tokenizer than the model: {error}") from error

"""What a user can mend. Every message is one sentence that names the thing and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserfmError(Exception):
    """Base of every error that the caller can put right; the message is one sentence."""


class SchemaError(UserfmError):
    """The declaration of a log is wrong: an unknown key, a name that nothing has, a value out of range."""


class SourceError(UserfmError):
    """A table can't be read as declared: no such file, a missing column, no rows, a row that makes no sense."""


class VocabularyError(UserfmError):
    """Ids and a vocabulary don't fit together, or a saved vocabulary can't be read."""


class CorpusError(UserfmError):
    """A folder is no corpus, or not one that this version reads."""


def first_line(error: BaseException) -> str:
    """What an error says, as a part of a sentence: its first line, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def with_article(words: str) -> str:
    """These words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def nearest(name: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown `name`: the nearest of the `known` names, or all of them."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none is declared"

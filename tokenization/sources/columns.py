"""Names and types of the columns of tables."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from tokenization.errors import SourceError, nearest

Types = dict[str, pa.DataType]


def require(given: Iterable[str], needed: Iterable[str], where: str) -> None:
    """Each needed column is given, and once.

    Raises:
        SourceError: one is not, naming the nearest that is.
    """
    names = list(given)
    for name in needed:
        if name not in names:
            raise SourceError(f"{where} has no column {name!r}; {nearest(name, names)}")
        if names.count(name) > 1:
            raise SourceError(f"{where} has column {name!r} {names.count(name)} times; rename all but one")


def joint(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type that holds values of all these types; where none does, text."""
    fields = [pa.schema([("", kind)]) for kind in sorted(kinds, key=str)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return pa.string()

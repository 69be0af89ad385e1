"""Errors as one sentence for whoever typed the command."""

from __future__ import annotations

from tokenization.errors import UserfmError
from userfm.imports import missing


def sentence(error: Exception, what: str, extra: str) -> str | None:
    """What to tell about `error` of the command `what`, which needs the extra `extra`.

    None for a mistake of the program itself, whose traceback is the best thing to show.
    """
    from userfm.client import ClientError  # late: numpy and grpc take longer to import than `--help` may

    if isinstance(error, UserfmError | ClientError):
        return str(error)
    if isinstance(error, ImportError):
        return missing(what, extra, error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}; --debug shows where"
    return None

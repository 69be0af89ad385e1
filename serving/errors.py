"""What can go wrong in serving, and the gRPC status a caller sees.

UserfmError
├── StoreError            the store on disk: missing, torn, or about to be damaged
│   ├── NothingPublished  there is no current version to serve
│   ├── SpaceConflict     vectors or a model of one space offered to another
│   ├── PublishRefused    the vectors pushed are not fit to be served
│   └── CorruptStore      bytes on disk are not the bytes that were written
├── ServerError           the process: a port in use, a worker that did not start
└── RequestError          one request; each has its gRPC status
    ├── InvalidRequest    INVALID_ARGUMENT
    ├── UnknownId         NOT_FOUND
    ├── WrongSpace        FAILED_PRECONDITION
    ├── NoModel           FAILED_PRECONDITION
    └── Overloaded        RESOURCE_EXHAUSTED
"""

from __future__ import annotations

import grpc

from tokenization.errors import UserfmError


class StoreError(UserfmError):
    """Something about the store on disk that its owner can mend."""


class NothingPublished(StoreError):
    """The store has no current version."""


class SpaceConflict(StoreError):
    """Vectors or a model of one space were offered to the folder of another."""


class PublishRefused(StoreError):
    """The pushed vectors failed a check, so the version served before stays current."""


class CorruptStore(StoreError):
    """A file does not hold the bytes that were written to it."""


class ServerError(UserfmError):
    """The server process could not start or stop as asked."""


class RequestError(UserfmError):
    """A request that cannot be answered; the message is one sentence for its sender."""

    status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT


class InvalidRequest(RequestError):
    """The request itself is wrong, whatever the server holds."""


class UnknownId(RequestError):
    """The request needs the vector of an id that the store does not hold."""

    status = grpc.StatusCode.NOT_FOUND


class WrongSpace(RequestError):
    """The caller's vectors are in another space than the one served."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class NoModel(RequestError):
    """Encode or Score was asked of a store published without a model, or with one that lacks this surface."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class Overloaded(RequestError):
    """More work waits than the server will hold; try again later."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED

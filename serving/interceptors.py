"""What happens to every request before and after its method: malformed bytes and exceptions become a status.

gRPC answers UNKNOWN, with the decoder's or the exception's own text, when a deserializer or a method raises.
Here requests are decoded inside the guarded call: a caller's mistake is INVALID_ARGUMENT, and a mistake of
ours is INTERNAL with a number that the log repeats.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.errors import InvalidRequest, RequestError

log = logging.getLogger("userfm.serving")

Continue = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps every method of every service of a server, once."""

    def __init__(self) -> None:
        self._guarded: dict[str, Any] = {}

    async def intercept_service(self, continuation: Continue, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method's handler, guarded; None where there is no such method (gRPC answers UNIMPLEMENTED)."""
        method = handler_call_details.method
        if method not in self._guarded:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # and not remembered: anybody can invent names
            self._guarded[method] = _guarded(handler)
        return self._guarded[method]


def _guarded(handler: Any) -> Any:
    decode, encode = handler.request_deserializer, handler.response_serializer

    async def one(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await handler.unary_unary(_decoded(decode, data), context)
        except Exception as error:  # noqa: BLE001 - the border of the process: everything becomes a status
            await _refuse(error, context)

    async def many(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            # For methods that write to the context instead of yielding, as the health service's Watch does.
            await handler.unary_stream(_decoded(decode, data), context)
        except Exception as error:  # noqa: BLE001 - as above
            await _refuse(error, context)

    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(one, response_serializer=encode)
    return grpc.unary_stream_rpc_method_handler(many, response_serializer=encode)


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except DecodeError:
        raise InvalidRequest("the request's bytes are not the protobuf message this method takes") from None


async def _refuse(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """End the call with a status; always raises."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, RequestError):
        await context.abort(error.status, str(error))
    number = secrets.token_hex(4)
    # Frames and the type only: the text of an exception may hold a user's id.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("error %s: %s\n%s", number, type(error).__name__, frames)
    await context.abort(grpc.StatusCode.INTERNAL, f"an error of the server, number {number} in its log")

"""Server interceptors: the only place that aborts a call."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from cinnabar_common.errors import SuiteError

log = logging.getLogger(__name__)

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]]


def sole(error: BaseException) -> BaseException:
    """The one error inside nested groups of one; the group itself when there are more."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = cast("tuple[BaseException, ...]", error.exceptions)
    return sole(leaves[0]) if len(leaves) == 1 else cast("BaseException", error)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Renders every :class:`SuiteError` as a status; hides and logs everything else.

    Handlers must be coroutines (streams write with ``context.write``), so that
    one wrapper fits all four arities.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        arity = "_".join(
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behavior = getattr(handler, arity)
        if inspect.isasyncgenfunction(behavior):  # foreign servicers such as reflection and health
            return handler
        method = str(handler_call_details.method)

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await behavior(request, context)
            except (Exception, asyncio.CancelledError) as error:
                match sole(error):
                    case SuiteError() as known:
                        if known.status_code is grpc.StatusCode.INTERNAL:
                            log.error("rpc failed", extra={"method": method}, exc_info=known)
                        await context.abort_with_status(rpc_status.to_status(known.to_status()))
                    case grpc.aio.AbortError() | asyncio.CancelledError():
                        raise
                    case bug:
                        log.error("rpc failed", extra={"method": method}, exc_info=bug)
                        await context.abort_with_status(rpc_status.to_status(SuiteError().to_status()))

        replace: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(handler, "_replace")  # noqa: B009
        return replace(**{arity: guarded})

"""Envoy's rate limit protocol: the limits of admission, asked by the edge for each call.

The one domain is "cinnabar". A descriptor has the entries ``tenant``, ``user`` and ``method`` (the path of
the RPC or its last part), or ``anonymous`` and ``remote_address`` for a caller without a credential. Every
answer carries the headers for the caller; a refusal also what a gRPC client reads as a typed error, and, as
dynamic metadata, what the edge writes into the JSON of a REST client.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct

from cinnabar.external import envoy_ratelimit_pb2 as pb
from cinnabar.external.envoy_header_pb2 import HeaderValue
from cinnabar.external.envoy_ratelimit_descriptor_pb2 import RateLimitDescriptor
from cinnabar.external.envoy_ratelimit_pb2_grpc import RateLimitServiceServicer
from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import FieldViolation, InvalidRequest, RateLimited
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_scheduler.admission import Request, Result, Verdict
from cinnabar_scheduler.limits import LimitState
from cinnabar_scheduler.policy import MAX_UNITS

DOMAIN = "cinnabar"
MAX_DESCRIPTORS = 10
MAX_VALUE_LENGTH = 256
_CALLER = frozenset({"tenant", "user", "method"})
_ANONYMOUS = frozenset({"anonymous", "remote_address"})
_UNIT = pb.RateLimitResponse.RateLimit.Unit
_UNITS = {
    1_000_000: _UNIT.SECOND,
    60_000_000: _UNIT.MINUTE,
    3_600_000_000: _UNIT.HOUR,
    86_400_000_000: _UNIT.DAY,
}
_OK, _OVER_LIMIT = pb.RateLimitResponse.Code.OK, pb.RateLimitResponse.Code.OVER_LIMIT


class RateLimitService(RateLimitServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(self, asked: Coalescer[Request, Verdict]) -> None:
        self._asked = asked

    async def ShouldRateLimit(self, request: pb.RateLimitRequest, context: object) -> pb.RateLimitResponse:
        requests = _requests(request)
        return _response(requests, await self._asked.submit_many(requests))


def _requests(message: pb.RateLimitRequest) -> list[Request]:
    violations: list[FieldViolation] = []
    if message.domain != DOMAIN:
        violations.append(FieldViolation("domain", f'must be "{DOMAIN}"'))
    if not 1 <= len(message.descriptors) <= MAX_DESCRIPTORS:
        violations.append(FieldViolation("descriptors", f"must be 1 to {MAX_DESCRIPTORS}"))
    if message.hits_addend > MAX_UNITS:
        violations.append(FieldViolation("hits_addend", f"must be at most {MAX_UNITS}"))
    requests: list[Request] = []
    for index, descriptor in enumerate(message.descriptors):
        values = {entry.key: entry.value for entry in descriptor.entries}
        if problem := _problem(descriptor, values):
            violations.append(problem.under(f"descriptors[{index}]"))
            continue
        requests.append(
            Request(
                tenant=values.get("tenant", ""),
                user=values.get("user") or values["remote_address"],
                method=values.get("method", "").rpartition("/")[2],
                cost=message.hits_addend or 1,
            )
        )
    if violations:
        raise InvalidRequest(violations)
    return requests


def _problem(descriptor: RateLimitDescriptor, values: dict[str, str]) -> FieldViolation | None:
    if len(values) != len(descriptor.entries) or values.keys() not in (_CALLER, _ANONYMOUS):
        return FieldViolation("entries", "must be tenant, user and method, or anonymous and remote_address")
    if any(not 1 <= len(value) <= MAX_VALUE_LENGTH for value in values.values()):
        return FieldViolation("entries", f"must have values of 1 to {MAX_VALUE_LENGTH} characters")
    for key in ("tenant", "user"):
        if key in values and not is_id(values[key]):
            return FieldViolation("entries", f"{key} {ID_RULE}")
    return None


def _response(requests: Sequence[Request], verdicts: Sequence[Verdict]) -> pb.RateLimitResponse:
    """The decision on all descriptors: over the limit when any of them is."""
    refused = [verdict for verdict in verdicts if verdict.result is Result.LIMITED]
    response = pb.RateLimitResponse(
        overall_code=_OVER_LIMIT if refused else _OK, statuses=map(_status, verdicts)
    )
    shown = max(refused, key=lambda one: one.retry_after_us) if refused else min(verdicts, key=_left)
    if shown.limit is None:
        return response
    headers = {
        "x-ratelimit-limit": str(shown.limit.limit),
        "x-ratelimit-remaining": str(shown.limit.remaining),
        "x-ratelimit-reset": str(_whole_seconds(shown.limit.reset_us)),
    }
    if refused:
        cost = requests[verdicts.index(shown)].cost
        error = _error(shown.limit, cost, shown.retry_after_us)
        headers["retry-after"] = str(max(1, _whole_seconds(shown.retry_after_us)))
        status = error.to_status().SerializeToString()
        # What gRPC calls binary metadata is base64 on the wire, without padding.
        headers["grpc-status-details-bin"] = base64.b64encode(status).decode().rstrip("=")
        response.raw_body = error.message.encode()
        told = {**error.metadata, "retry_delay": f"{shown.retry_after_us / 1e6:.6f}s"}
        response.dynamic_metadata.CopyFrom(_struct(told))
    response.response_headers_to_add.extend(
        HeaderValue(key=key, value=value) for key, value in headers.items()
    )
    return response


def _error(limit: LimitState, cost: int, retry_after_us: int) -> RateLimited:
    return RateLimited(
        level=limit.level,
        limit=limit.limit,
        period_seconds=limit.period_us / 1e6,
        retry_seconds=retry_after_us / 1e6,
        cost=cost,
    )


def _status(verdict: Verdict) -> pb.RateLimitResponse.DescriptorStatus:
    status = pb.RateLimitResponse.DescriptorStatus(
        code=_OVER_LIMIT if verdict.result is Result.LIMITED else _OK
    )
    if (limit := verdict.limit) is not None:
        status.limit_remaining = limit.remaining
        status.duration_until_reset.FromMicroseconds(limit.reset_us)
        unit = _UNITS.get(limit.period_us, _UNIT.UNKNOWN)
        status.current_limit.CopyFrom(
            pb.RateLimitResponse.RateLimit(requests_per_unit=limit.limit, unit=unit, name=limit.level)
        )
    return status


def _left(verdict: Verdict) -> float:
    return verdict.limit.remaining if verdict.limit is not None else math.inf


def _whole_seconds(us: int) -> int:
    return -(-us // 1_000_000)


def _struct(texts: dict[str, str]) -> Struct:
    struct = Struct()
    for key, text in texts.items():
        struct.fields[key].string_value = text
    return struct

"""The public AssignmentService."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody

from cinnabar.gateway.v1 import assignment_service_pb2 as pb
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceServicer
from cinnabar_common import pagination
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, CourseName, is_id
from cinnabar_gateway import convert, data_convert, export_formats, identity
from cinnabar_gateway.assignment_rules import assignment_violations
from cinnabar_gateway.assignments import Assignments
from cinnabar_gateway.calls import Context, min_positions, send_positions
from cinnabar_gateway.exports import Exports
from cinnabar_gateway.identity import Role
from cinnabar_gateway.required import missing
from cinnabar_gateway.statistics import Statistics

_CONTENT = ("display_name", "items", "close_time")
_EVERYTHING = "*"


class AssignmentService(AssignmentServiceServicer):
    """Speaks gRPC; knows nothing of storage."""

    def __init__(self, assignments: Assignments, exports: Exports, statistics: Statistics) -> None:
        self._assignments = assignments
        self._exports = exports
        self._statistics = statistics

    async def CreateAssignment(self, request: pb.CreateAssignmentRequest, context: Context) -> pb.Assignment:
        caller = identity.current()
        caller.require("assignments.create", Role.INSTRUCTOR)
        violations = list(missing(request, skip=frozenset({"assignment.items"})))
        if request.parent and CourseName.parse(request.parent) is None:
            violations.append(FieldViolation("parent", "must be courses/{course}"))
        if request.assignment_id and not is_id(request.assignment_id):
            violations.append(FieldViolation("assignment_id", ID_RULE))
        if request.HasField("assignment"):
            # Some patterns and programs take a while; other calls go on meanwhile.
            violations += await asyncio.to_thread(lambda: list(assignment_violations(request.assignment)))
        if violations:
            raise InvalidRequest(violations)
        stored, position = await self._assignments.create(
            caller,
            convert.course_name(request.parent, "parent"),
            request.assignment_id,
            _content(request.assignment, _CONTENT, pb.Assignment()),
        )
        await send_positions(context, (position,))
        return convert.assignment(stored, caller.role)

    async def GetAssignment(self, request: pb.GetAssignmentRequest, context: Context) -> pb.Assignment:
        caller = identity.current()
        name = convert.assignment_name(request.name, "name")
        return convert.assignment(
            await self._assignments.get(caller, name, min_positions(context)), caller.role
        )

    async def ListAssignments(
        self, request: pb.ListAssignmentsRequest, context: Context
    ) -> pb.ListAssignmentsResponse:
        caller = identity.current()
        parent = convert.course_name(request.parent, "parent")
        limit = pagination.page_size(request.page_size)
        parameters = ("assignments", caller.tenant, request.parent)
        page = await self._assignments.list(
            caller,
            parent,
            after=pagination.decode_token(request.page_token, *parameters),
            limit=limit,
            min_positions=min_positions(context),
        )
        last = page.assignments[-1].name.assignment if page.more else ""
        return pb.ListAssignmentsResponse(
            assignments=[convert.assignment(one, caller.role) for one in page.assignments],
            next_page_token=pagination.encode_token(last, *parameters) if last else "",
        )

    async def UpdateAssignment(self, request: pb.UpdateAssignmentRequest, context: Context) -> pb.Assignment:
        caller = identity.current()
        caller.require("assignments.update", Role.INSTRUCTOR)
        wanted = request.assignment
        violations = [] if request.HasField("assignment") else list(missing(request))
        violations += _mask_violations(request)
        if violations:
            raise InvalidRequest(violations)
        stored, position = await self._assignments.update(
            caller,
            convert.assignment_name(wanted.name, "assignment.name"),
            etag=wanted.etag,
            change=_change(wanted, _masked(request)),
            min_positions=min_positions(context),
        )
        await send_positions(context, (position,))
        return convert.assignment(stored, caller.role)

    async def GetAssignmentStatistics(
        self, request: pb.GetAssignmentStatisticsRequest, context: Context
    ) -> pb.AssignmentStatistics:
        caller = identity.current()
        caller.require("statistics.get", Role.INSTRUCTOR)
        name = convert.assignment_name(request.name, "name")
        found = await self._statistics.of(caller, name, min_positions(context))
        return data_convert.statistics(name, found)

    async def ExportGrades(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: pb.ExportGradesRequest, context: Context
    ) -> None:
        caller = identity.current()
        caller.require("grades.export", Role.INSTRUCTOR)
        name = convert.assignment_name(request.name, "name")
        wanted = export_formats.format_of(request.format)
        export = await self._exports.start(
            caller, name, latest_only=request.latest_only, min_positions=min_positions(context)
        )
        file_name = export_formats.file_name(name, wanted)
        await context.send_initial_metadata((("content-disposition", f'attachment; filename="{file_name}"'),))
        async with aclosing(export_formats.parts(export, wanted)) as parts:
            async for part in parts:
                await context.write(HttpBody(content_type=wanted.content_type, data=part))


def _mask_violations(request: pb.UpdateAssignmentRequest) -> list[FieldViolation]:
    paths = request.update_mask.paths
    violations = [
        FieldViolation("update_mask", f"names {path!r}, but can name display_name, items, close_time and '*'")
        for path in paths
        if path not in _CONTENT and path != _EVERYTHING
    ]
    if _EVERYTHING in paths and len(paths) > 1:
        violations.append(FieldViolation("update_mask", "must not name others besides '*'"))
    if not violations and request.HasField("assignment") and not _masked(request):
        violations.append(FieldViolation("update_mask", "must name a field, or the assignment must have one"))
    return violations


def _masked(request: pb.UpdateAssignmentRequest) -> tuple[str, ...]:
    """The fields to take: those of the mask, or those that are set."""
    paths = request.update_mask.paths
    if _EVERYTHING in paths:
        return _CONTENT
    present = {field.name for field, _ in request.assignment.ListFields()}
    return tuple(field for field in _CONTENT if field in (paths or present))


def _change(wanted: pb.Assignment, fields: Sequence[str]) -> Callable[[bytes], bytes]:
    def change(spec: bytes) -> bytes:
        changed = pb.Assignment.FromString(spec)
        encoded = _content(wanted, fields, changed)
        if violations := list(assignment_violations(changed)):
            raise InvalidRequest(violations)
        return encoded

    return change


def _content(source: pb.Assignment, fields: Sequence[str], target: pb.Assignment) -> bytes:
    """``target`` with ``fields`` of ``source``, serialized: nothing that only we set gets in."""
    if "display_name" in fields:
        target.display_name = source.display_name
    if "items" in fields:
        target.ClearField("items")
        target.items.extend(source.items)
    if "close_time" in fields:
        target.ClearField("close_time")
        if source.HasField("close_time"):
            target.close_time.CopyFrom(source.close_time)
    return target.SerializeToString(deterministic=True)

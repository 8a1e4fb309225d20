"""Speaks gRPC; knows nothing of Postgres."""

from __future__ import annotations

from typing import Any

import grpc

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2_grpc
from cinnabar_storage import convert, responses
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.reads import CachedReads
from cinnabar_storage.controls import QueueControls
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks

Context = grpc.aio.ServicerContext[Any, Any]


class StorageWriter(storage_service_pb2_grpc.StorageWriterServiceServicer):
    """Everything that changes Postgres."""

    def __init__(
        self, submissions: Submissions, tasks: Tasks, assignments: Assignments, controls: QueueControls
    ) -> None:
        self._submissions = submissions
        self._tasks = tasks
        self._assignments = assignments
        self._controls = controls

    async def CreateAssignment(
        self, request: pb.CreateAssignmentRequest, context: Context
    ) -> pb.CreateAssignmentResponse:
        created, position = await self._assignments.create(convert.new_revision(request.assignment))
        return pb.CreateAssignmentResponse(
            assignment=responses.assignment(created), position=responses.position(position)
        )

    async def UpdateAssignment(
        self, request: pb.UpdateAssignmentRequest, context: Context
    ) -> pb.UpdateAssignmentResponse:
        updated, position = await self._assignments.update(
            convert.new_revision(request.assignment), request.expected_revision_id
        )
        return pb.UpdateAssignmentResponse(
            assignment=responses.assignment(updated), position=responses.position(position)
        )

    async def CreateSubmissions(
        self, request: pb.CreateSubmissionsRequest, context: Context
    ) -> pb.CreateSubmissionsResponse:
        results, positions = await self._submissions.create(convert.new_submissions(request))
        return responses.created(results, positions)

    async def CommitOutcomes(
        self, request: pb.CommitOutcomesRequest, context: Context
    ) -> pb.CommitOutcomesResponse:
        results, positions = await self._tasks.commit(convert.outcomes(request))
        return pb.CommitOutcomesResponse(
            results=responses.commit_results(results), positions=map(responses.position, positions)
        )

    async def CancelSubmissions(
        self, request: pb.CancelSubmissionsRequest, context: Context
    ) -> pb.CancelSubmissionsResponse:
        cancelled, positions, silent = await self._submissions.cancel(*convert.cancel(request))
        return pb.CancelSubmissionsResponse(
            cancelled=map(responses.task, cancelled),
            positions=map(responses.position, positions),
            unavailable=map(responses.submission_key, silent),
        )

    async def RedriveTasks(
        self, request: pb.RedriveTasksRequest, context: Context
    ) -> pb.RedriveTasksResponse:
        results, opened, positions = await self._tasks.redrive(*convert.redrive(request))
        return pb.RedriveTasksResponse(
            tasks=map(responses.open_task, opened),
            results=responses.redrive_results(results),
            positions=map(responses.position, positions),
        )

    async def SetQueueControl(
        self, request: pb.SetQueueControlRequest, context: Context
    ) -> pb.SetQueueControlResponse:
        await self._controls.set(convert.queue_control(request))
        return pb.SetQueueControlResponse()


class StorageReader(storage_service_pb2_grpc.StorageReaderServiceServicer):
    """Everything that reads Postgres."""

    def __init__(
        self,
        submissions: Submissions,
        tasks: Tasks,
        assignments: Assignments,
        controls: QueueControls,
        cached: CachedReads,
        *,
        shard_count: int,
    ) -> None:
        self._submissions = submissions
        self._tasks = tasks
        self._assignments = assignments
        self._controls = controls
        self._cached = cached
        self._shard_count = shard_count

    async def GetAssignments(
        self, request: pb.GetAssignmentsRequest, context: Context
    ) -> pb.GetAssignmentsResponse:
        keys, positions = convert.assignment_keys(request), convert.positions(request.min_positions)
        if len(keys) == 1 and not keys[0].revision_id:
            one = await self._cached.assignment(keys[0], positions)
            return pb.GetAssignmentsResponse(assignments=responses.encoded_assignments(one))
        found = await self._assignments.get(keys, positions)
        return pb.GetAssignmentsResponse(assignments=map(responses.assignment, found))

    async def GetRevisions(
        self, request: pb.GetRevisionsRequest, context: Context
    ) -> pb.GetRevisionsResponse:
        found = await self._cached.revisions(convert.revision_keys(request))
        return pb.GetRevisionsResponse(revisions=responses.encoded_assignments(*found))

    async def ListAssignments(
        self, request: pb.ListAssignmentsRequest, context: Context
    ) -> pb.ListAssignmentsResponse:
        page = await self._assignments.list(
            convert.assignment_query(request), convert.positions(request.min_positions)
        )
        return pb.ListAssignmentsResponse(
            assignments=map(responses.assignment, page.assignments), more=page.more
        )

    async def GetSubmissions(
        self, request: pb.GetSubmissionsRequest, context: Context
    ) -> pb.GetSubmissionsResponse:
        keys = convert.submission_keys(request.submissions)
        positions = convert.positions(request.min_positions)
        if len(keys) == 1:
            one = await self._cached.submission(keys[0], positions)
            return pb.GetSubmissionsResponse(submissions=responses.encoded_submissions(one))
        found, left_out = await self._submissions.get(keys, positions)
        return pb.GetSubmissionsResponse(
            submissions=map(responses.submission, found), left_out=map(responses.submission_key, left_out)
        )

    async def ListSubmissions(
        self, request: pb.ListSubmissionsRequest, context: Context
    ) -> pb.ListSubmissionsResponse:
        page = await self._submissions.list(
            convert.submission_query(request), convert.positions(request.min_positions)
        )
        return pb.ListSubmissionsResponse(
            submissions=map(responses.submission, page.submissions),
            more=page.more,
            unreachable=page.unreachable,
        )

    async def ListOpenTasks(
        self, request: pb.ListOpenTasksRequest, context: Context
    ) -> pb.ListOpenTasksResponse:
        page, more = await self._tasks.open(
            request.shard, *convert.open_tasks_after(request), request.min_epoch
        )
        return pb.ListOpenTasksResponse(tasks=map(responses.open_task, page), more=more)

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        page = await self._tasks.dead_letters(convert.dead_letter_query(request))
        return pb.ListDeadLettersResponse(
            dead_letters=map(responses.dead_letter, page.letters),
            more=page.more,
            unreachable=page.unreachable,
        )

    async def ListShards(self, request: pb.ListShardsRequest, context: Context) -> pb.ListShardsResponse:
        response = pb.ListShardsResponse(shard_count=self._shard_count)
        if request.arrivals:
            response.epoch, arrivals = await self._tasks.arrivals()
            response.arrival_epochs.extend(arrivals)
        return response

    async def GetTaskStates(
        self, request: pb.GetTaskStatesRequest, context: Context
    ) -> pb.GetTaskStatesResponse:
        return responses.task_states(await self._tasks.open_generations(convert.owned_task_keys(request)))

    async def CountTasks(self, request: pb.CountTasksRequest, context: Context) -> pb.CountTasksResponse:
        if request.every_shard:
            return responses.task_counts(await self._tasks.count_all())
        return responses.task_counts(await self._tasks.count(request.shard))

    async def ListQueueControls(
        self, request: pb.ListQueueControlsRequest, context: Context
    ) -> pb.ListQueueControlsResponse:
        return pb.ListQueueControlsResponse(
            controls=map(responses.queue_control, await self._controls.list())
        )

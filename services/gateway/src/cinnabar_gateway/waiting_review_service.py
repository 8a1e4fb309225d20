"""The public ReviewService: grades that wait for a person."""

from __future__ import annotations

from collections.abc import Iterator

from cinnabar.gateway.v1 import review_service_pb2 as pb
from cinnabar.gateway.v1.review_service_pb2_grpc import ReviewServiceServicer
from cinnabar.grader.v1.grade_pb2 import Grade
from cinnabar_common import pagination
from cinnabar_common.errors import FieldViolation, InvalidRequest, PageTokenInvalid
from cinnabar_common.names import ID_RULE, AssignmentName, id_bucket, is_id
from cinnabar_gateway import convert, identity
from cinnabar_gateway.calls import Context, min_positions, send_positions
from cinnabar_gateway.required import missing
from cinnabar_gateway.waiting_review_records import ReviewCursor, ReviewScope, WaitingReview
from cinnabar_gateway.waiting_reviews import WaitingReviews

MAX_COMMENT = 1000
MAX_ETAG = 128
MAX_FLAG = 128
_ANY = "-"
_PARENT_RULE = 'must be courses/{course}/assignments/{assignment}; the assignment, or both ids, may be "-"'
_TIME_END_US = 1 << 53


class ReviewService(ReviewServiceServicer):
    """Speaks gRPC; knows nothing of storage."""

    def __init__(self, reviews: WaitingReviews) -> None:
        self._reviews = reviews

    async def ListReviews(self, request: pb.ListReviewsRequest, context: Context) -> pb.ListReviewsResponse:
        caller = identity.current()
        scope = _scope(request)
        limit = pagination.page_size(request.page_size)
        parameters = ("reviews", caller.tenant, request.parent, request.flag)
        cursor = pagination.decode_token(request.page_token, *parameters)
        page = await self._reviews.list(
            caller, scope, after=_cursor(cursor), limit=limit, min_positions=min_positions(context)
        )
        last = page.reviews[-1].cursor if page.more else None
        return pb.ListReviewsResponse(
            reviews=map(_review, page.reviews),
            next_page_token=(
                pagination.encode_token(f"{last.time_us}:{last.submission_id}:{last.item}", *parameters)
                if last
                else ""
            ),
            unreachable=map(convert.shard_name, page.unreachable),
        )

    async def AcceptReview(self, request: pb.AcceptReviewRequest, context: Context) -> pb.Review:
        caller = identity.current()
        if violations := list(_violations(request)):
            raise InvalidRequest(violations)
        name = convert.submission_name(request.name, "name")
        accepted = await self._reviews.accept(
            caller, name, request.item, comment=request.comment, etag=request.etag
        )
        await send_positions(context, accepted.positions)
        review = _review(accepted.review)
        review.grade.CopyFrom(Grade.FromString(accepted.grade.grade))
        return review


def _scope(request: pb.ListReviewsRequest) -> ReviewScope:
    violations = list(missing(request))
    parent = AssignmentName.parse(request.parent)
    course, assignment = _ids(parent) if parent is not None else ("", "")
    if request.parent and (parent is None or (assignment and not course)):
        violations.append(FieldViolation("parent", _PARENT_RULE))
    if len(request.flag) > MAX_FLAG or not request.flag.isprintable():
        violations.append(FieldViolation("flag", f"must be at most {MAX_FLAG} printable characters"))
    if violations:
        raise InvalidRequest(violations)
    return ReviewScope(course, assignment, request.flag)


def _ids(parent: AssignmentName) -> tuple[str, str]:
    """(course, assignment), "" for any."""
    course, assignment = parent.course, parent.assignment
    return "" if course == _ANY else course, "" if assignment == _ANY else assignment


def _violations(request: pb.AcceptReviewRequest) -> Iterator[FieldViolation]:
    yield from missing(request)
    if request.item and not is_id(request.item):
        yield FieldViolation("item", ID_RULE)
    for field, most in (("comment", MAX_COMMENT), ("etag", MAX_ETAG)):
        if len(getattr(request, field)) > most:
            yield FieldViolation(field, f"must be at most {most} characters")
        if "\0" in getattr(request, field):
            yield FieldViolation(field, "must not contain U+0000")


def _cursor(text: str) -> ReviewCursor | None:
    if not text:
        return None
    parts = text.split(":")
    if len(parts) != 3:
        raise PageTokenInvalid
    time, submission, item = parts
    numeric = time.isascii() and time.isdigit() and len(time) < 20 and int(time) < _TIME_END_US
    if not numeric or id_bucket(submission) is None or not is_id(item):
        raise PageTokenInvalid
    return ReviewCursor(int(time), submission, item)


def _review(one: WaitingReview) -> pb.Review:
    return pb.Review(
        submission=str(one.submission),
        item=one.item,
        generation=one.generation,
        author=one.author,
        flags=one.flags,
        create_time=convert.timestamp(one.create_time_us),
        score=one.score,
        max_score=one.max_score,
    )

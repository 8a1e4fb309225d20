"""Messages of the worker stream to and from the words of the grader."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.grade_pb2 import Provenance as ProvenanceMessage
from cinnabar.grader.v1.grade_pb2 import TestResult as TestResultMessage
from cinnabar.grader.v1.item_pb2 import Item, LlmSpec
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_grader.calibrating import GradedAnswer
from cinnabar_grader.code_convert import code_item
from cinnabar_grader.custom import CustomItem
from cinnabar_grader.free_text import MAX_SAMPLES, Criterion, FreeTextItem, LlmRule
from cinnabar_grader.graders import (
    AnswerValue,
    BrokenItem,
    CodeAnswer,
    Failed,
    FailureCode,
    FileAnswer,
    Graded,
    LeaseToken,
    NumberAnswer,
    Outcome,
    Progress,
    Provenance,
    Released,
    StoredArtifact,
    Task,
    TestResult,
)
from cinnabar_grader.phrases import language_of
from cinnabar_grader.pool import Backlog
from cinnabar_grader.rules.choice import ChoiceRule
from cinnabar_grader.rules.numeric import NumericRule
from cinnabar_grader.rules.text import TextRule
from cinnabar_grader.worker import Close, Grant, Heartbeat, Message, Report

log = logging.getLogger(__name__)

COMPILED_LIMIT = 4096
"""Compiled items kept, by last use; revisions never change, so they serve every stream."""


class CompiledItems:
    """Compiles each item once. Bounded; the least recently used go first."""

    def __init__(self, limit: int = COMPILED_LIMIT) -> None:
        self._limit = limit
        self._items: OrderedDict[str, object] = OrderedDict()

    def get(self, key: str, item: Item) -> object:
        """The compiled form of ``item``; a `BrokenItem` when it makes no sense."""
        compiled = self._items.get(key)
        if compiled is None:
            compiled = self._items[key] = compile_item(item)
            if len(self._items) > self._limit:
                self._items.popitem(last=False)
        else:
            self._items.move_to_end(key)
        return compiled


class StreamItems:
    """The items that one stream has carried. Each is sent once, so none may be forgotten."""

    def __init__(self, compiled: CompiledItems) -> None:
        self._compiled = compiled
        self._items: dict[str, Item] = {}
        self.size = 0
        """Bytes of all items as they were sent."""

    def add(self, references: Iterable[pb.ItemRef]) -> None:
        """Keeps items for the tasks to come."""
        for reference in references:
            if reference.item_key not in self._items:
                self.size += reference.ByteSize()
                self._items[reference.item_key] = reference.item

    def tasks(self, leased: Iterable[pb.LeasedTask]) -> list[Task]:
        """Tasks as graders know them; one whose item never came has the item None."""
        found: dict[str, object] = {}
        tasks: list[Task] = []
        for entry in leased:
            key = entry.item_key
            if key not in found:
                item = self._items.get(key)
                found[key] = None if item is None else self._compiled.get(key, item)
            tasks.append(
                Task(
                    LeaseToken(entry.lease_token),
                    entry.queue,
                    found[key],
                    answer_of(entry.answer),
                    attempt=entry.attempt,
                    item_key=key,
                    upgrade=entry.upgrade,
                )
            )
        return tasks


def answer_of(answer: Answer) -> AnswerValue:
    """The value of an answer; None when it has none."""
    match answer.WhichOneof("value"):
        case "text":
            return answer.text
        case "choice":
            return frozenset(answer.choice.options)
        case "number":
            number = answer.number
            return NumberAnswer(number.value, number.unit)
        case "file":
            file = answer.file
            return FileAnswer(file.upload, file.size_bytes, file.sha256)
        case "code":
            return CodeAnswer({file.path: file.content for file in answer.code.files})
        case None:
            return None


def compile_item(item: Item) -> object:
    """The rule, or the free-text item, of a specification; a `BrokenItem` when it makes no sense."""
    if not 0 < item.points <= 1_000_000:
        return BrokenItem("points must be more than 0 and at most 1,000,000")
    kind = item.WhichOneof("grader")
    if kind is None:
        return BrokenItem("it does not say how it is graded")
    try:
        return _COMPILERS[kind](item)
    except ValueError as error:
        return BrokenItem(str(error))
    except Exception as error:  # no item may end the stream that carries it
        log.error("item not compiled", extra={"item": item.item, "error": type(error).__name__})
        return BrokenItem(f"it cannot be read: {type(error).__name__}")


def _choice(item: Item) -> ChoiceRule:
    spec = item.choice
    return ChoiceRule(
        points=item.points,
        options=[option.id for option in spec.options],
        correct=spec.correct,
        partial_credit=spec.partial_credit,
        language=language_of(item.prompt, *(option.text for option in spec.options)),
    )


def _numeric(item: Item) -> NumericRule:
    spec = item.numeric
    return NumericRule(
        points=item.points,
        value=spec.value,
        absolute_tolerance=spec.absolute_tolerance,
        relative_tolerance=spec.relative_tolerance,
        unit=spec.unit,
        accepted_units={unit.unit: unit.factor for unit in spec.accepted_units},
        wrong_unit_credit=spec.wrong_unit_credit,
        language=language_of(item.prompt),
    )


def _text(item: Item) -> TextRule:
    spec = item.text
    return TextRule(
        points=item.points,
        accepted=spec.accepted,
        pattern=spec.pattern,
        case_sensitive=spec.case_sensitive,
        language=language_of(item.prompt, *spec.accepted),
    )


def _free_text(item: Item) -> FreeTextItem:
    spec = item.free_text
    return FreeTextItem(
        points=item.points,
        question=item.prompt,
        references=spec.references,
        criteria=[Criterion(part.criterion, part.description, part.points) for part in spec.criteria],
        llm=_llm(spec.llm) if spec.HasField("llm") else None,
        examples=[GradedAnswer(one.answer, one.score / item.points) for one in spec.examples],
    )


def _llm(spec: LlmSpec) -> LlmRule:
    return LlmRule(
        model=spec.model,
        instructions=spec.instructions,
        samples=min(max(1, spec.samples), MAX_SAMPLES),
        review_below=spec.review_below,
        upgrade_fallbacks=spec.upgrade_fallbacks,
    )


def _custom(item: Item) -> CustomItem:
    spec = item.custom
    return CustomItem(
        kind=spec.kind,
        points=item.points,
        prompt=item.prompt,
        config=MessageToDict(spec.config),
        criteria=[Criterion(part.criterion, part.description, part.points) for part in spec.criteria],
        language=language_of(item.prompt),
    )


_COMPILERS: Mapping[str, Callable[[Item], object]] = {
    "choice": _choice,
    "numeric": _numeric,
    "text": _text,
    "free_text": _free_text,
    "code": code_item,
    "custom": _custom,
}


def loads_of(pulse: pb.Pulse) -> dict[str, Backlog]:
    """What waits, by queue."""
    return {
        load.queue: Backlog(
            ready=load.ready,
            work_seconds=_seconds(load.predicted_work) if load.HasField("predicted_work") else None,
            oldest_age_seconds=_seconds(load.oldest_age),
            graders=load.workers,
        )
        for load in pulse.loads
    }


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def hello(worker: str, queues: Sequence[str], version: str) -> pb.WorkRequest:
    """The first message of a stream."""
    return pb.WorkRequest(hello=pb.Hello(worker=worker, queues=queues, version=version))


def request_of(message: Message) -> pb.WorkRequest | None:
    """What to send for ``message``; None for `Close`, which is not a message on the wire."""
    match message:
        case Report(outcomes):
            return report_of(outcomes)
        case Grant(queue, credits):
            return pb.WorkRequest(ready=pb.Ready(queue=queue, credits=credits))
        case Progress():
            return progress_of(message)
        case Heartbeat(tokens):
            return pb.WorkRequest(heartbeat=pb.Heartbeat(lease_tokens=tokens))
        case Close():
            return None


def report_of(outcomes: Sequence[Outcome]) -> pb.WorkRequest:
    """A report of these outcomes."""
    request = pb.WorkRequest()
    add = request.report.outcomes.add
    provenances: dict[int, ProvenanceMessage] = {}
    for outcome in outcomes:
        message = add(lease_token=outcome.token)
        match outcome:
            case Graded():
                provenance = provenances.get(id(outcome.provenance))
                if provenance is None:  # shared by a batch
                    provenance = provenances[id(outcome.provenance)] = provenance_of(outcome.provenance)
                try:
                    _fill(message, outcome, provenance)
                except (TypeError, ValueError) as error:  # not a message: a defect of that grader alone
                    message.failure.code = FailureCode.INTERNAL
                    message.failure.message = f"the grade cannot be sent: {type(error).__name__}"
            case Failed():
                message.failure.code = outcome.code
                message.failure.message = outcome.message
            case Released():
                message.released.SetInParent()
    return request


def _fill(message: pb.Outcome, graded: Graded, provenance: ProvenanceMessage) -> None:
    grade = message.grade
    grade.score = graded.score
    grade.max_score = graded.max_score
    grade.feedback = graded.feedback
    for part in graded.criteria:
        grade.criteria.add(
            criterion=part.criterion,
            score=part.score,
            max_score=part.max_score,
            feedback=part.feedback,
            confidence=part.confidence,
            provenance=provenance if part.provenance is None else provenance_of(part.provenance),
            evidence=part.evidence,
        )
    if graded.needs_review:
        grade.needs_review = True
    if graded.flags:
        grade.flags.extend(graded.flags)
    if graded.upgradable:
        grade.upgradable = True
    if graded.tests:
        grade.tests.extend(map(test_result_of, graded.tests))
    for artifact in graded.artifacts:
        if not isinstance(artifact, StoredArtifact):
            raise TypeError("an artifact was not put away")
        grade.artifacts.add(
            upload=artifact.upload,
            title=artifact.title,
            content_type=artifact.content_type,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
        )


def progress_of(progress: Progress) -> pb.WorkRequest:
    """What is finished of a task."""
    return pb.WorkRequest(
        progress=pb.Progress(lease_token=progress.token, tests=map(test_result_of, progress.tests))
    )


def test_result_of(result: TestResult) -> TestResultMessage:
    """As it goes into grades and progress."""
    message = TestResultMessage(
        test=result.test,
        title=result.title,
        verdict=TestResultMessage.Verdict.ValueType(result.verdict),
        score=result.score,
        max_score=result.max_score,
        hidden=result.hidden,
        message=result.message,
        output=result.output,
        signal=result.signal,
        memory_bytes=result.memory_bytes,
    )
    message.cpu_time.FromNanoseconds(int(result.cpu_seconds * 1e9))
    message.wall_time.FromNanoseconds(int(result.wall_seconds * 1e9))
    return message


def provenance_of(provenance: Provenance) -> ProvenanceMessage:
    """As it goes into grades."""
    message = ProvenanceMessage(
        grader=provenance.grader,
        version=provenance.version,
        model=provenance.model,
        fallback=provenance.fallback,
        fallback_reason=provenance.fallback_reason,
        shared=provenance.shared,
        input_tokens=provenance.input_tokens,
        output_tokens=provenance.output_tokens,
    )
    message.duration.FromNanoseconds(int(provenance.seconds * 1e9))
    return message

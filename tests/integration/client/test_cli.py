"""The command line as a person or a script runs it, against a gateway in memory."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import click
import pytest

from cinnabar_client.cli.command import Settings
from cinnabar_common.errors import CredentialInvalid, FieldViolation, InvalidRequest, Overloaded
from tests.support.client_cli import run, start
from tests.support.client_fixtures import NAME, answers, world

EXAMPLES = Path(__file__).parents[3] / "examples"
SUBMIT = ("submit", "net/quiz", "--author", "s-1", "--answer", "why=because", "--answer", "bits=8 bit")


class Patient(Overloaded):
    """an overload that outlasts every patience"""

    retry_seconds = 1000.0


async def test_an_assignment_is_created_read_listed_and_changed(tmp_path: Path) -> None:
    async with world() as w:
        made = await run(w, "--json", "assignment", "create", str(EXAMPLES / "networks-quiz.yaml"))
        assert made.document["name"] == "courses/networks-101/assignments/quiz"
        other = await run(
            w, "assignment", "create", str(EXAMPLES / "networks-quiz.yaml"), "--course", "c2", "--id", "copy"
        )
        assert other.code == 0
        shown = await run(w, "assignment", "get", "c2/copy")
        assert "three messages" in " ".join(shown.out.split())
        listed = await run(w, "assignment", "list", "c2", "--json")
        assert [line["name"] for line in listed.lines] == ["courses/c2/assignments/copy"]
        changed = tmp_path / "changed.yaml"
        changed.write_text("display_name: New\nitems: [{item: q, points: 1, text: {accepted: [x]}}]", "utf-8")
        updated = await run(w, "assignment", "update", "c2/copy", str(changed), "--json")
        assert (updated.document["revisionId"], updated.document["displayName"]) == ("r2", "New")


async def test_what_is_wrong_with_a_file_is_told_by_path_and_rule(tmp_path: Path) -> None:
    async with world() as w:
        file = tmp_path / "bad.yaml"
        file.write_text("- {course: c, items: [{item: q, points: x, text: {accepted: [x]}}]}", "utf-8")
        ran = await run(w, "assignment", "create", str(file))
        assert (ran.code, ran.err.splitlines()[1].strip()) == (
            2,
            "bad.yaml: [0].items[0].points: must be a number",
        )
        file.write_text("- {course: c, items: [{item: q, points: 0, text: {accepted: [x]}}]}", "utf-8")
        ran = await run(w, "assignment", "create", str(file), "--json")
        assert ran.code == 1
        assert ran.problem["violations"] == [
            {"field": "bad.yaml: [0].items[0].points", "rule": "must be over 0"}
        ]
        file.write_text("a: [", "utf-8")
        ran = await run(w, "assignment", "create", str(file))
        assert (ran.code, "bad.yaml:1: is not YAML" in ran.err) == (2, True)
        file.write_text("items: [{item: q, points: 1, text: {accepted: [x]}}]", "utf-8")
        ran = await run(w, "assignment", "create", str(file))
        assert (ran.code, "bad.yaml: course: is needed, or --course" in ran.err) == (2, True)


async def test_one_submission_is_handed_in_and_shown_with_its_grade() -> None:
    async with world() as w:
        made = await run(w, *SUBMIT, "--json")
        assert (made.code, made.document["state"]) == (0, "GRADED")
        shown = await run(w, "show", made.document["name"])
        for words in ("5 of 5 points", "Well done.", "memory 1", "because", "8 bit", "Why?", "100%"):
            assert words in shown.out
        waited = await run(w, *SUBMIT, "--wait")
        assert "5 of 5 points" in waited.out


async def test_a_repeated_hand_in_with_its_request_id_is_the_first() -> None:
    async with world() as w:
        first = await run(w, *SUBMIT, "--request-id", "r1", "--json")
        again = await run(w, *SUBMIT, "--request-id", "r1", "--json")
        assert first.document["name"] == again.document["name"]
        assert w.gateway.created == 1


async def test_a_file_of_many_is_handed_in(tmp_path: Path) -> None:
    async with world() as w:
        file = tmp_path / "answers.jsonl"
        lines: list[dict[str, Any]] = [
            {"author": f"s-{n}", "answers": {"why": "because", "bits": 8}} for n in range(300)
        ]
        lines.append({"author": "s-x", "answers": {"why": "no bits"}})
        file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        ran = await run(w, "submit", "net/quiz", "--file", str(file), "--wait")
        assert ran.code == 1
        assert "300 accepted" in ran.out
        assert "300 graded after" in ran.out
        assert "answers.jsonl:301 refused: INVALID_REQUEST submission.answers: lacks bits" in ran.err
        ran = await run(w, "submit", "net/quiz", "--file", str(file), "--wait", "--json")
        assert sum("error" in line for line in ran.lines) == 1
        assert sum(line.get("submission", {}).get("state") == "GRADED" for line in ran.lines) == 600
        assert ran.err == ""


async def test_the_example_answers_are_handed_in() -> None:
    async with world() as w:
        assert (await run(w, "assignment", "create", str(EXAMPLES / "networks-quiz.yaml"))).code == 0
        file = str(EXAMPLES / "networks-answers.jsonl")
        ran = await run(w, "submit", "networks-101/quiz", "--file", file, "--wait", "--json")
        assert ran.code == 0
        assert w.gateway.created == 5


async def test_lines_of_one_item_each_become_submissions(tmp_path: Path) -> None:
    async with world() as w:
        file = tmp_path / "answers.jsonl"
        common = {"course": "net", "assignment": "quiz", "score": 1, "language": "en"}
        entries = [
            {"author": author, "item": item, "answer": answer} | common
            for author in ("s-1", "s-2")
            for item, answer in (("why", {"text": "because"}), ("bits", {"number": 8, "unit": "bit"}))
        ]
        entries.append({"course": "other", "assignment": "x", "author": "s-1", "item": "q", "answer": "a"})
        file.write_text("\n".join(map(json.dumps, entries)), "utf-8")
        ran = await run(w, "submit", "net/quiz", "--file", str(file))
        assert (ran.code, w.gateway.created) == (0, 2)
        assert "1 lines are for other assignments" in ran.err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", ":1: is not a JSON object"),
        ("[1]", ":1: is not a JSON object"),
        ('{"answers": {}, "typo": 1}', ":1: has unknown keys: typo"),
        ('{"author": "a"}', ':1: must have either "answers" or "item" and "answer"'),
        ('{"author": 3, "answers": {}}', ":1: author and request_id must be texts"),
        ('{"answers": [], "author": "a"}', ":1: answers must be an object of answers by item"),
        ('{"answers": {"why": 3}}', ":1: answers.why: must be an answer to a free_text item"),
        ('{"answers": {"who": "x"}}', f":1: answers.who: is no item of {NAME}; there are why, bits"),
    ],
)
async def test_a_bad_line_is_told_and_nothing_is_handed_in(tmp_path: Path, line: str, problem: str) -> None:
    async with world() as w:
        file = tmp_path / "answers.jsonl"
        file.write_text(line, "utf-8")
        ran = await run(w, "submit", "net/quiz", "--file", str(file))
        assert (ran.code, f"answers.jsonl{problem}" in ran.err) == (2, True), ran.err
        assert w.gateway.created == 0


async def test_watch_ends_with_the_grade() -> None:
    async with world() as w:
        w.gateway.hold = True
        made = await w.client.submit(NAME, answers(), author="s-1")
        process = await start(w.address, "watch", made.name, "--json")
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert json.loads(await process.stdout.readline())["state"] == "QUEUED"
            await w.gateway.grade(made.name)
            assert json.loads(await process.stdout.readline())["state"] == "GRADED"
            assert await process.wait() == 0


async def test_an_interrupted_watch_ends_quietly() -> None:
    async with world() as w:
        w.gateway.hold = True
        made = await w.client.submit(NAME, answers(), author="s-1")
        process = await start(w.address, "watch", made.name, "--json")
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert (process.returncode, err.decode().strip()) == (130, "")


async def test_lists_and_cancel() -> None:
    async with world() as w:
        await run(w, *SUBMIT, "--request-id", "r" * 100)
        assert "s-1" in (await run(w, "list", "net/quiz")).out
        listed = await run(w, "list", "net/quiz", "--json", "--limit", "1")
        assert [line["author"] for line in listed.lines] == ["s-1"]
        name = listed.lines[0]["name"]
        assert any(
            line.startswith(f"{name} ") for line in (await run(w, "list", "net/quiz")).out.splitlines()
        )
        assert (await run(w, "cancel", name, "--json")).document["state"] == "CANCELLED"


async def test_a_refusal_is_told_without_a_trace() -> None:
    async with world() as w:
        ran = await run(w, "show", f"{NAME}/submissions/none")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("error: RESOURCE_NOT_FOUND")
        w.gateway.failures["GetSubmission"].append(
            InvalidRequest([FieldViolation("name", "is odd"), FieldViolation("x", "too")])
        )
        ran = await run(w, "--json", "show", "x")
        assert ran.code == 1
        assert (ran.problem["reason"], len(ran.problem["violations"])) == ("INVALID_REQUEST", 2)
        w.gateway.failures["GetSubmission"].append(Patient("storage"))
        ran = await run(w, "--json", "show", "x")
        assert ran.problem["retryAfterSeconds"] == Patient.retry_seconds
        w.gateway.failures["ListQueues"].append(CredentialInvalid())
        assert "CREDENTIAL_INVALID" in (await run(w, "ops", "queues")).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("submit", "net/quiz"),
        ("submit", "--answer", "a=b"),
        ("submit", "net/quiz", "--answer", "why"),
        ("submit", "net/quiz", "--answer", "why=a", "--answer", "why=b"),
        ("submit", "net/quiz/x", "--answer", "why=a"),
        ("submit", "net/quiz", "--answer", "bits=many"),
        ("assignment", "create", "no-such-file.yaml"),
        ("submit", "net/quiz", "--answer", "why=a", "--grade-after", "soon"),
        ("submit", "net/quiz", "--answer", "why=a", "--grade-by", "2026-05-31T18:00:00"),
        ("submit", "net/quiz", "--answer", "why=a", "--grade-by", "2000d"),
        ("ops", "redrive"),
        ("ops", "redrive", "a/b", "--all"),
        ("ops", "redrive", "a/b", "--queue", "text"),
        ("ops", "redrive", "--all", "--reason", "x"),
        ("ops", "redrive", "a"),
        ("ops", "dead-letters", "--assignment", "a/b/c"),
        ("ops", "pause"),
        ("ops", "conservation", "--wait", "-1"),
        ("list", "net/quiz", "--limit", "0"),
        ("show",),
    ],
)
async def test_bad_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    async with world() as w:
        ran = await run(w, "--json", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.problem["code"] in ("USAGE", "INVALID_INPUT")


async def test_an_option_wins_over_the_environment_and_that_over_the_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        assert (await run("127.0.0.1:1", "--address", w.address, "ops", "queues")).code == 0
        assert (await run("127.0.0.1:1", "ops", "queues", "--address", w.address)).code == 0
        state = tmp_path / "state.json"
        state.write_text(json.dumps({"addresses": {"envoy": w.address}}), "utf-8")
        monkeypatch.setenv("CINNABAR_STATE", str(state))
        assert Settings().resolved_address() == w.address
        assert Settings(address="h:1").resolved_address() == "h:1"
        state.write_text("{}", "utf-8")
        with pytest.raises(click.UsageError, match="is not the state file of a running stack"):
            Settings().resolved_address()

"""Programs on the command line: assignments of every kind from a file, sources and folders handed in."""

from pathlib import Path

from tests.support.client_cli import run
from tests.support.client_fixtures import world

ASSIGNMENT = """
course: prog
assignment: p1
items:
  - item: search
    points: 3
    prompt: Find it.
    code:
      language: python
      limits: {cpu_time: 2, memory_bytes: 67108864}
      tests:
        - {test: first, points: 1, call: {call: "search(5, (1, 5))", expected: "1"}}
        - test: second
          points: 2
          hidden: true
          stdio: {input: "3", expected_output: "4", checker: {exact: {}}}
  - item: essay
    points: 1
    free_text: {references: [because], llm: {samples: 3}, examples: [{answer: because, score: 1}]}
  - item: poem
    points: 1
    custom: {kind: verse, config: {lines: 4}}
"""


async def test_programs_are_handed_in_from_sources_and_folders(tmp_path: Path) -> None:
    (tmp_path / "p1.yaml").write_text(ASSIGNMENT, "utf-8")
    folder = tmp_path / "mine"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("from lib.search import search\n", "utf-8")
    (folder / "lib" / "search.py").write_text("def search(x, s): ...\n", "utf-8")
    others = ("--answer", "essay=because", "--answer", "poem=roses", "--json")
    async with world() as w:
        made = await run(w, "assignment", "create", str(tmp_path / "p1.yaml"))
        assert made.code == 0
        for words in ("code (python)", "free-text (llm)", "custom (verse)"):
            assert words in made.out
        handed_in = await run(w, "submit", "prog/p1", "--answer-file", f"search={folder}", *others)
        assert handed_in.code == 0, handed_in.err
        answers = {answer["item"]: answer for answer in handed_in.document["answers"]}
        assert [file["path"] for file in answers["search"]["code"]["files"]] == ["main.py", "lib/search.py"]
        assert answers["poem"]["text"] == "roses"
        alone = await run(w, "submit", "prog/p1", "--answer-file", f"search={folder / 'main.py'}", *others)
        assert {"item": "search", "text": "from lib.search import search\n"} in alone.document["answers"]
        nothing = await run(w, "submit", "prog/p1", "--answer-file", f"search={tmp_path / 'no'}", *others)
        assert (nothing.code, "cannot be read" in nothing.err) == (2, True)

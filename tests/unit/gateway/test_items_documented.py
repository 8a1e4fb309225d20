"""The items that the documentation shows are items."""

import re
from pathlib import Path

import yaml

from cinnabar_client.convert import assignment_from
from cinnabar_gateway.assignment_rules import assignment_violations
from cinnabar_grader.code_convert import code_item as compiled

DOCUMENT = Path(__file__).parents[3] / "docs" / "items.md"


def test_every_example_can_be_created() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    described = [item for block in blocks for item in yaml.safe_load(block)]
    made = assignment_from({"items": described})
    assert {item.WhichOneof("grader") for item in made.items} == {
        *("choice", "numeric", "text", "free_text", "code", "custom")
    }
    assert list(assignment_violations(made)) == []
    for item in made.items:
        if item.HasField("code"):
            compiled(item)

"""One scorer with its models and one without, for all tests of this folder."""

import pytest

from cinnabar_grader.semantic import SemanticScorer


@pytest.fixture(scope="session")
def scorer() -> SemanticScorer:
    return SemanticScorer.load()


@pytest.fixture(scope="session")
def wordwise() -> SemanticScorer:
    return SemanticScorer(english=None, multilingual=None)

"""Free-text grading against reference answers: rules as guards, then an embedded model and ridge regression.

Importing this package needs numpy alone; the model packages are looked for by `SemanticScorer.load`.
"""

from cinnabar_grader.semantic.scores import Flag, SemanticRequest, SemanticScore
from cinnabar_grader.semantic.scorer import SemanticScorer

__all__ = ["Flag", "SemanticRequest", "SemanticScore", "SemanticScorer"]

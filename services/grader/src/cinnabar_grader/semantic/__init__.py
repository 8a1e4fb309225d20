"""Free-text grading against reference answers: rules as guards, then an embedded model and ridge regression.

Importing this package needs numpy alone; the model packages are looked for by `SemanticScorer.load`.
"""

from cinnabar_grader.semantic.calibration import Calibration
from cinnabar_grader.semantic.scorer import SemanticScorer
from cinnabar_grader.semantic.scores import Flag, SemanticRequest, SemanticScore

__all__ = ["Calibration", "Flag", "SemanticRequest", "SemanticScore", "SemanticScorer"]

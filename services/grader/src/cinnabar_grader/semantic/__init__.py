"""Free-text grading against reference answers: rules as guards, then an embedded model and ridge regression.

Importing this package needs numpy alone; the model packages are looked for by `SemanticScorer.load`.
"""

from cinnabar_grader.semantic.calibration import MIN_GRADED, UNCALIBRATED, Calibration
from cinnabar_grader.semantic.scorer import SemanticScorer
from cinnabar_grader.semantic.scores import CLOSE, Flag, SemanticRequest, SemanticScore

__all__ = [
    "CLOSE",
    "MIN_GRADED",
    "UNCALIBRATED",
    "Calibration",
    "Flag",
    "SemanticRequest",
    "SemanticScore",
    "SemanticScorer",
]

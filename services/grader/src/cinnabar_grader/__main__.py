"""``python -m cinnabar_grader``"""

import os
import sys

# BLAS reads this when numpy is imported; unset, the Chinese encoder would take all cores of the machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("GRADER_SEMANTIC_THREADS", "1"))

from cinnabar_common.server import main
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig

if __name__ == "__main__":
    sys.exit(main(GraderConfig, "GRADER_", running))

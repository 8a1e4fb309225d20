"""``python -m cinnabar_scheduler``"""

import sys

from cinnabar_common.server import main
from cinnabar_scheduler.app import running
from cinnabar_scheduler.config import SchedulerConfig

if __name__ == "__main__":
    sys.exit(main(SchedulerConfig, "SCHEDULER_", running))

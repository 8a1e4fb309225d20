"""``python -m cinnabar_local demo|up|down|status|render``."""

import sys

from cinnabar_local.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

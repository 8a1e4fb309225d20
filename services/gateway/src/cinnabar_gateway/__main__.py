"""``python -m cinnabar_gateway``"""

import sys

from cinnabar_common.server import main
from cinnabar_gateway.app import running
from cinnabar_gateway.config import GatewayConfig

if __name__ == "__main__":
    sys.exit(main(GatewayConfig, "GATEWAY_", running))

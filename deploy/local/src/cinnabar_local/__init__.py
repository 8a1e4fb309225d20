"""The whole suite on one machine: processes, ports, data folders, and the demo."""

import os

# Servers run as a user of their own, so they are started by fork and not by vfork. The handlers that gRPC
# runs in a forked child, before it becomes the server, crash it while another thread is inside gRPC. They
# are of no use to a child that becomes another program. Read once, when gRPC is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

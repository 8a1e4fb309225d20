"""Exit with 0 when the gRPC server at ``host:port`` says SERVING: the health check of the containers."""

import sys

import grpc
from grpc_health.v1 import health_pb2


def main(target: str) -> int:
    """0 when it serves, 1 with the reason when it does not."""
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            status = check(health_pb2.HealthCheckRequest(), timeout=3.0).status
        except grpc.RpcError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    if status != health_pb2.HealthCheckResponse.SERVING:
        sys.stderr.write(f"health is {status}, not SERVING\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

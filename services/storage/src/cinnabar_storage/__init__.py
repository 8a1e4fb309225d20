"""The storage service: sharded Postgres behind gRPC."""

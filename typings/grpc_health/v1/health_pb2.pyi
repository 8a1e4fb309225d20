from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

DESCRIPTOR: FileDescriptor

class HealthCheckRequest(Message):
    service: str
    def __init__(self, *, service: str = ...) -> None: ...

class HealthCheckResponse(Message):
    class ServingStatus(int): ...

    UNKNOWN: ServingStatus
    SERVING: ServingStatus
    NOT_SERVING: ServingStatus
    SERVICE_UNKNOWN: ServingStatus
    status: ServingStatus
    def __init__(self, *, status: ServingStatus = ...) -> None: ...

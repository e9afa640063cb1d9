from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class QuoteRequest(_message.Message):
    __slots__ = ("product", "note")
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    product: str
    note: str
    def __init__(self, product: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class QuoteReply(_message.Message):
    __slots__ = ("cents", "note", "service", "version", "pod", "peer")
    CENTS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    cents: int
    note: str
    service: str
    version: str
    pod: str
    peer: str
    def __init__(self, cents: _Optional[int] = ..., note: _Optional[str] = ..., service: _Optional[str] = ..., version: _Optional[str] = ..., pod: _Optional[str] = ..., peer: _Optional[str] = ...) -> None: ...

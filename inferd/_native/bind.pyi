from inferd._native.signature import Signature
from inferd._native.wire import Request

def bind(signature: Signature, request: Request) -> None: ...

from inferd._native.region import Regions
from inferd._native.signature import Signature
from inferd._native.wire import Request

def bind(signature: Signature, request: Request, regions: Regions | None = None) -> None: ...

"""Names and sizes of the protocol's datatypes, for code that is not on the hot path."""

NAMES = {
    FP32: "FP32", UINT8: "UINT8", INT8: "INT8", UINT16: "UINT16", INT16: "INT16", INT32: "INT32", INT64: "INT64",
    BYTES: "BYTES", BOOL: "BOOL", FP16: "FP16", FP64: "FP64", UINT32: "UINT32", UINT64: "UINT64", BF16: "BF16",
}


def name_of(int datatype) -> str:
    """The protocol's name for an ONNX element type number; KeyError if the protocol has none."""
    return NAMES[datatype]


def size_of(int datatype) -> int:
    """Bytes per element; 0 for BYTES."""
    return element_size(datatype)

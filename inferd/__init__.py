"""inferd: a gRPC inference server for ONNX models that speaks the Open Inference Protocol."""

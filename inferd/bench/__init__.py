"""The load runner: measures any server of the Open Inference Protocol over gRPC."""

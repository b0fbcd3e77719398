"""The gRPC services as plain servicers, the same on every transport."""

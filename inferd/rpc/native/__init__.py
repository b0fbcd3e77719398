"""The native transport: gRPC over nghttp2 in this process's own code, with what servicers know of grpc.aio's server."""

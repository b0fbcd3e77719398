"""The generated messages and stubs of proto/, for servers and clients alike.

``from inferd.proto import inference_pb2, inference_pb2_grpc`` works next to any other package that
defines the same messages, because these live in a descriptor pool of their own.
"""

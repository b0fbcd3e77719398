"""The server under load, as it describes itself: what it is, what the model takes, what it has counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import grpc

from inferd.bench.result import Statistics, Tensor
from inferd.errors import StartError
from inferd.proto import inference_pb2 as pb

TIMEOUT_S: Final = 10.0
# The first inference may have to load something.
INFER_TIMEOUT_S: Final = 60.0
# Statistics are asked for while the load is on; a server too busy to answer goes without.
STATISTICS_TIMEOUT_S: Final = 1.0
SERVICE: Final = "/inference.GRPCInferenceService/"
_NAMED_AT_MOST = 10


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


class _Answer(Protocol):
    @classmethod
    def FromString(cls, s: bytes, /) -> Self: ...


A = TypeVar("A", bound=_Answer)


@dataclass(frozen=True, slots=True)
class Description:
    """What a server says of itself and of one model; empty or None where it says nothing."""

    server: str
    server_version: str
    model_version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int | None


class Refused(Exception):
    """A call that did not end with OK."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code, self.text = code, text


class Target:
    """One model on a server of the Open Inference Protocol. Use as a context manager."""

    def __init__(self, address: str, model: str, version: str = "", metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.address, self.model, self.version = address, model, version
        self._metadata = tuple(metadata)
        # No proxy of the environment in between, and no limit to the size of an answer.
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))
        self._channel = grpc.insecure_channel(address, options=options)
        self._counts = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def describe(self) -> Description:
        """Ask the server for everything. Raises StartError if it, or the model, is not there."""
        self._reach()
        server = self._optional("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
        metadata = self._model()
        self._ready()
        request = pb.ModelConfigRequest(name=self.model, version=self.version)
        config = self._optional("ModelConfig", request, pb.ModelConfigResponse)
        return Description(
            server=server.name if server else "",
            server_version=server.version if server else "",
            model_version=self.version or (metadata.versions[-1] if metadata and metadata.versions else ""),
            inputs=_tensors(metadata.inputs) if metadata else (),
            outputs=_tensors(metadata.outputs) if metadata else (),
            max_batch_size=config.config.max_batch_size if config else None,
        )

    def infer(self, message: bytes) -> bytes:
        """One inference outside of any load. Raises Refused."""
        return self._call("ModelInfer", message, INFER_TIMEOUT_S)

    def statistics(self) -> Statistics | None:
        """What the server has counted for the model so far; None if it does not tell."""
        if not self._counts:
            return None
        request = pb.ModelStatisticsRequest(name=self.model, version=self.version)
        try:
            answer = self._ask("ModelStatistics", request, pb.ModelStatisticsResponse, STATISTICS_TIMEOUT_S)
        except Refused as refused:
            # One that is merely late may answer next time.
            self._counts = refused.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
            return None
        found = answer.model_stats
        return Statistics(
            inferences=sum(one.inference_count for one in found),
            executions=sum(one.execution_count for one in found),
            queue_ns=sum(one.inference_stats.queue.ns for one in found),
            compute_input_ns=sum(one.inference_stats.compute_input.ns for one in found),
            compute_infer_ns=sum(one.inference_stats.compute_infer.ns for one in found),
            compute_output_ns=sum(one.inference_stats.compute_output.ns for one in found),
        )

    # --- the steps of describe ---------------------------------------------------------------------

    def _reach(self) -> None:
        try:
            self._ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
        except Refused as refused:
            if refused.code == "UNAVAILABLE":
                raise StartError(
                    f"{self.address} cannot be reached: {refused.text}; is the server up, and is this its gRPC port?"
                ) from None
            if refused.code == "DEADLINE_EXCEEDED":
                raise StartError(f"{self.address} is connected and does not answer; is it a gRPC port?") from None

    def _model(self) -> pb.ModelMetadataResponse | None:
        request = pb.ModelMetadataRequest(name=self.model, version=self.version)
        try:
            return self._ask("ModelMetadata", request, pb.ModelMetadataResponse)
        except Refused as refused:
            if refused.code == "UNIMPLEMENTED":
                return None
            named = f"'{self.model}'{f' version {self.version}' if self.version else ''}"
            raise StartError(f"{self.address} has no model {named} to offer ({refused}); {self._models()}") from None

    def _models(self) -> str:
        index = self._optional("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse)
        names = sorted({one.name for one in index.models}) if index else []
        more = ", ..." if len(names) > _NAMED_AT_MOST else ""
        return f"name one of {', '.join(names[:_NAMED_AT_MOST])}{more}" if names else "name one that it serves"

    def _ready(self) -> None:
        request = pb.ModelReadyRequest(name=self.model, version=self.version)
        ready = self._optional("ModelReady", request, pb.ModelReadyResponse)
        if ready is not None and not ready.ready:
            raise StartError(f"model '{self.model}' is not ready on {self.address}; wait until it is, or load it")

    # --- calls ----------------------------------------------------------------------------------------

    def _optional(self, method: str, request: _Message, answer: type[A]) -> A | None:
        """None from a server without this method, or that keeps it from us."""
        try:
            return self._ask(method, request, answer)
        except Refused:
            return None

    def _ask(self, method: str, request: _Message, answer: type[A], timeout_s: float = TIMEOUT_S) -> A:
        return answer.FromString(self._call(method, request.SerializeToString(), timeout_s))

    def _call(self, method: str, message: bytes, timeout_s: float) -> bytes:
        # Bytes in and out: what is sent to ModelInfer here is byte for byte what the load will send.
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(SERVICE + method)
        try:
            return call(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as err:
            raise Refused(err.code().name, " ".join((err.details() or "").split())) from None


def _tensors(told: Sequence[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name=one.name, datatype=one.datatype, shape=tuple(one.shape)) for one in told)

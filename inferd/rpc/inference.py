"""The Open Inference Protocol's service: what each method answers, whatever carries it.

Facts of the protocol: kserve/open-inference-protocol, specification/protocol/inference_grpc.md; of its
extensions: triton-inference-server/server, docs/protocol.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import grpc
from google.protobuf.message_factory import GetMessageClass

from inferd._native.admission import Admission
from inferd._native.region import Regions
from inferd.config import Settings
from inferd.device import Devices
from inferd.errors import NotOffered
from inferd.models import SECONDS_BOUNDS, Models, State
from inferd.proto import inference_pb2 as pb
from inferd.rpc.answering import Answering
from inferd.rpc.boundary import Context, Handler, guarded, parsed
from inferd.rpc.gpu_memory import GpuMemoryMethods
from inferd.rpc.log_settings import LogControl
from inferd.rpc.model_config import PLATFORM, describe, shape_of
from inferd.rpc.shared_memory import SharedMemoryMethods
from inferd.rpc.statistics import Statistics
from inferd.rpc.streaming import Streaming
from inferd.telemetry.calls import Calls
from inferd.telemetry.recent import RecentErrors
from inferd.telemetry.watching import Watching

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
MODEL_INFER: Final = f"/{SERVICE.full_name}/ModelInfer".encode()
MODEL_STREAM_INFER: Final = f"/{SERVICE.full_name}/ModelStreamInfer".encode()
# Exactly what works, whatever the settings: clients switch features on by these names.
EXTENSIONS: Final = ("classification", "model_configuration", "schedule_policy")


class Part(Protocol):
    """Handlers of some of the service's methods, by their names, in a room of their own."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """What of the protocol's extensions works through it."""


class InferenceService:
    """Handlers of GRPCInferenceService over the models; `version` is what ServerMetadata tells."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        version: str,
        *parts: Part,
        admission: Admission | None = None,
        watching: Watching | None = None,
        calls: Calls | None = None,
        devices: Devices | None = None,
    ) -> None:
        """`parts` answer methods of the service that this class does not. `admission` has the permits."""
        self.admission = admission if admission is not None else Admission()
        self.watching = watching or Watching()
        self.calls = calls or Calls(self.watching, SECONDS_BOUNDS, logs_probes=False)
        self._models, self._version = models, version
        shared = settings.shared_memory
        self.regions = Regions(shared.max_regions, settings.grpc.max_message_bytes) if shared.enabled else None
        self.recent_errors = RecentErrors()
        self._answering = Answering(models, settings, self.regions, self.recent_errors, self.admission, self.watching)
        self._streaming = Streaming(self._answering)
        self.unknown_stats = self._answering.unknown_stats
        # Parts of the service that have rooms of their own; methods are looked for in each.
        log_control = LogControl(allowed=settings.control.log_settings)
        self._statistics = Statistics(models)
        self._gpu_memory = GpuMemoryMethods(self.regions, devices or Devices())
        parts = (self._statistics, log_control, SharedMemoryMethods(self.regions), self._gpu_memory, *parts)
        self._parts = (self, *parts)
        self._extensions = (*EXTENSIONS, *(name for part in parts for name in part.extensions))
        self._ready = False

    @property
    def is_ready(self) -> bool:
        """What ServerReady answers."""
        return self._ready

    def set_ready(self, ready: bool) -> None:
        """What ServerReady answers."""
        self._ready = ready

    def leave(self) -> None:
        """End streams that would go on for as long as their clients like; new ones are refused."""
        self._streaming.leave()

    async def close(self) -> None:
        """Let go of what clients have lent, once nothing runs any more."""
        await self._gpu_memory.close()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """A handler for every method of the service, each inside the boundary.

        Inference takes and gives bytes: the codec in ext/ reads and writes them.
        """
        made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in SERVICE.methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            if method.name == "ModelInfer":
                made[method.name] = grpc.unary_unary_rpc_method_handler(guarded(self.ModelInfer))
            elif method.name == "ModelStreamInfer":
                made[method.name] = grpc.stream_stream_rpc_method_handler(guarded(self._streaming.ModelStreamInfer))
            else:
                handler = self._handler(method.name)
                made[method.name] = grpc.unary_unary_rpc_method_handler(
                    guarded(parsed(request, handler)), None, response.SerializeToString
                )
        return made

    def _handler(self, method: str) -> Handler:
        found = (getattr(part, method, None) for part in self._parts)
        return next((handler for handler in found if handler is not None), _not_offered(method))

    # --- inference -----------------------------------------------------------------------------------

    async def ModelInfer(self, body: bytes, context: Context) -> bytes:
        """One inference: bytes of a ModelInferRequest in, bytes of a ModelInferResponse out."""
        metadata = context.invocation_metadata
        return await self._answering.answer(body, context.time_remaining(), context.peer(), metadata=metadata)

    async def infer(self, body: bytes, remaining_s: float | None, caller: str) -> bytes:
        """The same for other doors than gRPC's, with deadline and caller as arguments. Raises InferdError."""
        return await self._answering.answer(body, remaining_s, caller)

    # --- what is here and how it is -------------------------------------------------------------------

    async def ServerLive(self, request: Any, context: Context) -> Any:
        """This very answer is the proof."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:
        """True between the end of loading and the start of draining."""
        return pb.ServerReadyResponse(ready=self._ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        """Name, version and the extensions that work."""
        return pb.ServerMetadataResponse(name="inferd", version=self._version, extensions=self._extensions)

    async def ModelReady(self, request: Any, context: Context) -> Any:
        """Whether a version, or any version, can answer now. NOT_FOUND for an unknown model."""
        model = self._models.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=model.state is State.READY)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        """Inputs and outputs with the batch dimension, which is -1."""
        model = self._models.find(request.name, request.version)
        loaded = model.answering()
        answer = pb.ModelMetadataResponse(
            name=model.name,
            versions=[str(one.version) for one in self._models.versions(model.name) if one.state is State.READY],
            platform=PLATFORM,
        )
        for tensors, decls in ((answer.inputs, loaded.decl.inputs), (answer.outputs, loaded.decl.outputs)):
            for decl in decls:
                shape = shape_of(decl, batched=loaded.signature.batched)
                tensors.add(name=decl.name, datatype=decl.datatype, shape=shape)
        return answer

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        """The configuration in force: config.pbtxt completed from the model and from what was found at load."""
        loaded = self._models.find(request.name, request.version).answering()
        return pb.ModelConfigResponse(config=describe(loaded))

    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        """What has been counted for model versions since they were loaded."""
        return await self._statistics.ModelStatistics(request, context)


def _not_offered(method: str) -> Handler:
    async def refuse(request: Any, context: Context) -> Any:
        raise NotOffered(f"this server does not offer {method}")

    return refuse

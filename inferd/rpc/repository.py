"""The extension with which clients see and change what is served.

Facts: triton-inference-server/server, docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from typing import Any, Final

from inferd.auth.current import require
from inferd.errors import InvalidRequest, NotAllowed, NotOffered
from inferd.lifecycle import Lifecycle, Listed
from inferd.models import State
from inferd.proto import inference_pb2 as pb
from inferd.repository.overrides import FILE_PREFIX, Override, config_of, file_place
from inferd.rpc.boundary import Context

# The states that the protocol has words for.
STATES: Final = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.GONE: "UNAVAILABLE",
    State.FAILED: "UNAVAILABLE",
    None: "UNAVAILABLE",
}


class RepositoryControl:
    """RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload over a lifecycle.

    The last two work only with `control_mode` explicit: what is served is otherwise not for clients to decide.
    """

    def __init__(self, lifecycle: Lifecycle, control_mode: str) -> None:
        self._lifecycle, self._control_mode = lifecycle, control_mode

    @property
    def extensions(self) -> tuple[str, ...]:
        """What of this ServerMetadata may promise."""
        explicit = self._control_mode == "explicit"
        return ("model_repository", "model_repository(unload_dependents)") if explicit else ()

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:
        """Every version that is known, with its state and the reason for it, and what is there but not loaded."""
        _check_repository(request)
        require("")  # it tells of all of them
        answer = pb.RepositoryIndexResponse()
        for one in await self._lifecycle.index():
            if one.state is State.READY or not request.ready:
                answer.models.add(name=one.name, version=_version(one), state=STATES[one.state], reason=one.reason)
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:
        """Load a model, or load it anew, and answer when it is ready; what served before serves until then."""
        self._check_allowed()
        _check_repository(request)
        config, files = None, {}
        for key in sorted(request.parameters):
            value = request.parameters[key]
            if key == "config":
                config = config_of(_chosen(key, value, "string_param"), request.model_name)
            elif key.startswith(FILE_PREFIX):
                files[file_place(key)] = _chosen(key, value, "bytes_param")
            else:
                raise InvalidRequest(f"the parameter {key[:80]!r} is not known; a load takes 'config' and 'file:...'")
        await self._lifecycle.load(request.model_name, Override(config, files))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:
        """Accept no more requests for a model; those that were accepted are still answered after this has returned."""
        self._check_allowed()
        _check_repository(request)
        for key in sorted(request.parameters):
            if key != "unload_dependents":
                raise InvalidRequest(f"the parameter {key[:80]!r} is not known; an unload takes 'unload_dependents'")
            _chosen(key, request.parameters[key], "bool_param")  # no model depends on another here
        await self._lifecycle.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _check_allowed(self) -> None:
        if self._control_mode != "explicit":
            raise NotAllowed(
                "clients may load and unload models only if the server was started with --model-control-mode explicit"
            )


def _check_repository(request: Any) -> None:
    if request.repository_name:
        raise NotOffered("this server has one repository, which has no name; leave repository_name empty")


def _version(one: Listed) -> str:
    return str(one.version) if one.version else ""


def _chosen(key: str, value: Any, kind: str) -> Any:
    if value.WhichOneof("parameter_choice") != kind:
        raise InvalidRequest(f"the parameter {key[:80]!r} must be a {kind}")
    return getattr(value, kind)

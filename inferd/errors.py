"""Every way a request or a start can fail, as one table: whose fault, which code, may the caller retry.

The text of an error here is written for the person who has to act on it. What a client sees is
``public_text``; it never carries the text of an exception that we did not write ourselves.
This module imports nothing of inferd, so every room may raise from it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """gRPC status codes, as numbered in grpc/grpc doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class InferdError(Exception):
    """A failure with an owner. Subclasses say whose; the message says what to do about it."""

    code: ClassVar[Code] = Code.INTERNAL
    retryable: ClassVar[bool] = False
    shed_for: ClassVar[str] = ""
    """Of errors that keep a request out of the queue: the reason, as metrics name it."""

    @property
    def public_text(self) -> str:
        """The text a client may read."""
        return str(self)


# --- the caller's request ----------------------------------------------------------------------


class InvalidRequest(InferdError):
    """The request cannot be right, whatever the server's state. Nothing was queued."""

    code = Code.INVALID_ARGUMENT


class UnknownModel(InferdError):
    """No model, or no version of it, has that name here."""

    code = Code.NOT_FOUND


class NotOffered(InferdError):
    """The request asks for a feature of the protocol that this server does not have."""

    code = Code.UNIMPLEMENTED


class NotAllowed(InferdError):
    """The operator has not allowed clients to do this; the text names the setting that would."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(InferdError):
    """Who calls is not known here. The text is the same whatever is wrong, or it would help to guess."""

    code = Code.UNAUTHENTICATED

    @property
    def public_text(self) -> str:
        """The same for every reason."""
        return "this call needs credentials that this server knows"


class Forbidden(InferdError):
    """The caller is known, and may not do this. The text does not tell whether there is such a thing."""

    code = Code.PERMISSION_DENIED

    @property
    def public_text(self) -> str:
        """The same for every reason."""
        return "these credentials do not allow this call"


class UnknownRegion(InferdError):
    """No shared memory is registered under that name."""

    code = Code.NOT_FOUND


class RegionExists(InferdError):
    """Shared memory is registered under that name already."""

    code = Code.ALREADY_EXISTS


class RegionShrank(InferdError):
    """The owner of shared memory made it smaller while a request used it; its batch neighbours are unharmed."""

    code = Code.INVALID_ARGUMENT


class InputRefused(InferdError):
    """The model itself refused the values of this one request; its batch neighbours are unharmed."""

    code = Code.INVALID_ARGUMENT


class MessageTooLarge(InferdError):
    """The message is larger than this server reads, once it is unpacked."""

    code = Code.RESOURCE_EXHAUSTED


class Garbled(InferdError):
    """The message is not what its own framing says it is: the client or something on the way is broken."""

    code = Code.INTERNAL


# --- capacity and time ---------------------------------------------------------------------------


class Overloaded(InferdError):
    """The queue is full. Nothing was queued; the caller may try again, or another replica."""

    code, retryable = Code.RESOURCE_EXHAUSTED, True
    shed_for = "queue"
    pushback_ms: ClassVar[int] = 100


class ServerBusy(Overloaded):
    """As many requests wait or run as may, over all models. Nothing was queued."""

    shed_for = "requests"

    @property
    def public_text(self) -> str:
        """The same for all."""
        return "the server has as many requests as it takes at a time (admission.max_requests); try again later"


class ServerFull(Overloaded):
    """The messages of what waits and runs have as many bytes as they may. Nothing was queued."""

    shed_for = "bytes"

    @property
    def public_text(self) -> str:
        """The same for all."""
        return "the server holds as many bytes of requests as it may (admission.max_bytes); try again later"


class CallerBusy(Overloaded):
    """This caller has as much waiting and running as it may while others may come. Nothing was queued."""

    shed_for = "caller"

    @property
    def public_text(self) -> str:
        """The same for all."""
        return "this caller has as many requests at the server as it may (admission); wait for answers, then try again"


class MemoryShort(Overloaded):
    """The process is near its memory limit. Nothing was queued."""

    shed_for = "memory"

    @property
    def public_text(self) -> str:
        """The same for all."""
        return "the server is short of memory (admission.memory_share); try again later, or another replica"


class TooManyRegions(InferdError):
    """No more shared memory can be registered before some is unregistered."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(InferdError):
    """The caller's deadline, or the server's default one, passed before the answer was ready."""

    code = Code.DEADLINE_EXCEEDED


class Hopeless(DeadlineExceeded):
    """The caller's deadline is sooner than the model can answer by its measured run times. Nothing was queued."""

    shed_for = "hopeless"


class NotReady(InferdError):
    """The model is loading or draining. Nothing ran, so another replica may be tried at once."""

    code, retryable = Code.UNAVAILABLE, True


# --- the model -------------------------------------------------------------------------------------


class ModelFailed(InferdError):
    """The model could not be loaded and will not be until an operator acts."""

    code = Code.FAILED_PRECONDITION


class RunFailed(InferdError):
    """The session failed on a request that looked right. The log has the reason."""

    code = Code.INTERNAL


class OutOfDeviceMemory(RunFailed):
    """The device has no memory for a batch of this size; a smaller one may fit."""


class DeviceLost(InferdError):
    """The device failed in a way from which it does not recover in this process; another replica may answer."""

    code, retryable = Code.UNAVAILABLE, True


class RunStopped(InferdError):
    """Everybody who waited for a run had gone, so it was stopped; nobody is told."""

    code = Code.CANCELLED


# --- us ----------------------------------------------------------------------------------------------


class Internal(InferdError):
    """A bug of ours. The text for clients says nothing; the log says everything."""

    code = Code.INTERNAL

    @property
    def public_text(self) -> str:
        """The same for every bug."""
        return "internal error; the server's log has the details"


# --- the operator ------------------------------------------------------------------------------------


class StartError(InferdError):
    """inferd cannot start, or a command cannot do its work, until somebody changes something: exit code 2."""

    code = Code.FAILED_PRECONDITION


class SettingsError(StartError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class RepositoryError(StartError):
    """A model repository, a version folder or a config.pbtxt is not as it must be."""

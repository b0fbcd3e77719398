"""Shared memory that clients have registered, and where in it a tensor of a request lies.

Its bytes are read and written as a file's, straight from and to the buffers of a run, and never mapped: the owner may
shrink it at any time, which would end a process that has it mapped, and so would a file system without room.
"""

cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset
from posix.stat cimport fstat, struct_stat
from posix.types cimport off_t
from posix.unistd cimport close, pread, pwrite

from inferd._native.parameter cimport (
    PARAMETER_INT64, PARAMETER_STRING, Parameter, has_key, read_parameter,
)
from inferd._native.span cimport LENGTH, WIRE_OK, Span, read_length, read_tag, skip_field, span_length

import errno as errors
import os
import re
import stat

from inferd.errors import InvalidRequest, RegionExists, TooManyRegions, UnknownRegion

cdef enum:
    LONGEST_KEY_BYTES = 255

cdef bytes FOLDER = b"/dev/shm"
# Any name that can be shown as it is.
cdef object NAME = re.compile("[!-~]{1,256}")


cdef struct Asked:
    # What a tensor's parameters say of shared memory, as it came.
    bint region_there
    bint offset_there
    bint byte_size_there
    Parameter region
    Parameter offset
    Parameter byte_size


cdef void read_asked(Asked* asked, Span message, uint32_t map_field) noexcept nogil:
    """Walk the parameters of a message that decode has accepted; the last entry of a key wins."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Parameter parameter
    cdef Span entry
    memset(asked, 0, sizeof(Asked))
    while message.at != message.end and read_tag(&message, &field, &wire_type) == WIRE_OK:
        if field != map_field or wire_type != LENGTH:
            if skip_field(&message, field, wire_type, 1) != WIRE_OK:
                return
            continue
        if read_length(&message, &entry) != WIRE_OK or read_parameter(entry, &parameter, 2) != WIRE_OK:
            return
        if has_key(&parameter, b"shared_memory_region", 20):
            asked.region, asked.region_there = parameter, True
        elif has_key(&parameter, b"shared_memory_offset", 20):
            asked.offset, asked.offset_there = parameter, True
        elif has_key(&parameter, b"shared_memory_byte_size", 23):
            asked.byte_size, asked.byte_size_there = parameter, True


cdef int64_t counted(Parameter* parameter, bint there, str key, str what) except -1:
    """The value of a parameter that is a number of bytes; 0 if it is not there."""
    if there and (parameter.kind != PARAMETER_INT64 or <int64_t>parameter.number < 0):
        raise InvalidRequest(f"parameter '{key}' of {what} is not an int64 of at least 0")
    return <int64_t>parameter.number if there else 0


cdef bint still_there(const Place* place) noexcept nogil:
    """False if the file has become too short for this place."""
    cdef struct_stat found
    if place.of_gpu != NULL:
        return True
    return fstat(place.fd, &found) == 0 and found.st_size - place.nbytes >= place.at


cdef bint read_place(const Place* place, uint8_t* to) noexcept nogil:
    """All the bytes of a place; False if they are not there any more."""
    cdef int64_t done = 0
    cdef Py_ssize_t now
    if place.of_gpu != NULL:
        return False
    while done < place.nbytes:
        now = pread(place.fd, to + done, <size_t>(place.nbytes - done), <off_t>(place.at + done))
        if now < 0 and errno == EINTR:
            continue
        if now <= 0:
            return False
        done += now
    return True


cdef bint write_place(const Place* place, const uint8_t* data, int64_t nbytes) noexcept nogil:
    """Write what fits into the place; False if it has gone or there is no room for it."""
    cdef int64_t done = 0
    cdef Py_ssize_t now
    if not still_there(place):
        return False
    while done < nbytes:
        now = pwrite(place.fd, data + done, <size_t>(nbytes - done), <off_t>(place.at + done))
        if now < 0 and errno == EINTR:
            continue
        if now <= 0:
            return False
        done += now
    return True


@cython.final
cdef class Region:
    """A stretch of a shared memory object, or of a GPU's memory, under a client's name for it."""

    def __cinit__(self):
        self.fd = -1

    def __init__(self):
        raise TypeError("a Region is made by Regions.register")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)


@cython.final
cdef class Regions:
    """The regions that clients have registered, by name, at most `limit`.

    `most_string_nbytes` is how many bytes the strings of one request may have here: they are copied before it is queued.
    """

    def __cinit__(self, int64_t limit, int64_t most_string_nbytes=0x7FFFFFFF):
        self.by_name = {}
        self.limit = limit
        self.most_string_nbytes = most_string_nbytes

    def register(self, str name not None, str key not None, offset, byte_size) -> None:
        """Open the shared memory object `key` and give `byte_size` bytes of it from `offset` a name.

        Raises InvalidRequest, RegionExists or TooManyRegions. None of them tells the key: whoever knows it can read.
        """
        cdef Region region
        self.check_free(name, byte_size)
        region = Region.__new__(Region)
        region.fd = opened(name, key)
        found = os.fstat(region.fd)
        if not stat.S_ISREG(found.st_mode):
            raise cannot_open(name)
        # Python's numbers do not wrap.
        if offset + byte_size > found.st_size:
            raise InvalidRequest(f"region '{name}' is not there: offset and byte_size reach past the end of its memory")
        region.name, region.key, region.offset, region.byte_size = name, key, offset, byte_size
        self.by_name[name] = region

    def check_free(self, str name not None, byte_size) -> None:
        """Raise what register and register_gpu would of the name, the size and the number of regions."""
        if not NAME.fullmatch(name):
            raise InvalidRequest("a name of a region is 1 to 256 printable ASCII characters without spaces")
        if name in self.by_name:
            raise RegionExists(f"region '{name}' is registered already; unregister it first")
        if len(self.by_name) >= self.limit:
            raise TooManyRegions(f"{self.limit} regions are registered, which is the most; unregister some")
        if not byte_size:
            raise InvalidRequest(f"region '{name}' has a byte_size of 0")

    def register_gpu(self, str name not None, memory not None, int device_id, int64_t byte_size) -> None:
        """Give memory of a GPU, which has at least `byte_size` bytes, a name. Raises as check_free.

        It is for take() to have it back, and for whoever has it then to close it.
        """
        cdef Region region
        self.check_free(name, byte_size)
        region = Region.__new__(Region)
        region.name, region.key, region.memory, region.device_id, region.byte_size = name, "", memory, device_id, byte_size
        self.by_name[name] = region

    def take(self, str name not None) -> Region | None:
        """Forget a region of a GPU and hand it over, if there is one of that name. Requests that use it keep it."""
        cdef Region region = self.by_name.get(name)
        if region is None or region.memory is None:
            return None
        return self.by_name.pop(name)

    def unregister(self, str name not None) -> None:
        """Forget a region of system shared memory, if there is one of that name. Requests keep it open to their end."""
        cdef Region region = self.by_name.get(name)
        if region is not None and region.memory is None:
            del self.by_name[name]

    def clear(self) -> None:
        """Forget all of system shared memory."""
        for region in self.all():
            del self.by_name[region.name]

    def all(self, bint of_gpu=False) -> list[Region]:
        """What is registered now of system shared memory, or of GPUs' memory."""
        return [region for region in self.by_name.values() if ((<Region>region).memory is not None) == of_gpu]

    def find(self, str name not None) -> Region:
        """The region of that name. Raises UnknownRegion."""
        found = self.by_name.get(name)
        if found is None:
            raise UnknownRegion(f"there is no region {name[:256]!r}; register it first")
        return found

    cdef Region place(self, Place* place, Span message, uint32_t field, str what):
        """Where the parameters in `field` of a tensor's message say that its bytes are, and the region that owns them.

        Raises InvalidRequest or UnknownRegion; `what` is how they call the tensor.
        """
        cdef Asked asked
        cdef Region region
        cdef int64_t offset
        read_asked(&asked, message, field)
        if not asked.region_there:
            raise InvalidRequest(f"{what} says where in shared memory it is, but needs 'shared_memory_region' too")
        if asked.region.kind != PARAMETER_STRING:
            raise InvalidRequest(f"parameter 'shared_memory_region' of {what} is not a string")
        if not asked.byte_size_there:
            raise InvalidRequest(f"{what} is in shared memory, so it needs 'shared_memory_byte_size' too")
        offset = counted(&asked.offset, asked.offset_there, "shared_memory_offset", what)
        place.nbytes = counted(&asked.byte_size, True, "shared_memory_byte_size", what)
        name = asked.region.text.at[:span_length(asked.region.text)].decode() if span_length(asked.region.text) else ""
        region = self.find(name)
        if place.nbytes > region.byte_size or offset > region.byte_size - place.nbytes:
            raise InvalidRequest(
                f"{what} is {place.nbytes} bytes at offset {offset}, but region '{region.name}' has {region.byte_size}"
            )
        place.of_gpu = NULL if region.memory is None else <void*>region
        place.fd = region.fd
        place.at = region.offset + offset
        if not still_there(place):
            raise InvalidRequest(f"{what} is not there: the memory of region '{region.name}' has become smaller")
        return region


cdef int opened(str name, str key) except -1:
    """A descriptor of the shared memory object that a client calls `key`, as shm_open takes it."""
    component = key.lstrip("/")
    encoded = component.encode()
    if not component or component in (".", "..") or "/" in component or len(encoded) > LONGEST_KEY_BYTES or b"\0" in encoded:
        raise InvalidRequest(f"the key of region '{name}' is not one: it is the bare name of a shared memory object")
    try:
        # Not to wait for anybody, should it be a pipe.
        return os.open(
            os.path.join(FOLDER, encoded), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        if failure.errno in (errors.EMFILE, errors.ENFILE):
            raise TooManyRegions("this server has no open file left for another region; unregister some") from None
    raise cannot_open(name)


cdef object cannot_open(str name):
    """The error for whatever is not there, is no shared memory, or belongs to somebody else."""
    return InvalidRequest(f"the key of region '{name}' names no shared memory that this server can open for reading and writing")

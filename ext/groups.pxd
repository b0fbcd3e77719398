"""Groups of queued requests by their shape, which hold those that may share a run. Members are seen to elsewhere."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from inferd._native.batch cimport size_class_of
from inferd._native.line cimport FullGroups, Group, leave_full
from inferd._native.live cimport INFERD_DEBUG
from inferd._native.signature cimport Signature, same_shape
from inferd._native.wire cimport Request


cdef enum:
    BUCKETS = 256


cdef struct Groups:
    Group* buckets[BUCKETS]
    FullGroups full
    Group* spare             # the last one that had no members any more: on an idle server each request makes one


cdef inline Group** bucket_of(Groups* groups, uint64_t shape_hash) noexcept nogil:
    return &groups.buckets[(shape_hash ^ (shape_hash >> 32)) % BUCKETS]


cdef inline Group* find_group(Groups* groups, Signature signature, Request request, void* only_behind) noexcept:
    """The group of the request's shape, or NULL. Shapes are compared, not only hashes.

    `only_behind`: NULL, or the request that its last member must be.
    """
    cdef Group* group = bucket_of(groups, request.shape_hash)[0]
    while group != NULL:
        if group.shape_hash == request.shape_hash and same_shape(signature, <Request>group.first, request):
            if only_behind == NULL or group.last == only_behind:
                return group
        group = group.next_in_bucket
    return NULL


cdef inline Group* add_group(Groups* groups, Request request, int line_count) noexcept:
    """A group of the request's shape, without members; NULL if there is no memory."""
    cdef Group** bucket = bucket_of(groups, request.shape_hash)
    cdef size_t lines_size = 0 if line_count == 1 else line_count * sizeof(void*)
    cdef Group* group = groups.spare
    if group != NULL:
        groups.spare = NULL
        memset(group, 0, sizeof(Group) + lines_size)
    else:
        group = <Group*>calloc(1, sizeof(Group) + lines_size)
        if group == NULL:
            return NULL
    if lines_size:
        group.last_of_line = <void**>(group + 1)
    group.shape_hash = request.shape_hash
    group.size_class = size_class_of(request)
    group.next_in_bucket = bucket[0]
    bucket[0] = group
    return group


cdef inline void forget_group(Groups* groups, Group* group) noexcept:
    """Let go of a group that has no members."""
    cdef Group** at = bucket_of(groups, group.shape_hash)
    if group.is_full:
        leave_full(&groups.full, group)
    while at[0] != group:
        at = &at[0].next_in_bucket
    at[0] = group.next_in_bucket
    # Not in a debug build, whose sanitizer is to see who still reads it.
    if groups.spare == NULL and not INFERD_DEBUG:
        groups.spare = group
    else:
        free(group)


cdef inline void free_groups(Groups* groups) noexcept:
    cdef Group* group
    cdef int bucket
    free(groups.spare)
    for bucket in range(BUCKETS):
        while groups.buckets[bucket] != NULL:
            group = groups.buckets[bucket]
            groups.buckets[bucket] = group.next_in_bucket
            free(group)

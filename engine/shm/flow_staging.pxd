cimport cython

from engine.shm cimport atomics
from engine.shm.flow_lookup cimport FlowLookup

cdef Py_ssize_t ENDED
cdef Py_ssize_t LAST
cdef Py_ssize_t LABELS
cdef Py_ssize_t CALL
cdef Py_ssize_t CODECS
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long MILLISECOND
cdef unsigned long long IDLE
cdef unsigned long long SDP
cdef unsigned long long FIRST_DYNAMIC
cdef unsigned long long RTX
cdef unsigned long long RED
cdef unsigned long long ULPFEC
cdef unsigned long long FLEXFEC

cdef class FlowStaging(FlowLookup):
    # What the next register() writes: the Call-ID and a codec table, in the layout of an entry
    cdef unsigned long long[::1] call
    cdef unsigned char[::1] call_octets
    cdef unsigned long long call_length
    cdef unsigned long long call_hash
    cdef unsigned long long[::1] codecs
    cdef public unsigned long long codec_count

    @cython.locals(length=Py_ssize_t, index=Py_ssize_t)
    cpdef int stage_call(self, const unsigned char[::1] buf, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(length=cython.ulonglong, index=cython.ulonglong)
    cdef unsigned long long hash_call(self, Py_ssize_t word, unsigned long long length) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(codec=cython.ulonglong, place=cython.ulonglong)
    cpdef int stage_codec(
        self, unsigned long long payload_type, unsigned long long clock, unsigned long long name0,
        unsigned long long name1) except -1
    cdef bint spare(self, unsigned long long codec) except -1
    @cython.locals(labels=cython.ulonglong)
    cdef unsigned long long staged_labels(
        self, bint rtcp, unsigned long long media, unsigned long long ttl) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(index=cython.ulonglong)
    cdef int write_staged(self, Py_ssize_t word, unsigned long long labels, unsigned long long now) except -1
    @cython.locals(index=cython.ulonglong)
    cdef bint same_codecs(self, Py_ssize_t word) except -1
    @cython.locals(labels=cython.ulonglong, recent=cython.ulonglong, idle=cython.ulonglong)
    cdef bint may_take(self, Py_ssize_t slot, bint rtcp, unsigned long long now) except -1
    @cython.locals(word=Py_ssize_t, labels=cython.ulonglong, index=Py_ssize_t)
    cdef bint same_call(self, Py_ssize_t slot) except -1
    cpdef int end_call(self) except -1

cimport cython

from engine.shm cimport atomics
from engine.shm.flow_lookup cimport FlowLookup

cdef Py_ssize_t ENDED
cdef Py_ssize_t EPOCHS
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t LAST
cdef Py_ssize_t EPOCH
cdef Py_ssize_t STREAM
cdef Py_ssize_t LABELS
cdef Py_ssize_t AROUND
cdef Py_ssize_t CALL
cdef Py_ssize_t CODECS
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long TOUCH
cdef unsigned long long IDLE
cdef unsigned long long UNPROVEN
cdef unsigned long long MILLISECOND
cdef unsigned long long KEPT
cdef unsigned long long NO_EPOCH
cdef unsigned long long FIVE_TUPLE_KIND
cdef unsigned long long SIDE_KIND
cdef unsigned long long SDP
cdef unsigned long long HEURISTIC
cdef unsigned long long UDP
cdef unsigned long long FAX
cdef unsigned long long VLANS
cdef unsigned long long FIRST_DYNAMIC
cdef unsigned long long RTX
cdef unsigned long long RED
cdef unsigned long long ULPFEC
cdef unsigned long long FLEXFEC

cdef class FlowTable(FlowLookup):
    # What the next register() writes: the Call-ID and a codec table, in the layout of an entry
    cdef unsigned long long[::1] call
    cdef unsigned char[::1] call_octets
    cdef unsigned long long call_length
    cdef unsigned long long call_hash
    cdef unsigned long long[::1] codecs
    cdef public unsigned long long codec_count

    @cython.locals(
        ports=cython.ulonglong, slot=Py_ssize_t, word=Py_ssize_t, last=cython.ulonglong)
    cpdef Py_ssize_t find(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long sport, unsigned long long dport, unsigned long long protocol, unsigned long long domain,
        unsigned long long now) except -2
    @cython.locals(word=Py_ssize_t, labels=cython.ulonglong)
    cdef bint expired(self, Py_ssize_t slot, unsigned long long now) except -1
    @cython.locals(word=Py_ssize_t)
    cdef bint yields(self, Py_ssize_t slot, unsigned long long now) except -1
    @cython.locals(places=cython.ulonglong, epoch=cython.ulonglong)
    cdef unsigned long long sides_epoch(self) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(slot=Py_ssize_t, tag=cython.ulonglong, word=Py_ssize_t)
    cdef Py_ssize_t adopt(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long domain, unsigned long long now) except -2
    @cython.locals(slot=Py_ssize_t, word=Py_ssize_t, ports=cython.ulonglong, tag=cython.ulonglong)
    cpdef Py_ssize_t add(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long sport, unsigned long long dport, unsigned long long protocol, unsigned long long domain,
        unsigned long long now, unsigned long long ttl) except -2
    @cython.locals(
        word=Py_ssize_t, place=Py_ssize_t, labels=cython.ulonglong, own=cython.ulonglong, index=Py_ssize_t)
    cdef int copy_labels(self, Py_ssize_t slot) except -1
    @cython.locals(
        word=Py_ssize_t, place=Py_ssize_t, more=cython.ulonglong, index=cython.ulonglong,
        other=cython.ulonglong, payload_type=cython.ulonglong)
    cdef unsigned long long merge_codecs(self, Py_ssize_t slot, Py_ssize_t source, unsigned long long count) except? 99
    @cython.locals(
        word=Py_ssize_t, place=cython.ulonglong, epoch=cython.ulonglong, tag=cython.ulonglong, found=bint)
    cdef int refresh(self, Py_ssize_t slot) except -1
    cpdef int stir(self) except -1
    @cython.locals(length=Py_ssize_t, index=Py_ssize_t)
    cpdef int stage_call(self, const unsigned char[::1] buf, Py_ssize_t start, Py_ssize_t end) except -1
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
    @cython.locals(slot=Py_ssize_t, tag=cython.ulonglong, word=Py_ssize_t)
    cpdef int turn_to_fax(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port,
        unsigned long long domain) except -1
    @cython.locals(
        slot=Py_ssize_t, word=Py_ssize_t, ports=cython.ulonglong, tag=cython.ulonglong, labels=cython.ulonglong)
    cpdef int register(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port, bint rtcp,
        unsigned long long media, unsigned long long protocol, unsigned long long domain, unsigned long long now,
        unsigned long long ttl) except -1
    @cython.locals(index=cython.ulonglong)
    cdef bint same_codecs(self, Py_ssize_t word) except -1
    @cython.locals(labels=cython.ulonglong, recent=cython.ulonglong, idle=cython.ulonglong)
    cdef bint may_take(self, Py_ssize_t slot, bint rtcp, unsigned long long now) except -1
    @cython.locals(word=Py_ssize_t, labels=cython.ulonglong, index=Py_ssize_t)
    cdef bint same_call(self, Py_ssize_t slot) except -1
    cpdef int end_call(self) except -1
    @cython.locals(
        word=Py_ssize_t, count=cython.ulonglong, index=cython.ulonglong)
    cpdef Py_ssize_t codec(self, Py_ssize_t slot, unsigned long long payload_type) except -2

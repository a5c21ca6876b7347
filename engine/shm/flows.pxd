cimport cython

from engine.shm cimport atomics
from engine.shm.flow_staging cimport FlowStaging

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
cdef unsigned long long HEURISTIC
cdef unsigned long long UDP
cdef unsigned long long FAX
cdef unsigned long long SHARED
cdef unsigned long long VLANS

cdef class FlowTable(FlowStaging):
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
        word=Py_ssize_t, first=Py_ssize_t, second=Py_ssize_t, place=Py_ssize_t, labels=cython.ulonglong,
        own=cython.ulonglong, index=Py_ssize_t)
    cdef int copy_labels(self, Py_ssize_t slot) except -1
    @cython.locals(
        word=Py_ssize_t, place=Py_ssize_t, more=cython.ulonglong, index=cython.ulonglong,
        other=cython.ulonglong, payload_type=cython.ulonglong)
    cdef unsigned long long merge_codecs(self, Py_ssize_t slot, Py_ssize_t source, unsigned long long count) except? 99
    @cython.locals(
        word=Py_ssize_t, place=cython.ulonglong, epoch=cython.ulonglong, tag=cython.ulonglong, found=bint)
    cdef int refresh(self, Py_ssize_t slot) except -1
    cdef bint shared(self, Py_ssize_t slot) except -1
    @cython.locals(word=Py_ssize_t)
    cdef int share(self, Py_ssize_t slot, unsigned long long tag) except -1
    cpdef int stir(self) except -1
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
    @cython.locals(
        word=Py_ssize_t, count=cython.ulonglong, index=cython.ulonglong)
    cpdef Py_ssize_t codec(self, Py_ssize_t slot, unsigned long long payload_type) except -2

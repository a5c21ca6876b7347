cimport cython

from engine.shm cimport atomics
from engine.shm.slots cimport SlotTable

cdef Py_ssize_t LOCK
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t LAST
cdef Py_ssize_t EPOCH
cdef Py_ssize_t STREAM
cdef Py_ssize_t LABELS
cdef unsigned long long MASK64
cdef unsigned long long SPREAD
cdef unsigned long long SIDE_MARK
cdef unsigned long long VLANS
cdef unsigned long long FIVE_TUPLE_KIND
cdef unsigned int RECENT_SHIFT
cdef unsigned long long RECENT_MASK

cdef class FlowLookup(SlotTable):
    # Hash of the key that find() looked for in vain
    cdef readonly unsigned long long tag
    # What the last find() or add() found
    cdef readonly Py_ssize_t word
    cdef readonly unsigned long long labels_word
    cdef readonly unsigned long long epoch
    # What the last sides() found
    cdef Py_ssize_t receiver
    cdef Py_ssize_t sender
    cdef unsigned long long receiver_tag
    cdef unsigned long long sender_tag
    # The domain where the last nearest() found them
    cdef unsigned long long around
    cdef unsigned long long[::1] recent
    cdef unsigned long long mix

    @cython.locals(recent=cython.ulonglong, mix=cython.ulonglong, word=Py_ssize_t, state=cython.ulonglong)
    cdef Py_ssize_t recall(
        self, unsigned long long ports, unsigned long long src0, unsigned long long src1,
        unsigned long long dst0, unsigned long long dst1, unsigned long long domain) except -2
    @cython.locals(mix=cython.ulonglong, number=cython.ulonglong)
    cdef int remember(self, Py_ssize_t slot) except -1
    cpdef unsigned long long tag_of(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long sport, unsigned long long dport, unsigned long long protocol,
        unsigned long long domain) except? 0x5a5a5a5a5a5a5a5a
    cdef int look(self, Py_ssize_t word) except -1
    cdef unsigned long long side_tag(
        self, unsigned long long address0, unsigned long long address1, unsigned long long ports,
        unsigned long long domain) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(ports=cython.ulonglong)
    cdef Py_ssize_t side(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port,
        unsigned long long protocol, unsigned long long domain) except -2
    @cython.locals(tag=cython.ulonglong)
    cdef int sides(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long domain) except -1
    cdef bint nearest(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long domain, unsigned long long now) except -1
    cdef bint live_sides(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long now) except -1
    cdef int touch_sides(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long domain, unsigned long long now) except -1
    cdef int prove(self, unsigned long long now) except -1

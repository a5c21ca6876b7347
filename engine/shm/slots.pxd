cimport cython

from engine.shm cimport atomics
from engine.shm.siphash cimport SipHash

cdef Py_ssize_t SLOTS
cdef Py_ssize_t SEED0
cdef Py_ssize_t SEED1
cdef Py_ssize_t USED
cdef Py_ssize_t ADDED
cdef Py_ssize_t EXPIRED
cdef Py_ssize_t BUSY
cdef Py_ssize_t ENTRIES
cdef Py_ssize_t WIDTH
cdef Py_ssize_t LOCK
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t REST
cdef Py_ssize_t PROBES
cdef Py_ssize_t SPINS
cdef unsigned long long EMPTY
cdef unsigned long long REMOVED
cdef unsigned long long CLAIMED
cdef unsigned long long TOP
cdef unsigned long long MASK64
cdef unsigned long long MASK32

cdef class SlotTable:
    cdef public object region
    cdef unsigned long long[::1] words
    cdef readonly Py_ssize_t slots
    cdef readonly unsigned long long writer
    cdef unsigned long long mask
    cdef SipHash keyed
    # Word index of the tags and of the first entry, words of an entry
    cdef readonly Py_ssize_t tags
    cdef readonly Py_ssize_t first
    cdef readonly Py_ssize_t width
    cdef Py_ssize_t cursor
    cdef readonly unsigned long long generation
    cdef bint fresh
    cdef int yielded
    # Kept by who drives the clock, see steady()
    cdef public long long shift
    cdef public unsigned long long limit

    cpdef unsigned long long steady(self, unsigned long long timestamp) except? 0x5a5a5a5a5a5a5a5a
    cpdef unsigned long long hash(
        self, unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d,
        unsigned long long e, unsigned long long f) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(
        index=Py_ssize_t, _=Py_ssize_t, word=Py_ssize_t, found=cython.ulonglong, state=cython.ulonglong,
        spin=Py_ssize_t)
    cdef Py_ssize_t probe(
        self, unsigned long long tag, unsigned long long ports, unsigned long long src0, unsigned long long src1,
        unsigned long long dst0, unsigned long long dst1, unsigned long long domain) except -2
    cdef int look(self, Py_ssize_t word) except -1
    cdef bint expired(self, Py_ssize_t slot, unsigned long long now) except -1
    cdef bint yields(self, Py_ssize_t slot, unsigned long long now) except -1
    @cython.locals(count=int)
    cpdef int take_yielded(self) except -1
    @cython.locals(index=Py_ssize_t, _=Py_ssize_t, found=cython.ulonglong, turn=Py_ssize_t)
    cdef Py_ssize_t claim(self, unsigned long long tag, unsigned long long now) except -2
    @cython.locals(number=Py_ssize_t)
    cdef bint give_entry(self, Py_ssize_t slot) except -1
    cpdef Py_ssize_t place(self, Py_ssize_t slot) except -1
    @cython.locals(slot=Py_ssize_t, other=Py_ssize_t)
    cdef Py_ssize_t enter(
        self, unsigned long long tag, unsigned long long kind, unsigned long long ports, unsigned long long a0,
        unsigned long long a1, unsigned long long b0, unsigned long long b1, unsigned long long domain,
        unsigned long long now) except -2
    @cython.locals(word=Py_ssize_t, state=cython.ulonglong, generation=cython.ulonglong, index=Py_ssize_t)
    cdef int begin(
        self, Py_ssize_t slot, unsigned long long kind, unsigned long long ports, unsigned long long a0,
        unsigned long long a1, unsigned long long b0, unsigned long long b1, unsigned long long domain) except -1
    @cython.locals(
        word=Py_ssize_t, other=Py_ssize_t, index=Py_ssize_t, _=Py_ssize_t, _spin=Py_ssize_t, found=cython.ulonglong)
    cdef Py_ssize_t publish(self, Py_ssize_t slot, unsigned long long tag) except -2
    @cython.locals(_=Py_ssize_t, state=cython.ulonglong)
    cdef bint lock(self, Py_ssize_t word) except -1
    cdef int unlock(self, Py_ssize_t word) except -1
    @cython.locals(word=Py_ssize_t)
    cdef bint remove(self, Py_ssize_t slot) except -1
    cdef int expire(self, Py_ssize_t slot) except -1
    @cython.locals(_=Py_ssize_t, slot=Py_ssize_t, gone=int)
    cpdef int sweep(self, unsigned long long now, Py_ssize_t budget) except -1
    @cython.locals(slot=Py_ssize_t, tag=cython.ulonglong, word=Py_ssize_t, broken=int, held=cython.bint)
    cpdef int break_locks(self, unsigned long long writer) except -1
    cdef int mend(self, Py_ssize_t slot) except -1

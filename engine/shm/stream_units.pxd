cimport cython

from engine.shm cimport atomics
from engine.shm.quality cimport Quality
from engine.shm.signals cimport Signals
from engine.shm.slots cimport SlotTable

cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t STAMP
cdef Py_ssize_t CALL
cdef Py_ssize_t VERSION_WORD
cdef Py_ssize_t USED
cdef Py_ssize_t SOURCE
cdef unsigned long long MASK32
cdef Py_ssize_t TRIES
cdef Py_ssize_t SOURCES
cdef Py_ssize_t UNIT_WORDS

cdef class StreamUnits(SlotTable):
    cdef readonly Py_ssize_t units
    cdef readonly Py_ssize_t sources
    cdef readonly Quality quality
    cdef readonly Signals signals
    cdef readonly object scratch
    cdef readonly Quality view

    @cython.locals(tag=cython.ulonglong, index=Py_ssize_t, best=Py_ssize_t, _=Py_ssize_t, word=cython.ulonglong)
    cdef int enter_source(self, Py_ssize_t slot, unsigned long long ssrc, unsigned long long domain) except -1
    @cython.locals(
        tag=cython.ulonglong, index=Py_ssize_t, _=Py_ssize_t, found=cython.ulonglong, slot=Py_ssize_t, word=Py_ssize_t)
    cpdef Py_ssize_t find_source(
        self, unsigned long long ssrc, unsigned long long domain, unsigned long long src0, unsigned long long src1,
        unsigned long long dst0, unsigned long long dst1, unsigned long long[::1] words, Py_ssize_t call) except -2
    @cython.locals(place=Py_ssize_t)
    cdef bint is_of_call(self, Py_ssize_t word, unsigned long long[::1] words, Py_ssize_t call) except -1
    cpdef Py_ssize_t unit(self, Py_ssize_t word) except -1
    @cython.locals(word=Py_ssize_t, unit=Py_ssize_t)
    cpdef int follows(self, Py_ssize_t slot, unsigned long long ssrc) except -1
    @cython.locals(word=Py_ssize_t, rest=Py_ssize_t, index=Py_ssize_t)
    cpdef Py_ssize_t open_signals(self, Py_ssize_t slot) except -1
    cdef int close_signals(self, Py_ssize_t slot) except -1
    @cython.locals(word=Py_ssize_t, unit=Py_ssize_t, rest=Py_ssize_t, size=Py_ssize_t, _=Py_ssize_t, state=cython.ulonglong)
    cpdef bytes copy_whole(self, Py_ssize_t slot)

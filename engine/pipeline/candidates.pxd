cimport cython

from engine.parsers.rtp cimport RtpParser

cdef Py_ssize_t C_CANDIDATES_FULL
cdef unsigned long long MASK32
cdef unsigned long long NEVER
cdef Py_ssize_t SETS
cdef Py_ssize_t WAYS
cdef Py_ssize_t CANDIDATE
cdef unsigned long long HELD
cdef unsigned long long ENOUGH
cdef unsigned long long ROSE
cdef unsigned long long PATIENCE
cdef unsigned int LARGEST_STEP
cdef unsigned int LARGEST_LEAP

@cython.final
cdef class Candidates:
    cdef unsigned long long[::1] counters
    cdef unsigned long long[::1] words
    cdef Py_ssize_t count

    @cython.locals(
        place=Py_ssize_t, count=cython.ulonglong, last=cython.ulonglong, step=cython.uint, leap=cython.uint,
        word=cython.ulonglong, agree=cython.ulonglong)
    cdef Py_ssize_t hold(
        self, unsigned long long tag, RtpParser parser, unsigned int dscp, unsigned long long now) except -2
    @cython.locals(place=Py_ssize_t, _=Py_ssize_t, best=Py_ssize_t, oldest=cython.ulonglong, last=cython.ulonglong)
    cdef Py_ssize_t place_of(self, unsigned long long tag, unsigned long long now) except -1

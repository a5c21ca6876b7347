cimport cython

from engine.decode.classifier cimport Decoder

cdef Py_ssize_t CHUNK

@cython.final
cdef class PieceStore:
    cdef readonly Py_ssize_t chunks
    cdef readonly Py_ssize_t free
    cdef unsigned char[::1] arena
    cdef int[::1] following
    cdef int[::1] next
    cdef int[::1] start
    cdef int[::1] length
    cdef Py_ssize_t unused
    cdef Py_ssize_t given_back
    cdef readonly Py_ssize_t first
    cdef readonly Py_ssize_t kept
    cdef readonly bint differs

    @cython.locals(chunk=Py_ssize_t)
    cdef Py_ssize_t take(self) except -2
    @cython.locals(first=Py_ssize_t, chunk=Py_ssize_t, following=Py_ssize_t, size=Py_ssize_t, place=Py_ssize_t)
    cdef Py_ssize_t put(self, Decoder decoder, Py_ssize_t at, Py_ssize_t start, Py_ssize_t length) except -2
    @cython.locals(
        shift=Py_ssize_t, end=Py_ssize_t, position=Py_ssize_t, before=Py_ssize_t, piece=Py_ssize_t, begin=Py_ssize_t,
        stop=Py_ssize_t, size=Py_ssize_t)
    cdef Py_ssize_t fill(self, Py_ssize_t first, Decoder decoder, Py_ssize_t offset) except -2
    @cython.locals(piece=Py_ssize_t)
    cdef Py_ssize_t insert(
        self, Py_ssize_t before, Decoder decoder, Py_ssize_t at, Py_ssize_t start, Py_ssize_t length) except -2
    @cython.locals(position=Py_ssize_t, chunk=Py_ssize_t, place=Py_ssize_t, index=Py_ssize_t)
    cdef bint differ(
        self, Py_ssize_t piece, Decoder decoder, Py_ssize_t shift, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(shift=Py_ssize_t, end=Py_ssize_t, piece=Py_ssize_t, begin=Py_ssize_t, stop=Py_ssize_t)
    cdef bint conflict(self, Py_ssize_t first, Decoder decoder, Py_ssize_t offset) except -1
    @cython.locals(piece=Py_ssize_t, left=Py_ssize_t, chunk=Py_ssize_t, size=Py_ssize_t, place=Py_ssize_t)
    cdef Py_ssize_t copy(self, Py_ssize_t first, unsigned char[::1] into, Py_ssize_t at) except -2
    @cython.locals(before=Py_ssize_t, piece=Py_ssize_t, chunk=Py_ssize_t, following=Py_ssize_t)
    cdef Py_ssize_t release(self, Py_ssize_t first) except -2

@cython.final
cdef class AgeLists:
    cdef int[::1] oldest
    cdef int[::1] newest
    cdef readonly int[::1] count
    cdef readonly int[::1] weight
    cdef int[::1] before
    cdef int[::1] after

    cdef Py_ssize_t first(self, Py_ssize_t number) except -2
    @cython.locals(last=int)
    cdef int append(self, Py_ssize_t number, Py_ssize_t item) except -1
    @cython.locals(before=int, after=int)
    cdef int remove(self, Py_ssize_t number, Py_ssize_t item, Py_ssize_t weight) except -1

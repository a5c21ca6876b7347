cimport cython

from engine.decode.classifier cimport Decoder

cdef int V_MALFORMED
cdef int V_NON_IP
cdef int V_FRAGMENT
cdef int V_UNKNOWN_LINK
cdef unsigned long long SPREAD
cdef unsigned long long MASK64
cdef unsigned long long COPY_TIME
cdef Py_ssize_t PLACES

@cython.final
cdef class CopyTable:
    cdef unsigned long long[::1] places
    cdef unsigned long long seed

    @cython.locals(
        at=Py_ssize_t, end=Py_ssize_t, count=Py_ssize_t, mixed=cython.ulonglong, step=Py_ssize_t, origin=cython.ulonglong)
    cdef bint seen(
        self, Decoder decoder, int verdict, unsigned int interface, unsigned long long now) except -1
    @cython.locals(value=cython.ulonglong, index=Py_ssize_t)
    cdef unsigned long long octets(self, Decoder decoder, Py_ssize_t at, Py_ssize_t count) except? 0x5a5a5a5a5a5a5a5a

cimport cython

cdef unsigned int POINT
cdef unsigned int COLON
cdef unsigned long long MAPPED

cdef class AddressReader:
    cdef const unsigned char[::1] buf
    cdef unsigned int[::1] groups
    cdef public unsigned long long word0
    cdef public unsigned long long word1
    cdef public bint unspecified
    cdef public bint multicast
    cdef public bint numeric

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(place=Py_ssize_t, index=Py_ssize_t, colon=cython.bint)
    cpdef bint read(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(index=Py_ssize_t, group=cython.ulonglong)
    cdef bint fold(self, bint multicast) except -1
    @cython.locals(place=Py_ssize_t, value=cython.uint, octet=cython.uint, index=Py_ssize_t)
    cdef bint ipv4(self, Py_ssize_t begin, Py_ssize_t stop, Py_ssize_t group) except -1
    @cython.locals(place=Py_ssize_t, value=cython.uint, count=Py_ssize_t, gap=Py_ssize_t)
    cdef bint ipv6(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(shift=Py_ssize_t, index=Py_ssize_t)
    cdef bint expand(self, Py_ssize_t count, Py_ssize_t gap) except -1
    cdef int hex_digit(self, unsigned int octet) except -2

cimport cython

cdef Py_ssize_t MOST_PACKETS

@cython.final
cdef class RtpParser:
    cdef const unsigned char[::1] buf
    cdef Py_ssize_t size
    cdef readonly unsigned int ssrc
    cdef readonly unsigned int timestamp
    cdef readonly unsigned int sequence
    cdef readonly unsigned int payload_type
    cdef readonly unsigned int marker
    cdef readonly Py_ssize_t octets
    cdef readonly Py_ssize_t payload
    cdef readonly unsigned int packet_type

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(first=cython.uint, second=cython.uint)
    cpdef int classify(self, Py_ssize_t start, Py_ssize_t end, bint snapped) except -1
    @cython.locals(header=Py_ssize_t, first=cython.uint, padding=Py_ssize_t)
    cdef int rtp(self, Py_ssize_t start, Py_ssize_t end, bint snapped) except -1
    cpdef int rtcp(self, Py_ssize_t start, Py_ssize_t end, bint snapped) except -1
    @cython.locals(_=Py_ssize_t)
    cpdef bint rtcp_compound(self, Py_ssize_t start, Py_ssize_t end) except -1
    cdef unsigned int word(self, Py_ssize_t position) except? 0x5a5a5a5a

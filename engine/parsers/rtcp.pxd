cimport cython

cdef int SENDER
cdef int RECEIVER
cdef int BLOCK
cdef int CNAME
cdef int BYE
cdef int APP
cdef int EXTENDED
cdef int REFERENCE
cdef int ANSWER
cdef int METRICS
cdef int OTHER
cdef Py_ssize_t MOST_PACKETS

@cython.final
cdef class RtcpParser:
    cdef const unsigned char[::1] buf
    cdef Py_ssize_t size
    # The next packet, the end of all, and what is open of the packet in work
    cdef Py_ssize_t at
    cdef Py_ssize_t end
    cdef Py_ssize_t inner
    cdef Py_ssize_t inner_end
    cdef unsigned int within
    cdef Py_ssize_t left
    cdef readonly unsigned int defects
    cdef readonly unsigned int packet_type
    cdef readonly unsigned int ssrc
    cdef readonly unsigned int about
    cdef readonly unsigned long long ntp
    cdef readonly unsigned int timestamp
    cdef readonly unsigned int packets
    cdef readonly unsigned int octets
    cdef readonly unsigned int fraction
    cdef readonly unsigned int lost
    cdef readonly unsigned int highest
    cdef readonly unsigned int jitter
    cdef readonly unsigned int last
    cdef readonly unsigned int delay
    cdef readonly Py_ssize_t text
    cdef readonly Py_ssize_t text_end
    cdef readonly unsigned int name

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(position=Py_ssize_t, _=Py_ssize_t)
    cpdef bint begin(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(item=int)
    cpdef int next(self) except -1
    @cython.locals(first=cython.uint, padding=Py_ssize_t)
    cdef int packet(self) except -1
    cdef int sender(self) except -1
    cdef int block(self) except -1
    @cython.locals(begin=Py_ssize_t, found=int)
    cdef int chunk(self) except -1
    cdef int leaver(self) except -1
    @cython.locals(kind=cython.uint, begin=Py_ssize_t, length=Py_ssize_t)
    cdef int extended_block(self) except -1
    cdef int answer(self) except -1
    cdef unsigned int word(self, Py_ssize_t position) except? 0x5a5a5a5a
    @cython.locals(high=cython.ulonglong)
    cdef unsigned long long long_word(self, Py_ssize_t position) except? 0x5a5a5a5a5a5a5a5a

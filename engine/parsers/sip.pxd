cimport cython

# The contract of the SIP scanner; its Python side is sip.py.

cdef class SipParser:
    cdef const unsigned char[::1] buf
    cdef public unsigned int status
    cdef public unsigned int method
    cdef public unsigned int error
    cdef public unsigned int headers
    cdef public unsigned int flags
    cdef public unsigned int cseq
    cdef public Py_ssize_t start
    cdef public Py_ssize_t end
    # 64 offsets relative to start, -1 where absent (engine.shm.records.SLOTS)
    cdef int[::1] slots

    cpdef attach(self, const unsigned char[::1] buf)
    cpdef bint looks_like(self, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef int parse(self, Py_ssize_t start, Py_ssize_t end) except -1

from engine.reporters.line_writer cimport LineWriter
from engine.shm.tap cimport Tap

cdef unsigned int SIP
cdef Py_ssize_t FULL

cdef class LineTap(Tap):
    cdef LineWriter writer
    cdef object maker
    cdef object write_out
    cdef readonly unsigned long long lines

    cdef int take(self, unsigned int kind, unsigned long long timestamp, Py_ssize_t length) except -1
    cdef bint make(self, unsigned long long timestamp, Py_ssize_t length) except -1
    cpdef int flush(self) except -1

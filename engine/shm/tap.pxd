from engine.shm.ring cimport RingWriter

cdef Py_ssize_t LONGEST

cdef class Tap(RingWriter):
    cdef readonly bytearray record
    cdef readonly unsigned long long refused

    cpdef Py_ssize_t reserve(self, Py_ssize_t length) except -2
    cpdef int commit(self, unsigned long long kind, unsigned long long flags, unsigned long long timestamp) except -1
    cdef int take(self, unsigned int kind, unsigned long long timestamp, Py_ssize_t length) except -1

cimport cython

from engine.shm.slots cimport SlotTable

@cython.final
cdef class Verdicts:
    cdef SlotTable table
    cdef unsigned long long[::1] keys
    cdef unsigned char[::1] codes

    @cython.locals(index=Py_ssize_t)
    cpdef int get(self, Py_ssize_t slot, unsigned long long key, unsigned int payload_type) except -1
    @cython.locals(index=Py_ssize_t, place=Py_ssize_t)
    cpdef int keep(
        self, Py_ssize_t slot, unsigned long long key, unsigned int payload_type, unsigned int code) except -1

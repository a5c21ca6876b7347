from engine.calls.dialogs cimport DialogTable
from engine.shm.tap cimport Tap

cdef class Witness(Tap):
    cdef readonly DialogTable table

    cdef int take(self, unsigned int kind, unsigned long long timestamp, Py_ssize_t length) except -1

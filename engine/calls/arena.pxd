cimport cython

from engine.calls.record_view cimport RecordView
from engine.calls.states cimport Dialog

cdef Py_ssize_t CELL
cdef unsigned int C_RETRANSMISSION
cdef unsigned long long MOST_COPIES
cdef Py_ssize_t FIRST_WORD
cdef unsigned long long REPEAT_NS
cdef unsigned long long MIX
cdef Py_ssize_t MASK_EIGHT
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long MASK48
cdef Py_ssize_t MOST_TUNNELS

@cython.final
cdef class Arena:
    cdef RecordView view
    cdef readonly unsigned long long capacity
    cdef unsigned long long[::1] octets
    cdef readonly unsigned long long head
    cdef unsigned long long placed
    cdef readonly Py_ssize_t most_cells
    cdef unsigned long long[::1] cells
    cdef readonly Py_ssize_t used_cells
    cdef readonly Py_ssize_t free_cell
    cdef unsigned long long buckets
    cdef unsigned long long[::1] seen
    cdef dict numbers
    # Octets of each: type, VNI (little-endian), outer source and destination.
    cdef readonly list tunnels

    @cython.locals(need=cython.ulonglong, offset=cython.ulonglong)
    cdef Py_ssize_t place(self) except -2
    @cython.locals(
        view=RecordView, h=cython.ulonglong, word=Py_ssize_t, whole=Py_ssize_t, rest=cython.uint,
        value=cython.ulonglong, one=cython.ulonglong)
    cdef unsigned long long sign(self, Py_ssize_t position) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(bucket=Py_ssize_t, older=Py_ssize_t, last=cython.ulonglong, place=Py_ssize_t)
    cdef bint repeated(self, unsigned long long signature, unsigned long long timestamp) except -1
    cdef bint full(self) except -1
    @cython.locals(
        view=RecordView, cell=Py_ssize_t, base=Py_ssize_t, word=Py_ssize_t, wide=cython.ulonglong, flags=cython.uint)
    cdef bint keep(
        self, Dialog dialog, unsigned long long timestamp, Py_ssize_t position, unsigned long long signature,
        bint repeated) except -1
    @cython.locals(view=RecordView, number=cython.ulonglong, key=bytes)
    cdef unsigned long long tunnel_number(self) except? 0x5a5a5a5a5a5a5a5a
    cdef int link(self, Py_ssize_t cell, unsigned long long after) except -1
    @cython.locals(found=Py_ssize_t, cell=Py_ssize_t, _=Py_ssize_t)
    cdef int mark_copied(self, Dialog dialog, unsigned long long signature) except -1
    cdef int release(self, Dialog dialog) except -1
    @cython.locals(cell=Py_ssize_t, base=Py_ssize_t, position=Py_ssize_t, word=Py_ssize_t)
    cpdef list cells_of(self, Dialog dialog, Py_ssize_t start, Py_ssize_t count)
    @cython.locals(start=Py_ssize_t)
    cpdef octets_of(self, words)

cimport cython

from engine.shm cimport atomics

cdef Py_ssize_t LIMIT
cdef Py_ssize_t HEAD
cdef Py_ssize_t WRITTEN
cdef Py_ssize_t TAIL
cdef Py_ssize_t READ_POSITION
cdef Py_ssize_t NEW_LOST
cdef Py_ssize_t NEW_NEXT
cdef Py_ssize_t LOST
cdef Py_ssize_t NEXT_SEQUENCE
cdef Py_ssize_t REFUSED
cdef unsigned long long DATA
cdef unsigned long long RECORD_HEADER
cdef unsigned int PADDING
cdef unsigned long long MASK32
cdef unsigned long long MASK64

cdef class RingWriter:
    cdef public object region
    cdef unsigned char[::1] memory
    cdef unsigned long long[::1] words
    cdef readonly unsigned long long capacity
    cdef readonly unsigned long long limit
    cdef readonly unsigned long long head
    cdef readonly unsigned long long tail
    cdef readonly unsigned long long written
    cdef Py_ssize_t body
    cdef unsigned long long length
    cdef unsigned long long start
    cdef unsigned long long need
    # Places of head and tail in the data area
    cdef unsigned long long head_at
    cdef unsigned long long tail_at

    @cython.locals(position=cython.ulonglong, word=Py_ssize_t, first=cython.ulonglong)
    cpdef recover(self)
    @cython.locals(total=cython.ulonglong, place=cython.ulonglong, need=cython.ulonglong)
    cpdef Py_ssize_t reserve(self, Py_ssize_t length) except -2
    @cython.locals(tail=cython.ulonglong, oldest=cython.ulonglong, word=Py_ssize_t, first=cython.ulonglong)
    cdef int make_room(self, unsigned long long need) except -1
    cdef unsigned long long behind(self, unsigned long long octets) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(word=Py_ssize_t)
    cpdef int commit(self, unsigned long long kind, unsigned long long flags, unsigned long long timestamp) except -1
    @cython.locals(place=Py_ssize_t)
    cpdef bint write(self, unsigned int kind, unsigned int flags, unsigned long long timestamp, const unsigned char[::1] body) except -1

cdef class RingReader:
    cdef public object region
    cdef public object record
    cdef unsigned char[::1] memory
    cdef unsigned char[::1] scratch
    cdef unsigned long long[::1] words
    cdef unsigned long long capacity
    cdef unsigned long long end
    cdef unsigned long long longest
    cdef readonly unsigned long long position
    cdef readonly unsigned long long expected
    cdef readonly unsigned int kind
    cdef readonly unsigned int flags
    cdef readonly unsigned long long timestamp
    cdef readonly Py_ssize_t length
    cdef readonly unsigned long long sequence

    @cython.locals(
        head=cython.ulonglong, place=cython.ulonglong, word=Py_ssize_t, first=cython.ulonglong, total=cython.ulonglong,
        kind=cython.uint, sequence=cython.ulonglong, timestamp=cython.ulonglong, length=cython.ulonglong)
    cpdef bint next(self) except -1
    @cython.locals(tail=cython.ulonglong, head=cython.ulonglong)
    cdef unsigned long long reach(self) except? 0x5a5a5a5a5a5a5a5a
    cdef int go(self, unsigned long long position) except -1
    cdef bint taken(self, unsigned long long sequence) except -1
    @cython.locals(written=cython.ulonglong)
    cdef bint settle(self) except -1
    @cython.locals(lost=cython.ulonglong)
    cdef int lose(self, unsigned long long count, unsigned long long following) except -1
    cdef int copy(self, Py_ssize_t place, Py_ssize_t length) except -1
    cpdef list read(self, Py_ssize_t most)

cimport cython

from engine.parsers cimport octets

cdef unsigned long long BILLION
cdef Py_ssize_t FIRST_OCTETS
cdef unsigned int QUOTE
cdef unsigned int BACKSLASH
cdef unsigned int SPACE
cdef unsigned int DOT
cdef unsigned int DIGIT0
cdef unsigned long long MAPPED
cdef unsigned long long MASK32
cdef const unsigned char[::1] HEX
cdef const unsigned char[::1] ESCAPES
cdef const unsigned char[::1] WHITE

cdef class JsonText:
    cdef bytearray memory
    cdef unsigned char[::1] out
    cdef Py_ssize_t size
    cdef public Py_ssize_t end
    # Where strings are taken from
    cdef const unsigned char[::1] source
    cdef unsigned long long second
    cdef bytes second_text

    cdef int grow(self, Py_ssize_t need) except -1
    @cython.locals(end=Py_ssize_t)
    cpdef int give(self, write) except -1
    cdef int put(self, bytes text) except -1
    @cython.locals(place=Py_ssize_t, rest=cython.ulonglong)
    cdef int number(self, unsigned long long value) except -1
    @cython.locals(place=Py_ssize_t)
    cdef int digits(self, unsigned long long value, Py_ssize_t count) except -1
    @cython.locals(second=cython.ulonglong)
    cdef int timestamp(self, unsigned long long nanoseconds) except -1
    @cython.locals(start=Py_ssize_t, at=Py_ssize_t, place=Py_ssize_t, run=Py_ssize_t, octet=cython.uint)
    cdef int string(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(letter=cython.uint)
    cdef Py_ssize_t escape(self, Py_ssize_t at, unsigned int octet) except -1
    @cython.locals(at=Py_ssize_t, place=Py_ssize_t, run=Py_ssize_t, octet=cython.uint)
    cdef int line(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef Py_ssize_t blank(self, Py_ssize_t at) except -1
    @cython.locals(place=Py_ssize_t, to=Py_ssize_t)
    cdef int single(self, Py_ssize_t at) except -1
    cdef int foreign(self, Py_ssize_t begin, Py_ssize_t stop, bint one_line) except -1
    @cython.locals(octet=cython.uint)
    cdef bint is_blank(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef bint is_ipv4(self, unsigned long long low, unsigned long long high) except -1
    cdef int ipv4(self, unsigned long long high) except -1

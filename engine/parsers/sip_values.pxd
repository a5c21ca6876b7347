cimport cython

from engine.parsers cimport octets

# The contract of the readers of SIP values; their Python side is sip_values.py.

cdef const unsigned char[::1] KIND
cdef const unsigned char[::1] LOWER
cdef const unsigned char[::1] GMT
cdef const unsigned char[::1] PROTOCOL
cdef const unsigned char[::1] COOKIE
cdef const unsigned char[::1] BRANCH
cdef const unsigned char[::1] TAG

cdef Py_ssize_t CONTACT
cdef Py_ssize_t NO_SLOT
cdef Py_ssize_t VIA
cdef Py_ssize_t VIA_BRANCH

cdef unsigned int DIGIT
cdef unsigned int E_BRANCH
cdef unsigned int E_DATE
cdef unsigned int E_MAX_FORWARDS
cdef unsigned int E_VIA_FORM
cdef unsigned int IN_CONTACT
cdef unsigned int IN_VIA
cdef unsigned int K_BRACKETS
cdef unsigned int K_CLOSE
cdef unsigned int K_EMPTY
cdef unsigned int K_NAME
cdef unsigned int K_QUOTE
cdef unsigned int K_SPACE
cdef unsigned int K_TEXT
cdef unsigned int K_URI
cdef unsigned int LWS
cdef unsigned int TOKEN
cdef unsigned int QUOTE
cdef unsigned int STAR
cdef unsigned int COMMA
cdef unsigned int COLON
cdef unsigned int SEMICOLON
cdef unsigned int LT
cdef unsigned int EQUALS
cdef unsigned int GT
cdef unsigned int QUESTION
cdef unsigned int BACKSLASH
cdef const unsigned char[::1] METHOD_BUCKETS
cdef const unsigned char[::1] METHOD_LENGTHS
cdef const unsigned char[::1] METHOD_NEXT
cdef const unsigned char[::1] METHOD_SPELLINGS
cdef Py_ssize_t STRIDE
cdef long long MAX_NUMBER

cdef class SipValues:
    cdef const unsigned char[::1] buf
    cdef public Py_ssize_t start
    cdef public unsigned int error
    # 64 offsets relative to start, -1 where absent (engine.shm.records.SLOTS)
    cdef readonly int[::1] slots

    cpdef attach(self, const unsigned char[::1] buf)
    cdef int fail(self, unsigned int error) except -1
    cdef int put(self, Py_ssize_t slot, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef bint has(self, Py_ssize_t slot) except -1
    cdef Py_ssize_t skip(self, Py_ssize_t place, Py_ssize_t stop) except -1
    @cython.locals(place=Py_ssize_t, value=cython.longlong)
    cdef long long number(self, Py_ssize_t begin, Py_ssize_t stop) except -2
    @cython.locals(index=Py_ssize_t)
    cdef bint same(self, Py_ssize_t begin, Py_ssize_t stop, Py_ssize_t other, Py_ssize_t other_stop) except -1
    @cython.locals(value=cython.longlong)
    cdef int max_forwards(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int date(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(index=Py_ssize_t)
    cdef bint begins(self, Py_ssize_t begin, Py_ssize_t stop, const unsigned char[::1] word) except -1
    @cython.locals(place=Py_ssize_t, finish=Py_ssize_t)
    cdef int via(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef Py_ssize_t quoted(self, Py_ssize_t place, Py_ssize_t stop) except -2
    @cython.locals(place=Py_ssize_t, left=Py_ssize_t)
    cdef int address(self, Py_ssize_t begin, Py_ssize_t stop, unsigned int group, Py_ssize_t slot) except -1
    @cython.locals(colon=cython.bint, octet=cython.uint)
    cdef Py_ssize_t left_bracket(self, Py_ssize_t place, Py_ssize_t stop) except -2
    @cython.locals(place=Py_ssize_t, finish=Py_ssize_t)
    cdef int bracketed(self, Py_ssize_t begin, Py_ssize_t stop, unsigned int group, Py_ssize_t slot) except -1
    @cython.locals(place=Py_ssize_t, octet=cython.uint)
    cdef int bare_uri(self, Py_ssize_t begin, Py_ssize_t stop, unsigned int group, Py_ssize_t slot) except -1
    cdef int uri(self, Py_ssize_t begin, Py_ssize_t finish, Py_ssize_t place, Py_ssize_t stop, unsigned int group, Py_ssize_t slot) except -1
    @cython.locals(begin=Py_ssize_t, finish=Py_ssize_t, value=Py_ssize_t, listed=cython.bint)
    cdef Py_ssize_t parameters(self, Py_ssize_t place, Py_ssize_t stop, unsigned int group, Py_ssize_t wanted) except -1
    @cython.locals(octet=cython.uint)
    cdef Py_ssize_t value_end(self, Py_ssize_t place, Py_ssize_t stop, unsigned int group) except -1
    cdef bint is_wanted(self, Py_ssize_t begin, Py_ssize_t finish, Py_ssize_t wanted) except -1
    @cython.locals(entry=Py_ssize_t, length=Py_ssize_t, base=Py_ssize_t, index=Py_ssize_t)
    cdef int method_number(self, Py_ssize_t begin, Py_ssize_t stop) except -1

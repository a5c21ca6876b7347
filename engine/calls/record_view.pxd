cimport cython

from engine.calls.states cimport Dialog, Facts
from engine.parsers cimport octets

cdef Py_ssize_t HEADER
cdef Py_ssize_t MESSAGE
cdef Py_ssize_t FIRST_SLOT
cdef unsigned int ABSENT
cdef Py_ssize_t REASON_PHRASE
cdef Py_ssize_t TO_TAG
cdef Py_ssize_t FROM_TAG
cdef Py_ssize_t VIA
cdef Py_ssize_t BRANCH
cdef Py_ssize_t CONTACT
cdef Py_ssize_t REASON
cdef Py_ssize_t EXPIRES
cdef Py_ssize_t SUBSCRIPTION_STATE
cdef unsigned int INVITE
cdef unsigned int ACK
cdef unsigned int BYE
cdef unsigned int REGISTER
cdef unsigned int SUBSCRIBE
cdef unsigned int NOTIFY
cdef int TAKE_REASON
cdef int CLEAR_REASON
cdef Py_ssize_t MOST_TEXT
cdef bytes COOKIE
cdef Py_ssize_t SCRATCH
cdef unsigned long long MIX
cdef unsigned long long MASK64

@cython.final
cdef class RecordView:
    cdef Facts facts
    cdef unsigned long long seed
    cdef bytearray own
    cdef readonly bytearray record
    cdef const unsigned char[::1] octets
    cdef const unsigned int[::1] ints
    cdef const unsigned long long[::1] words
    cdef Py_ssize_t size
    cdef Py_ssize_t first
    cdef Py_ssize_t last
    cdef unsigned int method
    cdef unsigned int status
    cdef unsigned int error

    cpdef attach(self, bytearray record)
    @cython.locals(length=Py_ssize_t)
    cpdef Py_ssize_t load(self, bytes body) except -1
    cdef int begin(self, Py_ssize_t length) except -1
    @cython.locals(start=cython.uint, end=cython.uint)
    cdef bint span(self, Py_ssize_t slot) except -1
    @cython.locals(whole=cython.ulonglong)
    cdef bytes cut(self)
    @cython.locals(h=cython.ulonglong, place=Py_ssize_t)
    cdef unsigned long long digest(self) except? 0x5a5a5a5a5a5a5a5a
    cdef unsigned long long hashed(self, Py_ssize_t slot) except? 0x5a5a5a5a5a5a5a5a
    cdef tuple defect(self, bytes call_id, unsigned long long timestamp)
    @cython.locals(facts=Facts, ports=cython.uint)
    cdef int read_facts(self, Dialog dialog, unsigned long long timestamp) except -1
    @cython.locals(facts=Facts, value=bytes)
    cdef int read_expires(self) except -1
    cdef int give_reason(self, Dialog dialog, int action) except -1

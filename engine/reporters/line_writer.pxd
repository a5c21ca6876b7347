cimport cython

from engine.reporters.sdp_lines cimport SdpLines

cdef Py_ssize_t SIP_MESSAGE
cdef Py_ssize_t FIRST_SLOT
cdef unsigned int ABSENT
cdef unsigned int ETHERNET
cdef unsigned int REASSEMBLED
cdef unsigned int SDP
cdef unsigned int TRUNCATED
cdef unsigned int COLON
cdef unsigned int QUOTE
cdef const unsigned char[::1] HEX
cdef Py_ssize_t METHOD
cdef Py_ssize_t URI
cdef Py_ssize_t REASON_PHRASE
cdef Py_ssize_t CALL_ID
cdef Py_ssize_t FROM
cdef Py_ssize_t FROM_URI
cdef Py_ssize_t FROM_TAG
cdef Py_ssize_t TO
cdef Py_ssize_t TO_URI
cdef Py_ssize_t TO_TAG
cdef Py_ssize_t CSEQ_METHOD
cdef Py_ssize_t BODY

@cython.final
cdef class LineWriter(SdpLines):
    cdef bytes task
    cdef bytes labels
    cdef bint plain_labels
    cdef object interface
    cdef dict interfaces
    cdef list methods
    cdef list protocols
    cdef list keys
    cdef const unsigned char[::1] places
    cdef bytearray record
    cdef const unsigned int[::1] ints
    cdef const unsigned long long[::1] words
    # What the last span() found, in the record
    cdef Py_ssize_t first
    cdef Py_ssize_t last
    cdef unsigned int status
    cdef unsigned int method
    cdef unsigned int limit

    cpdef attach(self, bytearray record)
    cpdef bint write(self, unsigned long long timestamp, Py_ssize_t length) except -1
    @cython.locals(ports=cython.ulonglong)
    cdef int envelope(self) except -1
    @cython.locals(facts=cython.ulonglong, count=cython.uint)
    cdef int network(self) except -1
    cdef bytes interface_text(self, unsigned int number)
    @cython.locals(at=Py_ssize_t, index=Py_ssize_t, octet=cython.uint)
    cdef int mac(self, Py_ssize_t place) except -1
    @cython.locals(start=cython.uint, stop=cython.uint)
    cdef bint span(self, Py_ssize_t slot) except -1
    cdef int one(self, Py_ssize_t slot) except -1
    cdef int filled(self, Py_ssize_t slot) except -1
    cdef int either(self, Py_ssize_t slot, Py_ssize_t other) except -1
    cdef int method_name(self) except -1
    cdef int sip_labels(self) except -1
    @cython.locals(flags=cython.uint, error=cython.uint, index=Py_ssize_t)
    cdef int payload(self) except -1
    cdef int start_line(self) except -1

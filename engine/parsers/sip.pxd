cimport cython

from engine.parsers cimport octets
from engine.parsers.sip_values cimport SipValues

# The contract of the SIP scanner; its Python side is sip.py, its tables are those of sip_grammar.py.

cdef const unsigned char[::1] BUCKETS
cdef const unsigned char[::1] COMPACT
cdef const unsigned char[::1] KIND
cdef const unsigned char[::1] LENGTHS
cdef const unsigned char[::1] LOWER
cdef const unsigned char[::1] NEXT
cdef const unsigned char[::1] SPELLINGS
cdef const unsigned char[::1] TARGETS
cdef const unsigned char[::1] MULTIPART
cdef const unsigned char[::1] SDP_TYPE
cdef const unsigned char[::1] SDP_BEGIN
cdef const unsigned char[::1] JAK

cdef Py_ssize_t BODY
cdef Py_ssize_t CALL_ID
cdef Py_ssize_t CONTACT
cdef Py_ssize_t CONTENT_LENGTH
cdef Py_ssize_t CONTENT_TYPE
cdef Py_ssize_t CSEQ_METHOD
cdef Py_ssize_t DATE
cdef Py_ssize_t FROM
cdef Py_ssize_t METHOD
cdef Py_ssize_t NO_SLOT
cdef Py_ssize_t REASON_PHRASE
cdef Py_ssize_t STATUS
cdef Py_ssize_t STRIDE
cdef Py_ssize_t TO
cdef Py_ssize_t URI
cdef Py_ssize_t VIA

cdef unsigned int DIGIT
cdef unsigned int E_CSEQ_FORM
cdef unsigned int E_CSEQ_METHOD
cdef unsigned int E_CSEQ_NUMBER
cdef unsigned int E_LENGTH_FORM
cdef unsigned int E_LENGTH_LARGE
cdef unsigned int E_LENGTH_NEGATIVE
cdef unsigned int E_LINE_END
cdef unsigned int E_LINE_SPACES
cdef unsigned int E_NAME
cdef unsigned int E_NO_CALL_ID
cdef unsigned int E_NO_CSEQ
cdef unsigned int E_NO_END
cdef unsigned int E_NO_FROM
cdef unsigned int E_NO_TO
cdef unsigned int E_NO_VIA
cdef unsigned int E_STATUS
cdef unsigned int E_TOO_MANY
cdef unsigned int E_TWO_CALL_ID
cdef unsigned int E_TWO_CSEQ
cdef unsigned int E_TWO_FROM
cdef unsigned int E_TWO_LENGTHS
cdef unsigned int E_TWO_TO
cdef unsigned int E_URI_BRACKETS
cdef unsigned int E_URI_HEADERS
cdef unsigned int E_URI_SCHEME
cdef unsigned int E_URI_SPACES
cdef unsigned int E_VERSION
cdef unsigned int IN_CONTACT
cdef unsigned int IN_FROM
cdef unsigned int IN_TO
cdef unsigned int LWS
cdef unsigned int TOKEN
cdef unsigned int S_COMPACT
cdef unsigned int S_SDP
cdef unsigned int S_TRUNCATED
cdef unsigned int MAX_HEADERS
cdef unsigned int UNSTATED
cdef unsigned int HT
cdef unsigned int LF
cdef unsigned int CR
cdef unsigned int SP
cdef unsigned int MINUS
cdef unsigned int SLASH
cdef unsigned int COLON
cdef unsigned int SEMICOLON
cdef unsigned int LT
cdef unsigned int QUESTION
cdef unsigned int AT
cdef Py_ssize_t MAX_MESSAGE
cdef Py_ssize_t MAX_METHOD
cdef Py_ssize_t MAX_KEEPALIVE
cdef long long MAX_CSEQ

@cython.final
cdef class SipParser(SipValues):
    cdef public unsigned int status
    cdef public unsigned int method
    cdef public unsigned int headers
    cdef public unsigned int flags
    cdef public unsigned int cseq
    # Behind the body (Content-Length, as far as it is there); absolute, as start is, which is as given
    cdef public Py_ssize_t end
    # The SDP, alone or as one part of a multipart body, relative to start; -1 where there is none
    cdef public Py_ssize_t sdp_start
    cdef public Py_ssize_t sdp_end
    # First line, absolute: its first octet, its end, the end of its first word, the version of a request
    cdef Py_ssize_t line
    cdef Py_ssize_t line_end
    cdef Py_ssize_t word_end
    cdef Py_ssize_t version
    cdef Py_ssize_t limit
    # Content-Length, -1 where absent or no number
    cdef long long length

    @cython.locals(place=Py_ssize_t, octet=cython.uint)
    cpdef bint is_keepalive(self, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef bint looks_like(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(kind=int, body=Py_ssize_t)
    cpdef int parse(self, Py_ssize_t start, Py_ssize_t end) except -1

    @cython.locals(place=Py_ssize_t, stop=Py_ssize_t, octet=cython.uint)
    cdef int first_line(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(place=Py_ssize_t)
    cdef int is_response(self, Py_ssize_t end) except -1
    cdef bint is_version(self, Py_ssize_t place) except -1
    @cython.locals(begin=Py_ssize_t, stop=Py_ssize_t)
    cdef int request_line(self) except -1
    @cython.locals(place=Py_ssize_t, colon=cython.bint, query=cython.bint, octet=cython.uint)
    cdef int request_uri(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(place=Py_ssize_t, begin=Py_ssize_t, stop=Py_ssize_t, code=cython.uint)
    cdef int status_line(self) except -1
    @cython.locals(name_end=Py_ssize_t, colon=Py_ssize_t, stop=Py_ssize_t)
    cdef Py_ssize_t header_lines(self, Py_ssize_t place, Py_ssize_t end) except -2
    @cython.locals(entry=Py_ssize_t, length=Py_ssize_t, base=Py_ssize_t, index=Py_ssize_t)
    cdef Py_ssize_t identify(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int header(self, Py_ssize_t slot, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int again(self, Py_ssize_t slot) except -1
    @cython.locals(digits=Py_ssize_t, method=Py_ssize_t, method_end=Py_ssize_t, value=cython.longlong)
    cdef int cseq_value(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int content_length(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int complete(self) except -1
    @cython.locals(begin=Py_ssize_t, stop=Py_ssize_t)
    cdef int content(self, Py_ssize_t body, Py_ssize_t end) except -1
    cdef bint is_sdp(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(stop=Py_ssize_t, sdp=Py_ssize_t, in_head=cython.bint, wanted=cython.bint)
    cdef int multipart(self, Py_ssize_t place, Py_ssize_t end) except -1
    @cython.locals(colon=Py_ssize_t, name_end=Py_ssize_t)
    cdef bint names_sdp(self, Py_ssize_t place, Py_ssize_t stop) except -1

cimport cython

from engine.json_text cimport JsonText
from engine.parsers cimport octets

cdef unsigned int TAB
cdef unsigned int LF
cdef unsigned int CR
cdef unsigned int SPACE
cdef unsigned int SLASH
cdef unsigned int DIGIT0
cdef unsigned int DIGIT9
cdef unsigned int EQUALS
cdef unsigned int LETTER_A
cdef unsigned int LETTER_C
cdef unsigned int LETTER_M
cdef Py_ssize_t MOST_LINES
cdef Py_ssize_t MOST_MEDIA
cdef Py_ssize_t MOST_CODECS
cdef tuple DIRECTIONS
cdef bytes RTPMAP

cdef class SdpLines(JsonText):
    # The word that word() found, and the parts of the open media description, in the source
    cdef Py_ssize_t word_first
    cdef Py_ssize_t word_last
    cdef Py_ssize_t type_first
    cdef Py_ssize_t type_last
    cdef Py_ssize_t port_first
    cdef Py_ssize_t port_last
    cdef Py_ssize_t profile_first
    cdef Py_ssize_t profile_last
    cdef Py_ssize_t formats
    cdef Py_ssize_t line_end
    cdef Py_ssize_t address_first
    cdef Py_ssize_t address_last
    cdef Py_ssize_t session_first
    cdef Py_ssize_t session_last
    cdef Py_ssize_t direction
    cdef Py_ssize_t session_direction
    cdef long long[::1] numbers

    @cython.locals(
        front=Py_ssize_t, count=Py_ssize_t, lines=Py_ssize_t, section=Py_ssize_t, place=Py_ssize_t, after=Py_ssize_t,
        last=Py_ssize_t, octet=cython.uint)
    cdef bint media(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(place=Py_ssize_t, octet=cython.uint)
    cdef bint is_simple(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef bint word(self, Py_ssize_t place, Py_ssize_t stop) except -1
    cdef bint is_media(self, Py_ssize_t place, Py_ssize_t stop) except -1
    cdef int begin_media(self, Py_ssize_t place, Py_ssize_t stop) except -1
    cdef Py_ssize_t before_slash(self) except -1
    cdef int connection(self, Py_ssize_t place, Py_ssize_t stop) except -1
    @cython.locals(number=Py_ssize_t)
    cdef int attribute(self, Py_ssize_t place) except -1
    @cython.locals(index=Py_ssize_t)
    cdef bint begins(self, Py_ssize_t place, bytes text) except -1
    @cython.locals(first=cython.bint)
    cdef bint end_media(self, Py_ssize_t count, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(value=cython.uint, place=Py_ssize_t, octet=cython.uint)
    cdef int port(self) except -1
    @cython.locals(count=Py_ssize_t, place=Py_ssize_t, after=Py_ssize_t, last=Py_ssize_t, first=Py_ssize_t, space=Py_ssize_t)
    cdef bint codecs(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(number=Py_ssize_t, start=Py_ssize_t, index=Py_ssize_t)
    cdef bint is_known(self, Py_ssize_t count, Py_ssize_t first, Py_ssize_t last) except -1

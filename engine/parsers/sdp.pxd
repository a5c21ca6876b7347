cimport cython

from engine.parsers cimport octets
from engine.parsers.address cimport AddressReader

# The contract of the SDP scanner; its Python side is sdp.py, flags and limits are those of sdp_grammar.py.
# Media k has its figures at index k, its codecs at k * MAX_CODECS ... k * MAX_CODECS + codecs[k].

cdef const unsigned char[::1] AUDIO
cdef const unsigned char[::1] VIDEO
cdef const unsigned char[::1] IMAGE
cdef const unsigned char[::1] APPLICATION
cdef const unsigned char[::1] TEXT
cdef const unsigned char[::1] RTP
cdef const unsigned char[::1] TCP
cdef const unsigned char[::1] TLS
cdef const unsigned char[::1] AVPF
cdef const unsigned char[::1] SAVP
cdef const unsigned char[::1] SAVPF
cdef const unsigned char[::1] DTLS
cdef const unsigned char[::1] UDPTL
cdef const unsigned char[::1] RTPMAP
cdef const unsigned char[::1] RTCP
cdef const unsigned char[::1] RTCP_MUX
cdef const unsigned char[::1] PTIME
cdef const unsigned char[::1] SENDRECV
cdef const unsigned char[::1] SENDONLY
cdef const unsigned char[::1] RECVONLY
cdef const unsigned char[::1] INACTIVE

cdef unsigned int M_APPLICATION
cdef unsigned int M_AUDIO
cdef unsigned int M_FEEDBACK
cdef unsigned int M_HELD
cdef unsigned int M_IMAGE
cdef unsigned int M_MULTICAST
cdef unsigned int M_NO_ADDRESS
cdef unsigned int M_RECV
cdef unsigned int M_REJECTED
cdef unsigned int M_RTCP
cdef unsigned int M_RTCP_MUX
cdef unsigned int M_RTP
cdef unsigned int M_SECURE
cdef unsigned int M_SEND
cdef unsigned int M_TCP
cdef unsigned int M_TEXT
cdef unsigned int M_UDPTL
cdef unsigned int M_UNSPECIFIED
cdef unsigned int M_VIDEO
cdef unsigned int E_ADDRESS
cdef unsigned int E_FORMAT
cdef unsigned int E_LIMIT
cdef unsigned int E_LINE
cdef unsigned int E_MEDIA
cdef unsigned int E_PORT
cdef unsigned int E_RTPMAP
cdef unsigned int E_VERSION
cdef unsigned int MASK32
cdef unsigned int ADDRESS_CLEAR
cdef unsigned int DIRECTION_CLEAR
cdef unsigned int HT
cdef unsigned int LF
cdef unsigned int CR
cdef unsigned int SP
cdef unsigned int MINUS
cdef unsigned int SLASH
cdef unsigned int ZERO
cdef unsigned int COLON
cdef unsigned int EQUALS
cdef unsigned int MAX_MEDIA
cdef Py_ssize_t MAX_CODECS
cdef long long MAX_NUMBER
cdef int SESSION
cdef int BEYOND
cdef unsigned int NO_TYPE

cdef class SdpParser:
    cdef readonly const unsigned char[::1] buf
    cdef public unsigned int count
    cdef public unsigned int over_limit
    cdef public unsigned int codecs_over_limit
    cdef public unsigned int error
    cdef public unsigned int session_version
    # Little-endian words of the 16-octet address; both 0 where M_NO_ADDRESS
    cdef readonly unsigned long long[::1] address0
    cdef readonly unsigned long long[::1] address1
    # Where RTCP goes: that of a=rtcp, else the media's
    cdef readonly unsigned long long[::1] rtcp_address0
    cdef readonly unsigned long long[::1] rtcp_address1
    cdef readonly unsigned int[::1] port
    cdef readonly unsigned int[::1] port_count
    cdef readonly unsigned int[::1] rtcp_port
    cdef readonly unsigned int[::1] flags
    cdef readonly unsigned int[::1] ptime
    cdef readonly unsigned int[::1] codecs
    cdef readonly unsigned int[::1] codec_type
    cdef readonly unsigned int[::1] codec_clock
    # Encoding name, upper case, zero padded, as two little-endian words: 16 octets
    cdef readonly unsigned long long[::1] codec_name0
    cdef readonly unsigned long long[::1] codec_name1
    # By payload type, 128 each
    cdef readonly unsigned long long[::1] static_name0
    cdef readonly unsigned long long[::1] static_name1
    cdef readonly unsigned int[::1] static_clock
    # Absolute offsets of the words for type and transport
    cdef readonly int[::1] type_start
    cdef readonly int[::1] type_end
    cdef readonly int[::1] transport_start
    cdef readonly int[::1] transport_end
    cdef AddressReader reader
    cdef int current
    cdef bint began
    cdef unsigned long long session0
    cdef unsigned long long session1
    cdef unsigned int session_flags
    cdef unsigned long long found0
    cdef unsigned long long found1
    cdef unsigned int found_flags
    cdef Py_ssize_t place

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(stop=Py_ssize_t, finish=Py_ssize_t, media=Py_ssize_t)
    cpdef int parse(self, Py_ssize_t start, Py_ssize_t end) except -1

    cdef int fail(self, unsigned int error) except -1
    cdef int line(self, unsigned int kind, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef Py_ssize_t word_end(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef Py_ssize_t next_word(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(value=cython.longlong, place=Py_ssize_t)
    cdef long long number(self, Py_ssize_t begin, Py_ssize_t stop) except -2
    @cython.locals(index=Py_ssize_t, octet=cython.uint)
    cdef bint is_word(self, Py_ssize_t begin, Py_ssize_t stop, const unsigned char[::1] word) except -1
    @cython.locals(version=cython.ulonglong)
    cdef int origin(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int connection(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(media=Py_ssize_t, stop_word=Py_ssize_t)
    cdef int media(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef unsigned int media_type(self, Py_ssize_t begin, Py_ssize_t stop) except? 0xFFFF
    @cython.locals(media=Py_ssize_t, port=cython.longlong, ports=cython.longlong)
    cdef int media_port(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(flags=cython.uint, part=Py_ssize_t)
    cdef int transport(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(media=Py_ssize_t, rtp=cython.uint, stop_word=Py_ssize_t, payload_type=cython.longlong, codec=Py_ssize_t)
    cdef int formats(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(word0=cython.ulonglong, word1=cython.ulonglong, octet=cython.ulonglong, place=Py_ssize_t)
    cdef int codec_name(self, Py_ssize_t codec, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(name=Py_ssize_t, letter=cython.uint, ptime=cython.longlong)
    cdef int attribute(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int direction(self, unsigned int flags) except -1
    @cython.locals(payload_type=cython.longlong, clock=cython.longlong, finish=Py_ssize_t, first=Py_ssize_t, codec=Py_ssize_t)
    cdef int rtpmap(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(media=Py_ssize_t, port=cython.longlong)
    cdef int rtcp(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    @cython.locals(flags=cython.uint, port=cython.uint)
    cdef int settle(self, Py_ssize_t media) except -1
    @cython.locals(finish=Py_ssize_t)
    cdef int address(self, Py_ssize_t begin, Py_ssize_t stop) except -1

cimport cython

# The contract of the SDP scanner; its Python side is sdp.py. Media k has its figures at index k,
# its codecs at k * MAX_CODECS ... k * MAX_CODECS + codecs[k].

cdef class SdpParser:
    cdef const unsigned char[::1] buf
    cdef public unsigned int count
    cdef public unsigned int over_limit
    cdef public unsigned int error
    cdef public unsigned int session_version
    cdef unsigned long long[::1] address0
    cdef unsigned long long[::1] address1
    cdef unsigned int[::1] port
    cdef unsigned int[::1] rtcp_port
    cdef unsigned int[::1] flags
    cdef unsigned int[::1] codecs
    cdef unsigned int[::1] codec_type
    cdef unsigned int[::1] codec_clock
    # Encoding name, upper case, zero padded, as two little-endian words: 16 octets
    cdef unsigned long long[::1] codec_name0
    cdef unsigned long long[::1] codec_name1

    cpdef attach(self, const unsigned char[::1] buf)
    cpdef int parse(self, Py_ssize_t start, Py_ssize_t end) except -1

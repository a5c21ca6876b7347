cimport cython

from engine.decode.classifier cimport Decoder
from engine.pipeline.stage cimport Stage
from engine.shm cimport atomics

cdef int V_MALFORMED
cdef int V_UDP
cdef int V_TCP
cdef int V_ICMP
cdef int V_FRAGMENT
cdef unsigned int RTCP_VERDICT
cdef unsigned int OUTGOING
cdef unsigned int DUPLICATE
cdef unsigned int TRUNCATED
cdef unsigned int LF
cdef unsigned int K_RTCP
cdef Py_ssize_t W_PACKET_TIME
cdef Py_ssize_t W_LEFT_OUT
cdef Py_ssize_t MOST_NESTED

cdef Py_ssize_t C_RECEIVED
cdef Py_ssize_t C_OUTPUT
cdef Py_ssize_t C_HANDLED
cdef Py_ssize_t C_FILTERED
cdef Py_ssize_t C_MALFORMED
cdef Py_ssize_t C_FRAGMENTS
cdef Py_ssize_t C_DUPLICATES
cdef Py_ssize_t C_BYTES
cdef Py_ssize_t C_WIRE_BYTES
cdef Py_ssize_t C_SIP_MESSAGES
cdef Py_ssize_t C_SIP_REQUESTS
cdef Py_ssize_t C_SIP_RESPONSES
cdef Py_ssize_t C_SIP_MALFORMED
cdef Py_ssize_t C_SIP_TRUNCATED
cdef Py_ssize_t C_SIP_KEEPALIVES
cdef Py_ssize_t C_RTP_PACKETS
cdef Py_ssize_t C_RTP_BY_SDP
cdef Py_ssize_t C_RTP_BY_HEURISTIC
cdef Py_ssize_t C_RTP_MALFORMED
cdef Py_ssize_t C_RTCP_PACKETS
cdef Py_ssize_t C_RTCP_MALFORMED
cdef Py_ssize_t C_EVIDENCE
cdef Py_ssize_t C_EVIDENCE_OVERSIZE
cdef Py_ssize_t C_OUTPUT_OVERSIZE
cdef Py_ssize_t C_OUTPUT_SIP
cdef Py_ssize_t C_OUTPUT_RTP
cdef Py_ssize_t C_OUTPUT_RTCP
cdef Py_ssize_t C_TCP_SIP_PORT
cdef Py_ssize_t C_RTP_HANDLED
cdef Py_ssize_t C_RTCP_HANDLED
cdef Py_ssize_t C_SAMPLED
cdef Py_ssize_t C_TUNNEL_DEPTH

cdef class Pipeline(Stage):
    @cython.locals(verdict=int)
    cpdef int packet(
        self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned long long timestamp,
        unsigned int interface, unsigned int link_type, unsigned int vlan, unsigned int packet_type) except -1
    cdef int route(self, int verdict) except -1
    @cython.locals(now=cython.ulonglong, whole=bytes, verdict=int, _=Py_ssize_t)
    cdef int fragment(self) except -1
    @cython.locals(first=cython.uint, slot=Py_ssize_t, kind=int)
    cdef int udp(self) except -1
    cdef int media_result(self, int kind) except -1
    cdef int rtp(self) except -1
    cdef int rtcp(self) except -1
    @cython.locals(kind=int)
    cdef int sip_message(self) except -1
    @cython.locals(first=Py_ssize_t, end=Py_ssize_t, last=Py_ssize_t, kind=int)
    cdef int scan(self) except -1
    cdef int sip_seen(self, int kind) except -1
    cdef int copy_seen(self, int verdict) except -1

cimport cython

from engine.capture.packet_filter cimport PacketFilter
from engine.capture.sink cimport PacketSink
from engine.decode.classifier cimport Decoder
from engine.decode.fragments cimport Reassembly
from engine.parsers.sdp cimport SdpParser
from engine.parsers.sip cimport SipParser
from engine.pipeline.copies cimport CopyTable
from engine.pipeline.media cimport MediaPath
from engine.pipeline.reports cimport RtpReports
from engine.pipeline.verdicts cimport Verdicts
from engine.pipeline.writer cimport PacketFacts, RecordWriter
from engine.shm cimport atomics
from engine.shm.flows cimport FlowTable
from engine.shm.streams cimport StreamTable

cdef int V_UDP
cdef int V_FRAGMENT
cdef unsigned int HARDWARE_ETHERNET
cdef unsigned int HARDWARE_NONE
cdef unsigned long long NO_FLOW
cdef unsigned int K_RAW
cdef unsigned int K_ICMP
cdef unsigned int K_PLUGIN
cdef unsigned int RTCP_VERDICT
cdef unsigned long long MASK64
cdef Py_ssize_t W_LEFT_OUT
cdef Py_ssize_t FIRST_RULE
cdef unsigned int DROP
cdef unsigned long long ALL
cdef Py_ssize_t STREAM_SWEEP
cdef Py_ssize_t FLOW_SWEEP

cdef Py_ssize_t C_OUTPUT
cdef Py_ssize_t C_HANDLED
cdef Py_ssize_t C_UNMATCHED
cdef Py_ssize_t C_ICMP_ERRORS
cdef Py_ssize_t C_ICMP_QUOTED_SIP
cdef Py_ssize_t C_FLOWS_EXPIRED
cdef Py_ssize_t C_FLOWS_YIELDED
cdef Py_ssize_t C_STREAMS_EXPIRED
cdef Py_ssize_t C_EVIDENCE
cdef Py_ssize_t C_EVIDENCE_OVERSIZE
cdef Py_ssize_t C_OUTPUT_OVERSIZE
cdef Py_ssize_t C_OUTPUT_RAW
cdef Py_ssize_t C_PLUGIN_ERRORS
cdef Py_ssize_t C_FILTER_RECHECKED
cdef Py_ssize_t C_OUTPUT_PLUGIN
cdef Py_ssize_t C_SAMPLED
cdef Py_ssize_t C_LABELS_REFUSED
cdef Py_ssize_t C_NOT_WANTED

cdef class Stage(PacketSink):
    cdef const unsigned char[::1] buf
    cdef readonly object buffer
    cdef unsigned long long[::1] words
    cdef readonly Decoder decoder
    cdef Decoder quoted
    cdef readonly FlowTable flows
    cdef readonly StreamTable streams
    cdef readonly MediaPath media
    cdef readonly SipParser sip
    cdef readonly SdpParser sdp
    cdef readonly PacketFacts facts
    cdef RecordWriter output
    cdef RecordWriter evidence
    cdef bint sending
    cdef bint witnessing
    cdef readonly Reassembly reassembly
    cdef object chain
    cdef dict filters
    cdef readonly object foreign
    # engine.pipeline.plugins, where a plugin sees packets
    cdef object views
    cdef bint asking
    cdef unsigned long long[::1] ports
    cdef bint parse_sip
    cdef bint parse_rtp
    cdef bint track_media
    cdef bint rtp_raw
    cdef bint forward
    cdef bint deduplicate
    cdef bint frame_numbers
    cdef bint filtering
    cdef bint by_ssrc
    cdef Verdicts verdicts
    # Of packets that no parser wants, where it never changes (0: not known)
    cdef unsigned int raw_code
    cdef RtpReports reports
    cdef bint summing
    cdef bint figures
    cdef unsigned int loopback
    cdef Py_ssize_t silent_sweep
    cdef CopyTable copies
    # When the wall clock was stepped last, on the task's clock
    cdef unsigned long long stepped
    cdef unsigned long long stream_ttl

    cpdef attach(self, const unsigned char[::1] buf)
    cdef bint on_sip_port(self) except -1
    cdef int outcome(self, Py_ssize_t counter) except -1
    @cython.locals(one=PacketFilter, passes=cython.bint)
    cdef bint matches(self, bytes whole, Py_ssize_t network) except -1
    cdef int witness(
        self, unsigned int kind, Py_ssize_t start, Py_ssize_t end, unsigned long long slot,
        unsigned long long generation) except -1
    @cython.locals(slot=Py_ssize_t, key=cython.ulonglong, code=cython.uint)
    cdef bint passes(self, unsigned int payload_type) except -1
    @cython.locals(reason=cython.uint)
    cdef bint decided(self, unsigned int code) except -1
    @cython.locals(code=cython.uint)
    cdef unsigned int ask_flow(self, Py_ssize_t slot, unsigned long long key, unsigned int payload_type) except? 0
    @cython.locals(code=cython.uint)
    cdef bint ask_sip(self) except -1
    @cython.locals(code=cython.uint)
    cdef bint passes_raw(self) except -1
    cdef bint left_out(self) except -1
    @cython.locals(at=Py_ssize_t, end=Py_ssize_t)
    cdef int icmp(self) except -1
    cdef bint icmp_error(self, unsigned int kind) except -1
    @cython.locals(verdict=int, first=Py_ssize_t, last=Py_ssize_t)
    cdef bint quotes_sip(self, Py_ssize_t at, Py_ssize_t end) except -1
    @cython.locals(place=Py_ssize_t)
    cdef int unmatched(self) except -1
    @cython.locals(place=Py_ssize_t)
    cdef Py_ssize_t ask_plugins(self) except -1
    cpdef int moment(self, unsigned long long now, long long shift) except -1
    cpdef int idle(self, unsigned long long now) except -1
    cpdef bint finish(self) except -1

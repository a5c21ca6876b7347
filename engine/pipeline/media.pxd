cimport cython

from engine.decode.classifier cimport Decoder
from engine.parsers.rtp cimport RtpParser
from engine.parsers.sdp cimport SdpParser
from engine.parsers.sip cimport SipParser
from engine.pipeline.candidates cimport Candidates
from engine.pipeline.rtcp cimport RtcpPath
from engine.shm.flows cimport FlowTable
from engine.shm.streams cimport StreamTable

cdef Py_ssize_t C_STREAMS_FULL
cdef Py_ssize_t C_FLOWS_FULL
cdef Py_ssize_t C_FLOW_CONFLICTS
cdef Py_ssize_t C_SDP_MEDIA
cdef Py_ssize_t C_SDP_REJECTED
cdef Py_ssize_t C_SDP_OVER_LIMIT
cdef Py_ssize_t C_RTP_PACKETS
cdef Py_ssize_t C_RTP_BY_HEURISTIC
cdef unsigned int NOT_FOR_MEDIA
cdef unsigned int RTP_MEDIA
cdef unsigned int UDPTL
cdef unsigned long long FAX
cdef unsigned int RTCP_MUX
cdef unsigned int DISCARD
cdef Py_ssize_t CODECS_OF_MEDIA
cdef Py_ssize_t CALL_ID_SLOT
cdef unsigned int SNAPPED
cdef unsigned int BYE
cdef unsigned int INVITE
cdef unsigned int NEGOTIATING
cdef unsigned long long ANY_VLAN
cdef unsigned long long EVENT_NAME
cdef unsigned long long MASK32
cdef unsigned long long MASK64
cdef const unsigned int[::1] CLOCKS
cdef const unsigned long long[::1] NAMES
# Places in a flow entry and in a stream entry (engine.shm.flows, engine.shm.streams)
cdef Py_ssize_t FLOW_STREAM
cdef Py_ssize_t FLOW_CALL
cdef Py_ssize_t STREAM_CODEC
cdef Py_ssize_t STREAM_CODEC_OF
cdef Py_ssize_t STREAM_PORTS
cdef unsigned long long EVENT_KIND

@cython.final
cdef class MediaPath:
    cdef unsigned long long[::1] counters
    cdef FlowTable flows
    cdef StreamTable streams
    cdef readonly RtpParser parser
    cdef readonly RtcpPath rtcp
    cdef const unsigned char[::1] buf
    cdef unsigned long long ttl
    cdef bint heuristic
    cdef Candidates candidates
    # Of the packet that packet() or guess() took
    cdef readonly Py_ssize_t flow
    cdef readonly unsigned long long flow_generation
    cdef readonly Py_ssize_t stream
    cdef readonly Py_ssize_t entry
    cdef readonly unsigned long long stream_generation
    cdef readonly unsigned long long found_by

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(kind=int, codec=cython.ulonglong)
    cdef int packet(self, Decoder decoder, Py_ssize_t slot, unsigned long long now) except -1
    @cython.locals(at=Py_ssize_t, unit=Py_ssize_t)
    cdef int telephone_event(self, unsigned long long clock, unsigned long long now) except -1
    cdef int control(self, Decoder decoder, unsigned long long now) except -1
    @cython.locals(ports=cython.ulonglong, tag=cython.ulonglong)
    cdef bint beside_fax(self, Decoder decoder, int kind) except -1
    cdef unsigned long long flow_tag(self, Decoder decoder) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(tag=cython.ulonglong, stream=Py_ssize_t)
    cdef Py_ssize_t enter(self, Decoder decoder, unsigned long long ports, unsigned long long now) except -2
    @cython.locals(place=Py_ssize_t)
    cdef int another(self, Py_ssize_t stream, Py_ssize_t before, unsigned long long ports) except -1
    @cython.locals(
        ports=cython.ulonglong, word=Py_ssize_t, cached=cython.ulonglong, stream=Py_ssize_t, codec_of=cython.ulonglong,
        entry=Py_ssize_t, before=Py_ssize_t)
    cdef Py_ssize_t stream_of(self, Decoder decoder, Py_ssize_t slot, unsigned long long now) except -2
    @cython.locals(
        place=Py_ssize_t, clock=cython.ulonglong, kind=cython.ulonglong, name0=cython.ulonglong,
        name1=cython.ulonglong, word=cython.ulonglong)
    cdef int relabel(
        self, Py_ssize_t slot, Py_ssize_t stream, unsigned long long payload_type, unsigned long long codec_of) except -1
    @cython.locals(slot=Py_ssize_t, kind=int, tag=cython.ulonglong, place=Py_ssize_t)
    cdef int guess(self, Decoder decoder, unsigned long long now) except -1
    @cython.locals(slot=Py_ssize_t, stream=Py_ssize_t)
    cdef Py_ssize_t promote(self, Decoder decoder, Py_ssize_t place, unsigned long long now) except -2
    @cython.locals(_=Py_ssize_t, count=Py_ssize_t, word=cython.ulonglong)
    cdef int count_held(self, Py_ssize_t place) except -1
    cdef bint negotiates(self, SipParser sip) except -1
    @cython.locals(index=Py_ssize_t, outcome=int, port=cython.ulonglong)
    cdef int register(self, SipParser sip, SdpParser sdp, unsigned long long domain, unsigned long long now) except -1
    @cython.locals(flags=cython.uint)
    cdef bint wanted(self, SdpParser sdp, Py_ssize_t index) except -1
    @cython.locals(other=Py_ssize_t, codec=Py_ssize_t, place=Py_ssize_t)
    cdef int stage_codecs(self, SdpParser sdp, Py_ssize_t index) except -1
    @cython.locals(port=cython.uint)
    cdef bint own_rtcp(self, SdpParser sdp, Py_ssize_t index) except -1
    @cython.locals(outcome=int, steady=cython.ulonglong)
    cdef int endpoint(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port, bint rtcp,
        Py_ssize_t index, unsigned long long domain, unsigned long long now) except -1
    @cython.locals(first=Py_ssize_t)
    cdef bint stage_call(self, SipParser sip) except -1
    @cython.locals(over=cython.bint)
    cdef int end_of_call(self, SipParser sip) except -1

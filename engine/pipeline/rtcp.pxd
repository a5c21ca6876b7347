cimport cython

from engine.decode.classifier cimport Decoder
from engine.parsers.rtcp cimport RtcpParser
from engine.shm.flows cimport FlowTable
from engine.shm.signals cimport Signals
from engine.shm.streams cimport StreamTable

cdef int SENDER
cdef int RECEIVER
cdef int BLOCK
cdef int CNAME
cdef int BYE
cdef int APP
cdef int EXTENDED
cdef int REFERENCE
cdef int ANSWER
cdef int METRICS
cdef Py_ssize_t FLOW_CALL
cdef unsigned long long PROTOCOL
cdef Py_ssize_t FAR_TRIP
cdef Py_ssize_t NEAR_TRIP
cdef Py_ssize_t C_RTCP_UNREAD
cdef Py_ssize_t C_RTCP_DEFECTS
cdef Py_ssize_t C_RTCP_STRANGERS

@cython.final
cdef class RtcpPath:
    cdef unsigned long long[::1] counters
    cdef FlowTable flows
    cdef StreamTable streams
    cdef readonly RtcpParser parser
    cdef const unsigned char[::1] buf
    cdef Py_ssize_t call
    cdef unsigned long long now
    cdef Py_ssize_t reported

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(item=int)
    cpdef int packet(self, Decoder decoder, Py_ssize_t flow, unsigned long long now) except -1
    @cython.locals(slot=Py_ssize_t, unit=Py_ssize_t, signals=Signals)
    cdef int own(self, Decoder decoder, int item) except -1
    @cython.locals(slot=Py_ssize_t, unit=Py_ssize_t, signals=Signals, trip=Py_ssize_t)
    cdef int block(self, Decoder decoder) except -1
    @cython.locals(unit=Py_ssize_t)
    cdef int note_trip(self, Py_ssize_t slot, Py_ssize_t trip, Py_ssize_t which) except -1
    @cython.locals(slot=Py_ssize_t, unit=Py_ssize_t, signals=Signals, trip=Py_ssize_t)
    cdef int extended(self, Decoder decoder, int item) except -1
    cdef Py_ssize_t stream(self, Decoder decoder, unsigned long long ssrc, bint own) except -2
    @cython.locals(less=cython.ulonglong, ports=cython.ulonglong, tag=cython.ulonglong, slot=Py_ssize_t)
    cdef Py_ssize_t find(
        self, Decoder decoder, unsigned long long src0, unsigned long long src1, unsigned long long dst0,
        unsigned long long dst1, unsigned long long sport, unsigned long long dport, unsigned long long ssrc) except -2

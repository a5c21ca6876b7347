cimport cython

from engine.decode.classifier cimport Decoder
from engine.parsers cimport octets
from engine.parsers.sip cimport SipParser
from engine.pipeline.media cimport MediaPath
from engine.shm.ring cimport RingWriter
from engine.shm.streams cimport StreamTable

cdef unsigned int ETHERNET
cdef Py_ssize_t HEADER
cdef Py_ssize_t SIP_HEADER
cdef Py_ssize_t RTP_LENGTH
cdef Py_ssize_t SLOT_WORDS
cdef unsigned long long NO_FLOW
cdef unsigned long long NO_STREAM
cdef unsigned long long LOW32
cdef unsigned int K_SIP
cdef unsigned int K_RTP
cdef unsigned long long LAST
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t STREAM_LATEST
cdef Py_ssize_t STREAM_STOP
cdef Py_ssize_t STREAM_CODEC
cdef Py_ssize_t STREAM_FLOW

@cython.final
cdef class PacketFacts:
    cdef public unsigned long long timestamp
    cdef public unsigned long long interface
    cdef public unsigned long long wire_length
    cdef public unsigned long long captured
    cdef public unsigned long long frame_number

@cython.final
cdef class RecordWriter:
    cdef RingWriter ring
    cdef Decoder decoder
    cdef PacketFacts facts
    cdef Py_ssize_t place

    @cython.locals(
        mac=Py_ssize_t, a=cython.ulonglong, b=cython.ulonglong, index=Py_ssize_t, more=cython.ulonglong)
    cdef int header(self, Py_ssize_t word, unsigned long long slot, unsigned long long generation, unsigned long long flags) except -1
    @cython.locals(value=cython.ulonglong, index=Py_ssize_t)
    cdef unsigned long long octets_at(self, Py_ssize_t position, Py_ssize_t count) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(
        place=Py_ssize_t, word=Py_ssize_t, length=Py_ssize_t, a=cython.ulonglong, b=cython.ulonglong,
        c=cython.ulonglong, width=Py_ssize_t, frame=Py_ssize_t)
    cdef bint rtp(self, MediaPath media, bint figures, bint raw) except -1
    @cython.locals(index=Py_ssize_t)
    cdef int copy_entry(self, Py_ssize_t word, StreamTable streams, Py_ssize_t entry) except -1
    cdef bint reserve_stream(self, StreamTable streams) except -1
    @cython.locals(
        entry=Py_ssize_t, word=Py_ssize_t, index=Py_ssize_t, ports=cython.ulonglong, a=cython.ulonglong,
        b=cython.ulonglong)
    cdef int stream(self, StreamTable streams, Py_ssize_t slot) except -1
    @cython.locals(place=Py_ssize_t)
    cdef bint octets(
        self, unsigned int kind, Py_ssize_t start, Py_ssize_t end, unsigned long long slot,
        unsigned long long generation) except -1
    @cython.locals(place=Py_ssize_t, length=Py_ssize_t)
    cdef bint made(self, unsigned int kind, bytes body) except -1
    @cython.locals(
        place=Py_ssize_t, word=Py_ssize_t, length=Py_ssize_t, index=Py_ssize_t, a=cython.ulonglong,
        b=cython.ulonglong, c=cython.ulonglong, d=cython.ulonglong, e=cython.ulonglong)
    cdef bint sip(self, SipParser sip, unsigned long long flags) except -1

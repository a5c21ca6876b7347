cimport cython

from engine.decode.classifier cimport Decoder
from engine.pipeline.media cimport MediaPath
from engine.pipeline.writer cimport RecordWriter
from engine.shm cimport atomics
from engine.shm.flows cimport FlowTable
from engine.shm.streams cimport StreamTable

cdef unsigned int EVERY
cdef unsigned int NTH
cdef unsigned int INTERVAL
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long WAITING
cdef unsigned long long COUNT
cdef unsigned long long ALL
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef unsigned long long SPREAD1
cdef unsigned long long SPREAD2
cdef Py_ssize_t W_KEY
cdef Py_ssize_t LATEST
cdef Py_ssize_t C_OUTPUT
cdef Py_ssize_t C_HANDLED
cdef Py_ssize_t C_OUTPUT_RTP
cdef Py_ssize_t C_RTP_HANDLED

@cython.final
cdef class RtpReports:
    cdef unsigned long long[::1] counters
    cdef FlowTable flows
    cdef StreamTable streams
    cdef readonly unsigned int mode
    cdef unsigned long long every
    cdef unsigned long long interval
    cdef unsigned long long[::1] words
    cdef Py_ssize_t cursor
    cdef Py_ssize_t left

    @cython.locals(word=Py_ssize_t, state=cython.ulonglong)
    cdef bint due(self, MediaPath media, unsigned long long now) except -1
    @cython.locals(
        _=Py_ssize_t, found=int, slot=Py_ssize_t, entry=Py_ssize_t, word=Py_ssize_t, state=cython.ulonglong)
    cdef int silent(
        self, unsigned long long now, Py_ssize_t most, RecordWriter writer, unsigned long long share) except -1
    cdef bint last(self, Py_ssize_t most, RecordWriter writer, unsigned long long share) except -1
    @cython.locals(source=cython.ulonglong)
    cdef bint left_out(self, Decoder decoder, unsigned long long share) except -1
    @cython.locals(ports=cython.ulonglong, source=cython.ulonglong, target=cython.ulonglong)
    cdef bint stream_left_out(self, Py_ssize_t entry, unsigned long long share) except -1
    cdef unsigned long long side(
        self, unsigned long long address, unsigned long long port) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(place=cython.ulonglong)
    cdef unsigned long long place_of(self, unsigned long long sides) except? 0x5a5a5a5a5a5a5a5a

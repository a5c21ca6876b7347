cimport cython

from engine.capture.packet_filter cimport PacketFilter
from engine.capture.sink cimport PacketSink

cdef class FilterSink(PacketSink):
    cdef PacketSink sink
    cdef readonly dict rules
    cdef dict filters
    cdef PacketFilter nothing
    cdef const unsigned char[::1] buf
    cdef readonly unsigned long long left_out

    @cython.locals(one=PacketFilter)
    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(one=PacketFilter)
    cpdef int packet(
        self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned long long timestamp,
        unsigned int interface, unsigned int link_type, unsigned int vlan, unsigned int packet_type) except -1
    @cython.locals(one=PacketFilter)
    cdef PacketFilter first(self, unsigned int link_type)
    cpdef int idle(self, unsigned long long now) except -1

cimport cython

cdef class PacketSink:
    cpdef attach(self, const unsigned char[::1] buf)
    cpdef int packet(
        self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned long long timestamp,
        unsigned int interface, unsigned int link_type, unsigned int vlan, unsigned int packet_type) except -1
    cpdef int moment(self, unsigned long long now, long long shift) except -1
    cpdef int idle(self, unsigned long long now) except -1

cimport cython

from engine.decode.tunnels cimport Tunnels

# The contract of the classifier; its Python side is classifier.py.

cdef int V_MALFORMED
cdef int V_UDP
cdef int V_TCP
cdef int V_ICMP
cdef int V_OTHER
cdef int V_FRAGMENT
cdef int V_TUNNEL
cdef int V_TOO_DEEP

cdef unsigned int SNAPPED
cdef unsigned int ETHERNET
cdef unsigned int REASSEMBLED
cdef unsigned long long MAPPED

cdef Py_ssize_t C_SNAPPED
cdef Py_ssize_t C_GRO
cdef Py_ssize_t C_VLAN_TAGGED
cdef Py_ssize_t C_IPV4
cdef Py_ssize_t C_IPV6
cdef Py_ssize_t C_UDP
cdef Py_ssize_t C_TCP
cdef Py_ssize_t C_ICMP
cdef Py_ssize_t C_OTHER_TRANSPORT
cdef Py_ssize_t C_MALFORMED_LINK
cdef Py_ssize_t C_MALFORMED_IPV4
cdef Py_ssize_t C_MALFORMED_IPV6
cdef Py_ssize_t C_MALFORMED_UDP
cdef Py_ssize_t C_MALFORMED_TCP
cdef Py_ssize_t C_IP_FRAGMENTS
cdef Py_ssize_t C_TUNNEL_DEPTH

cdef Py_ssize_t LARGEST_FRAME
cdef Py_ssize_t MOST_EXTENSIONS
cdef unsigned int MOST_TUNNELS
cdef unsigned int TEB

@cython.final
cdef class Decoder(Tunnels):
    cdef public Py_ssize_t frame
    cdef public Py_ssize_t frame_end
    cdef public Py_ssize_t network
    cdef public Py_ssize_t transport
    cdef public Py_ssize_t payload
    cdef public Py_ssize_t payload_end
    # Valid after FRAGMENT: what the reassembly needs.
    cdef public unsigned int fragment_id
    cdef public unsigned int fragment_offset
    cdef public bint fragment_more
    cdef public Py_ssize_t fragment_start
    cdef public Py_ssize_t fragment_end

    @cython.locals(other=Decoder)
    cpdef Decoder twin(self)
    @cython.locals(position=Py_ssize_t, verdict=int, kind=cython.uint)
    cpdef int decode(self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned int link_type, unsigned int vlan) except -1
    @cython.locals(
        verdict=int, snapped=cython.ulonglong, tagged=cython.ulonglong, gro=cython.ulonglong,
        ipv4=cython.ulonglong, ipv6=cython.ulonglong)
    cdef int as_if_off(self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned int link_type, unsigned int vlan) except -1
    @cython.locals(verdict=int, state=tuple)
    cpdef int decode_network(self, Py_ssize_t start, Py_ssize_t end) except -1
    cdef int begin(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(verdict=int)
    cdef int inside(self) except -1
    cdef int inner_packet(self, unsigned int kind, Py_ssize_t start, Py_ssize_t end) except -1
    cdef int by_type(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(first=cython.uint, header=Py_ssize_t, length=Py_ssize_t, available=Py_ssize_t, field=cython.uint)
    cdef int ipv4(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(identification=cython.uint)
    cdef int ipv4_fragment(self, Py_ssize_t position, Py_ssize_t start, Py_ssize_t end, unsigned int field) except -1
    @cython.locals(length=Py_ssize_t, available=Py_ssize_t, following=cython.uint)
    cdef int ipv6(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(count=Py_ssize_t, size=Py_ssize_t)
    cdef int extension_headers(self, unsigned int following, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(identification=cython.uint)
    cdef int fragment_header(self, Py_ssize_t position, Py_ssize_t end, unsigned int field) except -1
    @cython.locals(value=cython.ulonglong, place=Py_ssize_t)
    cdef unsigned long long word(self, Py_ssize_t position) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(value=cython.ulonglong)
    cdef unsigned long long word32(self, Py_ssize_t position) except? 0x5a5a5a5a5a5a5a5a
    cdef int fragment(self, Py_ssize_t start, Py_ssize_t end, unsigned int offset, bint more, unsigned int identification) except -1
    @cython.locals(available=Py_ssize_t, length=Py_ssize_t)
    cdef int transport_layer(self, unsigned int protocol, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(verdict=int)
    cdef int tunnel_port(self) except -1
    @cython.locals(verdict=int)
    cdef int other_transport(self, unsigned int protocol, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(size=Py_ssize_t, following=cython.uint)
    cdef int authenticated(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(header=Py_ssize_t)
    cdef int tcp(self, Py_ssize_t position, Py_ssize_t end) except -1

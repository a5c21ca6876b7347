cimport cython

# The contract of the classifier; its Python side is classifier.py.

cdef int V_MALFORMED
cdef int V_UDP
cdef int V_TCP
cdef int V_ICMP
cdef int V_OTHER
cdef int V_NON_IP
cdef int V_FRAGMENT
cdef int V_UNKNOWN_LINK

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
cdef Py_ssize_t C_NON_IP
cdef Py_ssize_t C_LINK_UNKNOWN
cdef Py_ssize_t C_MALFORMED_LINK
cdef Py_ssize_t C_MALFORMED_IPV4
cdef Py_ssize_t C_MALFORMED_IPV6
cdef Py_ssize_t C_MALFORMED_UDP
cdef Py_ssize_t C_MALFORMED_TCP
cdef Py_ssize_t C_IP_FRAGMENTS

cdef Py_ssize_t LARGEST_FRAME
cdef Py_ssize_t MOST_TAGS
cdef Py_ssize_t MOST_EXTENSIONS

@cython.final
cdef class Decoder:
    cdef const unsigned char[::1] buf
    cdef Py_ssize_t size
    cdef unsigned long long[::1] counters
    cdef readonly unsigned int tunnels

    # The result of the last decode(). Addresses are the two little-endian words of the 16-octet field
    # of a record (network order in memory), so that writing them out needs no byte swap.
    cdef public unsigned long long src0
    cdef public unsigned long long src1
    cdef public unsigned long long dst0
    cdef public unsigned long long dst1
    cdef public unsigned int sport
    cdef public unsigned int dport
    cdef public unsigned int protocol
    cdef public unsigned int tos
    cdef public unsigned int ttl
    cdef public unsigned int tcp_flags
    cdef public unsigned int ether_type
    cdef public unsigned int vlan_count
    cdef public unsigned int outer_vlan
    cdef public unsigned int inner_vlan
    cdef public unsigned int tunnel_type
    cdef public unsigned int vni
    cdef public unsigned long long outer_src0
    cdef public unsigned long long outer_src1
    cdef public unsigned long long outer_dst0
    cdef public unsigned long long outer_dst1
    cdef public unsigned long long domain
    cdef public unsigned int flags
    cdef public unsigned int link_type
    cdef public Py_ssize_t frame
    cdef public Py_ssize_t frame_end
    cdef public Py_ssize_t network
    cdef public Py_ssize_t transport
    cdef public Py_ssize_t payload
    cdef public Py_ssize_t payload_end
    # The payload ends where the capture was cut. While decoding: the end that is parsed to is that of the capture.
    cdef public bint clipped
    # Valid after FRAGMENT: what the reassembly needs.
    cdef public unsigned int fragment_id
    cdef public unsigned int fragment_offset
    cdef public bint fragment_more
    cdef public Py_ssize_t fragment_start
    cdef public Py_ssize_t fragment_end

    cpdef attach(self, const unsigned char[::1] buf)
    cpdef bytes octets(self, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(position=Py_ssize_t)
    cpdef int decode(self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned int link_type, unsigned int vlan) except -1
    cpdef int decode_network(self, Py_ssize_t start, Py_ssize_t end) except -1
    cdef int begin(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint, position=Py_ssize_t)
    cdef Py_ssize_t other_link(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(family=cython.uint)
    cdef int null_family(self, Py_ssize_t start) except -1
    cdef int tag(self, unsigned int tci) except -1
    cdef int by_version(self, Py_ssize_t position, Py_ssize_t end) except -1
    cdef int not_ip(self) except -1
    @cython.locals(kind=cython.uint)
    cdef int other_ether_type(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(length=Py_ssize_t)
    cdef int pppoe(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint)
    cdef int ppp(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(_=Py_ssize_t)
    cdef int mpls(self, Py_ssize_t position, Py_ssize_t end) except -1
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
    @cython.locals(header=Py_ssize_t)
    cdef int tcp(self, Py_ssize_t position, Py_ssize_t end) except -1
    cdef int malformed(self, Py_ssize_t counter) except -1
    cdef int too_short(self, Py_ssize_t counter) except -1

cimport cython

# The contract of the classifier; its Python side is classifier.py.

cdef class Decoder:
    cdef const unsigned char[::1] buf
    cdef unsigned long long[::1] counters

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
    # Valid after FRAGMENT: what the reassembly needs.
    cdef public unsigned int fragment_id
    cdef public unsigned int fragment_offset
    cdef public bint fragment_more
    cdef public Py_ssize_t fragment_start
    cdef public Py_ssize_t fragment_end

    cpdef attach(self, const unsigned char[::1] buf)
    cpdef int decode(self, Py_ssize_t start, Py_ssize_t end, unsigned int wire_length, unsigned int link_type, unsigned int vlan) except -1
    cpdef int decode_network(self, Py_ssize_t start, Py_ssize_t end) except -1

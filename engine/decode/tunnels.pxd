cimport cython

from engine.decode.link cimport LinkLayer

# The contract of the tunnels; its Python side is tunnels.py.

cdef int V_UDP
cdef int V_OTHER
cdef int V_TUNNEL
cdef unsigned int SNAPPED

cdef unsigned int T_VXLAN
cdef unsigned int T_GRE
cdef unsigned int T_ERSPAN
cdef unsigned int T_GENEVE
cdef unsigned int T_IPIP
cdef unsigned int T_GTP_U
cdef unsigned int T_NVGRE
cdef unsigned int T_PPP_GRE

cdef unsigned int PORT_GENEVE
cdef unsigned int PORT_GTP_U
cdef unsigned int ETHER
cdef unsigned int IPV4
cdef unsigned int IPV6
cdef unsigned int PPP
cdef unsigned int BY_VERSION
cdef unsigned int LEAST_VSID
cdef unsigned int MOST_VSID
cdef unsigned long long MIX
cdef unsigned long long LOW32
cdef unsigned long long MIXED

cdef Py_ssize_t C_TUNNELS
cdef Py_ssize_t C_MALFORMED_TUNNEL
cdef Py_ssize_t C_FIRST

cdef class Tunnels(LinkLayer):
    # Types that are switched on; of those, the ones looked for in the packet in work.
    cdef readonly unsigned int tunnels
    cdef readonly unsigned int active
    cdef unsigned long long[::1] ports

    # Addresses are the two little-endian words of the 16-octet field of a record (network order in memory),
    # so that writing them out needs no byte swap.
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

    cdef public unsigned int depth
    cdef public unsigned int tunnel_type
    cdef public unsigned int vni
    cdef public unsigned long long outer_src0
    cdef public unsigned long long outer_src1
    cdef public unsigned long long outer_dst0
    cdef public unsigned long long outer_dst1
    # Of all tunnels around the packet, what is the same in both directions.
    cdef public unsigned long long identifier
    cdef public unsigned int identifiers

    # The tunnel that was found last.
    cdef public unsigned int next_type
    cdef public unsigned int next_vni
    cdef public bint separate
    cdef public unsigned int inner_type
    cdef public Py_ssize_t inner_start
    cdef public Py_ssize_t inner_end

    # The IP header in work came out of the reassembly: its fragments were counted, and it is none.
    cdef public bint repeated

    cdef bint on(self, unsigned int kind) except -1
    cdef int found(
        self, unsigned int kind, unsigned int vni, bint separate, unsigned int inner_type, Py_ssize_t start,
        Py_ssize_t end) except -1
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef tuple state(self)
    cdef int restore(self, tuple state) except -1
    cdef unsigned int word16(self, Py_ssize_t position) except? 0xFFFFFFFF
    cdef unsigned int word24(self, Py_ssize_t position) except? 0xFFFFFFFF

    cdef int over_udp(self, unsigned int port, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(flags=cython.uint, group=cython.uint, usual=cython.bint, kind=cython.uint)
    cdef int vxlan(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint, inner=Py_ssize_t, option=Py_ssize_t)
    cdef int geneve(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(flags=cython.uint, teid=cython.uint, last=Py_ssize_t, size=Py_ssize_t)
    cdef int gtp_u(self, Py_ssize_t position, Py_ssize_t end) except -1

    cdef int over_ip(self, unsigned int protocol, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(flags=cython.uint, kind=cython.uint, key=Py_ssize_t, vni=cython.uint)
    cdef int gre(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(length=Py_ssize_t, call=cython.uint)
    cdef int enhanced_gre(self, unsigned int flags, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(version=cython.uint, word=cython.uint, inner=cython.uint, frame_type=cython.uint)
    cdef int erspan(self, unsigned int kind, bint sequenced, Py_ssize_t position, Py_ssize_t end) except -1

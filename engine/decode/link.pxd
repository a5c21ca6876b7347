cimport cython

# The contract of the link layers; its Python side is link.py.

cdef int V_MALFORMED
cdef int V_OTHER
cdef int V_NON_IP
cdef int V_UNKNOWN_LINK

cdef Py_ssize_t C_VLAN_TAGGED
cdef Py_ssize_t C_NON_IP
cdef Py_ssize_t C_LINK_UNKNOWN
cdef Py_ssize_t C_MALFORMED_LINK

cdef Py_ssize_t MOST_TAGS
cdef Py_ssize_t MOST_ATTRIBUTES
cdef unsigned int LONGEST_8023
cdef unsigned int ETHERNET

cdef class LinkLayer:
    cdef const unsigned char[::1] buf
    cdef Py_ssize_t size
    cdef unsigned long long[::1] counters
    # The payload ends where the capture was cut. While decoding: the end that is parsed to is that of the capture.
    cdef public bint clipped
    cdef public unsigned int link_type
    cdef public unsigned int ether_type
    cdef public unsigned int flags
    cdef public unsigned int vlan_count
    cdef public unsigned int outer_vlan
    cdef public unsigned int inner_vlan
    cdef public unsigned long long domain
    # The part of `domain` that a tunnel gives.
    cdef public unsigned long long tunnel_domain
    # Where the MAC addresses stand.
    cdef public Py_ssize_t mac
    cdef public Py_ssize_t link_end

    cpdef attach(self, const unsigned char[::1] buf)
    cpdef bytes octets(self, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(kind=cython.uint, position=Py_ssize_t)
    cdef Py_ssize_t other_link(self, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint, least=Py_ssize_t)
    cdef Py_ssize_t rare_link(self, Py_ssize_t start, Py_ssize_t end) except -1
    cdef unsigned int word_at(self, Py_ssize_t position) except? 0xFFFFFFFF
    cdef Py_ssize_t llc(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(last=Py_ssize_t, kind=cython.uint)
    cdef Py_ssize_t frame_relay(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint, size=Py_ssize_t)
    cdef Py_ssize_t wireless(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(control=cython.uint, flags=cython.uint, size=Py_ssize_t)
    cdef Py_ssize_t ieee80211(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(_=Py_ssize_t, kind=cython.uint, size=Py_ssize_t)
    cdef Py_ssize_t nflog(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(family=cython.uint)
    cdef int null_family(self, Py_ssize_t start) except -1
    @cython.locals(kind=cython.uint)
    cdef int by_version(self, Py_ssize_t position) except -1
    cdef int tag(self, unsigned int tci) except -1
    @cython.locals(kind=cython.uint)
    cdef Py_ssize_t peel(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint)
    cdef Py_ssize_t tags(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(length=Py_ssize_t)
    cdef Py_ssize_t pppoe(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint)
    cdef Py_ssize_t ppp(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(_=Py_ssize_t, kind=cython.uint)
    cdef Py_ssize_t mpls(self, Py_ssize_t position, Py_ssize_t end) except -1
    @cython.locals(kind=cython.uint, version=cython.uint)
    cdef bint is_frame(self, Py_ssize_t position, Py_ssize_t end) except -1
    cdef Py_ssize_t pseudowire(self, Py_ssize_t position, Py_ssize_t end) except -1
    cdef int not_ip(self) except -1
    cdef int malformed(self, Py_ssize_t counter) except -1
    cdef int too_short(self, Py_ssize_t counter) except -1

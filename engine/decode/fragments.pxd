cimport cython

from engine.decode.classifier cimport Decoder
from engine.decode.pieces cimport AgeLists, PieceStore
from engine.shm.siphash cimport SipHash

cdef Py_ssize_t LARGEST_PACKET
cdef Py_ssize_t IPV6_HEADER
cdef unsigned int IPV6_FRAGMENT
cdef unsigned long long REUSE_NS
cdef Py_ssize_t KEY_WORDS
cdef Py_ssize_t HEADER_ROOM
cdef Py_ssize_t MOST_LINK
cdef Py_ssize_t SOURCES
cdef Py_ssize_t NETWORKS
cdef unsigned long long NETWORK_V4
cdef unsigned long long NETWORK_V6
cdef Py_ssize_t PENDING
cdef Py_ssize_t DONE

cdef Py_ssize_t REASSEMBLED
cdef Py_ssize_t INCOMPLETE
cdef Py_ssize_t MERGED
cdef Py_ssize_t HELD
cdef Py_ssize_t OVERLAPPING
cdef Py_ssize_t DUPLICATE
cdef Py_ssize_t TIMED_OUT
cdef Py_ssize_t EVICTED
cdef Py_ssize_t OVER_LIMIT
cdef Py_ssize_t OVERSIZE
cdef Py_ssize_t SNAPPED
cdef Py_ssize_t CONTRADICTING
cdef Py_ssize_t REPLACED
cdef Py_ssize_t UNFINISHED
cdef Py_ssize_t CHUNK_OCTETS

@cython.final
cdef class Reassembly:
    cdef unsigned long long[::1] counters
    cdef public unsigned long long timeout_ns
    cdef readonly Py_ssize_t max_datagrams
    cdef readonly Py_ssize_t max_fragments
    cdef readonly Py_ssize_t max_per_source
    cdef readonly Py_ssize_t max_per_network
    cdef readonly Py_ssize_t source_chunks
    cdef readonly Py_ssize_t network_chunks
    cdef readonly PieceStore store
    cdef SipHash siphash
    cdef unsigned long long mask
    cdef int[::1] heads
    # Of each datagram: source, destination, identity, domain, time of its first fragment
    cdef unsigned long long[::1] keys
    cdef unsigned char[::1] headers
    cdef int[::1] chain
    cdef int[::1] bucket
    cdef int[::1] source
    cdef int[::1] network_of
    cdef int[::1] state
    cdef int[::1] pieces
    cdef int[::1] held
    cdef int[::1] have
    cdef int[::1] total
    cdef int[::1] reach
    cdef int[::1] chunks
    cdef int[::1] header_octets
    cdef int[::1] following
    cdef readonly AgeLists by_age
    cdef readonly AgeLists by_source
    cdef readonly AgeLists by_network
    cdef Py_ssize_t unused
    cdef Py_ssize_t given_back
    cdef bytearray octets
    cdef unsigned char[::1] scratch
    cdef readonly Py_ssize_t network

    @cython.locals(
        offset=Py_ssize_t, end=Py_ssize_t, header=Py_ssize_t, version=cython.uint, identity=cython.ulonglong,
        group=Py_ssize_t)
    cpdef bytes add(self, Decoder decoder, unsigned long long now_ns)
    cdef bytes refuse(self, Py_ssize_t counter)
    @cython.locals(tag=cython.ulonglong, group=Py_ssize_t)
    cdef Py_ssize_t find(
        self, Decoder decoder, unsigned long long identity, Py_ssize_t end, unsigned long long now_ns) except -2
    @cython.locals(group=Py_ssize_t, word=Py_ssize_t)
    cdef Py_ssize_t look(self, Decoder decoder, unsigned long long identity, Py_ssize_t bucket) except -2
    @cython.locals(born=cython.ulonglong)
    cdef unsigned long long age(self, Py_ssize_t group, unsigned long long now_ns) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(size=Py_ssize_t, shift=Py_ssize_t, place=Py_ssize_t)
    cdef bint used_again(self, Py_ssize_t group, Decoder decoder, unsigned long long now_ns) except -1
    @cython.locals(total=Py_ssize_t)
    cdef bint contradicts(self, Py_ssize_t group, Py_ssize_t end, bint more) except -1
    cdef bint conflicts(self, Py_ssize_t group, Decoder decoder, Py_ssize_t end) except -1
    @cython.locals(
        address0=cython.ulonglong, address1=cython.ulonglong, source=Py_ssize_t, network=Py_ssize_t, group=Py_ssize_t,
        word=Py_ssize_t)
    cdef Py_ssize_t open(
        self, Decoder decoder, unsigned long long identity, Py_ssize_t bucket, unsigned long long now_ns) except -2
    @cython.locals(oldest=Py_ssize_t, group=Py_ssize_t)
    cdef Py_ssize_t slot(self) except -2
    @cython.locals(bucket=Py_ssize_t, other=Py_ssize_t)
    cdef int forget(self, Py_ssize_t group) except -1
    cdef int release(self, Py_ssize_t group) except -1
    cdef int drop(self, Py_ssize_t group, Py_ssize_t counter) except -1
    @cython.locals(
        need=Py_ssize_t, source=Py_ssize_t, network=Py_ssize_t, oldest=Py_ssize_t, counter=Py_ssize_t)
    cdef bint make_room(self, Py_ssize_t group, Py_ssize_t octets) except -1
    @cython.locals(offset=Py_ssize_t, free=Py_ssize_t, kept=Py_ssize_t, taken=Py_ssize_t)
    cdef bint keep(self, Py_ssize_t group, Decoder decoder, Py_ssize_t end) except -1
    @cython.locals(size=Py_ssize_t, place=Py_ssize_t)
    cdef int keep_header(self, Py_ssize_t group, Decoder decoder) except -1
    @cython.locals(
        header=Py_ssize_t, total=Py_ssize_t, version=cython.uint, link=Py_ssize_t, place=Py_ssize_t, end=Py_ssize_t)
    cdef bytes complete(self, Py_ssize_t group, Decoder decoder)
    @cython.locals(place=Py_ssize_t, total=cython.uint)
    cdef int finish_v4(self, Py_ssize_t at, Py_ssize_t header, Py_ssize_t length) except -1
    @cython.locals(size=Py_ssize_t, place=Py_ssize_t)
    cdef int remember(self, Py_ssize_t group, Py_ssize_t at, Py_ssize_t octets) except -1
    @cython.locals(given_up=Py_ssize_t, oldest=Py_ssize_t)
    cpdef Py_ssize_t expire(self, unsigned long long now_ns) except -1
    @cython.locals(given_up=Py_ssize_t)
    cpdef Py_ssize_t finish(self) except -1

cimport cython

from engine.capture.packet_filter cimport PacketFilter
from engine.capture.sink cimport PacketSink
from engine.shm cimport atomics

cdef Py_ssize_t BLOCK_HEADER
cdef Py_ssize_t PACKET_HEADER
cdef Py_ssize_t CACHE_LINE
cdef Py_ssize_t HEADERS
cdef unsigned int STATUS_USER
cdef unsigned int CSUM_NOT_READY
cdef unsigned int VLAN_VALID
cdef unsigned int VLAN_TPID_VALID
cdef unsigned int GSO_TCP
cdef unsigned int TPID_8021Q
cdef unsigned int LARGEST_FRAME
cdef unsigned long long NANOSECONDS
cdef unsigned int MASK16
cdef unsigned int HARDWARE_ETHERNET
cdef unsigned int HARDWARE_LOOPBACK
cdef unsigned int WIRE_IPV4
cdef unsigned int WIRE_IPV6
cdef unsigned int LINK_ETHERNET
cdef unsigned int LINK_RAW
cdef unsigned int LINK_UNKNOWN
cdef Py_ssize_t SEQUENCE_WORD
cdef Py_ssize_t BASE_WORD
cdef Py_ssize_t INDEX_WORD
cdef Py_ssize_t RECEIVED_WORD
cdef Py_ssize_t SKIPPED_WORD
cdef Py_ssize_t FILTERED_WORD
cdef Py_ssize_t RECHECKED_WORD
cdef long long STEP
cdef unsigned long long ALWAYS
cdef Py_ssize_t BLOCKS_WORD
cdef Py_ssize_t NOT_READY_WORD
cdef Py_ssize_t GRO_WORD
cdef Py_ssize_t LATENCY_WORD
cdef Py_ssize_t LATENCIES

cdef class RingWalk:
    cdef unsigned int[::1] ring
    cdef unsigned long long[::1] counters
    cdef PacketSink sink
    cdef public object octets
    cdef readonly Py_ssize_t block_size
    cdef readonly Py_ssize_t block_count
    cdef readonly Py_ssize_t index
    cdef public Py_ssize_t max_waiting
    cdef readonly unsigned long long ring_errors
    cdef PacketFilter filter
    # Blocks up to this sequence are held against `filter`; 0: none
    cdef readonly unsigned long long recheck_until
    cdef long long offset
    cdef readonly long long shift
    cdef readonly unsigned long long now
    # Blocks that were found ready and are not walked yet, and when that was
    cdef Py_ssize_t known
    cdef unsigned long long known_at

    @cython.locals(real=cython.longlong, ahead=cython.longlong)
    cpdef int moment(self, long long monotonic) except -1
    @cython.locals(one=PacketFilter, hardware=cython.uint, protocol=cython.uint)
    cdef bint passes(
        self, Py_ssize_t start, Py_ssize_t end, unsigned int wire, Py_ssize_t word, unsigned int vlan,
        Py_ssize_t network) except -1
    cdef unsigned int status(self, Py_ssize_t block) except? 0x5a5a5a5a
    @cython.locals(word=Py_ssize_t, low=cython.ulonglong, high=cython.ulonglong)
    cdef unsigned long long sequence(self, Py_ssize_t block) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(block=Py_ssize_t, found=Py_ssize_t, before=Py_ssize_t, oldest=cython.ulonglong, number=cython.ulonglong)
    cpdef Py_ssize_t find_start(self) except -1
    @cython.locals(block=Py_ssize_t, count=Py_ssize_t)
    cpdef Py_ssize_t waiting(self) except -1
    @cython.locals(block=Py_ssize_t, count=Py_ssize_t)
    cdef Py_ssize_t ready(self) except -1
    @cython.locals(walked=Py_ssize_t)
    cpdef Py_ssize_t run(self, Py_ssize_t max_blocks) except -1
    @cython.locals(bucket=Py_ssize_t, power=Py_ssize_t, rest=cython.ulonglong)
    cpdef int latency(self, unsigned long long nanoseconds) except -1
    @cython.locals(other=Py_ssize_t)
    cdef bint lagging(self, Py_ssize_t block, unsigned long long number) except -1
    @cython.locals(
        base=Py_ssize_t, limit=Py_ssize_t, place=Py_ssize_t, word=Py_ssize_t, packets=cython.ulonglong, done=cython.ulonglong,
        number=cython.ulonglong, step=cython.ulonglong, taken=cython.ulonglong)
    cdef int walk(self, Py_ssize_t block) except -1
    cdef int fetch(self, Py_ssize_t place, Py_ssize_t limit) except -1
    @cython.locals(
        word=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, network=Py_ssize_t, captured=Py_ssize_t, offsets=cython.uint,
        status=cython.uint, vlan=cython.uint, tpid=cython.uint, hardware=cython.uint, protocol=cython.uint, link=cython.uint,
        wire=cython.uint, timestamp=cython.ulonglong)
    cdef int packet(self, Py_ssize_t place, Py_ssize_t limit) except -1

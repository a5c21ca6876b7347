cimport cython

from engine.capture.sink cimport PacketSink

cdef unsigned long long MASK64
cdef unsigned long long BILLION
cdef Py_ssize_t INTERFACE_WORDS
cdef unsigned long long K_MULTIPLY
cdef unsigned long long K_DIVIDE
cdef unsigned int B_SECTION
cdef unsigned int B_INTERFACE
cdef unsigned int B_OBSOLETE
cdef unsigned int B_SIMPLE
cdef unsigned int B_ENHANCED
cdef unsigned int C_LARGEST_RECORD
cdef unsigned int C_LARGEST_BLOCK

@cython.final
cdef class PcapFile:
    cdef public object source
    cdef PacketSink sink
    cdef object memory
    cdef object view
    cdef unsigned char[::1] buf
    # Octets position..limit of buf are still to be parsed; base: where buf[0] stands in the stream.
    cdef Py_ssize_t position
    cdef Py_ssize_t limit
    cdef Py_ssize_t base
    # Octets of a block that is left out, still to come.
    cdef Py_ssize_t skip
    cdef bint big
    cdef bint pcapng
    cdef bint finished
    cdef public str format
    cdef public str truncated
    cdef public unsigned long long packets
    cdef public unsigned long long first_ns
    cdef public unsigned long long last_ns
    # pcap
    cdef Py_ssize_t record_header
    cdef unsigned long long fraction
    cdef unsigned int link_type
    cdef bint swapped_lengths
    # pcapng, INTERFACE_WORDS for each interface: describe_interface()
    cdef unsigned long long[::1] interfaces
    cdef public Py_ssize_t interface_count
    cdef Py_ssize_t section_base
    cdef public list interface_names
    cdef dict links

    cpdef long run(self, long max_packets, Py_ssize_t max_octets=*) except -1
    @cython.locals(rest=Py_ssize_t, count=Py_ssize_t)
    cdef bint fill(self) except -1
    cdef int more(self, long count) except -1
    @cython.locals(count=long, octets=Py_ssize_t, place=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, length=cython.uint,
        wire=cython.uint, timestamp=cython.ulonglong)
    cdef long run_pcap(self, long max_packets, Py_ssize_t max_octets) except -1
    @cython.locals(count=long, octets=Py_ssize_t, place=Py_ssize_t, end=Py_ssize_t, kind=cython.uint, length=cython.uint)
    cdef long run_pcapng(self, long max_packets, Py_ssize_t max_octets) except -1
    cdef int take_block(self, unsigned int kind, Py_ssize_t place, Py_ssize_t length) except -1
    @cython.locals(rest=Py_ssize_t)
    cdef int pass_over(self) except -1
    @cython.locals(number=Py_ssize_t, start=Py_ssize_t, wire=cython.uint, captured=cython.uint,
        timestamp=cython.ulonglong, link_type=cython.uint)
    cdef int packet_block(self, unsigned int kind, Py_ssize_t place, Py_ssize_t length) except -1
    cdef int damaged(self, str what) except -1
    cdef int too_long(self, unsigned int length) except -1
    cdef int stamp(self, unsigned long long timestamp) except -1
    @cython.locals(place=Py_ssize_t, kind=cython.ulonglong, factor=cython.ulonglong, units=cython.ulonglong,
        rest=cython.ulonglong)
    cdef unsigned long long nanoseconds(self, Py_ssize_t number, unsigned long long high, unsigned long long low) except? 0x5a5a5a5a5a5a5a5a
    cdef int order(self, Py_ssize_t place) except -1
    cdef int section(self, Py_ssize_t place) except -1
    @cython.locals(base=Py_ssize_t, position=Py_ssize_t)
    cdef int interface(self, Py_ssize_t place, Py_ssize_t length) except -1
    cdef unsigned int u16(self, Py_ssize_t place) except? 0x5a5a
    @cython.locals(value=cython.uint)
    cdef unsigned int u32(self, Py_ssize_t place) except? 0x5a5a5a5a

cimport cython

from engine.shm cimport atomics
from engine.shm.stream_units cimport StreamUnits

cdef Py_ssize_t TTL
cdef Py_ssize_t VERSION_WORD
cdef Py_ssize_t SEED0
cdef Py_ssize_t BUSY
cdef unsigned long long TOP
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long SPREAD
cdef unsigned long long ONE
cdef unsigned long long HIGH
cdef unsigned long long HALF
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t PACKETS
cdef Py_ssize_t OCTETS
cdef Py_ssize_t FIRST
cdef Py_ssize_t LATEST
cdef Py_ssize_t START_SEQUENCE
cdef Py_ssize_t STOP_SEQUENCE
cdef Py_ssize_t HIGHEST
cdef Py_ssize_t WINDOW
cdef Py_ssize_t CYCLES
cdef Py_ssize_t FIRST_TIMESTAMP
cdef Py_ssize_t IN_ORDER_TIME
cdef Py_ssize_t NOMINAL
cdef Py_ssize_t JITTER
cdef Py_ssize_t MEAN_JITTER
cdef Py_ssize_t MAX_JITTER
cdef Py_ssize_t DELTA
cdef Py_ssize_t MAX_DELTA
cdef Py_ssize_t MEAN_DELTA
cdef Py_ssize_t CODEC
cdef Py_ssize_t CODEC_OF
cdef Py_ssize_t STAMP
cdef Py_ssize_t OUT_OF_ORDER
cdef Py_ssize_t DUPLICATES
cdef Py_ssize_t RESETS
cdef Py_ssize_t MARKERS
cdef Py_ssize_t EVENTS
cdef Py_ssize_t SEEN
cdef Py_ssize_t FLOW
cdef Py_ssize_t NAME
cdef Py_ssize_t TYPE_CHANGES
cdef Py_ssize_t LABEL
cdef Py_ssize_t TICK
cdef Py_ssize_t LEAST
cdef Py_ssize_t LIMIT
cdef Py_ssize_t SHIFT
cdef Py_ssize_t CALL
cdef double FAR
cdef double LATE
cdef double JUMP
cdef unsigned long long PAUSE
cdef unsigned long long SECOND
cdef unsigned long long MILLISECOND
cdef Py_ssize_t UNIT
cdef unsigned int VIDEO_CLOCK
cdef Py_ssize_t TOO_LATE
cdef Py_ssize_t JUMPED
cdef Py_ssize_t DSCP_NOW
cdef Py_ssize_t CODEC_CHANGES
cdef Py_ssize_t LATE_NOW
cdef unsigned long long NORMAL
cdef unsigned long long COMFORT_NOISE
cdef unsigned long long EVENT
cdef unsigned int LARGEST_MISORDER

cdef class StreamTable(StreamUnits):
    cdef unsigned long long salt
    cdef double[::1] reals
    cdef readonly unsigned long long ttl

    cpdef bint is_stream(
        self, Py_ssize_t word, unsigned long long src0, unsigned long long src1, unsigned long long dst0,
        unsigned long long dst1, unsigned long long ports, unsigned long long domain) except -1
    @cython.locals(tag=cython.ulonglong, slot=Py_ssize_t)
    cpdef Py_ssize_t find(
        self, unsigned long long flow_tag, unsigned long long src0, unsigned long long src1, unsigned long long dst0,
        unsigned long long dst1, unsigned long long ports, unsigned long long domain) except -2
    @cython.locals(
        tag=cython.ulonglong, slot=Py_ssize_t, word=Py_ssize_t, unit=Py_ssize_t, index=Py_ssize_t)
    cpdef Py_ssize_t add(
        self, unsigned long long flow_tag, unsigned long long src0, unsigned long long src1, unsigned long long dst0,
        unsigned long long dst1, unsigned long long ports, unsigned long long domain, unsigned long long now) except -2
    cdef unsigned long long tag_of(self, unsigned long long flow_tag, unsigned long long ssrc) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(latest=cython.ulonglong, ttl=cython.ulonglong)
    cdef bint expired(self, Py_ssize_t slot, unsigned long long now) except -1
    cdef int mend(self, Py_ssize_t slot) except -1
    @cython.locals(word=Py_ssize_t, index=Py_ssize_t)
    cpdef int label(
        self, Py_ssize_t slot, unsigned long long found_by, unsigned long long flow, unsigned long long codec_of,
        unsigned long long payload_type, unsigned long long clock, unsigned long long kind, unsigned long long name0,
        unsigned long long name1, unsigned long long[::1] words, Py_ssize_t call) except -1
    @cython.locals(
        codec=cython.ulonglong, clock=cython.uint, kind=cython.ulonglong)
    cpdef int count(
        self, Py_ssize_t word, unsigned long long now, unsigned int sequence, unsigned int timestamp,
        unsigned int marker, unsigned long long octets, unsigned long long dscp=*) except -1
    @cython.locals(timed=cython.bint)
    cdef int open_stream(
        self, Py_ssize_t word, unsigned long long now, unsigned int sequence, unsigned int timestamp,
        unsigned int clock, unsigned long long kind, unsigned long long dscp) except -1
    @cython.locals(before=cython.ulonglong, steady=cython.bint)
    cdef int follow(
        self, Py_ssize_t word, unsigned long long now, unsigned int sequence, unsigned int timestamp,
        unsigned int clock, unsigned long long kind, unsigned int marker, unsigned long long dscp) except -1
    @cython.locals(
        latest=cython.ulonglong, delta=double, jitter=double, timed=cython.bint, nominal=double, transit=double,
        count=double, share=double)
    cdef int timing(
        self, Py_ssize_t word, unsigned long long now, unsigned int timestamp, unsigned int clock,
        unsigned long long kind, bint steady) except -1
    @cython.locals(before=cython.ulonglong, codec=cython.ulonglong, known=cython.bint, unit=Py_ssize_t)
    cdef int label_medium(
        self, Py_ssize_t word, unsigned long long payload_type, unsigned long long name0, unsigned long long name1) except -1
    @cython.locals(began=cython.ulonglong)
    cdef int tick(self, Py_ssize_t word, unsigned long long now) except -1
    @cython.locals(latest=cython.ulonglong, silent=cython.ulonglong, in_order=cython.bint, speech=cython.bint)
    cdef int pause(
        self, Py_ssize_t word, unsigned long long now, unsigned int sequence, unsigned long long before,
        unsigned long long kind, bint marker) except -1
    @cython.locals(limit=double, unit=Py_ssize_t)
    cdef int unusual(self, Py_ssize_t word, double transit) except -1
    @cython.locals(cycles=cython.ulonglong, start=cython.uint)
    cdef int cycle(self, Py_ssize_t word, unsigned int sequence) except -1
    @cython.locals(highest=cython.ulonglong, window=cython.ulonglong, ahead=cython.uint, back=cython.uint)
    cdef int order(self, Py_ssize_t word, unsigned int sequence) except -1
    @cython.locals(slot=Py_ssize_t)
    cpdef list slots_since(self, unsigned long long version)

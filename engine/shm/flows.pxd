cimport cython

from engine.shm cimport atomics

cdef Py_ssize_t SLOTS
cdef Py_ssize_t SEED0
cdef Py_ssize_t SEED1
cdef Py_ssize_t USED
cdef Py_ssize_t ADDED
cdef Py_ssize_t EXPIRED
cdef Py_ssize_t BUSY
cdef Py_ssize_t ENDED
cdef Py_ssize_t EPOCHS
cdef Py_ssize_t TAGS
cdef Py_ssize_t ENTRY
cdef Py_ssize_t LOCK
cdef Py_ssize_t FACTS
cdef Py_ssize_t PORTS
cdef Py_ssize_t KEY
cdef Py_ssize_t DOMAIN
cdef Py_ssize_t LAST
cdef Py_ssize_t EPOCH
cdef Py_ssize_t STREAM
cdef Py_ssize_t LABELS
cdef Py_ssize_t VERDICTS
cdef Py_ssize_t CALL
cdef Py_ssize_t CODECS
cdef Py_ssize_t PROBES
cdef Py_ssize_t SPINS
cdef unsigned long long EMPTY
cdef unsigned long long REMOVED
cdef unsigned long long CLAIMED
cdef unsigned long long TOP
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long TOUCH
cdef unsigned long long IDLE
cdef unsigned long long MILLISECOND
cdef unsigned long long INIT0
cdef unsigned long long INIT1
cdef unsigned long long INIT2
cdef unsigned long long INIT3
cdef unsigned long long SIDE_MARK
cdef unsigned long long KEPT
cdef unsigned long long FIVE_TUPLE_KIND
cdef unsigned long long SIDE_KIND
cdef unsigned long long SDP
cdef unsigned long long HEURISTIC

@cython.final
cdef class FlowTable:
    cdef public object region
    cdef unsigned long long[::1] words
    cdef unsigned char[::1] memory
    cdef readonly Py_ssize_t slots
    cdef readonly unsigned long long writer
    cdef unsigned long long mask
    cdef unsigned long long seed0
    cdef unsigned long long seed1
    cdef Py_ssize_t first
    cdef Py_ssize_t cursor
    # What the last find() or add() found
    cdef readonly unsigned long long tag
    cdef readonly unsigned long long generation
    cdef readonly unsigned long long labels_word
    cdef readonly unsigned long long epoch
    # What the next register() writes: the Call-ID and a codec table, in the layout of an entry
    cdef unsigned long long[::1] call
    cdef unsigned char[::1] call_octets
    cdef unsigned long long call_length
    cdef unsigned long long call_hash
    cdef unsigned long long[::1] codecs
    cdef public unsigned long long codec_count

    @cython.locals(
        v0=cython.ulonglong, v1=cython.ulonglong, v2=cython.ulonglong, v3=cython.ulonglong, m=cython.ulonglong,
        step=Py_ssize_t)
    cpdef unsigned long long hash(
        self, unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d,
        unsigned long long e, unsigned long long f) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(index=Py_ssize_t, step=Py_ssize_t, word=Py_ssize_t, found=cython.ulonglong, state=cython.ulonglong, tries=Py_ssize_t)
    cdef Py_ssize_t probe(
        self, unsigned long long tag, unsigned long long ports, unsigned long long src0, unsigned long long src1,
        unsigned long long dst0, unsigned long long dst1, unsigned long long domain) except -2
    @cython.locals(ports=cython.ulonglong, tag=cython.ulonglong, slot=Py_ssize_t, word=Py_ssize_t, last=cython.ulonglong)
    cpdef Py_ssize_t find(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long sport, unsigned long long dport, unsigned long long protocol, unsigned long long domain,
        unsigned long long now) except -2
    @cython.locals(word=Py_ssize_t, labels=cython.ulonglong)
    cdef bint expired(self, Py_ssize_t slot, unsigned long long now) except -1
    @cython.locals(ports=cython.ulonglong, tag=cython.ulonglong, slot=Py_ssize_t)
    cdef Py_ssize_t side(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port,
        unsigned long long protocol, unsigned long long domain) except -2
    @cython.locals(slot=Py_ssize_t)
    cdef int touch_sides(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long ports, unsigned long long domain, unsigned long long now) except -1
    @cython.locals(
        slot=Py_ssize_t, receiver=Py_ssize_t, sender=Py_ssize_t, dst_tag=cython.ulonglong, src_tag=cython.ulonglong,
        epoch=cython.ulonglong)
    cdef Py_ssize_t adopt(
        self, unsigned long long tag, unsigned long long src0, unsigned long long src1, unsigned long long dst0,
        unsigned long long dst1, unsigned long long ports, unsigned long long domain, unsigned long long now) except -2
    @cython.locals(
        slot=Py_ssize_t, word=Py_ssize_t, ports=cython.ulonglong, tag=cython.ulonglong, src_tag=cython.ulonglong,
        dst_tag=cython.ulonglong)
    cpdef Py_ssize_t add(
        self, unsigned long long src0, unsigned long long src1, unsigned long long dst0, unsigned long long dst1,
        unsigned long long sport, unsigned long long dport, unsigned long long protocol, unsigned long long domain,
        unsigned long long now, unsigned long long ttl) except -2
    @cython.locals(index=Py_ssize_t, step=Py_ssize_t, found=cython.ulonglong, turn=Py_ssize_t)
    cdef Py_ssize_t claim(self, unsigned long long tag, unsigned long long now) except -2
    @cython.locals(word=Py_ssize_t, state=cython.ulonglong, generation=cython.ulonglong, index=Py_ssize_t)
    cdef int begin(
        self, Py_ssize_t slot, unsigned long long kind, unsigned long long ports, unsigned long long a0,
        unsigned long long a1, unsigned long long b0, unsigned long long b1, unsigned long long domain) except -1
    @cython.locals(word=Py_ssize_t, other=Py_ssize_t)
    cdef Py_ssize_t publish(self, Py_ssize_t slot, unsigned long long tag) except -2
    @cython.locals(word=Py_ssize_t, tries=Py_ssize_t, state=cython.ulonglong)
    cdef bint lock(self, Py_ssize_t slot) except -1
    @cython.locals(word=Py_ssize_t)
    cdef int unlock(self, Py_ssize_t slot) except -1
    @cython.locals(word=Py_ssize_t)
    cdef bint remove(self, Py_ssize_t slot) except -1
    @cython.locals(
        word=Py_ssize_t, place=Py_ssize_t, labels=cython.ulonglong, own=cython.ulonglong, index=Py_ssize_t)
    cdef int copy_labels(self, Py_ssize_t slot, Py_ssize_t receiver, Py_ssize_t sender) except -1
    @cython.locals(
        word=Py_ssize_t, place=Py_ssize_t, more=cython.ulonglong, index=cython.ulonglong,
        other=cython.ulonglong, payload_type=cython.ulonglong)
    cdef unsigned long long merge_codecs(self, Py_ssize_t slot, Py_ssize_t source, unsigned long long count) except? 99
    @cython.locals(
        word=Py_ssize_t, place=cython.ulonglong, epoch=cython.ulonglong, receiver=Py_ssize_t, sender=Py_ssize_t,
        ports=cython.ulonglong)
    cdef int refresh(self, Py_ssize_t slot) except -1
    @cython.locals(length=Py_ssize_t, index=Py_ssize_t)
    cpdef int stage_call(self, const unsigned char[::1] buf, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef int stage_codec(
        self, unsigned long long payload_type, unsigned long long clock, unsigned long long name0,
        unsigned long long name1) except -1
    @cython.locals(
        slot=Py_ssize_t, word=Py_ssize_t, ports=cython.ulonglong, tag=cython.ulonglong, labels=cython.ulonglong,
        index=Py_ssize_t, outcome=int)
    cpdef int register(
        self, unsigned long long address0, unsigned long long address1, unsigned long long port, bint rtcp,
        unsigned long long media, unsigned long long protocol, unsigned long long domain, unsigned long long now,
        unsigned long long ttl) except -1
    @cython.locals(labels=cython.ulonglong, recent=cython.ulonglong, idle=cython.ulonglong)
    cdef bint may_take(self, Py_ssize_t slot, bint rtcp, unsigned long long now) except -1
    @cython.locals(word=Py_ssize_t, labels=cython.ulonglong, index=Py_ssize_t)
    cdef bint same_call(self, Py_ssize_t slot) except -1
    @cython.locals(slot=Py_ssize_t, length=cython.ulonglong, index=Py_ssize_t)
    cdef unsigned long long hash_call(self, Py_ssize_t word, unsigned long long length) except? 0x5a5a5a5a5a5a5a5a
    cpdef int end_call(self) except -1
    @cython.locals(
        word=Py_ssize_t, count=cython.ulonglong, index=cython.ulonglong)
    cpdef Py_ssize_t codec(self, Py_ssize_t slot, unsigned long long payload_type) except -2
    @cython.locals(word=Py_ssize_t)
    cpdef int verdict(self, Py_ssize_t slot, unsigned long long payload_type) except -1
    @cython.locals(word=Py_ssize_t, tries=Py_ssize_t, old=cython.ulonglong, shift=cython.ulonglong)
    cpdef int keep_verdict(self, Py_ssize_t slot, unsigned long long payload_type, unsigned long long verdict) except -1
    @cython.locals(step=Py_ssize_t, slot=Py_ssize_t, gone=int)
    cpdef int sweep(self, unsigned long long now, Py_ssize_t budget) except -1

cimport cython

from engine.shm.emodel cimport EModel

cdef unsigned long long GMIN
cdef double BIG
cdef unsigned long long INTERVAL
cdef unsigned long long PAUSE
cdef Py_ssize_t POINTS
cdef Py_ssize_t SPANS
cdef unsigned long long LEAST_EXPECTED
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long MASK20
cdef unsigned long long MASK16
cdef unsigned long long HIGH
cdef unsigned long long ONE
cdef Py_ssize_t REST
cdef Py_ssize_t ORIGIN
cdef Py_ssize_t LAST_LOSS
cdef Py_ssize_t BURST
cdef Py_ssize_t RUNNING
cdef Py_ssize_t BURSTS
cdef Py_ssize_t BURST_LOST
cdef Py_ssize_t RUNS
cdef Py_ssize_t SKIPPED
cdef Py_ssize_t LATE
cdef Py_ssize_t PAUSES
cdef Py_ssize_t PAUSED
cdef Py_ssize_t LONGEST
cdef Py_ssize_t LONGEST_AT
cdef Py_ssize_t SILENCE
cdef Py_ssize_t DSCP
cdef Py_ssize_t SOURCES
cdef Py_ssize_t CODECS
cdef Py_ssize_t LENGTHS
cdef Py_ssize_t ENDS
cdef Py_ssize_t BEGAN_AT
cdef Py_ssize_t LOST_NOW
cdef Py_ssize_t LATE_NOW
cdef Py_ssize_t BEGAN
cdef Py_ssize_t KEPT
cdef Py_ssize_t WORST
cdef Py_ssize_t POINTS_KEPT
cdef Py_ssize_t SPARE
cdef Py_ssize_t POINT
cdef Py_ssize_t SPAN

@cython.final
cdef class Quality:
    cdef unsigned long long[::1] words
    cdef double[::1] reals
    cdef EModel model

    cpdef int begin(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long highest, unsigned long long dscp,
        unsigned long long codec) except -1
    @cython.locals(last=cython.ulonglong, running=cython.ulonglong)
    cpdef int lose(self, Py_ssize_t unit, unsigned long long position, unsigned long long count) except -1
    @cython.locals(run=cython.ulonglong, runs=cython.ulonglong, place=Py_ssize_t)
    cdef int end_run(self, Py_ssize_t unit) except -1
    @cython.locals(running=cython.ulonglong, lost=cython.ulonglong, length=cython.ulonglong)
    cdef int end_burst(self, Py_ssize_t unit) except -1
    @cython.locals(steps=Py_ssize_t, position=cython.ulonglong, _=Py_ssize_t)
    cpdef int leave(
        self, Py_ssize_t unit, unsigned long long highest, unsigned long long window, unsigned long long ahead) except -1
    cpdef int restart(
        self, Py_ssize_t unit, unsigned long long highest, unsigned long long window, unsigned long long ahead) except -1
    cpdef int tick(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long since_ms, unsigned long long highest,
        unsigned long long began_ms, double transit) except -1
    @cython.locals(
        value=cython.ulonglong, word=cython.ulonglong, kept=Py_ssize_t, level=cython.ulonglong, held=cython.ulonglong,
        place=Py_ssize_t, index=Py_ssize_t)
    cdef int point(self, Py_ssize_t unit, unsigned long long since_ms, double transit) except -1
    @cython.locals(
        expected=cython.ulonglong, lost=cython.ulonglong, late=cython.ulonglong, codec=cython.ulonglong,
        runs=cython.ulonglong)
    cdef int close(self, Py_ssize_t unit, unsigned long long highest) except -1
    @cython.locals(
        first=cython.ulonglong, second=cython.ulonglong, before=cython.ulonglong, gone=cython.ulonglong,
        kept=Py_ssize_t, level=cython.ulonglong, held=cython.ulonglong, index=Py_ssize_t)
    cdef int keep(
        self, Py_ssize_t unit, unsigned long long began, unsigned long long expected, unsigned long long lost,
        unsigned long long late, unsigned long long runs, unsigned long long codec) except -1
    @cython.locals(
        first=cython.ulonglong, second=cython.ulonglong, first2=cython.ulonglong, second2=cython.ulonglong,
        codec=cython.ulonglong, expected=cython.ulonglong, lost=cython.ulonglong, late=cython.ulonglong,
        runs=cython.ulonglong)
    cdef int join(self, Py_ssize_t place, Py_ssize_t one, Py_ssize_t other) except -1
    cdef unsigned long long second_word(
        self, unsigned long long lost, unsigned long long late, unsigned long long runs,
        unsigned long long codec) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(long=cython.bint)
    cpdef int pause(
        self, Py_ssize_t unit, unsigned long long silent, unsigned long long latest, bint noise, bint in_order,
        bint speech) except -1
    @cython.locals(expected=cython.ulonglong)
    cpdef int settle(self, Py_ssize_t unit, unsigned long long highest, unsigned long long window) except -1
    @cython.locals(
        kept=Py_ssize_t, one=Py_ssize_t, other=Py_ssize_t, first=cython.ulonglong, second=cython.ulonglong,
        elapsed=double, middle=Py_ssize_t)
    cpdef double skew(self, Py_ssize_t unit) except? -99.0
    @cython.locals(impairment=double)
    cdef double score(self, unsigned long long first, unsigned long long second, double delay_ms) except? -99.0
    @cython.locals(word=Py_ssize_t)
    cpdef double interval_score(self, Py_ssize_t unit, Py_ssize_t index, double delay_ms) except? -99.0
    @cython.locals(
        kept=Py_ssize_t, total=double, packets=double, newest=double, least=double, index=Py_ssize_t,
        first=cython.ulonglong, expected=double, score=double)
    cpdef tuple scores(self, Py_ssize_t unit, double delay_ms)

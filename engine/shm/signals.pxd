cimport cython

cdef unsigned long long EVENTS_KEPT
cdef unsigned long long LOOK_BACK
cdef unsigned long long LONGEST_SEGMENT
cdef unsigned long long LONGEST_TRIP_US
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef unsigned long long HIGH
cdef Py_ssize_t EVENTS
cdef Py_ssize_t EVENT
cdef Py_ssize_t REPORTS
cdef Py_ssize_t OTHERS
cdef Py_ssize_t SENT
cdef Py_ssize_t NTP
cdef Py_ssize_t STAMP
cdef Py_ssize_t OCTETS
cdef Py_ssize_t NTP_BEFORE
cdef Py_ssize_t SENT_BEFORE
cdef Py_ssize_t BLOCKS
cdef Py_ssize_t BLOCK_AT
cdef Py_ssize_t LOST
cdef Py_ssize_t JITTER
cdef Py_ssize_t WORST
cdef Py_ssize_t TO_RECEIVER
cdef Py_ssize_t TO_SENDER
cdef Py_ssize_t REFERENCE
cdef Py_ssize_t REFERENCE_AT
cdef Py_ssize_t BYE
cdef Py_ssize_t APP
cdef Py_ssize_t METRICS
cdef Py_ssize_t METRICS_AT
cdef Py_ssize_t METRICS_OCTETS
cdef Py_ssize_t CNAME
cdef Py_ssize_t CNAME_OCTETS

@cython.final
cdef class Signals:
    cdef unsigned long long[::1] words
    cdef unsigned char[::1] octets

    @cython.locals(
        count=cython.ulonglong, look=cython.ulonglong, back=cython.ulonglong, place=Py_ssize_t, word=cython.ulonglong,
        begun=cython.ulonglong, segments=cython.ulonglong, apart=cython.ulonglong)
    cpdef int event(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long timestamp, unsigned long long clock,
        unsigned long long code, unsigned long long ended, unsigned long long length) except -1
    @cython.locals(before=cython.ulonglong)
    cdef int note(
        self, Py_ssize_t place, unsigned long long timestamp, unsigned long long clock, unsigned long long code,
        unsigned long long ended, unsigned long long length, unsigned long long segments) except -1
    cpdef int sender(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long ntp, unsigned long long timestamp,
        unsigned long long packets, unsigned long long octets) except -1
    cpdef int other(self, Py_ssize_t unit, bint extended) except -1
    cpdef int receiver(self, Py_ssize_t unit) except -1
    cpdef int bye(self, Py_ssize_t unit, unsigned long long now) except -1
    cpdef int app(self, Py_ssize_t unit, unsigned long long name) except -1
    @cython.locals(place=Py_ssize_t, length=Py_ssize_t, index=Py_ssize_t)
    cpdef int cname(self, Py_ssize_t unit, const unsigned char[::1] buf, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(most=cython.ulonglong)
    cpdef int block(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long reporter, unsigned long long fraction,
        unsigned long long lost, unsigned long long highest, unsigned long long jitter) except -1
    cpdef Py_ssize_t trip_of_report(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long last, unsigned long long delay) except -2
    cpdef Py_ssize_t trip_of_reference(
        self, Py_ssize_t unit, unsigned long long now, unsigned long long last, unsigned long long delay) except -2
    cpdef int reference(self, Py_ssize_t unit, unsigned long long now, unsigned long long ntp) except -1
    @cython.locals(held=cython.ulonglong, passed=cython.ulonglong)
    cdef Py_ssize_t trip_since(self, unsigned long long now, unsigned long long then, unsigned long long delay) except -2
    @cython.locals(count=cython.ulonglong, least=cython.ulonglong, most=cython.ulonglong)
    cpdef int trip(self, Py_ssize_t place, unsigned long long trip) except -1
    @cython.locals(place=Py_ssize_t, index=Py_ssize_t)
    cpdef int metrics(self, Py_ssize_t unit, unsigned long long now, const unsigned char[::1] buf, Py_ssize_t start) except -1

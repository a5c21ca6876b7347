cimport cython

cdef double UNKNOWN
cdef double LONGEST_BURST_RATIO
cdef Py_ssize_t COUNT
cdef const unsigned long long[::1] NAMES
cdef const double[::1] FACTORS

@cython.final
cdef class EModel:
    @cython.locals(number=Py_ssize_t)
    cpdef Py_ssize_t codec(self, unsigned long long name0, unsigned long long name1) except -1
    @cython.locals(own=double, robust=double, gone=cython.longlong, share=double, ratio=double)
    cpdef double impairment(
        self, Py_ssize_t codec, long long expected, long long lost, long long late, long long runs) except? -99.0
    @cython.locals(x=double, near=double, far=double)
    cpdef double delay_impairment(self, double delay_ms) except? -99.0
    cpdef double rating(self, double impairment, double delay_ms) except? -999.0
    @cython.locals(score=double)
    cpdef double mos(self, double rating) except? -99.0

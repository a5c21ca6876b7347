cimport cython

cdef unsigned long long MASK64
cdef unsigned long long INIT0
cdef unsigned long long INIT1
cdef unsigned long long INIT2
cdef unsigned long long INIT3

@cython.final
cdef class SipHash:
    cdef unsigned long long seed0
    cdef unsigned long long seed1

    @cython.locals(
        v0=cython.ulonglong, v1=cython.ulonglong, v2=cython.ulonglong, v3=cython.ulonglong, m=cython.ulonglong,
        step=Py_ssize_t)
    cpdef unsigned long long hash(
        self, unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d,
        unsigned long long e, unsigned long long f) except? 0x5a5a5a5a5a5a5a5a

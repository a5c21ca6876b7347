cimport cython

cdef unsigned int MASK32
cdef unsigned int ANCILLARY
cdef unsigned int NETWORK
cdef unsigned int LINK_LAYER
cdef unsigned int LD
cdef unsigned int LDX
cdef unsigned int ST
cdef unsigned int STX
cdef unsigned int ALU
cdef unsigned int JMP
cdef unsigned int RET
cdef unsigned int ABS
cdef unsigned int IND
cdef unsigned int MEM
cdef unsigned int LEN
cdef unsigned int MSH
cdef unsigned int TXA

@cython.final
cdef class PacketFilter:
    cdef const unsigned char[::1] buf
    cdef unsigned int[::1] codes
    cdef unsigned int[::1] yes
    cdef unsigned int[::1] no
    cdef unsigned int[::1] values
    cdef unsigned int[::1] scratch
    cdef readonly Py_ssize_t length
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef bint outside
    cdef public unsigned int wire_length
    cdef public unsigned int protocol
    cdef public unsigned int packet_type
    cdef public unsigned int interface
    cdef public unsigned int hardware
    cdef public unsigned int vlan
    cdef public Py_ssize_t network

    cpdef attach(self, const unsigned char[::1] buf)
    @cython.locals(place=Py_ssize_t, index=Py_ssize_t, value=cython.uint)
    cdef unsigned int load(self, unsigned int k, Py_ssize_t size) except? 0x5a5a5a5a
    cdef unsigned int ancillary(self, unsigned int k) except? 0x5a5a5a5a
    @cython.locals(other=cython.uint)
    cdef unsigned int compute(self, unsigned int code, unsigned int a, unsigned int x, unsigned int k) except? 0x5a5a5a5a
    @cython.locals(size=Py_ssize_t, mode=cython.uint)
    cdef unsigned int operand(self, unsigned int code, unsigned int k, unsigned int x) except? 0x5a5a5a5a
    @cython.locals(code=cython.uint, k=cython.uint, hit=cython.bint)
    cdef Py_ssize_t jump(self, Py_ssize_t place, unsigned int a, unsigned int x) except -1
    @cython.locals(a=cython.uint, x=cython.uint, k=cython.uint, code=cython.uint, kind=cython.uint, place=Py_ssize_t)
    cpdef unsigned int match(self, Py_ssize_t start, Py_ssize_t end) except? 0x5a5a5a5a

# The compiled side of __init__.py: import both,
#   in the .py   `from engine.parsers import octets`
#   in the .pxd  `from engine.parsers cimport octets`
# and write `octets.find(self.buf, begin, stop, LF)`.

from libc.string cimport memchr, memset

cdef inline Py_ssize_t find(const unsigned char[::1] buf, Py_ssize_t begin, Py_ssize_t stop, unsigned int octet) except -1:
    cdef const unsigned char *place
    if begin >= stop:
        return stop
    if begin < 0 or stop > buf.shape[0]:
        raise IndexError("outside the buffer")
    place = <const unsigned char *>memchr(&buf[begin], octet, <size_t>(stop - begin))
    return stop if place == NULL else begin + (place - &buf[begin])

cdef inline int clear(int[::1] slots) except -1:
    if slots.shape[0] > 0:
        memset(&slots[0], 0xFF, <size_t>slots.shape[0] * sizeof(int))
    return 0

# The compiled side of __init__.py: import both,
#   in the .py   `from engine.parsers import octets`
#   in the .pxd  `from engine.parsers cimport octets`
# and write `octets.find(self.buf, begin, stop, LF)`.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr, memcpy, memset

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

cdef inline bytes cut(const unsigned char[::1] buf, Py_ssize_t begin, Py_ssize_t stop):
    if begin >= stop:
        return b""
    if begin < 0 or stop > buf.shape[0]:
        raise IndexError("outside the buffer")
    return PyBytes_FromStringAndSize(<const char *>&buf[begin], stop - begin)

cdef inline Py_ssize_t copy(
    unsigned char[::1] target, Py_ssize_t place, const unsigned char[::1] buf, Py_ssize_t begin, Py_ssize_t stop
) except -1:
    if begin >= stop:
        return place
    if begin < 0 or stop > buf.shape[0] or place < 0 or place + stop - begin > target.shape[0]:
        raise IndexError("outside the buffer")
    memcpy(&target[place], &buf[begin], <size_t>(stop - begin))
    return place + stop - begin

cdef inline Py_ssize_t put(unsigned char[::1] target, Py_ssize_t place, bytes text) except -1:
    cdef Py_ssize_t length = len(text)
    cdef const unsigned char *source = text
    if place < 0 or place + length > target.shape[0]:
        raise IndexError("outside the buffer")
    if length > 0:
        memcpy(&target[place], source, <size_t>length)
    return place + length

cdef inline Py_ssize_t plain(const unsigned char[::1] buf, Py_ssize_t begin, Py_ssize_t stop) except -1:
    cdef unsigned long long word
    cdef unsigned long long ones = 0x0101010101010101u
    cdef unsigned long long tops = 0x8080808080808080u
    cdef unsigned long long quote
    cdef unsigned long long slash
    cdef unsigned int octet
    if begin >= stop:
        return stop
    if begin < 0 or stop > buf.shape[0]:
        raise IndexError("outside the buffer")
    # Eight at a time: below 0x20, a quote, a backslash, or above 0x7f sets the top bit of its octet.
    while stop - begin >= 8:
        memcpy(&word, &buf[begin], 8)
        quote = word ^ (ones * 0x22)
        slash = word ^ (ones * 0x5C)
        if (word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & tops:
            break
        begin += 8
    while begin < stop:
        octet = buf[begin]
        if octet < 0x20 or octet == 0x22 or octet == 0x5C or octet >= 0x80:
            break
        begin += 1
    return begin

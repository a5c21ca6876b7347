# The compiled side of atomics.py: import both,
#   in the .py   `from engine.shm import atomics`
#   in the .pxd  `from engine.shm cimport atomics`
# and write `atomics.load(self.words, index)`. Bounds of the view are checked.

cdef extern from "atomics.h":
    unsigned long long otus_load(const unsigned long long *word) noexcept nogil
    unsigned long long otus_peek(const unsigned long long *word) noexcept nogil
    void otus_store(unsigned long long *word, unsigned long long value) noexcept nogil
    unsigned long long otus_add(unsigned long long *word, unsigned long long value) noexcept nogil
    int otus_swap(unsigned long long *word, unsigned long long old, unsigned long long value) noexcept nogil
    void otus_fence() noexcept nogil
    void otus_prefetch(const void *place) noexcept nogil
    unsigned int otus_load32(const unsigned int *word) noexcept nogil
    void otus_store32(unsigned int *word, unsigned int value) noexcept nogil

cdef inline unsigned long long load(unsigned long long[::1] words, Py_ssize_t index) except? 0x5a5a5a5a5a5a5a5a:
    return otus_load(&words[index])

cdef inline unsigned long long peek(unsigned long long[::1] words, Py_ssize_t index) except? 0x5a5a5a5a5a5a5a5a:
    return otus_peek(&words[index])

cdef inline int store(unsigned long long[::1] words, Py_ssize_t index, unsigned long long value) except -1:
    otus_store(&words[index], value)
    return 0

cdef inline unsigned long long add(unsigned long long[::1] words, Py_ssize_t index, unsigned long long value) except? 0x5a5a5a5a5a5a5a5a:
    return otus_add(&words[index], value)

cdef inline int swap(unsigned long long[::1] words, Py_ssize_t index, unsigned long long old, unsigned long long value) except -1:
    return otus_swap(&words[index], old, value)

cdef inline int fence() except -1:
    otus_fence()
    return 0

cdef inline unsigned int load32(unsigned int[::1] words, Py_ssize_t index) except? 0x5a5a5a5a:
    return otus_load32(&words[index])

cdef inline int store32(unsigned int[::1] words, Py_ssize_t index, unsigned int value) except -1:
    otus_store32(&words[index], value)
    return 0

cdef inline int prefetch32(unsigned int[::1] words, Py_ssize_t index) except -1:
    otus_prefetch(&words[index])
    return 0

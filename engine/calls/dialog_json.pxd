cimport cython

from engine.calls.dialogs cimport DialogTable
from engine.calls.states cimport Dialog
from engine.json_text cimport JsonText
from engine.parsers cimport octets

cdef unsigned int CALL
cdef unsigned int IN_CALL
cdef unsigned int FIRST_CODE
cdef Py_ssize_t MOST_TALLIES
cdef Py_ssize_t MOST_TEXT
cdef Py_ssize_t FULL
cdef unsigned int LT
cdef unsigned int GT
cdef unsigned int COLON
cdef unsigned int AT
cdef unsigned int SEMICOLON
cdef unsigned int QUESTION
cdef unsigned int SPACE
cdef unsigned int DELETE
cdef unsigned long long MICROSECOND
cdef unsigned long long MILLION
cdef unsigned long long LONGEST_EXACT
cdef unsigned long long SMALLEST_PLAIN
cdef tuple SCHEMES

@cython.final
cdef class DialogJson(JsonText):
    cdef DialogTable table
    cdef object rows
    cdef unsigned char[::1] scratch
    cdef unsigned int[::1] keys
    cdef unsigned int[::1] counts
    cdef list states
    cdef dict names
    cdef unsigned long long now

    @cython.locals(dialog=Dialog, first=cython.bint)
    cpdef int dialogs(self, write) except -1
    @cython.locals(count=Py_ssize_t)
    cdef int dialog(self, Dialog d) except -1
    @cython.locals(length=Py_ssize_t)
    cdef Py_ssize_t stage(self, bytes value) except -1
    @cython.locals(count=Py_ssize_t, cell=Py_ssize_t, key=cython.uint, place=Py_ssize_t)
    cdef Py_ssize_t tallies(self, Dialog d) except -1
    @cython.locals(some=cython.bint, index=Py_ssize_t, key=cython.uint)
    cdef int counted(self, Py_ssize_t place, Py_ssize_t count, bint methods) except -1
    @cython.locals(text=bytes)
    cdef bytes method_text(self, unsigned int number)
    cdef int endpoint(self, Dialog d, unsigned long long low, unsigned long long high, unsigned int port, bint source) except -1
    @cython.locals(stop=Py_ssize_t, place=Py_ssize_t, begin=Py_ssize_t, host=Py_ssize_t, octet=cython.uint)
    cdef int uri(self, Dialog d, bytes value, bint sender) except -1
    cdef int odd_uri(self, Dialog d, bint sender) except -1
    @cython.locals(scheme=bytes, length=Py_ssize_t, index=Py_ssize_t, octet=int)
    cdef Py_ssize_t behind_scheme(self, Py_ssize_t begin, Py_ssize_t stop) except -1
    cdef int setup(self, Dialog d) except -1
    @cython.locals(end=cython.ulonglong)
    cdef int duration(self, Dialog d) except -1
    @cython.locals(whole=cython.ulonglong, rest=cython.ulonglong, count=Py_ssize_t)
    cdef int seconds(self, unsigned long long nanoseconds) except -1

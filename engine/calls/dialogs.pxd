cimport cython

from engine.calls.arena cimport Arena
from engine.calls.record_view cimport RecordView
from engine.calls.states cimport Dialog
from engine.shm.ring cimport RingReader

cdef unsigned int SIP
cdef unsigned int ICMP
cdef unsigned int P_DUPLICATE
cdef Py_ssize_t MESSAGE
cdef Py_ssize_t SLOT_METHOD
cdef Py_ssize_t SLOT_CALL_ID
cdef Py_ssize_t SLOT_FROM
cdef Py_ssize_t SLOT_FROM_URI
cdef Py_ssize_t SLOT_TO
cdef Py_ssize_t SLOT_TO_URI
cdef Py_ssize_t SLOT_CSEQ_METHOD
cdef Py_ssize_t SLOT_X_CALL_ID
cdef unsigned int KNOWN_METHODS
cdef unsigned int OTHER_METHOD
cdef unsigned int MOST_TALLIES
cdef Py_ssize_t MOST_DEFECTS
cdef unsigned int FIRST_CODE
cdef unsigned int CALL_SETUP
cdef unsigned int REGISTERING
cdef unsigned int PENDING

@cython.final
cdef class DialogTable:
    cdef public Py_ssize_t limit
    cdef readonly unsigned int messages_per_call
    cdef readonly dict dialogs
    cdef readonly object arrivals
    cdef readonly object settled
    cdef readonly object finished
    cdef readonly RecordView view
    cdef readonly Arena arena
    cdef readonly Py_ssize_t most_tallies
    cdef unsigned int[::1] tallies
    cdef readonly Py_ssize_t used_tallies
    cdef Py_ssize_t free_tally
    cdef unsigned long long[::1] totals
    cdef unsigned long long[::1] by_state
    cdef dict names
    cdef readonly list method_names
    cdef readonly unsigned long long number
    cdef public unsigned long long version
    cdef public unsigned long long newest
    cdef readonly unsigned long long records
    cdef readonly unsigned long long foreign
    cdef readonly unsigned long long messages
    cdef readonly unsigned long long retransmissions
    cdef readonly unsigned long long malformed
    cdef readonly list defects
    cdef readonly unsigned long long copies
    cdef readonly unsigned long long removed
    cdef readonly unsigned long long unkept
    cdef readonly unsigned long long untallied
    cdef readonly unsigned long long quotes

    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t drain(self, RingReader reader, Py_ssize_t most) except -1
    cpdef add(self, unsigned int kind, unsigned long long timestamp, bytes body)
    cdef int take(self, unsigned int kind, unsigned long long timestamp, Py_ssize_t length) except -1
    @cython.locals(
        view=RecordView, arena=Arena, call_id=bytes, dialog=Dialog, position=Py_ssize_t, kept=cython.bint,
        signature=cython.ulonglong, repeated=cython.bint, old=cython.uint)
    cdef int message(self, unsigned long long timestamp) except -1
    @cython.locals(view=RecordView, dialog=Dialog, ports=cython.uint)
    cdef Dialog open(self, bytes call_id, unsigned long long timestamp)
    cdef int count(self, Dialog dialog, unsigned long long timestamp, bint repeated) except -1
    @cython.locals(cell=Py_ssize_t)
    cdef int tally(self, Dialog dialog, unsigned int key) except -1
    cdef int moved(self, Dialog dialog, unsigned int old) except -1
    cdef int tidy(self) except -1
    @cython.locals(dialog=Dialog)
    cdef bint evict(self, Dialog spare) except -1
    cdef bint give_up(self, Dialog dialog) except -1
    @cython.locals(cell=Py_ssize_t, after=Py_ssize_t)
    cpdef int remove(self, Dialog dialog) except -1
    @cython.locals(dialog=Dialog)
    cpdef int stepped(self, long long by) except -1
    @cython.locals(dialog=Dialog, old=cython.uint, count=Py_ssize_t)
    cpdef Py_ssize_t sweep(self, unsigned long long now) except -1
    @cython.locals(name=bytes)
    cdef unsigned int other_method(self, Py_ssize_t slot) except? 0xffffffff
    @cython.locals(dialog=Dialog)
    cdef int quoted(self, Py_ssize_t length) except -1
    cpdef str method_name(self, unsigned int number)
    @cython.locals(cell=Py_ssize_t)
    cpdef tuple counts(self, Dialog dialog)
    cpdef tuple all_counts(self)
    @cython.locals(dialog=Dialog)
    cpdef find(self, unsigned long long number)
    @cython.locals(dialog=Dialog, count=Py_ssize_t)
    cpdef Py_ssize_t active(self, unsigned int kind) except -1
    cpdef list state_counts(self)

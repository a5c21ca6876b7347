cimport cython

from engine.calls.states cimport Dialog, Facts
from engine.shm.ring cimport RingReader

cdef unsigned int SIP
cdef unsigned int ICMP
cdef unsigned int P_DUPLICATE
cdef Py_ssize_t MESSAGE
cdef Py_ssize_t FIRST_SLOT
cdef Py_ssize_t FIRST_WORD
cdef unsigned int ABSENT
cdef Py_ssize_t SLOT_STATUS
cdef Py_ssize_t SLOT_METHOD
cdef Py_ssize_t SLOT_CALL_ID
cdef Py_ssize_t SLOT_FROM
cdef Py_ssize_t SLOT_FROM_URI
cdef Py_ssize_t SLOT_FROM_TAG
cdef Py_ssize_t SLOT_TO
cdef Py_ssize_t SLOT_TO_URI
cdef Py_ssize_t SLOT_TO_TAG
cdef Py_ssize_t SLOT_CSEQ_METHOD
cdef Py_ssize_t SLOT_VIA
cdef Py_ssize_t SLOT_BRANCH
cdef Py_ssize_t SLOT_CONTACT
cdef Py_ssize_t SLOT_REASON_PHRASE
cdef Py_ssize_t SLOT_REASON
cdef Py_ssize_t SLOT_EXPIRES
cdef Py_ssize_t SLOT_SUBSCRIPTION_STATE
cdef Py_ssize_t SLOT_X_CALL_ID
cdef unsigned int INVITE
cdef unsigned int BYE
cdef unsigned int REGISTER
cdef unsigned int SUBSCRIBE
cdef unsigned int NOTIFY
cdef Py_ssize_t CELL
cdef unsigned int C_RETRANSMISSION
cdef unsigned int C_COPIED
cdef Py_ssize_t MOST_TEXT
cdef unsigned int OTHER_METHOD
cdef unsigned int MOST_TALLIES
cdef unsigned int FIRST_CODE
cdef unsigned long long REPEAT_NS
cdef Py_ssize_t SCRATCH
cdef unsigned long long MIX
cdef unsigned long long MASK64
cdef unsigned long long MASK32
cdef Py_ssize_t MASK_EIGHT

@cython.final
cdef class DialogTable:
    cdef public Py_ssize_t limit
    cdef readonly unsigned int messages_per_call
    cdef readonly dict dialogs
    cdef readonly object arrivals
    cdef readonly object finished
    cdef Facts facts
    cdef unsigned long long seed
    cdef readonly unsigned long long capacity
    cdef unsigned long long[::1] arena
    cdef readonly unsigned long long head
    cdef unsigned long long placed
    cdef readonly Py_ssize_t most_cells
    cdef unsigned long long[::1] cells
    cdef readonly Py_ssize_t used_cells
    cdef Py_ssize_t free_cell
    cdef readonly Py_ssize_t most_tallies
    cdef unsigned int[::1] tallies
    cdef readonly Py_ssize_t used_tallies
    cdef Py_ssize_t free_tally
    cdef unsigned long long buckets
    cdef unsigned long long[::1] seen
    cdef unsigned long long[::1] totals
    cdef readonly unsigned long long[::1] by_state
    cdef dict names
    cdef readonly list method_names
    cdef bytearray own
    cdef bytearray record
    cdef const unsigned char[::1] octets
    cdef const unsigned int[::1] ints
    cdef const unsigned long long[::1] words
    cdef Py_ssize_t size
    cdef Py_ssize_t first
    cdef Py_ssize_t last
    cdef readonly unsigned long long number
    cdef public unsigned long long version
    cdef public unsigned long long newest
    cdef readonly unsigned long long records
    cdef readonly unsigned long long foreign
    cdef readonly unsigned long long messages
    cdef readonly unsigned long long retransmissions
    cdef readonly unsigned long long malformed
    cdef readonly unsigned long long copies
    cdef public unsigned long long removed
    cdef readonly unsigned long long unkept
    cdef readonly unsigned long long untallied
    cdef readonly unsigned long long quotes

    cpdef attach(self, bytearray record)
    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t drain(self, RingReader reader, Py_ssize_t most) except -1
    @cython.locals(length=Py_ssize_t)
    cpdef add(self, unsigned int kind, unsigned long long timestamp, bytes body)
    @cython.locals(size=Py_ssize_t)
    cdef int take(self, unsigned int kind, unsigned long long timestamp, Py_ssize_t length) except -1
    @cython.locals(
        facts=Facts, status=cython.uint, error=cython.uint, method=cython.uint, call_id=bytes, dialog=Dialog,
        position=Py_ssize_t, signature=cython.ulonglong, repeated=cython.bint, old=cython.uint)
    cdef int message(self, unsigned long long timestamp) except -1
    @cython.locals(dialog=Dialog, response=cython.uint, ports=cython.uint)
    cdef Dialog open(self, bytes call_id, unsigned long long timestamp, unsigned int method)
    cdef int copied(self, Dialog dialog) except -1
    @cython.locals(key=cython.uint, cell=Py_ssize_t)
    cdef int count(
        self, Dialog dialog, unsigned long long timestamp, unsigned int method, unsigned int status,
        unsigned int error, bint repeated) except -1
    @cython.locals(need=cython.ulonglong, offset=cython.ulonglong)
    cdef Py_ssize_t place(self) except -2
    @cython.locals(
        h=cython.ulonglong, word=Py_ssize_t, whole=Py_ssize_t, rest=cython.uint, value=cython.ulonglong,
        one=cython.ulonglong)
    cdef unsigned long long sign(self, Py_ssize_t position) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(bucket=Py_ssize_t, older=Py_ssize_t, last=cython.ulonglong, place=Py_ssize_t)
    cdef bint repeated(self, unsigned long long signature, unsigned long long timestamp) except -1
    @cython.locals(cell=Py_ssize_t, base=Py_ssize_t, word=Py_ssize_t, wide=cython.ulonglong)
    cdef int keep(
        self, Dialog dialog, unsigned long long timestamp, Py_ssize_t position, unsigned long long signature,
        unsigned int method, unsigned int status, unsigned int error, bint repeated) except -1
    cdef int moved(self, Dialog dialog, unsigned int old) except -1
    @cython.locals(dialog=Dialog)
    cdef bint evict(self, Dialog spare) except -1
    @cython.locals(wide=cython.ulonglong, place=Py_ssize_t, cell=Py_ssize_t, after=Py_ssize_t)
    cpdef int remove(self, Dialog dialog) except -1
    @cython.locals(dialog=Dialog, old=cython.uint, count=Py_ssize_t)
    cpdef Py_ssize_t sweep(self, unsigned long long now) except -1
    @cython.locals(start=cython.uint, end=cython.uint)
    cdef bint span(self, Py_ssize_t slot) except -1
    @cython.locals(whole=cython.ulonglong)
    cdef bytes cut(self)
    @cython.locals(h=cython.ulonglong, place=Py_ssize_t)
    cdef unsigned long long digest(self) except? 0x5a5a5a5a5a5a5a5a
    cdef unsigned long long hashed(self, Py_ssize_t slot) except? 0x5a5a5a5a5a5a5a5a
    @cython.locals(facts=Facts, ports=cython.uint)
    cdef int read_facts(self, Dialog dialog) except -1
    @cython.locals(facts=Facts, value=bytes)
    cdef int read_expires(self) except -1
    cdef int give_reason(self, Dialog dialog, int action) except -1
    @cython.locals(name=bytes)
    cdef unsigned int other_method(self, Py_ssize_t slot) except? 0xffffffff
    @cython.locals(dialog=Dialog)
    cdef int quoted(self, Py_ssize_t length) except -1
    cpdef str method_name(self, unsigned int number)
    @cython.locals(cell=Py_ssize_t)
    cpdef tuple counts(self, Dialog dialog)
    cpdef tuple all_counts(self)
    @cython.locals(cell=Py_ssize_t, base=Py_ssize_t, position=Py_ssize_t, word=Py_ssize_t)
    cpdef list cells_of(self, Dialog dialog, Py_ssize_t start, Py_ssize_t count)
    @cython.locals(start=Py_ssize_t)
    cpdef octets_of(self, words)
    @cython.locals(dialog=Dialog)
    cpdef find(self, unsigned long long number)
    @cython.locals(dialog=Dialog, count=Py_ssize_t)
    cpdef Py_ssize_t active(self, unsigned int kind) except -1
    cpdef list state_counts(self)

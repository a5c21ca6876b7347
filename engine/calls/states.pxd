cimport cython

cdef unsigned int CALL_SETUP
cdef unsigned int RINGING
cdef unsigned int IN_CALL
cdef unsigned int COMPLETED
cdef unsigned int CANCELLED
cdef unsigned int BUSY
cdef unsigned int REJECTED
cdef unsigned int DIVERTED
cdef unsigned int TIMEOUT
cdef unsigned int REGISTERING
cdef unsigned int REGISTERED
cdef unsigned int EXPIRED
cdef unsigned int FAILED
cdef unsigned int PENDING
cdef unsigned int ACTIVE
cdef unsigned int TERMINATED
cdef unsigned int DONE
cdef unsigned int CALL
cdef unsigned int REGISTRATION
cdef unsigned int SUBSCRIPTION
cdef unsigned int OTHER
cdef unsigned int INVITE
cdef unsigned int ACK
cdef unsigned int BYE
cdef unsigned int CANCEL
cdef unsigned int REGISTER
cdef unsigned int PRACK
cdef unsigned int SUBSCRIBE
cdef unsigned int NOTIFY
cdef unsigned int UPDATE
cdef unsigned long long NO_ANSWER
cdef unsigned long long SECOND
cdef Py_ssize_t MOST_FORKS
cdef long long DEFAULT_EXPIRES
cdef int KEEP
cdef int TAKE_REASON
cdef int CLEAR_REASON
cdef unsigned int SUB_PENDING
cdef unsigned int SUB_TERMINATED

cdef class Facts:
    cdef public unsigned long long now
    cdef public unsigned int method
    cdef public unsigned int status
    cdef public unsigned int cseq
    cdef public unsigned long long branch
    cdef public bint tagged
    cdef public unsigned long long to_tag
    cdef public unsigned long long from_tag
    cdef public bint near
    cdef public long long expires
    cdef public unsigned int substate

@cython.final
cdef class Dialog:
    cdef readonly unsigned long long number
    cdef readonly bytes call_id
    cdef readonly unsigned int kind
    cdef readonly unsigned int state
    cdef readonly bint ended
    cdef public bint removed
    cdef public bint queued
    cdef public unsigned long long first_ns
    cdef public unsigned long long last_ns
    cdef readonly unsigned long long invite_ns
    cdef readonly unsigned long long ringing_ns
    cdef readonly unsigned long long answer_ns
    cdef readonly unsigned long long end_ns
    cdef readonly unsigned long long deadline_ns
    cdef readonly unsigned int deadline_state
    cdef readonly unsigned int cseq
    cdef readonly unsigned long long branch
    cdef readonly unsigned long long tag
    cdef readonly tuple forks
    cdef readonly bint refused_elsewhere
    cdef readonly unsigned int final
    cdef readonly unsigned int code
    cdef readonly long long asked
    cdef public unsigned long long src0
    cdef public unsigned long long src1
    cdef public unsigned long long dst0
    cdef public unsigned long long dst1
    cdef public unsigned int ports
    cdef public unsigned int protocol
    cdef public unsigned int method
    cdef public unsigned int messages
    cdef public unsigned int kept
    cdef public unsigned int retransmissions
    cdef public unsigned int malformed
    cdef public unsigned int evidence
    cdef public unsigned int copies
    cdef public unsigned int tally
    cdef public unsigned int tallies
    cdef public unsigned int first_cell
    cdef public unsigned int last_cell
    cdef public bytes sender
    cdef public bytes receiver
    cdef public bytes reason
    cdef public bytes x_call_id
    cdef public str sender_text
    cdef public str receiver_text
    cdef public str src_text
    cdef public str dst_text
    cdef public str call_text
    cdef public str search_text

    cpdef bint expire(self, unsigned long long now) except -1
    cpdef int take(self, Facts m) except -1
    @cython.locals(method=cython.uint)
    cdef int classify(self, Facts m) except -1
    cdef int wait(self, unsigned long long now, unsigned int state) except -1
    cdef int end(self, unsigned long long now, unsigned int state) except -1
    @cython.locals(method=cython.uint)
    cdef int call_request(self, Facts m) except -1
    @cython.locals(again=cython.bint)
    cdef int invite(self, Facts m) except -1
    cdef int answer(self, Facts m) except -1
    cdef int call_response(self, Facts m) except -1
    cdef int answered_again(self, Facts m) except -1
    @cython.locals(mine=cython.bint)
    cdef bint of_fork(self, Facts m) except -1
    cdef int provisional(self, Facts m) except -1
    @cython.locals(status=cython.uint, late=cython.bint)
    cdef int refused(self, Facts m) except -1
    cdef int register_request(self, Facts m) except -1
    cdef int register_response(self, Facts m) except -1
    @cython.locals(seconds=cython.longlong)
    cdef int last_until(self, unsigned long long now, unsigned int state, long long expires) except -1
    cdef int subscribe_request(self, Facts m) except -1
    cdef int subscribe_response(self, Facts m) except -1
    cdef int other(self, Facts m) except -1

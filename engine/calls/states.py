"""One Call-ID: its figures, and the state machine that its messages drive.

A Call-ID is a call (INVITE), a registration, a subscription or anything else. Only the first hop
that was seen decides about failure: its INVITE's Via branch is remembered, and a final response or a
CANCEL of another branch belongs to a fork or to the next hop (RFC 3261 sections 9.1, 16.7, 17.1.3). An
answer ends the setup on whatever hop it is seen. Times are ns since 1970, 0 where unknown.
"""

from __future__ import annotations

STATES = (
    "", "call_setup", "ringing", "in_call", "completed", "cancelled", "busy", "rejected", "diverted",
    "timeout", "registering", "registered", "expired", "failed", "pending", "active", "terminated", "done",
)  # fmt: skip
"""State by number. A transaction of no call waits as `pending` until its answer."""
FAILED_STATES = ("failed", "busy", "rejected", "timeout")
"""What `failed` means in a filter."""
CLASSES = ("", "call", "registration", "subscription", "other")

CALL_SETUP = 1
RINGING = 2
IN_CALL = 3
COMPLETED = 4
CANCELLED = 5
BUSY = 6
REJECTED = 7
DIVERTED = 8
TIMEOUT = 9
REGISTERING = 10
REGISTERED = 11
EXPIRED = 12
FAILED = 13
PENDING = 14
ACTIVE = 15
TERMINATED = 16
DONE = 17

CALL = 1
REGISTRATION = 2
SUBSCRIPTION = 3
OTHER = 4

INVITE = 1
ACK = 2
BYE = 3
CANCEL = 4
REGISTER = 6
PRACK = 7
SUBSCRIBE = 8
NOTIFY = 9
UPDATE = 14

NO_ANSWER = 32_000_000_000
"""Timers B and F: 64 * T1 (RFC 3261 section 17.1.1.2)."""
SECOND = 1_000_000_000
DEFAULT_EXPIRES = 3600
MOST_FORKS = 8

KEEP = 0
TAKE_REASON = 1
CLEAR_REASON = 2
SUB_PENDING = 2
SUB_TERMINATED = 3


class Facts:
    """What the state machine reads of one message; the table fills it anew for each."""

    def __init__(self) -> None:
        self.now = 0
        self.method = 0
        self.status = 0
        self.cseq = 0
        self.branch = 0
        self.tagged = False
        """To has a tag."""
        self.to_tag = 0
        self.from_tag = 0
        """Hashes, only of BYE and of 2xx to INVITE."""
        self.near = False
        """On the path of the Call-ID's first message: the request's way, or a response's way back."""
        self.expires = -1
        """Seconds asked for or granted; -1 where absent."""
        self.substate = 0


class Dialog:
    """Everything that is kept of one Call-ID, except its messages."""

    def __init__(self, number: int, call_id: bytes) -> None:
        self.number = number
        self.call_id = call_id
        self.kind = 0
        self.state = 0
        self.ended = False
        self.removed = False
        self.queued = False
        self.first_ns = 0
        self.last_ns = 0
        self.invite_ns = 0
        self.ringing_ns = 0
        self.answer_ns = 0
        self.end_ns = 0
        self.deadline_ns = 0
        self.deadline_state = 0
        self.cseq = 0
        self.branch = 0
        self.tag = 0
        self.forks: tuple[int, ...] = ()
        self.refused_elsewhere = False
        self.final = 0
        self.code = 0
        self.asked = -1
        self.src0 = self.src1 = self.dst0 = self.dst1 = 0
        self.ports = self.protocol = self.method = 0
        self.messages = 0
        self.kept = 0
        self.retransmissions = 0
        self.malformed = 0
        self.evidence = 0
        self.copies = 0
        self.tally = 0
        self.tallies = 0
        self.first_cell = 0
        self.last_cell = 0
        self.sender: bytes | None = None
        self.receiver: bytes | None = None
        self.reason: bytes | None = None
        self.x_call_id: bytes | None = None
        self.sender_text: str | None = None
        self.receiver_text: str | None = None
        self.src_text: str | None = None
        self.dst_text: str | None = None
        self.call_text: str | None = None
        self.search_text: str | None = None

    def expire(self, now: int) -> bool:
        """Take the step that is due when nothing came until `now`; whether one was."""
        if self.deadline_ns == 0 or now < self.deadline_ns:
            return False
        self.end_ns = self.deadline_ns
        self.deadline_ns = 0
        self.state = self.deadline_state
        self.ended = True
        if self.final == 0 and self.reason is None and self.state != EXPIRED:
            self.reason = b"no answer"
        return True

    def take(self, m: Facts) -> int:
        """Take a message; KEEP the reason, TAKE_REASON from this message, or CLEAR_REASON."""
        self.expire(m.now)
        if self.kind != CALL:
            self.classify(m)
        if self.kind == CALL:
            return self.call_response(m) if m.status else self.call_request(m)
        if self.kind == REGISTRATION:
            return self.register_response(m) if m.status else self.register_request(m)
        if self.kind == SUBSCRIPTION:
            return self.subscribe_response(m) if m.status else self.subscribe_request(m)
        return self.other(m)

    def classify(self, m: Facts) -> int:
        """What this Call-ID is, by its first message; a later INVITE makes a call of anything else."""
        method = m.method
        if method == INVITE or (self.kind in (0, OTHER) and method in (ACK, BYE, CANCEL, PRACK)):
            if self.kind:
                self.state = 0
                self.ended = False
                self.deadline_ns = 0
                self.answer_ns = 0
                self.end_ns = 0
            self.kind = CALL
        elif self.kind:
            return 0
        elif method == REGISTER:
            self.kind = REGISTRATION
        elif method == SUBSCRIBE or (method == NOTIFY and m.substate):
            self.kind = SUBSCRIPTION
        elif method == UPDATE and m.tagged:
            self.kind = CALL
        else:
            self.kind = OTHER
        return 0

    def wait(self, now: int, state: int) -> int:
        """Without an answer this becomes `state`."""
        self.deadline_ns = now + NO_ANSWER
        self.deadline_state = state
        return 0

    def end(self, now: int, state: int) -> int:
        """Reach a final state."""
        self.state = state
        self.ended = True
        self.end_ns = now
        self.deadline_ns = 0
        return TAKE_REASON

    def call_request(self, m: Facts) -> int:
        """A request of a call."""
        method = m.method
        if method == INVITE:
            return self.invite(m)
        if method == BYE:
            # A caller that was answered by several forks says BYE to all but one (RFC 3261 section 13.2.2.4).
            if self.tag and self.tag not in (m.to_tag, m.from_tag):
                return KEEP
            if not self.ended or (self.state == REJECTED and self.final == 0):
                return self.end(m.now, COMPLETED)
        elif method == CANCEL:
            if not self.ended and self.answer_ns == 0 and (m.branch == self.branch or m.near):
                return self.end(m.now, CANCELLED)
        elif self.state == 0:
            # The capture began in the middle of the call.
            self.state = RINGING if method == PRACK else IN_CALL
        elif (
            method == ACK
            and not self.ended
            and self.answer_ns == 0
            and self.final == 0
            and not self.refused_elsewhere
            and m.cseq == self.cseq
        ):
            # The answer was not captured: nobody acknowledges what did not come; a refusal, each hop,
            # in the transaction of the INVITE (RFC 3261 sections 13.2.2.4, 17.1.1.3).
            if m.branch == 0 or m.branch != self.branch:
                return self.answer(m)
            self.end(m.now, REJECTED)
            self.reason = b"refused, the answer is not in the capture"
        return KEEP

    def invite(self, m: Facts) -> int:
        """An INVITE: the first, a new attempt, another hop or fork of the same, or one within the call."""
        if m.tagged and self.state == 0:
            self.state = IN_CALL
            self.cseq = m.cseq
            return KEEP
        if self.state == IN_CALL or (m.tagged and self.answer_ns):
            return KEEP
        again = m.branch != self.branch and self.final and m.near
        if self.state and m.cseq == self.cseq and not again:
            return KEEP
        if self.state == 0 or self.ended:
            self.invite_ns = m.now
            self.ringing_ns = 0
            self.answer_ns = 0
            self.end_ns = 0
            self.tag = 0
            self.forks = ()
        self.state = CALL_SETUP
        self.ended = False
        self.cseq = m.cseq
        self.branch = m.branch
        self.final = 0
        self.code = 0
        self.refused_elsewhere = False
        self.wait(m.now, TIMEOUT)
        return CLEAR_REASON

    def answer(self, m: Facts) -> int:
        """The call is up."""
        self.state = IN_CALL
        self.ended = False
        self.answer_ns = m.now
        self.end_ns = 0
        self.deadline_ns = 0
        return CLEAR_REASON

    def call_response(self, m: Facts) -> int:
        """A response within a call; only those to its first INVITE and to BYE change it."""
        if m.method == BYE:
            if self.state == 0 or (self.state == IN_CALL and 200 <= m.status < 300 and not self.of_fork(m)):
                # Whatever the tags of the BYE were: its receiver knows the call, and hung up.
                return self.end(m.now, COMPLETED)
            return KEEP
        if m.method != INVITE:
            if self.state == 0:
                self.state = CANCELLED if m.method == CANCEL else IN_CALL
            return KEEP
        if self.state == 0:
            self.state = CALL_SETUP
            self.cseq = m.cseq
            self.branch = m.branch
        if m.cseq != self.cseq or self.answer_ns or self.state == IN_CALL:
            self.answered_again(m)
            return KEEP
        if m.status < 200:
            return self.provisional(m)
        if m.status < 300:
            self.final = m.status
            self.code = m.status
            if self.state == COMPLETED:
                self.answer_ns = m.now
                return KEEP
            self.tag = m.to_tag
            return self.answer(m)
        if m.branch != self.branch and not m.near:
            self.refused_elsewhere = True
            return KEEP
        return self.refused(m)

    def answered_again(self, m: Facts) -> int:
        """Remember the tag of a fork that answers a call which is up (RFC 3261 section 13.2.2.4)."""
        if m.cseq != self.cseq or m.to_tag == 0 or self.tag in (0, m.to_tag, m.from_tag):
            return 0
        if 200 <= m.status < 300 and m.to_tag not in self.forks and len(self.forks) < MOST_FORKS:
            self.forks = (*self.forks, m.to_tag)
        return 0

    def of_fork(self, m: Facts) -> bool:
        """Whether a BYE or its answer belongs to another fork than the one that the call goes on with."""
        mine = self.tag in (m.to_tag, m.from_tag)
        return not mine and (m.to_tag in self.forks or m.from_tag in self.forks)

    def provisional(self, m: Facts) -> int:
        """1xx: somebody has the INVITE."""
        if self.ended:
            return KEEP
        self.deadline_ns = 0
        if m.status == 181:
            self.state = DIVERTED
        elif m.status >= 180:
            self.state = RINGING
            if self.ringing_ns == 0:
                self.ringing_ns = m.now
        return KEEP

    def refused(self, m: Facts) -> int:
        """A final failure of the INVITE, or a challenge that another INVITE will answer."""
        status = m.status
        late = self.ended
        self.final = status
        self.code = status
        if late and self.state != CANCELLED and not (self.state == COMPLETED and status == 487):
            return KEEP
        if late and self.state == CANCELLED:
            return TAKE_REASON if self.reason is None else KEEP
        if status in (401, 407, 422):
            self.state = CALL_SETUP
            self.wait(m.now, REJECTED)
            return TAKE_REASON
        if status < 400:
            return self.end(m.now, DIVERTED)
        if status in (480, 486, 600):
            return self.end(m.now, BUSY)
        if status == 487:
            return self.end(m.now, CANCELLED)
        if status == 408:
            return self.end(m.now, TIMEOUT)
        return self.end(m.now, REJECTED)

    def register_request(self, m: Facts) -> int:
        """REGISTER: a first one, or a refresh, during which the old binding stands."""
        if m.method != REGISTER or (m.cseq == self.cseq and self.state):
            return KEEP
        self.cseq = m.cseq
        self.branch = m.branch
        self.asked = m.expires
        if self.state == REGISTERED:
            self.final = 0
            return KEEP
        # Who asks again and again without an answer waits since the first time.
        if self.state != REGISTERING or self.final or self.deadline_ns == 0:
            self.wait(m.now, FAILED)
        self.state = REGISTERING
        self.ended = False
        self.end_ns = 0
        self.final = 0
        return CLEAR_REASON

    def register_response(self, m: Facts) -> int:
        """The registrar's answer."""
        if m.method != REGISTER:
            return KEEP
        if self.state == 0:
            self.state = REGISTERING
            self.cseq = m.cseq
            self.branch = m.branch
        if m.status < 200 or m.cseq != self.cseq:
            return KEEP
        self.final = m.status
        self.code = m.status
        if m.status < 300:
            if self.asked == 0 or m.expires == 0:
                self.end(m.now, EXPIRED)
                return CLEAR_REASON
            if self.answer_ns == 0 or self.ended:
                self.answer_ns = m.now
            self.state = REGISTERED
            self.ended = False
            self.end_ns = 0
            self.last_until(m.now, EXPIRED, m.expires)
            return CLEAR_REASON
        if m.branch != self.branch and not m.near:
            return KEEP
        if m.status in (401, 407, 423):
            if self.state != REGISTERED:
                self.state = REGISTERING
                self.ended = False
                self.wait(m.now, FAILED)
            return TAKE_REASON
        return self.end(m.now, FAILED)

    def last_until(self, now: int, state: int, expires: int) -> int:
        """Valid for `expires` seconds, else as long as asked for, else the default (RFC 3261, 10.2.1.1)."""
        seconds = expires
        if seconds < 0:
            seconds = self.asked
        if seconds < 0:
            seconds = DEFAULT_EXPIRES
        self.deadline_ns = now + seconds * SECOND
        self.deadline_state = state
        return 0

    def subscribe_request(self, m: Facts) -> int:
        """SUBSCRIBE asks, NOTIFY decides (RFC 6665 section 4.1.2)."""
        if m.method == SUBSCRIBE:
            if m.cseq == self.cseq and self.state:
                return KEEP
            self.cseq = m.cseq
            self.branch = m.branch
            self.asked = m.expires
            self.final = 0
            if self.state != ACTIVE:
                self.state = PENDING
                self.ended = False
                self.end_ns = 0
                self.wait(m.now, TERMINATED)
            return KEEP if self.state == ACTIVE else CLEAR_REASON
        if m.method != NOTIFY:
            return KEEP
        if m.substate == SUB_TERMINATED:
            return KEEP if self.ended else self.end(m.now, TERMINATED)
        if m.substate == SUB_PENDING:
            self.state = PENDING
        else:
            self.state = ACTIVE
            if self.answer_ns == 0 or self.ended:
                self.answer_ns = m.now
        self.ended = False
        self.end_ns = 0
        self.last_until(m.now, TERMINATED, m.expires)
        return KEEP

    def subscribe_response(self, m: Facts) -> int:
        """Only a refusal changes the state: the notifier's NOTIFY says the rest."""
        if self.state == 0:
            self.state = PENDING
            self.cseq = m.cseq
            self.branch = m.branch
        if m.method == NOTIFY:
            return self.end(m.now, TERMINATED) if m.status == 481 and not self.ended else KEEP
        if m.method != SUBSCRIBE or m.status < 200 or m.cseq != self.cseq or self.ended:
            return KEEP
        self.final = m.status
        self.code = m.status
        if m.status < 300:
            if self.state == PENDING and self.deadline_state == TERMINATED:
                self.last_until(m.now, TERMINATED, m.expires)
            return CLEAR_REASON
        if m.branch != self.branch and not m.near:
            return KEEP
        if m.status in (401, 407, 423):
            if self.state == PENDING:
                self.wait(m.now, TERMINATED)
            return TAKE_REASON
        return self.end(m.now, TERMINATED)

    def other(self, m: Facts) -> int:
        """One transaction after the other: pending, then done or failed by the last answer."""
        if m.status == 0:
            if m.cseq == self.cseq and self.state:
                return KEEP
            self.cseq = m.cseq
            self.branch = m.branch
            if self.state == 0:
                self.state = PENDING
            if self.final or self.deadline_ns == 0:
                self.wait(m.now, FAILED)
            self.final = 0
            return KEEP
        if self.state == 0:
            self.state = PENDING
            self.cseq = m.cseq
            self.branch = m.branch
        if m.status < 200 or m.cseq != self.cseq:
            return KEEP
        if m.status >= 300 and m.branch != self.branch and not m.near:
            return KEEP
        self.final = m.status
        self.code = m.status
        if m.status in (401, 407):
            self.wait(m.now, FAILED)
            return TAKE_REASON
        if m.status < 300:
            self.end(m.now, DONE)
            return CLEAR_REASON
        return self.end(m.now, FAILED)

/* SPDX-License-Identifier: GPL-2.0 */
/* The fields of a connection, and detail events with all that holds them back. */
#pragma once

struct cause {
	__u64 value;
	__u64 threshold;
	__u64 location;
	__u64 cookie;
	__u32 trigger;
	__u32 class;
	__u32 reason;
};

/* Where a socket has no number yet: one that is as good while it lives. */
static __always_inline __u64 own_cookie(const struct sock *sk)
{
	const struct sock *spilled = sk;
	__u64 key;

	/* The verifier lets nobody calculate with a pointer; a copy of it is a number. */
	bpf_probe_read_kernel(&key, sizeof(key), &spilled);
	/* Ports, because the address alone is soon another socket's. */
	key ^= (__u64)port_of(sk) << 48;
	key ^= (__u64)BPF_CORE_READ(sk, __sk_common.skc_dport) << 32;
	return (key * 0x9e3779b97f4a7c15ULL) | 1ULL << 63;
}

/* For all programs: where the helper may not be called, the number that it left in the socket, if it did. */
static __always_inline __u64 cookie_address(const struct sock *sk)
{
	__u64 cookie;

	if (config.socket_cookie) {
		cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
		if (cookie)
			return cookie;
	}
	return own_cookie(sk);
}

/* For tp_btf and iter programs. */
static __always_inline __u64 cookie_of(struct sock *sk)
{
	if (config.socket_cookie)
		return bpf_get_socket_cookie(sk);
	return cookie_address(sk);
}

static __always_inline __u32 distance(__u32 from, __u32 to)
{
	return (__s32)(to - from) > 0 ? to - from : 0;
}

/*
 * Octets of data. The kernel counts a SYN and a FIN as one each, too: as acknowledged, those that were never sent as
 * data. More than the two are not left out: what sent and sent again say of a socket is not read at one moment.
 */
static __always_inline __u64 data_acked(const struct tcp_sock *tp)
{
	__u64 acked = BPF_CORE_READ(tp, bytes_acked);
	__u64 more = acked - (BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans));

	return more == 1 || more == 2 ? acked - more : acked;
}

static __always_inline __u64 data_received(const struct tcp_sock *tp)
{
	__u64 received = BPF_CORE_READ(tp, bytes_received);
	bool finished = BPF_CORE_READ((const struct sock *)tp, __sk_common.skc_flags) >> SOCK_DONE & 1;

	return received && finished ? received - 1 : received;
}

static __noinline void read_tcp(const struct tcp_sock *tp, struct connection *out)
{
	__u32 una = BPF_CORE_READ(tp, snd_una), next = BPF_CORE_READ(tp, snd_nxt), written = BPF_CORE_READ(tp, write_seq);

	out->srtt_us = BPF_CORE_READ(tp, srtt_us) >> 3;
	out->rttvar_us = BPF_CORE_READ(tp, mdev_us) >> 2;
	out->cwnd = BPF_CORE_READ(tp, snd_cwnd);
	out->ssthresh = BPF_CORE_READ(tp, snd_ssthresh);
	/* Read one after the other, of a socket that nobody locks: more may have left than are out. */
	out->in_flight = distance(BPF_CORE_READ(tp, sacked_out) + BPF_CORE_READ(tp, lost_out),
				  BPF_CORE_READ(tp, packets_out) + BPF_CORE_READ(tp, retrans_out));
	out->bytes_in_flight = distance(una, next);
	out->send_queue = distance(una, written);
	out->unsent_queue = distance(next, written);
	out->receive_queue = distance(BPF_CORE_READ(tp, copied_seq), BPF_CORE_READ(tp, rcv_nxt));
	out->retransmits = BPF_CORE_READ(tp, total_retrans);
	out->bytes_acked = data_acked(tp);
	out->bytes_received = data_received(tp);
	out->rto_jiffies = BPF_CORE_READ(tp, inet_conn.icsk_rto);
	out->send_window = BPF_CORE_READ(tp, snd_wnd);
	out->receive_window = BPF_CORE_READ(tp, rcv_wnd);
	if (bpf_core_field_exists(tp->rack.rtt_us))
		out->rtt_sample_us = BPF_CORE_READ(tp, rack.rtt_us);
}

/* sk: any kind of TCP socket, or a bare address of one. */
static __noinline void read_connection(const struct sock *sk, struct connection *out)
{
	struct socket_state *state = state_of(sk);
	const struct cgroup *cgroup;

	__builtin_memset(out, 0, sizeof(*out));
	read_tuple((const struct sock_common *)sk, &out->tuple);
	out->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (!is_full(out->state))
		return;
	out->full = 1;
	out->uid = BPF_CORE_READ(sk, sk_uid.val);
	out->inode = inode_of(sk);
	cgroup = cgroup_of(sk);
	if (cgroup)
		out->cgroup = BPF_CORE_READ(cgroup, kn, id);
	/* 4 octets before 4.20; this reads as many as there are. */
	out->pacing_rate = BPF_CORE_READ(sk, sk_pacing_rate);
	if (state) {
		out->pid = state->pid;
		out->pid_source = state->pid_source;
		out->role = state->role;
		out->tlp = state->tlp;
		out->accept_drops = state->accept_drops;
		__builtin_memcpy(out->comm, state->comm, COMM);
	}
	if (out->state == TCP_LISTEN) {
		out->kind = RECORD_LISTENER;
		out->receive_queue = BPF_CORE_READ(sk, sk_ack_backlog);
		out->send_queue = BPF_CORE_READ(sk, sk_max_ack_backlog);
		out->drops = BPF_CORE_READ(sk, sk_drops.counter);
	} else {
		read_tcp((const struct tcp_sock *)sk, out);
	}
}

/* A number of which each bit depends on all bits of an address (above) and of ports (below). */
static __always_inline __u64 spread(__u64 flow)
{
	flow ^= flow >> 32;
	return flow * 0x9e3779b97f4a7c15ULL >> 32;
}

static __always_inline void suppress(enum stage stage)
{
	struct totals *here = totals_here();

	if (here)
		here->suppressed[stage] += 1;
}

/* A flow has ended: its slot is free. */
static __noinline void leave_top(__u64 flow)
{
	__u32 i;

	for (i = 0; i < TOP_FLOWS; i++) {
		if (i >= config.top_flows)
			break;
		if (runtime.top[i].flow == flow) {
			runtime.top[i].flow = 0;
			runtime.top[i].triggers = 0;
		}
	}
}

/* It may have come there before the kernel gave it a number. */
static __always_inline void end_of_flow(const struct sock *sk)
{
	if (!config.top_flows)
		return;
	leave_top(cookie_address(sk));
	leave_top(own_cookie(sk));
}

/* -1 of a number below 0, else 0; done where the compiler makes no branch of it. */
#define SIGN(value)                                                                                \
	({                                                                                         \
		__s64 sign = (value);                                                              \
		asm volatile("%0 s>>= 63" : "+r"(sign));                                           \
		sign;                                                                              \
	})

/*
 * One of the flows with most triggers: a slot is free, or its flow has fewer. What has no state of its own (a request)
 * takes none: nobody would tell when it ends.
 */
static __noinline bool in_top(__u64 flow, __u64 triggers, bool stays)
{
	__u64 weakest = ~0ULL >> 1; /* triggers, and in the low bits the place */
	struct top_slot *slot;
	__s64 less;
	__u32 i;

	for (i = 0; i < TOP_FLOWS; i++) {
		slot = &runtime.top[i];
		if (i >= config.top_flows)
			break;
		if (slot->flow == flow) {
			slot->triggers = triggers;
			return true;
		}
		/* The smaller of both, without a branch: the verifier would follow each order of all places. */
		less = (slot->triggers * TOP_FLOWS + i) - weakest;
		weakest += less & SIGN(less);
	}
	if (triggers <= weakest / TOP_FLOWS)
		return false;
	if (!stays)
		return true;
	slot = &runtime.top[BOUNDED(weakest, TOP_FLOWS - 1)];
	slot->flow = flow;
	slot->triggers = triggers;
	return true;
}

/*
 * The bucket is filled at each full second. Two CPUs may take the last token at once (an atomic that returns its
 * value is newer than this object wants to be): user space, which sees each event's time, drops what is too much.
 */
static __always_inline bool take_token(__u64 now)
{
	__u64 second = now / 1000000000;

	if (runtime.second != second) {
		runtime.second = second;
		runtime.used = 0;
	}
	if (runtime.used >= config.per_second)
		return false;
	__sync_fetch_and_add(&runtime.used, 1);
	return true;
}

static __always_inline void fill_event(struct event *event, __u64 now, const struct cause *cause)
{
	event->time_ns = now;
	event->value = cause->value;
	event->threshold = cause->threshold;
	event->location = cause->location;
	event->trigger = cause->trigger;
	event->class = cause->class;
	event->reason = cause->reason;
	event->padding = 0;
	event->connection.cookie = cause->cookie;
}

/* The flow's ring of last events; what is overwritten there was kept back. */
static __noinline void keep_last(const struct sock *sk, const struct cause *cause, __u64 now, __u32 number)
{
	static const struct event nothing;
	struct last_key key = { .socket = (__u64)sk, .index = number % (config.last ? config.last : 1) };
	struct event *event = bpf_map_lookup_elem(&last_events, &key);

	if (event) {
		suppress(STAGE_FIRST);
	} else {
		bpf_map_update_elem(&last_events, &key, &nothing, BPF_NOEXIST);
		event = bpf_map_lookup_elem(&last_events, &key);
		if (!event) {
			suppress(STAGE_FIRST);
			return;
		}
	}
	read_connection(sk, &event->connection);
	fill_event(event, now, cause);
}

static __always_inline bool repeats(struct socket_state *state, __u32 trigger, __u64 now)
{
	if (trigger != RTT_ABOVE && trigger != RTT_JUMP && trigger != RTT_P99 && trigger != PACING_ZERO)
		return false;
	if (trigger >= TRIGGERS) /* the verifier wants to know */
		return false;
	if (state->repeat_ns[trigger] && now - state->repeat_ns[trigger] < 1000000000)
		return true;
	state->repeat_ns[trigger] = now;
	return false;
}

/*
 * An event of a socket: repeat, sample, top flows, first and last, rate, reserve; whatever stops it counts it.
 * 0: nothing left to do, 1: to be sent.
 */
static __noinline int admit(const struct sock *sk, const struct cause *cause, __u64 now)
{
	struct socket_state *state;
	__u32 number = 0;

	if (is_full(BPF_CORE_READ(sk, __sk_common.skc_state))) {
		state = state_for(sk);
		if (state) {
			if (repeats(state, cause->trigger, now)) {
				suppress(STAGE_REPEAT);
				return 0;
			}
			state->triggers += 1;
		}
	} else {
		state = NULL;
	}
	if (config.sample > 1 && spread(cause->cookie) % config.sample) {
		suppress(STAGE_SAMPLE);
		return 0;
	}
	if (config.top_flows && !in_top(cause->cookie, state ? state->triggers : 1, state != NULL)) {
		suppress(STAGE_FLOW);
		return 0;
	}
	if ((config.first || config.last) && state) {
		number = state->events;
		state->events = number + 1;
		if (number >= config.first) {
			if (config.last)
				keep_last(sk, cause, now, number - config.first);
			else
				suppress(STAGE_FIRST);
			return 0;
		}
	}
	if (!take_token(now)) {
		suppress(STAGE_RATE);
		return 0;
	}
	return 1;
}

static __noinline int emit(const struct sock *sk, const struct cause *cause)
{
	__u64 now = bpf_ktime_get_ns();
	struct event *event;

	if (!admit(sk, cause, now))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(EVENTS_LOST, 1);
		return 0;
	}
	read_connection(sk, &event->connection);
	fill_event(event, now, cause);
	if (cause->trigger == ZERO_WINDOW && cause->class == 0)
		event->connection.send_window = 0; /* this segment closes it, the socket does not know yet */
	bpf_ringbuf_submit(event, 0);
	count(EVENTS_EMITTED, 1);
	return 1;
}

/* An event of a packet that no socket wants. */
static __noinline int emit_tuple(const struct tuple *tuple, const struct cause *cause)
{
	__u64 now = bpf_ktime_get_ns(), flow;
	struct event *event;

	/* Of IPv4 the first three are the same for all. */
	flow = tuple->remote[0] ^ tuple->remote[1] ^ tuple->remote[2] ^ tuple->remote[3];
	flow = flow << 32 | (__u32)tuple->remote_port << 16 | tuple->local_port;
	if (config.sample > 1 && spread(flow) % config.sample) {
		suppress(STAGE_SAMPLE);
		return 0;
	}
	if (config.top_flows && !in_top(flow | 1ULL << 63, 1, false)) {
		suppress(STAGE_FLOW);
		return 0;
	}
	if (!take_token(now)) {
		suppress(STAGE_RATE);
		return 0;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(EVENTS_LOST, 1);
		return 0;
	}
	__builtin_memset(&event->connection, 0, sizeof(event->connection));
	event->connection.tuple = *tuple;
	event->connection.state = TCP_CLOSE;
	fill_event(event, now, cause);
	bpf_ringbuf_submit(event, 0);
	count(EVENTS_EMITTED, 1);
	return 1;
}

/* The flow ends: its last events go out, as far as the rate allows. */
static __noinline void flush_last(const struct sock *sk, __u32 events_seen)
{
	struct last_key key = { .socket = (__u64)sk };
	__u64 now = bpf_ktime_get_ns();
	__u32 i, index;

	for (i = 0; i < LAST_EVENTS; i++) {
		struct event *event;

		if (i >= config.last)
			break;
		/* Oldest first: the slot after the newest. */
		index = (events_seen - config.first + i) % (config.last ? config.last : 1);
		key.index = index;
		event = bpf_map_lookup_elem(&last_events, &key);
		if (!event)
			continue;
		if (!take_token(now))
			suppress(STAGE_RATE);
		else if (bpf_ringbuf_output(&events, event, sizeof(*event), 0))
			count(EVENTS_LOST, 1);
		else
			count(EVENTS_EMITTED, 1);
		bpf_map_delete_elem(&last_events, &key);
	}
}

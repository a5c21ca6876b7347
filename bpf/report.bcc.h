/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fields of a connection, and detail events, as in report.h. An event is made on the stack and copied into the
 * perf buffer. Of the stages only repeat and a wide rate are here: sample, flow, first, last and the rate that was asked
 * for are user space's, which has what inet_diag finds pass them, too. No cgroup, no drops of a listener: inet_diag.
 */
#pragma once

struct cause {
	u64 value;
	u64 threshold;
	u64 location;
	u32 trigger;
	u32 class;
	u32 reason;
};

/* The number that the kernel gave the socket, if it was asked for it; else one made of address and ports. */
static __always_inline u64 cookie_of(const void *sk, const struct tuple *tuple)
{
	u64 cookie = 0;

	bpf_probe_read(&cookie, sizeof(cookie), sk + __builtin_offsetof(struct sock, __sk_common.skc_cookie));
	if (cookie)
		return cookie;
	cookie = (u64)sk ^ (u64)tuple->local_port << 48 ^ (u64)tuple->remote_port << 32;
	return (cookie * 0x9e3779b97f4a7c15ULL) | 1ULL << 63;
}

static __always_inline u32 distance(u32 from, u32 to)
{
	return (s32)(to - from) > 0 ? to - from : 0;
}

static __always_inline void read_tcp(const void *tp, struct connection *out)
{
	u32 una = READ(struct tcp_sock, tp, snd_una), next = READ(struct tcp_sock, tp, snd_nxt);
	u32 written = READ(struct tcp_sock, tp, write_seq);

	out->srtt_us = READ(struct tcp_sock, tp, srtt_us) >> 3;
	out->rttvar_us = READ(struct tcp_sock, tp, mdev_us) >> 2;
	out->cwnd = READ(struct tcp_sock, tp, snd_cwnd);
	out->ssthresh = READ(struct tcp_sock, tp, snd_ssthresh);
	/* Read one after the other, of a socket that nobody locks: more may have left than are out. */
	out->in_flight = distance(READ(struct tcp_sock, tp, sacked_out) + READ(struct tcp_sock, tp, lost_out),
				  READ(struct tcp_sock, tp, packets_out) + READ(struct tcp_sock, tp, retrans_out));
	out->bytes_in_flight = distance(una, next);
	out->send_queue = distance(una, written);
	out->unsent_queue = distance(next, written);
	out->receive_queue = distance(READ(struct tcp_sock, tp, copied_seq), READ(struct tcp_sock, tp, rcv_nxt));
	out->retransmits = READ(struct tcp_sock, tp, total_retrans);
	out->bytes_acked = READ(struct tcp_sock, tp, bytes_acked);
	out->bytes_received = READ(struct tcp_sock, tp, bytes_received);
	out->rto_jiffies = READ(struct tcp_sock, tp, inet_conn.icsk_rto);
	out->send_window = READ(struct tcp_sock, tp, snd_wnd);
	out->receive_window = READ(struct tcp_sock, tp, rcv_wnd);
	out->rtt_sample_us = READ(struct tcp_sock, tp, rack.rtt_us);
}

static __always_inline void read_connection(const void *sk, struct connection *out)
{
	struct socket_state *state = state_of(sk);
	const void *socket;

	read_tuple(sk, &out->tuple);
	out->cookie = cookie_of(sk, &out->tuple);
	out->state = READ(struct sock, sk, __sk_common.skc_state);
	if (!is_full(out->state))
		return;
	out->full = 1;
	bpf_probe_read(&out->uid, sizeof(out->uid), sk + __builtin_offsetof(struct sock, sk_uid));
	out->pacing_rate = READ(struct sock, sk, sk_pacing_rate);
	socket = READ(struct sock, sk, sk_socket);
	if (socket)
		out->inode = READ(struct socket_alloc, socket, vfs_inode.i_ino);
	if (state) {
		out->pid = state->pid;
		out->pid_source = state->pid_source;
		out->role = state->role;
		out->tlp = state->tlp;
		__builtin_memcpy(out->comm, state->comm, COMM);
	}
	if (out->state != TCP_LISTEN) {
		read_tcp(sk, out);
		return;
	}
	out->kind = RECORD_LISTENER;
	out->receive_queue = READ(struct sock, sk, sk_ack_backlog);
	out->send_queue = READ(struct sock, sk, sk_max_ack_backlog);
}

/* What leaves the kernel at most; user space does the other stages, and holds to the rate itself. */
static __always_inline bool take_token(u64 now)
{
	u32 key = 0;
	struct bucket *bucket = tokens.lookup(&key);
	struct totals *here;

	if (!bucket)
		return false;
	if (bucket->second != now / 1000000000) {
		bucket->second = now / 1000000000;
		bucket->used = 0;
	}
	if (bucket->used < EVENTS_A_SECOND) {
		__sync_fetch_and_add(&bucket->used, 1);
		return true;
	}
	here = totals_here();
	if (here)
		here->suppressed[STAGE_RATE] += 1;
	return false;
}

static __always_inline void fill_event(struct event *event, u64 now, const struct cause *cause)
{
	event->time_ns = now;
	event->value = cause->value;
	event->threshold = cause->threshold;
	event->location = cause->location;
	event->trigger = cause->trigger;
	event->class = cause->class;
	event->reason = cause->reason;
}

static __always_inline void send(void *ctx, struct event *event)
{
	if (events.perf_submit(ctx, event, sizeof(*event)))
		count(EVENTS_LOST, 1);
}

static __always_inline void emit(void *ctx, const void *sk, const struct cause *cause)
{
	u64 now = bpf_ktime_get_ns();
	struct event event = {};

	if (!take_token(now))
		return;
	read_connection(sk, &event.connection);
	fill_event(&event, now, cause);
	if (cause->trigger == ZERO_WINDOW)
		event.connection.send_window = 0; /* this segment closes it, the socket does not know yet */
	send(ctx, &event);
}

static __always_inline void emit_tuple(void *ctx, const struct tuple *tuple, const struct cause *cause)
{
	u64 now = bpf_ktime_get_ns();
	struct event event = {};

	if (!take_token(now))
		return;
	event.connection.tuple = *tuple;
	event.connection.state = TCP_CLOSE;
	fill_event(&event, now, cause);
	send(ctx, &event);
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * State transitions: handshakes, dwell times and owners as in state.h. What a connection leaves (its octets, its last
 * events) and what a listener leaves is told by inet_diag when the socket is destroyed, so nothing is sent from here.
 * Who reads and writes is not followed: that needs 6.3. With any filter a first transition waits for the next one.
 */
#pragma once

static __always_inline void own(const void *sk, struct socket_state *state, u8 source)
{
	struct listener_key key = {};
	struct owner owner = {};
	const void *task = (const void *)bpf_get_current_task();

	state->pid = OWN_PIDS ? bpf_get_current_pid_tgid() >> 32 : 0;
	if (!state->pid)
		return;
	state->pid_source = source;
	/* The name of the process, which is that of its first thread. */
	task = READ(struct task_struct, task, group_leader);
	bpf_probe_read(owner.comm, sizeof(owner.comm), task + __builtin_offsetof(struct task_struct, comm));
	__builtin_memcpy(state->comm, owner.comm, COMM);
	if (source != PID_LISTEN)
		return;
	key.netns = netns_of(sk);
	key.port = READ(struct sock, sk, __sk_common.skc_num);
	owner.pid = state->pid;
	listener_owners.update(&key, &owner);
}

/* Who closes a socket, or has it send a reset, holds its lock; an interrupt does neither to one that is locked. */
static __always_inline void own_if_locked(const void *sk, struct socket_state *state)
{
	if (state->pid && state->pid_source != PID_LISTEN)
		return;
	if (READ(struct sock, sk, sk_lock.owned))
		own(sk, state, PID_IO);
}

static __always_inline void inherit(const void *sk, struct socket_state *state)
{
	struct listener_key key = {};
	struct owner *owner;

	key.netns = netns_of(sk);
	key.port = READ(struct sock, sk, __sk_common.skc_num);
	owner = listener_owners.lookup(&key);
	if (!owner)
		return;
	state->pid = owner->pid;
	state->pid_source = PID_LISTEN;
	__builtin_memcpy(state->comm, owner->comm, COMM);
}

static __always_inline void handshake_done(const void *sk, struct socket_state *state, u8 old, u64 now)
{
	u32 srtt;

	if (old == TCP_SYN_SENT && state->role == ROLE_CLIENT && state->entered_ns) {
		observe(HANDSHAKE_CLIENT_US, (now - state->entered_ns) / 1000);
		return;
	}
	/* A client whose begin was not seen, or that met another client. */
	if (old != TCP_SYN_RECV || state->role == ROLE_CLIENT) {
		count(HANDSHAKE_SERVER_UNSAMPLED, 1);
		return;
	}
	/* Sent again, it is no time of the handshake (Karn). */
	srtt = READ(struct tcp_sock, sk, srtt_us) >> 3;
	if (srtt && !READ(struct tcp_sock, sk, total_retrans))
		observe(HANDSHAKE_SERVER_US, srtt);
	else
		count(HANDSHAKE_SERVER_UNSAMPLED, 1);
}

static __always_inline void leave(const void *sk, struct socket_state *state, u8 old, u64 now)
{
	struct totals *here = totals_here();

	if (old == TCP_SYN_SENT) {
		count(HANDSHAKE_CLIENT_FAILED, 1);
	} else if (old != TCP_LISTEN) {
		observe(RETRANSMITS_PER_CONNECTION, READ(struct tcp_sock, sk, total_retrans));
		observe(TLP_PER_CONNECTION, state->tlp);
		/* Its opening may not have been seen: segments are sampled. */
		if (state->zero_received_ns && !READ(struct tcp_sock, sk, snd_wnd))
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
		state->zero_received_ns = 0;
	}
	state->closed_from = old;
	if (state->reset_ns && now - state->reset_ns < 10000000 && here) {
		here->resets_after[BOUNDED(old, TCP_STATES - 1)] += 1;
		state->closed_from = 0;
	}
}

static __always_inline void count_transition(u8 from, u8 to)
{
	struct totals *here = totals_here();

	if (here)
		here->transitions[BOUNDED(from * TCP_STATES + to, TCP_STATES * TCP_STATES - 1)] += 1;
}

int state_change(struct bpf_raw_tracepoint_args *ctx)
{
	const void *sk = (const void *)ctx->args[0];
	u8 old = ctx->args[1], new = ctx->args[2];
	struct socket_state *state;
	struct tuple tuple;
	u64 now;

	if (protocol_of(sk) != IPPROTO_TCP)
		return 0;
	if (NETNS && netns_of(sk) != NETNS)
		return 0;
	state = state_for(sk);
	if (!state)
		return 0;
	now = bpf_ktime_get_ns();
	if (new == TCP_SYN_SENT) {
		state->role = ROLE_CLIENT;
		state->closed_from = 0;
		state->reset_ns = 0;
		own(sk, state, PID_CONNECT);
		/* Neither the port nor the route of a client is there yet. */
		state->deferred = FILTERED;
		if (FILTERED) {
			state->entered_ns = now;
			return 0;
		}
	} else if (new == TCP_LISTEN) {
		own(sk, state, PID_LISTEN);
	} else if (new == TCP_SYN_RECV && old != TCP_SYN_SENT) {
		state->role = ROLE_SERVER;
		inherit(sk, state);
		/* The child is a copy of its listener; some kernels give it its peer and its route only later. */
		state->deferred = FILTERED;
		if (FILTERED) {
			state->entered_ns = now;
			return 0;
		}
	}
	/* The tracepoint comes before the change. */
	if (!(new == TCP_LISTEN ? watched_as(sk, TCP_LISTEN) : watched(sk))) {
		forget(sk);
		return 0;
	}
	if (state->deferred) {
		state->deferred = 0;
		if (state->role == ROLE_SERVER)
			count_transition(TCP_LISTEN, TCP_SYN_RECV);
		else
			count_transition(TCP_CLOSE, TCP_SYN_SENT);
	}
	count_transition(old, new);
	if (new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK || (new == TCP_CLOSE && old != TCP_LISTEN))
		own_if_locked(sk, state);
	if (state->entered_ns)
		observe(DWELL_US + (old & (TCP_STATES - 1)), (now - state->entered_ns) / 1000);
	if (new == TCP_ESTABLISHED)
		handshake_done(sk, state, old, now);
	else if (new == TCP_CLOSE)
		leave(sk, state, old, now);
	state->entered_ns = now;
	return 0;
}

int destroy(struct bpf_raw_tracepoint_args *ctx)
{
	forget((const void *)ctx->args[0]);
	return 0;
}

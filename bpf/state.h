/* SPDX-License-Identifier: GPL-2.0 */
/* State transitions: handshakes, dwell times, owners, and what a connection leaves when it ends. */
#pragma once

static __always_inline void count_transition(__u8 from, __u8 to)
{
	struct totals *here = totals_here();

	if (here)
		here->transitions[BOUNDED(from * TCP_STATES + to, TCP_STATES * TCP_STATES - 1)] += 1;
}

/* The name of the process, which is that of its first thread; the thread that runs may have another. */
static __always_inline void read_name(char *comm)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	const struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	bpf_core_read_str(comm, COMM, &leader->comm);
}

/* connect() and listen() run in the process that owns the socket; a kernel thread is nobody. */
static __noinline void own(const struct sock *sk, struct socket_state *state, __u8 source)
{
	struct listener_key key = {};
	struct owner owner = {};

	state->pid = current_pid();
	if (!state->pid)
		return;
	state->pid_source = source;
	read_name(state->comm);
	if (source != PID_LISTEN)
		return;
	key.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	owner.pid = state->pid;
	__builtin_memcpy(owner.comm, state->comm, COMM);
	bpf_map_update_elem(&listener_owners, &key, &owner, BPF_ANY);
}

/*
 * Who closes a socket, or has it send a reset, holds its lock: then the process that runs is the one, whatever runs in
 * it. An interrupt does neither to a socket that is locked.
 */
static __noinline void own_if_locked(const struct sock *sk, struct socket_state *state)
{
	if (state->pid && state->pid_source != PID_LISTEN)
		return;
	if (BPF_CORE_READ(sk, sk_lock.owned))
		own(sk, state, PID_IO);
}

/* An accepted connection is its listener's until somebody reads or writes. */
static __noinline void inherit(const struct sock *sk, struct socket_state *state)
{
	struct listener_key key = {};
	struct owner *owner;

	key.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	owner = bpf_map_lookup_elem(&listener_owners, &key);
	if (!owner)
		return;
	state->pid = owner->pid;
	state->pid_source = PID_LISTEN;
	__builtin_memcpy(state->comm, owner->comm, COMM);
}

static __noinline void handshake_done(const struct sock *sk, struct socket_state *state, __u8 old, __u64 now)
{
	__u32 srtt;

	/* A client whose begin was not seen, or that met another client (both sent a SYN): nobody knows the whole time. */
	if (old == TCP_SYN_SENT && state->role == ROLE_CLIENT && state->entered_ns) {
		observe(HANDSHAKE_CLIENT_US, (now - state->entered_ns) / 1000);
		return;
	}
	if (old != TCP_SYN_RECV || state->role == ROLE_CLIENT) {
		count(HANDSHAKE_SERVER_UNSAMPLED, 1);
		return;
	}
	/*
	 * The child is made by the last ACK: the stack's own sample of the handshake is its first smoothed RTT. After a
	 * SYN-ACK that was sent again it is another time, if there is one (Karn; by timestamps, of the last one alone).
	 */
	srtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us) >> 3;
	if (srtt && !BPF_CORE_READ((const struct tcp_sock *)sk, total_retrans))
		observe(HANDSHAKE_SERVER_US, srtt);
	else
		count(HANDSHAKE_SERVER_UNSAMPLED, 1);
}

static __noinline void connection_ended(struct sock *sk, struct socket_state *state, __u64 now)
{
	const struct tcp_sock *tp = (const void *)sk;
	struct closed *record;

	observe(RETRANSMITS_PER_CONNECTION, BPF_CORE_READ(tp, total_retrans));
	observe(TLP_PER_CONNECTION, state->tlp);
	if (state->zero_received_ns)
		count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
	if (state->zero_sent_ns) {
		count(ZERO_WINDOW_SENT_NS, now - state->zero_sent_ns);
		__sync_fetch_and_add(&runtime.zero_windows_sent, -1);
	}
	state->zero_received_ns = 0;
	state->zero_sent_ns = 0;
	record = bpf_ringbuf_reserve(&closed, sizeof(*record), 0);
	if (!record) {
		count(CLOSED_LOST, 1);
		return;
	}
	record->cookie = cookie_of(sk);
	record->bytes_acked = data_acked(tp);
	record->bytes_received = data_received(tp);
	record->retransmits = BPF_CORE_READ(tp, total_retrans);
	bpf_ringbuf_submit(record, 0);
}

/* Its last count of drops, which no look would see. The tracepoint comes before the change: it still listens. */
static __noinline void listener_ended(struct sock *sk)
{
	struct connection *record = bpf_ringbuf_reserve(&closed, sizeof(*record), 0);

	if (!record) {
		count(CLOSED_LOST, 1);
		return;
	}
	read_connection(sk, record);
	record->cookie = cookie_of(sk);
	bpf_ringbuf_submit(record, 0);
}

/* A reset a moment before CLOSE made it; reset.h sees to those that follow it. */
static __always_inline void leave(struct sock *sk, struct socket_state *state, __u8 old, __u64 now)
{
	struct totals *here = totals_here();

	if (old == TCP_SYN_SENT)
		count(HANDSHAKE_CLIENT_FAILED, 1);
	else if (old == TCP_LISTEN)
		listener_ended(sk);
	else
		connection_ended(sk, state, now);
	state->closed_from = old;
	if (state->reset_ns && now - state->reset_ns < 10000000 && here) {
		here->resets_after[BOUNDED(old, TCP_STATES - 1)] += 1;
		state->closed_from = 0;
	}
	if (config.last)
		flush_last(sk, state->events);
	end_of_flow(sk);
}

SEC("tp_btf/inet_sock_set_state")
int state_change(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];
	__u8 old = arguments[1], new = arguments[2];
	struct socket_state *state;
	__u64 now;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (config.netns && sk->__sk_common.skc_net.net->ns.inum != config.netns)
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
		state->deferred = config.port_filtered_local || config.interface || config.local_networks;
	} else if (new == TCP_LISTEN) {
		own(sk, state, PID_LISTEN);
	} else if (new == TCP_SYN_RECV && old != TCP_SYN_SENT) {
		state->role = ROLE_SERVER;
		inherit(sk, state);
		/* The child is a copy of its listener; some kernels give it its peer and its route only later. */
		state->deferred = config.port_filtered_remote || config.interface || config.local_networks ||
				  config.remote_networks;
	}
	if ((new == TCP_SYN_SENT || new == TCP_SYN_RECV) && old != TCP_SYN_SENT && state->deferred) {
		state->entered_ns = now;
		return 0;
	}
	/* The tracepoint comes before the change. */
	if (config.filtered && !(new == TCP_LISTEN ? passes_as(sk, TCP_LISTEN) : passes(sk))) {
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

SEC("tp_btf/tcp_destroy_sock")
int destroy(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];

	end_of_flow(sk);
	forget(sk);
	return 0;
}

/* Process context: who reads or writes owns the socket. Loaded only to watch processes; it runs for each call. */
static __always_inline void io(struct sock *sk, int result)
{
	struct socket_state *state;
	__u32 pid;

	if (result <= 0 || sk->sk_protocol != IPPROTO_TCP)
		return;
	if (config.netns && sk->__sk_common.skc_net.net->ns.inum != config.netns)
		return;
	pid = current_pid();
	state = state_of(sk);
	if (!pid || (state && state->pid == pid && state->pid_source == PID_IO))
		return;
	state = state_for(sk);
	if (!state)
		return;
	state->pid = pid;
	state->pid_source = PID_IO;
	read_name(state->comm);
}

SEC("tp_btf/sock_send_length")
int io_send(__u64 *arguments)
{
	io((void *)arguments[0], arguments[1]);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int io_receive(__u64 *arguments)
{
	io((void *)arguments[0], arguments[1]);
	return 0;
}

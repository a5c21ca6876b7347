/* SPDX-License-Identifier: GPL-2.0 */
/* The one program that runs for each received segment of an established connection. */
#pragma once

enum { FLAGS_OFFSET = 13, WINDOW_OFFSET = 14, FLAG_RST = 4 }; /* in the TCP header, RFC 9293 section 3.1 */

extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;

/* A probe read is a third of the whole program's cost; since 6.2 a cast does without. */
static __always_inline __u16 window_of(const struct sk_buff *skb)
{
	const struct tcphdr *header;
	__u16 window = 1;

	if (config.rdonly_cast) {
		header = bpf_rdonly_cast(skb->data, bpf_core_type_id_kernel(struct tcphdr));
		return header->window;
	}
	bpf_probe_read_kernel(&window, sizeof(window), skb->data + WINDOW_OFFSET);
	return window;
}

/* Rare: the peer's window closes or opens with this segment. That of a reset says nothing (RFC 9293, 3.10.7.4). */
static __noinline void peer_window(struct sock *sk, const struct sk_buff *skb, bool closes)
{
	struct cause cause = { .trigger = ZERO_WINDOW, .class = 0 };
	struct socket_state *state;
	__u64 now;
	__u8 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), BPF_CORE_READ(skb, data) + FLAGS_OFFSET);
	if (flags & FLAG_RST)
		return;
	state = state_for(sk);
	now = bpf_ktime_get_ns();
	cause.cookie = cookie_of(sk);
	if (closes) {
		count(ZERO_WINDOW_RECEIVED, 1);
		if (state)
			state->zero_received_ns = now;
		if (config.zero_window)
			emit(sk, &cause);
	} else if (state && state->zero_received_ns) {
		count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
		state->zero_received_ns = 0;
	}
}

/* Our own window, as it was told to the peer last; seen when a segment comes and when the sockets are sampled. */
static __noinline void own_window(const struct sock *sk, __u64 cookie, bool closed)
{
	struct cause cause = { .trigger = ZERO_WINDOW, .class = 1, .cookie = cookie };
	struct socket_state *state = closed ? state_for(sk) : state_of(sk);
	__u64 now;

	if (!state || closed == (state->zero_sent_ns != 0))
		return;
	now = bpf_ktime_get_ns();
	if (closed) {
		state->zero_sent_ns = now;
		__sync_fetch_and_add(&runtime.zero_windows_sent, 1);
		count(ZERO_WINDOW_SENT, 1);
		if (config.zero_window)
			emit(sk, &cause);
	} else {
		count(ZERO_WINDOW_SENT_NS, now - state->zero_sent_ns);
		state->zero_sent_ns = 0;
		__sync_fetch_and_add(&runtime.zero_windows_sent, -1);
	}
}

/*
 * At each look: the time of what is still closed, and a peer's window that was closed before anybody watched. The first
 * segment of a connection may still be on its way into the socket.
 */
static __noinline void windows_at_look(const struct sock *sk, const struct connection *seen)
{
	struct cause cause = { .trigger = ZERO_WINDOW, .class = 0, .cookie = seen->cookie };
	struct socket_state *state = state_of(sk);
	bool established = seen->state == TCP_ESTABLISHED;
	__u64 now = bpf_ktime_get_ns();

	if (state && state->zero_sent_ns) {
		count(ZERO_WINDOW_SENT_NS, now - state->zero_sent_ns);
		state->zero_sent_ns = now;
	}
	if (state && state->zero_received_ns) {
		count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
		/*
		 * It may have opened unseen: the connection ends, its segments are not sampled, or the one that closed it
		 * was refused. One that has just come may still be on its way into the socket.
		 */
		state->zero_received_ns = seen->send_window && now - state->zero_received_ns > 1000000 ? 0 : now;
	} else if (established && !seen->send_window &&
		   BPF_CORE_READ((const struct tcp_sock *)sk, segs_in) > 1) {
		state = state_for(sk);
		if (!state)
			return;
		state->zero_received_ns = now;
		count(ZERO_WINDOW_RECEIVED, 1);
		if (config.zero_window)
			emit(sk, &cause);
	}
}

/* A probe with new data is no retransmit: only tlp_high_seq tells of it, once for each of its values. */
static __noinline void tail_probe(struct sock *sk, __u32 high_seq)
{
	struct socket_state *state = state_for(sk);

	if (!state || state->tlp_high_seq == high_seq)
		return;
	state->tlp_high_seq = high_seq;
	state->tlp += 1;
	count(TLP_NEW_DATA, 1);
}

static __noinline void cwnd_halved(struct sock *sk, __u64 cookie, __u32 cwnd, __u32 prior)
{
	struct cause cause = { .trigger = CWND_DROP, .cookie = cookie, .value = cwnd };
	struct socket_state *state = state_for(sk);
	__u64 now;

	if (!state)
		return;
	now = bpf_ktime_get_ns();
	if (!state->cwnd_ns || now - state->cwnd_ns > config.cwnd_halved_ns) {
		state->cwnd_ns = now;
		state->cwnd_largest = prior;
	} else if (state->cwnd_largest && prior > state->cwnd_largest) {
		state->cwnd_largest = prior; /* it has grown since the first loss */
	}
	/* 0 when it was told: once for each N seconds */
	if (cwnd * 2 <= state->cwnd_largest) {
		cause.threshold = state->cwnd_largest / 2;
		state->cwnd_largest = 0;
		emit(sk, &cause);
	}
}

static __noinline void rtt_trigger(struct sock *sk, __u32 trigger, __u64 value, __u64 threshold)
{
	struct cause cause = { .trigger = trigger, .value = value, .threshold = threshold };

	cause.cookie = cookie_of(sk);
	emit(sk, &cause);
}

/* A sample stays until the next one, for long where the peer alone sends: each is one jump. */
static __noinline void rtt_jumps(struct sock *sk, __u32 sample, __u64 threshold)
{
	struct socket_state *state = state_for(sk);

	if (state && state->jump_us == sample)
		return;
	if (state)
		state->jump_us = sample;
	rtt_trigger(sk, RTT_JUMP, sample, threshold);
}

/* By flow, so that what is seen of a connection is whole. */
static __always_inline bool sampled_out(const struct sock *sk)
{
	__u64 flow = (__u32)sk->__sk_common.skc_dport << 16 | sk->__sk_common.skc_num;
	__u32 remote = sk->__sk_common.skc_daddr;

	if (sk->__sk_common.skc_family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr))
		remote = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0] ^
			 sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1] ^
			 sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2] ^
			 sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
	flow |= (__u64)remote << 32;
	return spread(flow) & ((1ULL << (runtime.sample_shift & 31)) - 1);
}

SEC("tp_btf/tcp_probe")
int segment(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];
	const struct sk_buff *skb = (void *)arguments[1];
	const struct tcp_sock *tp;
	__u64 threshold;
	__u32 srtt, high_seq;
	__u16 window;

	if (!watched(sk))
		return 0;
	if (runtime.sample_shift && sampled_out(sk))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;

	srtt = tp->srtt_us >> 3;
	if (srtt) {
		observe(RTT_US, srtt);
		observe(RTTVAR_US, tp->mdev_us >> 2);
	}
	window = window_of(skb);
	if (!window != !tp->snd_wnd)
		peer_window(sk, skb, !window);
	if (!tp->rcv_wnd || runtime.zero_windows_sent)
		own_window(sk, cookie_of(sk), !tp->rcv_wnd);
	high_seq = tp->tlp_high_seq;
	if (high_seq && !(bpf_core_field_exists(tp->tlp_retrans) && BPF_CORE_READ_BITFIELD(tp, tlp_retrans)))
		tail_probe(sk, high_seq);

	if (config.rtt_above_us && srtt > config.rtt_above_us)
		rtt_trigger(sk, RTT_ABOVE, srtt, config.rtt_above_us);
	if (config.rtt_p99 && runtime.rtt_p99_us && srtt > runtime.rtt_p99_us)
		rtt_trigger(sk, RTT_P99, srtt, runtime.rtt_p99_us);
	if (config.rtt_jump_percent && srtt && bpf_core_field_exists(tp->rack.rtt_us)) {
		threshold = (__u64)srtt * config.rtt_jump_percent / 100;
		if (tp->rack.rtt_us > threshold)
			rtt_jumps(sk, tp->rack.rtt_us, threshold);
	}
	if (config.cwnd_halved_ns &&
	    BPF_CORE_READ_BITFIELD(tp, inet_conn.icsk_ca_state) >= TCP_CA_CWR)
		cwnd_halved(sk, cookie_of(sk), tp->snd_cwnd, tp->prior_cwnd);
	return 0;
}

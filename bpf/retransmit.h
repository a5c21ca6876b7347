/* SPDX-License-Identifier: GPL-2.0 */
/* Retransmits, told apart without a probe inside of the timer: notes and figures in docs/tcp.md. */
#pragma once

/*
 * The retransmit timer clears icsk_pending before it resends, the loss probe does not. A stale probe timer in
 * Recovery is a fast retransmit: its SACK arrived while the probe was armed.
 */
static __always_inline enum retransmit_class classify(const struct tcp_sock *tp, __u8 state)
{
	const struct inet_connection_sock *icsk = (const void *)tp;
	__u8 ca_state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	__u8 pending = BPF_CORE_READ(icsk, icsk_pending);

	if (state == TCP_SYN_SENT)
		return CLASS_SYN;
	if (pending == ICSK_TIME_NONE && ca_state == TCP_CA_LOSS)
		return BPF_CORE_READ(tp, snd_wnd) ? CLASS_RTO : CLASS_WINDOW_PROBE;
	if (pending == ICSK_TIME_LOSS_PROBE && ca_state < TCP_CA_RECOVERY)
		return CLASS_TLP;
	if (ca_state == TCP_CA_LOSS)
		return CLASS_SLOW_START;
	if (ca_state == TCP_CA_RECOVERY)
		return CLASS_FAST;
	return CLASS_OTHER;
}

static __noinline void burst(struct sock *sk, struct socket_state *state, __u32 segments, __u32 class)
{
	struct cause cause = { .trigger = RETRANSMIT_BURST, .class = class, .threshold = config.retransmit_burst };
	__u64 now = bpf_ktime_get_ns();
	__u32 before;

	if (!state->burst_ns || now - state->burst_ns > 1000000000) {
		state->burst_ns = now;
		state->burst_segments = 0;
	}
	before = state->burst_segments;
	state->burst_segments = before + segments;
	if (before < config.retransmit_burst && before + segments >= config.retransmit_burst) {
		cause.value = before + segments;
		cause.cookie = cookie_of(sk);
		emit(sk, &cause);
	}
}

enum { EAGAIN = 11, ENOMEM = 12, EBUSY = 16, EINVAL = 22 };

/* Given up before the segment was made ready: the kernel counts no segment. Later (a firewall) it has counted it. */
static __always_inline bool not_tried(int error)
{
	return error == -EBUSY || error == -EAGAIN || error == -ENOMEM || error == -EINVAL;
}

static __always_inline void retransmit(struct sock *sk, const struct sk_buff *skb, int error)
{
	const struct tcp_skb_cb *cb = (const void *)&skb->cb[0];
	const struct tcp_sock *tp = (const void *)sk;
	__u8 state_number = sk->__sk_common.skc_state;
	enum retransmit_class class;
	struct cause cause = {};
	struct socket_state *state;
	__u32 segments;

	if (!watched(sk))
		return;
	class = classify(tp, state_number);
	segments = BPF_CORE_READ(cb, tcp_gso_segs);
	if (!segments)
		segments = 1;
	if (error) {
		if (not_tried(error))
			segments = 0;
		/* A timeout is one, whatever comes of it; of the others the kernel counts those that went out. */
		if (class != CLASS_RTO && class != CLASS_SYN)
			class = CLASS_OTHER;
		if (!segments && class == CLASS_OTHER)
			return;
	}
	count(RETRANSMIT_SYN_EVENTS + 2 * class, 1);
	count(RETRANSMIT_SYN_SEGMENTS + 2 * class, segments);
	state = state_for(sk);
	if (state) {
		if (class == CLASS_TLP) {
			state->tlp += 1;
			state->tlp_high_seq = BPF_CORE_READ(tp, snd_nxt);
		}
		if (config.retransmit_burst)
			burst(sk, state, segments, class);
	}
	cause.class = class;
	cause.value = 1;
	if (config.rto && (class == CLASS_RTO || class == CLASS_SYN || class == CLASS_WINDOW_PROBE))
		cause.trigger = RTO;
	else if (config.tlp && class == CLASS_TLP)
		cause.trigger = TLP;
	else
		return;
	cause.cookie = cookie_of(sk);
	emit(sk, &cause);
}

SEC("tp_btf/tcp_retransmit_skb")
int retransmit_2(__u64 *arguments)
{
	retransmit((void *)arguments[0], (void *)arguments[1], 0);
	return 0;
}

/* Since 6.17 it fires for those that failed, too: until then they are missed. */
SEC("tp_btf/tcp_retransmit_skb")
int retransmit_3(__u64 *arguments)
{
	retransmit((void *)arguments[0], (void *)arguments[1], arguments[2]);
	return 0;
}

/* A connection to be, of a listening socket that passes. */
static __noinline bool request_passes(const struct request_sock *request)
{
	struct tuple tuple;

	if (!config.filtered)
		return true;
	read_tuple(&request->__req_common, &tuple);
	if (!tuple.interface)
		tuple.interface = config.interface;
	return tuple_passes(&tuple);
}

SEC("tp_btf/tcp_retransmit_synack")
int retransmit_synack(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];
	const struct request_sock *request = (void *)arguments[1];
	struct cause cause = { .trigger = BACKLOG_OVERFLOW, .class = CLASS_SYNACK };

	if (!watched(sk) || !request_passes(request))
		return 0;
	count(RETRANSMIT_SYNACK_EVENTS, 1);
	count(RETRANSMIT_SYNACK_SEGMENTS, 1);
	if (!config.backlog_overflow || sk->sk_ack_backlog <= sk->sk_max_ack_backlog)
		return 0;
	cause.value = 1;
	cause.threshold = sk->sk_max_ack_backlog;
	cause.cookie = cookie_address((const struct sock *)&request->__req_common);
	emit((const struct sock *)&request->__req_common, &cause);
	return 0;
}

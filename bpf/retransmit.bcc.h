/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Retransmits: the classes of retransmit.h, by the same signs. icsk_ca_state is read by the place that types.py found.
 * A SYN-ACK that is sent again tells of no full queue here: inet_diag does.
 */
#pragma once

static __always_inline u32 classify(const void *sk, u8 state)
{
	u8 pending = READ(struct inet_connection_sock, sk, icsk_pending), ca_state = 0;

	/* A bit field has no address: types.py has looked up the octet that it is in. */
	bpf_probe_read(&ca_state, 1, sk + CA_STATE_OCTET);
	ca_state = ca_state >> CA_STATE_SHIFT & CA_STATE_MASK;
	if (state == TCP_SYN_SENT)
		return CLASS_SYN;
	if (pending == 0 && ca_state == TCP_CA_Loss)
		return READ(struct tcp_sock, sk, snd_wnd) ? CLASS_RTO : CLASS_WINDOW_PROBE;
	if (pending == ICSK_TIME_LOSS_PROBE && ca_state < TCP_CA_Recovery)
		return CLASS_TLP;
	if (ca_state == TCP_CA_Loss)
		return CLASS_SLOW_START;
	if (ca_state == TCP_CA_Recovery)
		return CLASS_FAST;
	return CLASS_OTHER;
}

/* Given up before the segment was made ready: the kernel counts no segment. */
static __always_inline bool not_tried(int error)
{
	/* EAGAIN, ENOMEM, EBUSY, EINVAL: not every set of types has their names. */
	return error == -11 || error == -12 || error == -16 || error == -22;
}

static __always_inline int retransmit(void *ctx, const void *sk, const void *skb, int error)
{
	struct cause cause = { .value = 1 };
	struct socket_state *state;
	struct totals *here;
	u32 class, segments = 0, before;
	u16 octets = 0;
	u64 now;

	if (!watched(sk))
		return 0;
	class = classify(sk, READ(struct sock, sk, __sk_common.skc_state));
	bpf_probe_read(&octets, sizeof(octets),
		       skb + __builtin_offsetof(struct sk_buff, cb) +
			       __builtin_offsetof(struct tcp_skb_cb, tcp_gso_segs));
	segments = octets ? octets : 1;
	if (error) {
		if (not_tried(error))
			segments = 0;
		/* A timeout is one, whatever comes of it; of the others the kernel counts those that went out. */
		if (class != CLASS_RTO && class != CLASS_SYN)
			class = CLASS_OTHER;
		if (!segments && class == CLASS_OTHER)
			return 0;
	}
	here = totals_here();
	if (here) {
		here->counters[RETRANSMIT_SYN_EVENTS + 2 * BOUNDED(class, 7)] += 1;
		here->counters[RETRANSMIT_SYN_SEGMENTS + 2 * BOUNDED(class, 7)] += segments;
	}
	cause.class = class;
	state = state_for(sk);
	if (state && class == CLASS_TLP) {
		state->tlp += 1;
		state->tlp_high_seq = READ(struct tcp_sock, sk, snd_nxt);
	}
	if (RETRANSMIT_BURST_SEGMENTS && state) {
		now = bpf_ktime_get_ns();
		if (!state->burst_ns || now - state->burst_ns > 1000000000) {
			state->burst_ns = now;
			state->burst_segments = 0;
		}
		before = state->burst_segments;
		state->burst_segments = before + segments;
		if (before < RETRANSMIT_BURST_SEGMENTS && before + segments >= RETRANSMIT_BURST_SEGMENTS) {
			cause.trigger = RETRANSMIT_BURST;
			cause.value = before + segments;
			cause.threshold = RETRANSMIT_BURST_SEGMENTS;
			emit(ctx, sk, &cause);
			cause.value = 1;
			cause.threshold = 0;
		}
	}
	if (RTO_EVENTS && (class == CLASS_RTO || class == CLASS_SYN || class == CLASS_WINDOW_PROBE))
		cause.trigger = RTO;
	else if (TLP_EVENTS && class == CLASS_TLP)
		cause.trigger = TLP;
	else
		return 0;
	emit(ctx, sk, &cause);
	return 0;
}

int retransmit_2(struct bpf_raw_tracepoint_args *ctx)
{
	return retransmit((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], 0);
}

/* Since 6.17 it fires for those that failed, too: until then they are missed. */
int retransmit_3(struct bpf_raw_tracepoint_args *ctx)
{
	return retransmit((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], ctx->args[2]);
}

/* A connection to be, of a listening socket that passes. */
static __always_inline bool request_passes(const void *request)
{
	struct tuple tuple;

	if (!FILTERED)
		return true;
	read_tuple(request, &tuple);
	if (!tuple.interface)
		tuple.interface = INTERFACE;
	return tuple_passes(&tuple);
}

int retransmit_synack(struct bpf_raw_tracepoint_args *ctx)
{
	if (!watched((const void *)ctx->args[0]) || !request_passes((const void *)ctx->args[1]))
		return 0;
	count(RETRANSMIT_SYNACK_EVENTS, 1);
	count(RETRANSMIT_SYNACK_SEGMENTS, 1);
	return 0;
}

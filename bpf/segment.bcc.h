/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The one program that runs for each received segment of an established connection. It differs from segment.h:
 * our own window, jumps of RTT, halved cwnd and pacing are inet_diag's to find; where no iterator looks at the sockets
 * the peer's probes book the time of a window that stays closed, and its opening may pass unseen. tlp_retrans is a bit
 * field without a place of its own: a probe that was a retransmit is known from retransmit.bcc.h alone.
 */
#pragma once

enum { FLAGS_OFFSET = 13, WINDOW_OFFSET = 14, FLAG_RST = 4 }; /* in the TCP header, RFC 9293 section 3.1 */

/* A trigger that lasts tells of a connection once a second. */
static __always_inline void rtt_trigger(void *ctx, const void *sk, u32 trigger, u64 value, u64 threshold)
{
	struct cause cause = { .trigger = trigger, .value = value, .threshold = threshold };
	struct socket_state *state = state_for(sk);
	u64 now = bpf_ktime_get_ns();
	struct totals *here;

	if (state && trigger < TRIGGERS) {
		if (state->repeat_ns[trigger] && now - state->repeat_ns[trigger] < 1000000000) {
			here = totals_here();
			if (here)
				here->suppressed[STAGE_REPEAT] += 1;
			return;
		}
		state->repeat_ns[trigger] = now;
	}
	emit(ctx, sk, &cause);
}

static __always_inline bool sampled_out(const void *sk, u64 shift)
{
	u64 flow = (u32)READ(struct sock, sk, __sk_common.skc_dport) << 16 | READ(struct sock, sk, __sk_common.skc_num);
	u32 remote = READ(struct sock, sk, __sk_common.skc_daddr);

#if HAVE_IPV6
	if (READ(struct sock, sk, __sk_common.skc_family) == AF_INET6) {
		u32 words[4] = {};

		bpf_probe_read(words, 16, sk + __builtin_offsetof(struct sock, __sk_common.skc_v6_daddr));
		remote = words[0] ^ words[1] ^ words[2] ^ words[3];
	}
#endif
	flow |= (u64)remote << 32;
	flow ^= flow >> 32; /* each bit of the address counts */
	return flow * 0x9e3779b97f4a7c15ULL >> 32 & ((1ULL << (shift & 31)) - 1);
}

int segment(struct bpf_raw_tracepoint_args *ctx)
{
	const void *sk = (const void *)ctx->args[0], *skb = (const void *)ctx->args[1], *data;
	struct cause cause = { .trigger = ZERO_WINDOW };
	struct socket_state *state;
	struct setting *setting;
	u32 srtt, high_seq, window_before, key = 0;
	u64 p99 = 0, now;
	u16 window = 1;
	u8 flags = 0;

	if (!watched(sk))
		return 0;
	setting = settings.lookup(&key);
	if (setting) {
		if (setting->sample_shift && sampled_out(sk, setting->sample_shift))
			return 0;
		p99 = setting->rtt_p99_us;
	}
	srtt = READ(struct tcp_sock, sk, srtt_us) >> 3;
	if (srtt) {
		observe(RTT_US, srtt);
		observe(RTTVAR_US, READ(struct tcp_sock, sk, mdev_us) >> 2);
	}
	data = READ(struct sk_buff, skb, data);
	bpf_probe_read(&window, sizeof(window), data + WINDOW_OFFSET);
	window_before = READ(struct tcp_sock, sk, snd_wnd);
	if (!window || !window_before)
		bpf_probe_read(&flags, sizeof(flags), data + FLAGS_OFFSET);
	/* The window of a reset says nothing. */
	if ((!window || !window_before) && !(flags & FLAG_RST)) {
		state = state_for(sk);
		now = bpf_ktime_get_ns();
		if (!window && state && state->zero_received_ns) {
			/* It is probed and still closed: so much of the time is known. */
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
			state->zero_received_ns = now;
		} else if (!window && (window_before || state)) {
			count(ZERO_WINDOW_RECEIVED, 1);
			if (state)
				state->zero_received_ns = now;
			if (ZERO_WINDOW_EVENTS)
				emit((void *)ctx, sk, &cause);
		} else if (state && state->zero_received_ns) {
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
			state->zero_received_ns = 0;
		}
	}
	/* A probe with new data is no retransmit: only this number tells of it, once for each of its values. */
	high_seq = READ(struct tcp_sock, sk, tlp_high_seq);
	if (high_seq) {
		state = state_for(sk);
		if (state && state->tlp_high_seq != high_seq) {
			state->tlp_high_seq = high_seq;
			state->tlp += 1;
			count(TLP_NEW_DATA, 1);
		}
	}
	if (RTT_ABOVE_US && srtt > RTT_ABOVE_US)
		rtt_trigger((void *)ctx, sk, RTT_ABOVE, srtt, RTT_ABOVE_US);
	if (RTT_P99_EVENTS && p99 && srtt > p99)
		rtt_trigger((void *)ctx, sk, RTT_P99, srtt, p99);
	return 0;
}

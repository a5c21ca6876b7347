/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dropped TCP packets by reason and place, as in drop.h. A final ACK that finds its listener's queue full is a drop by
 * its reason alone: the listener's own counter, and with it the event, is inet_diag's.
 */
#pragma once

enum { REASON_UNKNOWN = 0xffff };

static __always_inline bool is_benign(u32 reason)
{
	if (reason < 64)
		return BENIGN_0 >> reason & 1;
	if (reason < 128)
		return BENIGN_1 >> (reason & 63) & 1;
	if (reason < 192)
		return BENIGN_2 >> (reason & 63) & 1;
	return reason < 256 && BENIGN_3 >> (reason & 63) & 1;
}

static __always_inline void count_drop(u64 location, u32 reason, u32 unlisted)
{
	struct drop_key key = { .location = location, .reason = reason };
	u64 *packets = drops.lookup(&key), nothing = 0;

	if (!packets) {
		/* Another CPU may be first: then it is there, too. */
		drops.insert(&key, &nothing);
		packets = drops.lookup(&key);
	}
	if (packets)
		*packets += 1;
	else
		count(unlisted, 1);
}

static __always_inline bool is_tcp(const void *sk)
{
	u16 family = READ(struct sock, sk, __sk_common.skc_family);

	if (family != AF_INET && family != AF_INET6)
		return false;
	return !is_full(READ(struct sock, sk, __sk_common.skc_state)) || protocol_of(sk) == IPPROTO_TCP;
}

static __always_inline int dropped(void *ctx, const void *skb, u64 location, u32 reason, const void *sk)
{
	struct cause cause = { .trigger = DROP, .reason = reason, .location = location, .value = 1 };
	struct tuple tuple;

	if (!sk)
		sk = READ(struct sk_buff, skb, sk);
	if (sk) {
		if (!is_tcp(sk) || !watched_with(sk, skb) || !packet_of_listener_passes(sk, skb))
			return 0;
	} else if (!packet_watched(skb, &tuple)) {
		return 0;
	}
	if (reason == 0 || is_benign(reason)) {
		count(DROPS_BENIGN, 1);
		count_drop(0, reason, DROPS_BENIGN_UNLISTED);
		return 0;
	}
	count(DROPS, 1);
	count_drop(location, reason, DROPS_UNLISTED);
	if (!DROP_EVENTS)
		return 0;
	if (sk)
		emit(ctx, sk, &cause);
	else
		emit_tuple(ctx, &tuple, &cause);
	return 0;
}

int drop_2(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], REASON_UNKNOWN, NULL);
}

int drop_3(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], ctx->args[2], NULL);
}

int drop_4(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], ctx->args[2],
		       (const void *)ctx->args[3]);
}

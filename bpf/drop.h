/* SPDX-License-Identifier: GPL-2.0 */
/* Dropped TCP packets by reason and place. The socket is an argument since 6.11; before, the packet's, or none. */
#pragma once

enum { REASON_UNKNOWN = 0xffff };

static __always_inline bool is_tcp(const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family != AF_INET && family != AF_INET6)
		return false;
	if (!is_full(BPF_CORE_READ(sk, __sk_common.skc_state)))
		return true;
	if (bpf_core_field_size(sk->sk_protocol) == 2)
		return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline bool is_benign(__u32 reason)
{
	return reason < 256 && config.benign[BOUNDED(reason >> 6, 3)] >> (reason & 63) & 1;
}

/* The final ACK of a handshake found its listener's queue full. */
static __noinline void handshake_dropped(const struct sock *sk)
{
	struct cause cause = { .trigger = BACKLOG_OVERFLOW, .class = 1 };
	struct socket_state *state;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return;
	state = state_for(sk);
	if (state)
		state->accept_drops += 1;
	if (!config.backlog_overflow)
		return;
	cause.value = 1;
	cause.threshold = BPF_CORE_READ(sk, sk_max_ack_backlog);
	cause.cookie = cookie_address(sk);
	emit(sk, &cause);
}

static __noinline void count_drop(__u64 location, __u32 reason, enum counter unlisted)
{
	struct drop_key key = { .location = location, .reason = reason };
	__u64 *packets = bpf_map_lookup_elem(&drops, &key), nothing = 0;

	if (!packets) {
		/* Another CPU may be first: then it is there, too. */
		bpf_map_update_elem(&drops, &key, &nothing, BPF_NOEXIST);
		packets = bpf_map_lookup_elem(&drops, &key);
	}
	if (packets)
		*packets += 1;
	else
		count(unlisted, 1);
}

static __always_inline void dropped(const struct sk_buff *skb, __u64 location, __u32 reason, const struct sock *sk)
{
	struct cause cause = { .trigger = DROP, .reason = reason, .location = location, .value = 1 };
	struct tuple tuple;

	if (!sk)
		sk = BPF_CORE_READ(skb, sk);
	if (sk) {
		if (!is_tcp(sk) || !watched_with(sk, skb) || !packet_of_listener_passes(sk, skb))
			return;
	} else if (!packet_watched(skb, &tuple)) {
		return;
	}
	if (reason == 0 || is_benign(reason)) {
		count(DROPS_BENIGN, 1);
		count_drop(0, reason, DROPS_BENIGN_UNLISTED);
		return;
	}
	count(DROPS, 1);
	count_drop(location, reason, DROPS_UNLISTED);
	if (sk && config.listen_overflow && reason == config.listen_overflow)
		handshake_dropped(sk);
	if (!config.drops)
		return;
	if (sk) {
		cause.cookie = cookie_address(sk);
		emit(sk, &cause);
	} else {
		emit_tuple(&tuple, &cause);
	}
}

/* Before 5.17: no reason. */
SEC("raw_tp/kfree_skb")
int drop_2(__u64 *arguments)
{
	dropped((void *)arguments[0], arguments[1], REASON_UNKNOWN, NULL);
	return 0;
}

SEC("raw_tp/kfree_skb")
int drop_3(__u64 *arguments)
{
	dropped((void *)arguments[0], arguments[1], arguments[2], NULL);
	return 0;
}

SEC("raw_tp/kfree_skb")
int drop_4(__u64 *arguments)
{
	dropped((void *)arguments[0], arguments[1], arguments[2], (void *)arguments[3]);
	return 0;
}

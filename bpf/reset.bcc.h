/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Resets, as in reset.h. All programs are raw_tp ones here: each argument may be NULL to the verifier.
 */
#pragma once

int reset_received(struct bpf_raw_tracepoint_args *ctx)
{
	const void *sk = (const void *)ctx->args[0];
	struct cause cause = { .trigger = RESET, .value = 1 };
	struct socket_state *state;

	if (!watched(sk))
		return 0;
	count(RESETS_RECEIVED, 1);
	state = state_for(sk);
	if (state)
		state->reset_ns = bpf_ktime_get_ns();
	if (RESET_EVENTS)
		emit((void *)ctx, sk, &cause);
	return 0;
}

static __always_inline const void *device_of(const void *skb)
{
	const void *device = READ(struct sk_buff, skb, dev);
	unsigned long route;

	if (device)
		return device;
	route = READ(struct sk_buff, skb, _skb_refdst) & ~1UL;
	return route ? READ(struct dst_entry, route, dev) : NULL;
}

/* sk: any kind of socket; skb: a packet of it, or NULL. */
static __always_inline bool watched_with(const void *sk, const void *skb)
{
	struct tuple tuple;

	if (!INTERFACE || !skb || is_full(READ(struct sock, sk, __sk_common.skc_state)))
		return watched(sk);
	if (NETNS && netns_of(sk) != NETNS)
		return false;
	/* A request and one in TIME_WAIT have no route of their own: the packet says which interface it is. */
	read_tuple(sk, &tuple);
	if (!tuple.interface)
		tuple.interface = READ(struct sk_buff, skb, skb_iif);
	if (!tuple.interface)
		tuple.interface = READ(struct net_device, device_of(skb), ifindex);
	return tuple_passes(&tuple);
}

/* Addresses of a received TCP packet, as its receiver sees them; false: it is none. */
static __always_inline bool read_packet(const void *skb, struct tuple *out)
{
	const void *device, *ip = READ(struct sk_buff, skb, head);
	u16 protocol = READ(struct sk_buff, skb, protocol), ports[2] = {};
	u8 first = 0, next = 0;
	u32 address = 0, length;

	__builtin_memset(out, 0, sizeof(*out));
	ip += READ(struct sk_buff, skb, network_header);
	bpf_probe_read(&first, 1, ip);
	if (protocol == htons(ETH_P_IP) && first >> 4 == 4) {
		bpf_probe_read(&next, 1, ip + 9);
		bpf_probe_read(&address, 4, ip + 12);
		map_ipv4(out->remote, address);
		bpf_probe_read(&address, 4, ip + 16);
		map_ipv4(out->local, address);
		length = (first & 15) * 4;
	} else if (protocol == htons(ETH_P_IPV6) && first >> 4 == 6) {
		bpf_probe_read(&next, 1, ip + 6);
		bpf_probe_read(out->remote, 16, ip + 8);
		bpf_probe_read(out->local, 16, ip + 24);
		length = 40;
	} else {
		return false;
	}
	if (next != IPPROTO_TCP)
		return false;
	bpf_probe_read(ports, sizeof(ports), ip + length);
	out->remote_port = ntohs(ports[0]);
	out->local_port = ntohs(ports[1]);
	out->interface = READ(struct sk_buff, skb, skb_iif);
	device = device_of(skb);
	if (!device)
		return true;
	out->netns = READ(struct net, READ(struct net_device, device, nd_net.net), ns.inum);
	if (!out->interface)
		out->interface = READ(struct net_device, device, ifindex);
	return true;
}

static __always_inline bool packet_watched(const void *skb, struct tuple *tuple)
{
	if (!skb || !read_packet(skb, tuple))
		return false;
	if (NETNS && tuple->netns != NETNS)
		return false;
	return !FILTERED || tuple_passes(tuple);
}

/* What comes to a listening socket is judged by both of its ends, as a connection would be. */
static __always_inline bool packet_of_listener_passes(const void *sk, const void *skb)
{
	struct tuple tuple;

	if (!FILTERED || READ(struct sock, sk, __sk_common.skc_state) != TCP_LISTEN)
		return true;
	return !skb || !read_packet(skb, &tuple) || tuple_passes(&tuple);
}

static __always_inline int reset_sent(void *ctx, const void *sk, const void *skb, u32 reason)
{
	struct cause cause = { .trigger = RESET, .class = 1, .reason = reason, .value = 1 };
	struct socket_state *state;
	struct tuple tuple;
	struct totals *here;
	u8 number;

	if (sk ? !watched_with(sk, skb) || !packet_of_listener_passes(sk, skb) : !packet_watched(skb, &tuple))
		return 0;
	here = totals_here();
	if (!here)
		return 0;
	here->counters[RESETS_SENT] += 1;
	here->reset_reasons[BOUNDED(reason, RESET_REASONS - 1)] += 1;
	number = sk ? READ(struct sock, sk, __sk_common.skc_state) : TCP_TIME_WAIT;
	if (is_full(number) && number != TCP_LISTEN) {
		state = state_of(sk);
		if (state && !skb)
			own_if_locked(sk, state);
		if (state && number == TCP_CLOSE && state->closed_from) {
			here->resets_after[BOUNDED(state->closed_from, TCP_STATES - 1)] += 1;
			state->closed_from = 0;
		} else if (state) {
			state->reset_ns = bpf_ktime_get_ns();
		}
	}
	if (!RESET_EVENTS)
		return 0;
	if (sk)
		emit(ctx, sk, &cause);
	else
		emit_tuple(ctx, &tuple, &cause);
	return 0;
}

int reset_sent_2(struct bpf_raw_tracepoint_args *ctx)
{
	return reset_sent((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], 0);
}

int reset_sent_3(struct bpf_raw_tracepoint_args *ctx)
{
	return reset_sent((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], ctx->args[2]);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* Resets. The socket and the packet that caused one may each be missing: raw_tp, and both are checked. */
#pragma once

SEC("tp_btf/tcp_receive_reset")
int reset_received(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];
	struct cause cause = { .trigger = RESET, .value = 1 };
	struct socket_state *state;

	if (!watched(sk))
		return 0;
	count(RESETS_RECEIVED, 1);
	state = state_for(sk);
	if (state)
		state->reset_ns = bpf_ktime_get_ns();
	if (!config.resets)
		return 0;
	cause.cookie = cookie_of(sk);
	emit(sk, &cause);
	return 0;
}

static __always_inline const struct net_device *device_of(const struct sk_buff *skb)
{
	const struct net_device *device = BPF_CORE_READ(skb, dev);
	const struct dst_entry *route;

	if (device)
		return device;
	route = (const void *)(BPF_CORE_READ(skb, _skb_refdst) & ~1UL);
	return route ? BPF_CORE_READ(route, dev) : NULL;
}

/* A request and one in TIME_WAIT have no route of their own: the packet says which interface it is. */
static __noinline bool routeless_passes(const struct sock_common *sk, const struct sk_buff *skb)
{
	struct tuple tuple;

	read_tuple(sk, &tuple);
	if (!tuple.interface)
		tuple.interface = BPF_CORE_READ(skb, skb_iif);
	if (!tuple.interface)
		tuple.interface = BPF_CORE_READ(device_of(skb), ifindex);
	return !config.cgroup && !config.pid_filtered && tuple_passes(&tuple);
}

/* sk: any kind of socket; skb: a packet of it, or NULL. */
static __always_inline bool watched_with(const struct sock *sk, const struct sk_buff *skb)
{
	if (!config.interface || !skb || is_full(BPF_CORE_READ(sk, __sk_common.skc_state)))
		return watched_address(sk);
	if (config.netns && BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) != config.netns)
		return false;
	return routeless_passes(&sk->__sk_common, skb);
}

/*
 * Addresses of a received TCP packet, as its receiver sees them; false: it is none.
 * Only fixed places: an IPv6 packet with extension headers is not recognised.
 */
static __noinline bool read_packet(const struct sk_buff *skb, struct tuple *out)
{
	const struct net_device *device = device_of(skb);
	const unsigned char *ip = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	__u16 protocol = bpf_ntohs(BPF_CORE_READ(skb, protocol));
	__u8 first = 0, next = 0;
	__be32 address;
	__u16 ports[2] = {};
	__u32 length;

	__builtin_memset(out, 0, sizeof(*out));
	bpf_probe_read_kernel(&first, 1, ip);
	if (protocol == ETH_P_IP && first >> 4 == 4) {
		bpf_probe_read_kernel(&next, 1, ip + 9);
		bpf_probe_read_kernel(&address, 4, ip + 12);
		map_ipv4(out->remote, address);
		bpf_probe_read_kernel(&address, 4, ip + 16);
		map_ipv4(out->local, address);
		length = (first & 15) * 4;
	} else if (protocol == ETH_P_IPV6 && first >> 4 == 6) {
		bpf_probe_read_kernel(&next, 1, ip + 6);
		bpf_probe_read_kernel(&out->remote, 16, ip + 8);
		bpf_probe_read_kernel(&out->local, 16, ip + 24);
		length = 40;
	} else {
		return false;
	}
	if (next != IPPROTO_TCP)
		return false;
	bpf_probe_read_kernel(ports, sizeof(ports), ip + length);
	out->remote_port = bpf_ntohs(ports[0]);
	out->local_port = bpf_ntohs(ports[1]);
	out->interface = BPF_CORE_READ(skb, skb_iif);
	if (!device)
		return true;
	out->netns = BPF_CORE_READ(device, nd_net.net, ns.inum);
	if (!out->interface)
		out->interface = BPF_CORE_READ(device, ifindex);
	return true;
}

/* Without a socket there is no owner: where owners are watched, such packets do not count. */
static __always_inline bool packet_watched(const struct sk_buff *skb, struct tuple *tuple)
{
	if (!skb || !read_packet(skb, tuple))
		return false;
	if (config.netns && tuple->netns != config.netns)
		return false;
	return !config.filtered || (!config.cgroup && !config.pid_filtered && tuple_passes(tuple));
}

/* What comes to a listening socket is judged by both of its ends, as a connection would be. */
static __noinline bool packet_of_listener_passes(const struct sock *sk, const struct sk_buff *skb)
{
	struct tuple tuple;

	if (!config.filtered || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return true;
	return !skb || !read_packet(skb, &tuple) || tuple_passes(&tuple);
}

static __always_inline void reset_sent(const struct sock *sk, const struct sk_buff *skb, __u32 reason)
{
	struct cause cause = { .trigger = RESET, .class = 1, .reason = reason, .value = 1 };
	struct socket_state *state;
	struct totals *here;
	struct tuple tuple;
	__u8 number = 0;

	if (sk ? !watched_with(sk, skb) || !packet_of_listener_passes(sk, skb) : !packet_watched(skb, &tuple))
		return;
	here = totals_here();
	if (!here)
		return;
	here->counters[RESETS_SENT] += 1;
	here->reset_reasons[BOUNDED(reason, RESET_REASONS - 1)] += 1;
	if (sk)
		number = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (sk && is_full(number) && number != TCP_LISTEN) {
		state = state_of(sk);
		if (state && !skb)
			own_if_locked(sk, state);
		if (state && number == TCP_CLOSE && state->closed_from) {
			/* close() with unread data: CLOSE first, then the reset. */
			here->resets_after[BOUNDED(state->closed_from, TCP_STATES - 1)] += 1;
			state->closed_from = 0;
		} else if (state) {
			state->reset_ns = bpf_ktime_get_ns();
		}
	}
	if (!config.resets)
		return;
	if (sk) {
		cause.cookie = cookie_address(sk);
		emit(sk, &cause);
	} else {
		emit_tuple(&tuple, &cause);
	}
}

/* Before 6.10: only where there is a socket, and without a reason. */
SEC("raw_tp/tcp_send_reset")
int reset_sent_2(__u64 *arguments)
{
	reset_sent((void *)arguments[0], (void *)arguments[1], 0);
	return 0;
}

SEC("raw_tp/tcp_send_reset")
int reset_sent_3(__u64 *arguments)
{
	reset_sent((void *)arguments[0], (void *)arguments[1], arguments[2]);
	return 0;
}

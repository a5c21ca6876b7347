/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which sockets count, as in filter.h, without its loops: ports and networks are comparisons that source.py writes
 * out (LOCAL_PORTS ...). No filter by process or cgroup: the backend refuses them, their maps and walks have no place
 * in 4096 instructions. All is read by READ(): there is no tp_btf before 5.5.
 */
#pragma once

static __always_inline bool is_full(u8 state)
{
	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline u32 protocol_of(const void *sk)
{
#ifdef SK_FL_PROTO_SHIFT
	u32 flags = 0;

	bpf_probe_read(&flags, sizeof(flags), sk + __builtin_offsetof(struct sock, __sk_flags_offset));
	return (flags & SK_FL_PROTO_MASK) >> SK_FL_PROTO_SHIFT;
#else
	return READ(struct sock, sk, sk_protocol);
#endif
}

static __always_inline u32 netns_of(const void *sk)
{
	const void *net = READ(struct sock, sk, __sk_common.skc_net.net);

	return READ(struct net, net, ns.inum);
}

static __always_inline void map_ipv4(u32 *out, u32 address)
{
	out[0] = 0;
	out[1] = 0;
	out[2] = htonl(0xffff);
	out[3] = address;
}

/* A socket gives its number back before it tells that it is closed; what it sent in its packets stays. */
static __always_inline u16 port_of(const void *sk, u8 state)
{
	u16 port = READ(struct sock, sk, __sk_common.skc_num);

	if (port || !is_full(state))
		return port;
	port = READ(struct inet_sock, sk, inet_sport);
	return ntohs(port);
}

static __always_inline void read_tuple(const void *sk, struct tuple *out)
{
	u8 state = READ(struct sock, sk, __sk_common.skc_state);
	u16 port = READ(struct sock, sk, __sk_common.skc_dport);
	const void *route, *device;

	__builtin_memset(out, 0, sizeof(*out));
#if HAVE_IPV6
	if (READ(struct sock, sk, __sk_common.skc_family) == AF_INET6) {
		bpf_probe_read(out->local, 16, sk + __builtin_offsetof(struct sock, __sk_common.skc_v6_rcv_saddr));
		bpf_probe_read(out->remote, 16, sk + __builtin_offsetof(struct sock, __sk_common.skc_v6_daddr));
	} else
#endif
	{
		map_ipv4(out->local, READ(struct sock, sk, __sk_common.skc_rcv_saddr));
		map_ipv4(out->remote, READ(struct sock, sk, __sk_common.skc_daddr));
	}
	out->local_port = port_of(sk, state);
	out->remote_port = ntohs(port);
	out->netns = netns_of(sk);
	out->interface = READ(struct sock, sk, __sk_common.skc_bound_dev_if);
	if (!out->interface && is_full(state)) {
		route = (const void *)READ(struct sock, sk, sk_dst_cache);
		if (route) {
			device = READ(struct dst_entry, route, dev);
			out->interface = READ(struct net_device, device, ifindex);
		}
	}
}

/* A port of 0 is not chosen yet: it passes here, and is asked for again when it is. */
static __always_inline bool tuple_passes(const struct tuple *tuple)
{
	if (tuple->local_port && !(LOCAL_PORTS(tuple->local_port)))
		return false;
	if (!(REMOTE_PORTS(tuple->remote_port)))
		return false;
	if (INTERFACE && tuple->interface != INTERFACE)
		return false;
	return (LOCAL_NETWORKS(tuple->local)) && (REMOTE_NETWORKS(tuple->remote));
}

/* Who listens is judged by its own side alone; one without an address or an interface hears them all. */
static __always_inline bool listener_passes(const struct tuple *tuple)
{
	bool mapped = !tuple->local[2] || tuple->local[2] == htonl(0xffff);
	bool wildcard = !tuple->local[0] && !tuple->local[1] && mapped && !tuple->local[3];

	if (!(LOCAL_PORTS(tuple->local_port)))
		return false;
	if (INTERFACE && tuple->interface && tuple->interface != INTERFACE)
		return false;
	return wildcard || (LOCAL_NETWORKS(tuple->local));
}

/* state: that to judge it by. */
static __always_inline bool watched_as(const void *sk, u8 state)
{
	struct tuple tuple;

	if (NETNS && netns_of(sk) != NETNS)
		return false;
	if (!FILTERED)
		return true;
	read_tuple(sk, &tuple);
	return state == TCP_LISTEN ? listener_passes(&tuple) : tuple_passes(&tuple);
}

static __always_inline bool watched(const void *sk)
{
	return watched_as(sk, READ(struct sock, sk, __sk_common.skc_state));
}

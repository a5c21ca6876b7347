/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which sockets count. By default one comparison, of the namespace; all else is read with probe reads in a function
 * of its own, so that a program whose socket is a bare address (raw_tp) can call it, too.
 */
#pragma once

static __always_inline bool is_full(__u8 state)
{
	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline void map_ipv4(__be32 *out, __be32 address)
{
	out[0] = 0;
	out[1] = 0;
	out[2] = bpf_htonl(0xffff);
	out[3] = address;
}

static __always_inline bool in_bitmap(const volatile __u64 *bits, __u16 port)
{
	return bits[BOUNDED(port >> 6, 1023)] >> (port & 63) & 1;
}

/* IPv4 is ::ffff:a.b.c.d here: a network of IPv6 that has that in it, as ::/0 does, is none of IPv4. */
static __always_inline bool in_networks(const volatile struct prefix *networks, __u32 number, const __be32 *address)
{
	bool ipv4 = !address[0] && !address[1] && address[2] == bpf_htonl(0xffff);
	__u32 i;

	for (i = 0; i < PREFIXES; i++) {
		const volatile struct prefix *network = &networks[i];

		if (i >= number)
			break;
		if (ipv4 && network->mask[2] != 0xffffffff)
			continue;
		if ((address[0] & network->mask[0]) == network->address[0] &&
		    (address[1] & network->mask[1]) == network->address[1] &&
		    (address[2] & network->mask[2]) == network->address[2] &&
		    (address[3] & network->mask[3]) == network->address[3])
			return true;
	}
	return false;
}

/* A port of 0 is not chosen yet: it passes here, and the caller asks again when it is. */
static __noinline bool tuple_passes(const struct tuple *tuple)
{
	if (config.port_filtered_local && tuple->local_port && !in_bitmap(local_ports, tuple->local_port))
		return false;
	if (config.port_filtered_remote && !in_bitmap(remote_ports, tuple->remote_port))
		return false;
	if (config.interface && tuple->interface != config.interface)
		return false;
	if (config.local_networks && !in_networks(local_networks, config.local_networks, tuple->local))
		return false;
	if (config.remote_networks && !in_networks(remote_networks, config.remote_networks, tuple->remote))
		return false;
	return true;
}

/* A socket gives its number back before it tells that it is closed; what it sent in its packets stays. */
static __always_inline __u16 port_of(const struct sock *sk)
{
	__u16 port = BPF_CORE_READ(sk, __sk_common.skc_num);

	if (port || !is_full(BPF_CORE_READ(sk, __sk_common.skc_state)))
		return port;
	return bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
}

/* Out of the part that all kinds of sockets share. */
static __noinline void read_tuple(const struct sock_common *sk, struct tuple *out)
{
	struct dst_entry *route;
	__u8 state = BPF_CORE_READ(sk, skc_state);

	if (BPF_CORE_READ(sk, skc_family) == AF_INET6 && bpf_core_field_exists(sk->skc_v6_daddr)) {
		BPF_CORE_READ_INTO(&out->local, sk, skc_v6_rcv_saddr.in6_u.u6_addr32);
		BPF_CORE_READ_INTO(&out->remote, sk, skc_v6_daddr.in6_u.u6_addr32);
	} else {
		map_ipv4(out->local, BPF_CORE_READ(sk, skc_rcv_saddr));
		map_ipv4(out->remote, BPF_CORE_READ(sk, skc_daddr));
	}
	out->local_port = port_of((const struct sock *)sk);
	out->remote_port = bpf_ntohs(BPF_CORE_READ(sk, skc_dport));
	out->netns = BPF_CORE_READ(sk, skc_net.net, ns.inum);
	out->interface = BPF_CORE_READ(sk, skc_bound_dev_if);
	if (!out->interface && is_full(state)) {
		route = BPF_CORE_READ((const struct sock *)sk, sk_dst_cache);
		if (route)
			out->interface = BPF_CORE_READ(route, dev, ifindex);
	}
}

static __always_inline const struct cgroup *cgroup_of(const struct sock *sk)
{
	__u64 word;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	word = BPF_CORE_READ((const struct sock_cgroup_data___word *)&sk->sk_cgrp_data, val);
	return word & 1 ? NULL : (const struct cgroup *)word;
}

static __noinline bool in_cgroup(const struct sock *sk)
{
	const struct cgroup *cgroup = cgroup_of(sk), *ancestor = NULL;
	const void *at;
	int i, level;
	__u64 id;

	if (!cgroup)
		return false;
	level = BPF_CORE_READ(cgroup, level);
	for (i = 0; i < 32; i++) {
		if (i > level)
			break;
		id = 0;
		if (bpf_core_field_exists(cgroup->ancestors)) {
			at = (const void *)cgroup + bpf_core_field_offset(cgroup->ancestors) + i * sizeof(ancestor);
			bpf_probe_read_kernel(&ancestor, sizeof(ancestor), at);
			id = BPF_CORE_READ(ancestor, kn, id);
		} else {
			const struct cgroup___ids *ids = (const void *)cgroup;

			at = (const void *)ids + bpf_core_field_offset(ids->ancestor_ids) + i * sizeof(id);
			bpf_probe_read_kernel(&id, sizeof(id), at);
		}
		if (id == config.cgroup)
			return true;
	}
	return false;
}

static __always_inline __u64 inode_of(const struct sock *sk)
{
	const struct socket *socket = BPF_CORE_READ(sk, sk_socket);

	if (!socket)
		return 0;
	return BPF_CORE_READ((const struct socket_alloc *)socket, vfs_inode.i_ino);
}

static __noinline bool owner_passes(const struct sock *sk)
{
	struct socket_state *state = state_of(sk);
	__u64 inode;
	__u32 pid;

	if (state && state->pid) {
		pid = state->pid;
		return bpf_map_lookup_elem(&watched_pids, &pid) != NULL;
	}
	inode = inode_of(sk);
	return inode && bpf_map_lookup_elem(&watched_inodes, &inode);
}

/* Who listens is judged by its own side alone; one without an address or an interface hears them all. */
static __always_inline bool listener_passes(struct tuple *tuple)
{
	bool mapped = !tuple->local[2] || tuple->local[2] == bpf_htonl(0xffff);
	bool wildcard = !tuple->local[0] && !tuple->local[1] && mapped && !tuple->local[3];

	if (config.port_filtered_local && !in_bitmap(local_ports, tuple->local_port))
		return false;
	if (config.interface && tuple->interface && tuple->interface != config.interface)
		return false;
	return wildcard || !config.local_networks || in_networks(local_networks, config.local_networks, tuple->local);
}

/* sk: any kind of socket, or a bare address of one; state: that to judge it by. */
static __noinline bool passes_as(const void *sk, __u8 state)
{
	bool full = is_full(BPF_CORE_READ((const struct sock_common *)sk, skc_state));
	struct tuple tuple;

	read_tuple(sk, &tuple);
	if (!(state == TCP_LISTEN ? listener_passes(&tuple) : tuple_passes(&tuple)))
		return false;
	if (config.cgroup && (!full || !in_cgroup(sk)))
		return false;
	if (config.pid_filtered && (!full || !owner_passes(sk)))
		return false;
	return true;
}

static __always_inline bool passes(const void *sk)
{
	return passes_as(sk, BPF_CORE_READ((const struct sock_common *)sk, skc_state));
}

/* For programs whose socket the verifier knows. */
static __always_inline bool watched(const struct sock *sk)
{
	if (config.netns && sk->__sk_common.skc_net.net->ns.inum != config.netns)
		return false;
	return !config.filtered || passes(sk);
}

/* For those to which it is a bare address. */
static __always_inline bool watched_address(const struct sock *sk)
{
	if (config.netns && BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) != config.netns)
		return false;
	return !config.filtered || passes(sk);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What `otus-tui doctor` loads, and never attaches, to learn whether this kernel takes the programs
 * of the TCP observer from this user: a BTF tracepoint that follows kernel pointers at offsets which
 * libbpf relocates, a ring buffer, and a per-CPU map. Types are declared with the members that are
 * read, no more; CO-RE finds their places in the running kernel.
 */
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum bpf_map_type { BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_RINGBUF = 27 };

#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	__u16 skc_num;
	unsigned short skc_family;
};
struct sock {
	struct sock_common __sk_common;
};
#pragma clang attribute pop

struct event {
	__u64 time;
	__u32 port;
	__u32 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096 * 16); /* whole pages of any architecture */
} events SEC(".maps");

SEC("tp_btf/tcp_retransmit_skb")
int probe(__u64 *arguments)
{
	const struct sock *sk = (const void *)arguments[0];
	struct event *event;
	__u64 *count;
	__u32 key = 0;

	count = bpf_map_lookup_elem(&counters, &key);
	if (count)
		*count += 1;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	event->port = sk->__sk_common.skc_num;
	event->family = sk->__sk_common.skc_family;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

/* SPDX-License-Identifier: GPL-2.0 */
/* Counters, histograms, and the state that is kept of a socket. */
#pragma once

/*
 * value & mask, done where the verifier sees it: the compiler leaves out what it knows to be needless, and verifiers
 * before 6.2 lose the bounds of a value that was put together by |.
 */
#define BOUNDED(value, mask)                                                                       \
	({                                                                                         \
		__u64 bounded = (value);                                                           \
		asm volatile("%0 &= %1" : "+r"(bounded) : "i"(mask));                              \
		bounded;                                                                           \
	})

static __always_inline struct totals *totals_here(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&totals, &key);
}

static __always_inline void count(enum counter counter, __u64 more)
{
	struct totals *here = totals_here();

	if (here)
		here->counters[counter] += more;
}

/* engine.tcp.histogram.bucket(), here. */
static __always_inline void observe(__u32 number, __u64 value)
{
	struct histogram *histogram = bpf_map_lookup_elem(&histograms, &number);
	__u32 sub_bits = config.sub_bits;
	__u64 bucket = value, top;

	if (!histogram)
		return;
	histogram->total += value;
	if (value > histogram->largest)
		histogram->largest = value;
	if (value >> sub_bits) {
		if (value >> 40)
			value = (1ULL << 40) - 1;
		top = highest_bit(value) - sub_bits;
		bucket = ((top + 1) << sub_bits) + (value >> top) - (1ULL << sub_bits);
	}
	if (bucket < config.bucket_count)
		histogram->buckets[bucket] += 1;
}

static __always_inline struct socket_state *state_of(const void *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_lookup_elem(&sockets, &key);
}

/* A new one knows nothing of the past: no time of entry, no owner. */
static __noinline __attribute__((unused)) struct socket_state *state_for(const void *sk)
{
	static const struct socket_state nothing;
	struct socket_state *state = state_of(sk);
	__u64 key = (__u64)sk;

	if (state)
		return state;
	if (bpf_map_update_elem(&sockets, &key, &nothing, BPF_NOEXIST) == 0)
		count(SOCKETS_INSERTED, 1);
	return bpf_map_lookup_elem(&sockets, &key);
}

static __always_inline void forget(const void *sk)
{
	__u64 key = (__u64)sk;

	if (bpf_map_delete_elem(&sockets, &key) == 0)
		count(SOCKETS_DELETED, 1);
}

/* The process that runs; as the namespace of the observer numbers it. */
static __always_inline __u32 current_pid(void)
{
	struct bpf_pidns_info info = {};

	if (!config.pid_namespace_inode)
		return bpf_get_current_pid_tgid() >> 32;
	if (bpf_get_ns_current_pid_tgid(config.pid_namespace_device, config.pid_namespace_inode, &info, sizeof(info)))
		return 0;
	return info.tgid;
}

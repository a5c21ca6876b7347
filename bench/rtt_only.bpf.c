// SPDX-License-Identifier: GPL-2.0
/* What the observer's cost is measured against: one histogram of each received segment's smoothed RTT. */
#include "kernel_types.h"

struct bpf_pidns_info {
	__u32 pid;
	__u32 tgid;
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "observer.h"
#include "maps.h"
#include "count.h"
#include "filter.h"

SEC("tp_btf/tcp_probe")
int rtt_only(__u64 *arguments)
{
	struct sock *sk = (void *)arguments[0];
	const struct tcp_sock *tp;

	if (!watched(sk))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		observe(RTT_US, tp->srtt_us >> 3);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

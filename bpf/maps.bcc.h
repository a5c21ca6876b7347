/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The maps of maps.h that a program of Linux 4.19 can have. No global data (5.2): what struct config holds there are
 * constants in capitals, what changes while the programs run is in settings and tokens. A perf buffer for the ring
 * buffer (5.8). No maps of ended connections, last events and processes: inet_diag and user space see to those.
 */
#pragma once

struct whole_histogram {
	u64 total;
	u64 largest;
	u64 buckets[BUCKETS];
};
struct bucket {
	u64 second;
	u64 used;
};
struct setting {
	u64 rtt_p99_us;
	u64 sample_shift;
};

BPF_TABLE("percpu_array", u32, struct totals, totals, 1);
BPF_TABLE("percpu_array", u32, struct whole_histogram, histograms, HISTOGRAMS);
BPF_TABLE("lru_hash", u64, struct socket_state, sockets, MOST_SOCKETS);
BPF_TABLE("lru_hash", struct listener_key, struct owner, listener_owners, 1024);
BPF_TABLE("percpu_hash", struct drop_key, u64, drops, MOST_DROPS);
BPF_TABLE("array", u32, struct bucket, tokens, 1);
BPF_TABLE("array", u32, struct setting, settings, 1);
BPF_PERF_OUTPUT(events);

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What user space and the programs share: configuration, records, maps. engine/tcp/libbpf/layout.py has the
 * same in ctypes, and a test that compares them by way of the object's BTF.
 */
#pragma once

enum {
	PREFIXES = 32,      /* networks of each side */
	TOP_FLOWS = 64,     /* largest --top-flows */
	LAST_EVENTS = 16,   /* largest --last */
	RESET_REASONS = 64, /* enum sk_rst_reason has 26 */
	COMM = 16,
};

enum counter {
	HANDSHAKE_CLIENT_FAILED,
	HANDSHAKE_SERVER_UNSAMPLED,
	RETRANSMIT_SYN_EVENTS,
	RETRANSMIT_SYN_SEGMENTS,
	RETRANSMIT_SYNACK_EVENTS,
	RETRANSMIT_SYNACK_SEGMENTS,
	RETRANSMIT_RTO_EVENTS,
	RETRANSMIT_RTO_SEGMENTS,
	RETRANSMIT_WINDOW_PROBE_EVENTS,
	RETRANSMIT_WINDOW_PROBE_SEGMENTS,
	RETRANSMIT_TLP_EVENTS,
	RETRANSMIT_TLP_SEGMENTS,
	RETRANSMIT_FAST_EVENTS,
	RETRANSMIT_FAST_SEGMENTS,
	RETRANSMIT_SLOW_START_EVENTS,
	RETRANSMIT_SLOW_START_SEGMENTS,
	RETRANSMIT_OTHER_EVENTS,
	RETRANSMIT_OTHER_SEGMENTS,
	TLP_NEW_DATA,
	ZERO_WINDOW_RECEIVED,
	ZERO_WINDOW_RECEIVED_NS,
	ZERO_WINDOW_SENT,
	ZERO_WINDOW_SENT_NS,
	RESETS_SENT,
	RESETS_RECEIVED,
	DROPS,
	DROPS_BENIGN,
	DROPS_UNLISTED, /* the map of drops was full */
	DROPS_BENIGN_UNLISTED,
	EVENTS_EMITTED,
	EVENTS_LOST,
	CLOSED_LOST, /* the ring of closed connections was full */
	SOCKETS_INSERTED,
	SOCKETS_DELETED,
	COUNTERS,
};

/* In the order of engine.tcp.backend.RETRANSMIT_CLASSES. */
enum retransmit_class {
	CLASS_SYN,
	CLASS_SYNACK,
	CLASS_RTO,
	CLASS_WINDOW_PROBE,
	CLASS_TLP,
	CLASS_FAST,
	CLASS_SLOW_START,
	CLASS_OTHER,
};

/* In the order of engine.tcp.backend.HISTOGRAMS; the dwell times of each state follow. */
enum histogram_number {
	RTT_US,
	RTTVAR_US,
	HANDSHAKE_CLIENT_US,
	HANDSHAKE_SERVER_US,
	CWND,
	SSTHRESH,
	PACING_BPS,
	SEND_QUEUE_BYTES,
	UNSENT_QUEUE_BYTES,
	RECEIVE_QUEUE_BYTES,
	RETRANSMITS_PER_CONNECTION,
	TLP_PER_CONNECTION,
	DWELL_US,
	HISTOGRAMS = DWELL_US + TCP_STATES,
};

/* In the order of layout.TRIGGERS. */
enum trigger {
	RTT_ABOVE,
	RTT_JUMP,
	RTT_P99,
	RETRANSMIT_BURST,
	RTO,
	TLP,
	CWND_DROP,
	PACING_ZERO,
	ZERO_WINDOW,
	BACKLOG_OVERFLOW,
	RESET,
	DROP,
	TRIGGERS,
};

enum stage { STAGE_REPEAT, STAGE_SAMPLE, STAGE_FLOW, STAGE_FIRST, STAGE_RATE, STAGES };
enum pid_source { PID_UNKNOWN, PID_CONNECT, PID_LISTEN, PID_IO };
enum role { ROLE_UNKNOWN, ROLE_CLIENT, ROLE_SERVER };

/* Which record a socket of the iterator gave. */
enum record_kind { RECORD_CONNECTION, RECORD_LISTENER };

/* Constant while the programs run: the verifier removes what it switches off. */
struct config {
	__u64 cgroup;
	__u64 pid_namespace_device; /* 0: the initial one */
	__u64 pid_namespace_inode;
	__u64 benign[4]; /* bit per drop reason */
	__u64 rtt_jump_percent;
	__u64 cwnd_halved_ns;
	__u32 netns;
	__u32 interface;
	__u32 filtered; /* anything beside netns */
	__u32 port_filtered_local;
	__u32 port_filtered_remote;
	__u32 local_networks;
	__u32 remote_networks;
	__u32 pid_filtered;
	__u32 sub_bits;
	__u32 bucket_count;
	__u32 socket_cookie; /* bpf_get_socket_cookie() for tracing programs: 5.12 */
	__u32 rdonly_cast; /* bpf_rdonly_cast(): 6.2 */
	__u32 listen_overflow; /* number of the drop reason, 0 if the kernel has none */
	__u32 rtt_above_us;
	__u32 rtt_p99;
	__u32 retransmit_burst;
	__u32 rto;
	__u32 tlp;
	__u32 pacing_zero;
	__u32 zero_window;
	__u32 backlog_overflow;
	__u32 resets;
	__u32 drops;
	__u32 sample;
	__u32 top_flows;
	__u32 first;
	__u32 last;
	__u32 per_second;
};

struct prefix {
	__be32 address[4];
	__be32 mask[4];
};

struct top_slot {
	__u64 flow;
	__u64 triggers;
};

/* Written by user space and by the programs while they run. */
struct runtime {
	__u64 rtt_p99_us; /* 0: none yet */
	__u64 sample_shift; /* per-segment programs look at one of 1 << n flows */
	__u64 zero_windows_sent; /* open episodes */
	__u64 second;
	__u64 used; /* events of this second */
	struct top_slot top[TOP_FLOWS];
};

struct histogram {
	__u64 total;
	__u64 largest;
	__u64 buckets[];
};

struct totals {
	__u64 counters[COUNTERS];
	__u64 transitions[TCP_STATES * TCP_STATES];
	__u64 resets_after[TCP_STATES]; /* transitions to CLOSE that a reset made */
	__u64 reset_reasons[RESET_REASONS];
	__u64 suppressed[STAGES];
};

/* One per socket of which something must be remembered, by its address. */
struct socket_state {
	__u64 entered_ns; /* the state of now; 0: not seen */
	__u64 zero_received_ns;
	__u64 zero_sent_ns;
	__u64 burst_ns;
	__u64 cwnd_ns;
	__u64 reset_ns;
	__u64 repeat_ns[TRIGGERS];
	__u32 burst_segments;
	__u32 cwnd_largest;
	__u32 tlp;
	__u32 tlp_high_seq; /* the last probe that was counted, or that is a retransmit */
	__u32 triggers;
	__u32 events; /* that passed to first and last */
	__u32 accept_drops;
	__u32 pid;
	__u8 pid_source;
	__u8 role;
	__u8 closed_from; /* the state before CLOSE, until a reset is put on its account */
	__u8 deferred; /* CLOSE to SYN_SENT waits for its local port */
	char comm[COMM];
	__u32 jump_us; /* the last RTT sample that was told of as a jump */
};

struct tuple {
	__be32 local[4];
	__be32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u32 interface;
	__u32 netns;
};

/* A socket at one moment. */
struct connection {
	struct tuple tuple;
	__u32 uid;
	__u64 cookie;
	__u64 cgroup;
	__u64 inode;
	__u64 pacing_rate;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 srtt_us;
	__u32 rttvar_us;
	__u32 cwnd;
	__u32 ssthresh;
	__u32 in_flight;
	__u32 bytes_in_flight;
	__u32 send_queue; /* of a listener: the limit of its accept queue */
	__u32 unsent_queue;
	__u32 receive_queue; /* of a listener: its accept queue */
	__u32 retransmits;
	__u32 tlp;
	__u32 rto_jiffies;
	__u32 send_window;
	__u32 receive_window;
	__u32 rtt_sample_us;
	__u32 drops; /* of a listener */
	__u32 accept_drops;
	__u32 pid;
	__u8 state;
	__u8 kind;
	__u8 pid_source;
	__u8 role;
	__u32 full; /* more than addresses is known */
	char comm[COMM];
};

struct event {
	__u64 time_ns;
	__u64 value;
	__u64 threshold;
	__u64 location;
	__u32 trigger;
	__u32 class;
	__u32 reason;
	__u32 padding;
	struct connection connection;
};

struct closed {
	__u64 cookie;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u64 retransmits;
};

_Static_assert(sizeof(struct closed) == 32, "as in layout.py");

struct drop_key {
	__u64 location;
	__u32 reason;
	__u32 padding;
};

struct last_key {
	__u64 socket;
	__u64 index;
};

struct listener_key {
	__u32 netns;
	__u32 port;
};
struct owner {
	__u32 pid;
	char comm[COMM];
};

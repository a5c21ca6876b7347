// SPDX-License-Identifier: GPL-2.0
/*
 * The TCP observer for BCC, which compiles it when it starts: with the types that engine/tcp/bcc/types.py made from
 * the kernel's BTF (KERNEL_TYPES), or against the kernel's own headers where there is no BTF.
 *
 * Features of Linux 4.19 only: raw tracepoints, perf buffer, plain maps, bpf_probe_read, no loops, no global data, no
 * calls, less than 4096 instructions. The programs have the names and count into the records of observer.h, so that
 * engine/tcp/bcc reads them as engine/tcp/libbpf does; README.md says which metric each gives. What needs no
 * program is asked of inet_diag.
 *
 * What stands in capitals and is defined nowhere here comes before this text, from engine/tcp/bcc/source.py.
 */
#ifdef KERNEL_TYPES
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define NULL ((void *)0)
#define true 1
#define false 0
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define htons(value) ((u16)__builtin_bswap16(value))
#define htonl(value) ((u32)__builtin_bswap32(value))
#else
#define htons(value) ((u16)(value))
#define htonl(value) ((u32)(value))
#endif
#undef ntohs
#define ntohs htons
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12,
};
enum { TCP_CA_Recovery = 3, TCP_CA_Loss = 4, ICSK_TIME_LOSS_PROBE = 5 };
enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };
#else
#include <linux/tcp.h>
#include <net/inet_sock.h>
#include <net/sock.h>
#include <net/tcp.h>
#define HAVE_IPV6 IS_ENABLED(CONFIG_IPV6)
#endif

#define TCP_STATES 16
#include "observer.h"

enum { REASON_UNKNOWN = 0xffff, FLAGS_OFFSET = 13, WINDOW_OFFSET = 14, FLAG_RST = 4 };

/* The compiler knows what is needless, the verifier does not. */
#define BOUNDED(value, mask)                                                                       \
	({                                                                                         \
		u64 bounded = (value);                                                             \
		asm volatile("%0 &= %1" : "+r"(bounded) : "i"(mask));                              \
		bounded;                                                                           \
	})

/* By offset: nothing is left for BCC to rewrite, and a member of any width is read as it is. */
#define READ(type, pointer, member)                                                                \
	({                                                                                         \
		__typeof__(((type *)0)->member) value_ = 0;                                       \
		bpf_probe_read((void *)&value_, sizeof(value_),                                    \
			       (const void *)(pointer) + __builtin_offsetof(type, member));        \
		value_;                                                                            \
	})

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

static __always_inline struct totals *totals_here(void)
{
	u32 key = 0;

	return totals.lookup(&key);
}

static __always_inline void count(u32 counter, u64 more)
{
	struct totals *here = totals_here();

	if (here)
		here->counters[counter] += more;
}

static __always_inline u32 highest_bit(u64 value)
{
	u32 position = 0;

	if (value >> 32) {
		value >>= 32;
		position = 32;
	}
	if (value >> 16) {
		value >>= 16;
		position += 16;
	}
	if (value >> 8) {
		value >>= 8;
		position += 8;
	}
	if (value >> 4) {
		value >>= 4;
		position += 4;
	}
	if (value >> 2) {
		value >>= 2;
		position += 2;
	}
	return position + (value >> 1);
}

/* engine.tcp.histogram.bucket(), here. */
static __always_inline void observe(u32 number, u64 value)
{
	struct whole_histogram *histogram = histograms.lookup(&number);
	u64 bucket = value, top;

	if (!histogram)
		return;
	histogram->total += value;
	if (value > histogram->largest)
		histogram->largest = value;
	if (value >> SUB_BITS) {
		if (value >> 40)
			value = (1ULL << 40) - 1;
		top = highest_bit(value) - SUB_BITS;
		bucket = ((top + 1) << SUB_BITS) + (value >> top) - (1ULL << SUB_BITS);
	}
	bucket = BOUNDED(bucket, 4095);
	if (bucket < BUCKETS)
		histogram->buckets[bucket] += 1;
}

static __always_inline struct socket_state *state_of(const void *sk)
{
	u64 key = (u64)sk;

	return sockets.lookup(&key);
}

static __always_inline struct socket_state *state_for(const void *sk)
{
	struct socket_state nothing = {};
	struct socket_state *state = state_of(sk);
	u64 key = (u64)sk;

	if (state)
		return state;
	if (sockets.insert(&key, &nothing) == 0)
		count(SOCKETS_INSERTED, 1);
	return sockets.lookup(&key);
}

static __always_inline void forget(const void *sk)
{
	u64 key = (u64)sk;

	if (sockets.delete(&key) == 0)
		count(SOCKETS_DELETED, 1);
}

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

struct cause {
	u64 value;
	u64 threshold;
	u64 location;
	u32 trigger;
	u32 class;
	u32 reason;
};

/* The number that the kernel gave the socket, if it was asked for it; else one made of address and ports. */
static __always_inline u64 cookie_of(const void *sk, const struct tuple *tuple)
{
	u64 cookie = 0;

	bpf_probe_read(&cookie, sizeof(cookie), sk + __builtin_offsetof(struct sock, __sk_common.skc_cookie));
	if (cookie)
		return cookie;
	cookie = (u64)sk ^ (u64)tuple->local_port << 48 ^ (u64)tuple->remote_port << 32;
	return (cookie * 0x9e3779b97f4a7c15ULL) | 1ULL << 63;
}

static __always_inline u32 distance(u32 from, u32 to)
{
	return (s32)(to - from) > 0 ? to - from : 0;
}

static __always_inline void read_tcp(const void *tp, struct connection *out)
{
	u32 una = READ(struct tcp_sock, tp, snd_una), next = READ(struct tcp_sock, tp, snd_nxt);
	u32 written = READ(struct tcp_sock, tp, write_seq);

	out->srtt_us = READ(struct tcp_sock, tp, srtt_us) >> 3;
	out->rttvar_us = READ(struct tcp_sock, tp, mdev_us) >> 2;
	out->cwnd = READ(struct tcp_sock, tp, snd_cwnd);
	out->ssthresh = READ(struct tcp_sock, tp, snd_ssthresh);
	/* Read one after the other, of a socket that nobody locks: more may have left than are out. */
	out->in_flight = distance(READ(struct tcp_sock, tp, sacked_out) + READ(struct tcp_sock, tp, lost_out),
				  READ(struct tcp_sock, tp, packets_out) + READ(struct tcp_sock, tp, retrans_out));
	out->bytes_in_flight = distance(una, next);
	out->send_queue = distance(una, written);
	out->unsent_queue = distance(next, written);
	out->receive_queue = distance(READ(struct tcp_sock, tp, copied_seq), READ(struct tcp_sock, tp, rcv_nxt));
	out->retransmits = READ(struct tcp_sock, tp, total_retrans);
	out->bytes_acked = READ(struct tcp_sock, tp, bytes_acked);
	out->bytes_received = READ(struct tcp_sock, tp, bytes_received);
	out->rto_jiffies = READ(struct tcp_sock, tp, inet_conn.icsk_rto);
	out->send_window = READ(struct tcp_sock, tp, snd_wnd);
	out->receive_window = READ(struct tcp_sock, tp, rcv_wnd);
	out->rtt_sample_us = READ(struct tcp_sock, tp, rack.rtt_us);
}

static __always_inline void read_connection(const void *sk, struct connection *out)
{
	struct socket_state *state = state_of(sk);
	const void *socket;

	read_tuple(sk, &out->tuple);
	out->cookie = cookie_of(sk, &out->tuple);
	out->state = READ(struct sock, sk, __sk_common.skc_state);
	if (!is_full(out->state))
		return;
	out->full = 1;
	bpf_probe_read(&out->uid, sizeof(out->uid), sk + __builtin_offsetof(struct sock, sk_uid));
	out->pacing_rate = READ(struct sock, sk, sk_pacing_rate);
	socket = READ(struct sock, sk, sk_socket);
	if (socket)
		out->inode = READ(struct socket_alloc, socket, vfs_inode.i_ino);
	if (state) {
		out->pid = state->pid;
		out->pid_source = state->pid_source;
		out->role = state->role;
		out->tlp = state->tlp;
		__builtin_memcpy(out->comm, state->comm, COMM);
	}
	if (out->state != TCP_LISTEN) {
		read_tcp(sk, out);
		return;
	}
	out->kind = RECORD_LISTENER;
	out->receive_queue = READ(struct sock, sk, sk_ack_backlog);
	out->send_queue = READ(struct sock, sk, sk_max_ack_backlog);
}

/* What leaves the kernel at most; user space does the other stages, and holds to the rate itself. */
static __always_inline bool take_token(u64 now)
{
	u32 key = 0;
	struct bucket *bucket = tokens.lookup(&key);
	struct totals *here;

	if (!bucket)
		return false;
	if (bucket->second != now / 1000000000) {
		bucket->second = now / 1000000000;
		bucket->used = 0;
	}
	if (bucket->used < EVENTS_A_SECOND) {
		__sync_fetch_and_add(&bucket->used, 1);
		return true;
	}
	here = totals_here();
	if (here)
		here->suppressed[STAGE_RATE] += 1;
	return false;
}

static __always_inline void fill_event(struct event *event, u64 now, const struct cause *cause)
{
	event->time_ns = now;
	event->value = cause->value;
	event->threshold = cause->threshold;
	event->location = cause->location;
	event->trigger = cause->trigger;
	event->class = cause->class;
	event->reason = cause->reason;
}

static __always_inline void send(void *ctx, struct event *event)
{
	if (events.perf_submit(ctx, event, sizeof(*event)))
		count(EVENTS_LOST, 1);
}

static __always_inline void emit(void *ctx, const void *sk, const struct cause *cause)
{
	u64 now = bpf_ktime_get_ns();
	struct event event = {};

	if (!take_token(now))
		return;
	read_connection(sk, &event.connection);
	fill_event(&event, now, cause);
	if (cause->trigger == ZERO_WINDOW)
		event.connection.send_window = 0; /* this segment closes it, the socket does not know yet */
	send(ctx, &event);
}

static __always_inline void emit_tuple(void *ctx, const struct tuple *tuple, const struct cause *cause)
{
	u64 now = bpf_ktime_get_ns();
	struct event event = {};

	if (!take_token(now))
		return;
	event.connection.tuple = *tuple;
	event.connection.state = TCP_CLOSE;
	fill_event(&event, now, cause);
	send(ctx, &event);
}

/* ---- each received segment of an established connection */

/* A trigger that lasts tells of a connection once a second. */
static __always_inline void rtt_trigger(void *ctx, const void *sk, u32 trigger, u64 value, u64 threshold)
{
	struct cause cause = { .trigger = trigger, .value = value, .threshold = threshold };
	struct socket_state *state = state_for(sk);
	u64 now = bpf_ktime_get_ns();
	struct totals *here;

	if (state && trigger < TRIGGERS) {
		if (state->repeat_ns[trigger] && now - state->repeat_ns[trigger] < 1000000000) {
			here = totals_here();
			if (here)
				here->suppressed[STAGE_REPEAT] += 1;
			return;
		}
		state->repeat_ns[trigger] = now;
	}
	emit(ctx, sk, &cause);
}

static __always_inline bool sampled_out(const void *sk, u64 shift)
{
	u64 flow = (u32)READ(struct sock, sk, __sk_common.skc_dport) << 16 | READ(struct sock, sk, __sk_common.skc_num);
	u32 remote = READ(struct sock, sk, __sk_common.skc_daddr);

#if HAVE_IPV6
	if (READ(struct sock, sk, __sk_common.skc_family) == AF_INET6) {
		u32 words[4] = {};

		bpf_probe_read(words, 16, sk + __builtin_offsetof(struct sock, __sk_common.skc_v6_daddr));
		remote = words[0] ^ words[1] ^ words[2] ^ words[3];
	}
#endif
	flow |= (u64)remote << 32;
	flow ^= flow >> 32; /* each bit of the address counts */
	return flow * 0x9e3779b97f4a7c15ULL >> 32 & ((1ULL << (shift & 31)) - 1);
}

int segment(struct bpf_raw_tracepoint_args *ctx)
{
	const void *sk = (const void *)ctx->args[0], *skb = (const void *)ctx->args[1], *data;
	struct cause cause = { .trigger = ZERO_WINDOW };
	struct socket_state *state;
	struct setting *setting;
	u32 srtt, high_seq, window_before, key = 0;
	u64 p99 = 0, now;
	u16 window = 1;
	u8 flags = 0;

	if (!watched(sk))
		return 0;
	setting = settings.lookup(&key);
	if (setting) {
		if (setting->sample_shift && sampled_out(sk, setting->sample_shift))
			return 0;
		p99 = setting->rtt_p99_us;
	}
	srtt = READ(struct tcp_sock, sk, srtt_us) >> 3;
	if (srtt) {
		observe(RTT_US, srtt);
		observe(RTTVAR_US, READ(struct tcp_sock, sk, mdev_us) >> 2);
	}
	data = READ(struct sk_buff, skb, data);
	bpf_probe_read(&window, sizeof(window), data + WINDOW_OFFSET);
	window_before = READ(struct tcp_sock, sk, snd_wnd);
	if (!window || !window_before)
		bpf_probe_read(&flags, sizeof(flags), data + FLAGS_OFFSET);
	/* The window of a reset says nothing. */
	if ((!window || !window_before) && !(flags & FLAG_RST)) {
		state = state_for(sk);
		now = bpf_ktime_get_ns();
		if (!window && state && state->zero_received_ns) {
			/* It is probed and still closed: so much of the time is known. */
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
			state->zero_received_ns = now;
		} else if (!window && (window_before || state)) {
			count(ZERO_WINDOW_RECEIVED, 1);
			if (state)
				state->zero_received_ns = now;
			if (ZERO_WINDOW_EVENTS)
				emit((void *)ctx, sk, &cause);
		} else if (state && state->zero_received_ns) {
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
			state->zero_received_ns = 0;
		}
	}
	/* A probe with new data is no retransmit: only this number tells of it, once for each of its values. */
	high_seq = READ(struct tcp_sock, sk, tlp_high_seq);
	if (high_seq) {
		state = state_for(sk);
		if (state && state->tlp_high_seq != high_seq) {
			state->tlp_high_seq = high_seq;
			state->tlp += 1;
			count(TLP_NEW_DATA, 1);
		}
	}
	if (RTT_ABOVE_US && srtt > RTT_ABOVE_US)
		rtt_trigger((void *)ctx, sk, RTT_ABOVE, srtt, RTT_ABOVE_US);
	if (RTT_P99_EVENTS && p99 && srtt > p99)
		rtt_trigger((void *)ctx, sk, RTT_P99, srtt, p99);
	return 0;
}

/* ---- retransmits: classes as in retransmit.h */

static __always_inline u32 classify(const void *sk, u8 state)
{
	u8 pending = READ(struct inet_connection_sock, sk, icsk_pending), ca_state = 0;

	/* A bit field has no address: types.py has looked up the octet that it is in. */
	bpf_probe_read(&ca_state, 1, sk + CA_STATE_OCTET);
	ca_state = ca_state >> CA_STATE_SHIFT & CA_STATE_MASK;
	if (state == TCP_SYN_SENT)
		return CLASS_SYN;
	if (pending == 0 && ca_state == TCP_CA_Loss)
		return READ(struct tcp_sock, sk, snd_wnd) ? CLASS_RTO : CLASS_WINDOW_PROBE;
	if (pending == ICSK_TIME_LOSS_PROBE && ca_state < TCP_CA_Recovery)
		return CLASS_TLP;
	if (ca_state == TCP_CA_Loss)
		return CLASS_SLOW_START;
	if (ca_state == TCP_CA_Recovery)
		return CLASS_FAST;
	return CLASS_OTHER;
}

/* Given up before the segment was made ready: the kernel counts no segment. */
static __always_inline bool not_tried(int error)
{
	/* EAGAIN, ENOMEM, EBUSY, EINVAL: not every set of types has their names. */
	return error == -11 || error == -12 || error == -16 || error == -22;
}

static __always_inline int retransmit(void *ctx, const void *sk, const void *skb, int error)
{
	struct cause cause = { .value = 1 };
	struct socket_state *state;
	struct totals *here;
	u32 class, segments = 0, before;
	u16 octets = 0;
	u64 now;

	if (!watched(sk))
		return 0;
	class = classify(sk, READ(struct sock, sk, __sk_common.skc_state));
	bpf_probe_read(&octets, sizeof(octets),
		       skb + __builtin_offsetof(struct sk_buff, cb) +
			       __builtin_offsetof(struct tcp_skb_cb, tcp_gso_segs));
	segments = octets ? octets : 1;
	if (error) {
		if (not_tried(error))
			segments = 0;
		/* A timeout is one, whatever comes of it; of the others the kernel counts those that went out. */
		if (class != CLASS_RTO && class != CLASS_SYN)
			class = CLASS_OTHER;
		if (!segments && class != CLASS_RTO)
			return 0;
	}
	here = totals_here();
	if (here) {
		here->counters[RETRANSMIT_SYN_EVENTS + 2 * BOUNDED(class, 7)] += 1;
		here->counters[RETRANSMIT_SYN_SEGMENTS + 2 * BOUNDED(class, 7)] += segments;
	}
	cause.class = class;
	state = state_for(sk);
	if (state && class == CLASS_TLP) {
		state->tlp += 1;
		state->tlp_high_seq = READ(struct tcp_sock, sk, snd_nxt);
	}
	if (RETRANSMIT_BURST_SEGMENTS && state) {
		now = bpf_ktime_get_ns();
		if (!state->burst_ns || now - state->burst_ns > 1000000000) {
			state->burst_ns = now;
			state->burst_segments = 0;
		}
		before = state->burst_segments;
		state->burst_segments = before + segments;
		if (before < RETRANSMIT_BURST_SEGMENTS && before + segments >= RETRANSMIT_BURST_SEGMENTS) {
			cause.trigger = RETRANSMIT_BURST;
			cause.value = before + segments;
			cause.threshold = RETRANSMIT_BURST_SEGMENTS;
			emit(ctx, sk, &cause);
			cause.value = 1;
			cause.threshold = 0;
		}
	}
	if (RTO_EVENTS && (class == CLASS_RTO || class == CLASS_SYN || class == CLASS_WINDOW_PROBE))
		cause.trigger = RTO;
	else if (TLP_EVENTS && class == CLASS_TLP)
		cause.trigger = TLP;
	else
		return 0;
	emit(ctx, sk, &cause);
	return 0;
}

int retransmit_2(struct bpf_raw_tracepoint_args *ctx)
{
	return retransmit((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], 0);
}

/* Since 6.17 it fires for those that failed, too: until then they are missed. */
int retransmit_3(struct bpf_raw_tracepoint_args *ctx)
{
	return retransmit((void *)ctx, (const void *)ctx->args[0], (const void *)ctx->args[1], ctx->args[2]);
}

/* A connection to be, of a listening socket that passes. */
static __always_inline bool request_passes(const void *request)
{
	struct tuple tuple;

	if (!FILTERED)
		return true;
	read_tuple(request, &tuple);
	if (!tuple.interface)
		tuple.interface = INTERFACE;
	return tuple_passes(&tuple);
}

int retransmit_synack(struct bpf_raw_tracepoint_args *ctx)
{
	if (!watched((const void *)ctx->args[0]) || !request_passes((const void *)ctx->args[1]))
		return 0;
	count(RETRANSMIT_SYNACK_EVENTS, 1);
	count(RETRANSMIT_SYNACK_SEGMENTS, 1);
	return 0;
}

/* ---- states */

static __always_inline void own(const void *sk, struct socket_state *state, u8 source)
{
	struct listener_key key = {};
	struct owner owner = {};

	state->pid = OWN_PIDS ? bpf_get_current_pid_tgid() >> 32 : 0;
	if (!state->pid)
		return;
	state->pid_source = source;
	bpf_get_current_comm(owner.comm, sizeof(owner.comm));
	__builtin_memcpy(state->comm, owner.comm, COMM);
	if (source != PID_LISTEN)
		return;
	key.netns = netns_of(sk);
	key.port = READ(struct sock, sk, __sk_common.skc_num);
	owner.pid = state->pid;
	listener_owners.update(&key, &owner);
}

/* Who closes a socket, or has it send a reset, holds its lock; an interrupt does neither to one that is locked. */
static __always_inline void own_if_locked(const void *sk, struct socket_state *state)
{
	if (state->pid && state->pid_source != PID_LISTEN)
		return;
	if (READ(struct sock, sk, sk_lock.owned))
		own(sk, state, PID_IO);
}

static __always_inline void inherit(const void *sk, struct socket_state *state)
{
	struct listener_key key = {};
	struct owner *owner;

	key.netns = netns_of(sk);
	key.port = READ(struct sock, sk, __sk_common.skc_num);
	owner = listener_owners.lookup(&key);
	if (!owner)
		return;
	state->pid = owner->pid;
	state->pid_source = PID_LISTEN;
	__builtin_memcpy(state->comm, owner->comm, COMM);
}

static __always_inline void handshake_done(const void *sk, struct socket_state *state, u8 old, u64 now)
{
	u32 srtt;

	if (state->role == ROLE_CLIENT) {
		if (state->entered_ns)
			observe(HANDSHAKE_CLIENT_US, (now - state->entered_ns) / 1000);
		return;
	}
	if (old != TCP_SYN_RECV)
		return;
	/* Sent again, it is no time of the handshake (Karn). */
	srtt = READ(struct tcp_sock, sk, srtt_us) >> 3;
	if (srtt && !READ(struct tcp_sock, sk, total_retrans))
		observe(HANDSHAKE_SERVER_US, srtt);
	else
		count(HANDSHAKE_SERVER_UNSAMPLED, 1);
}

static __always_inline void leave(const void *sk, struct socket_state *state, u8 old, u64 now)
{
	struct totals *here = totals_here();

	if (old == TCP_SYN_SENT) {
		count(HANDSHAKE_CLIENT_FAILED, 1);
	} else if (old != TCP_LISTEN) {
		observe(RETRANSMITS_PER_CONNECTION, READ(struct tcp_sock, sk, total_retrans));
		observe(TLP_PER_CONNECTION, state->tlp);
		/* Its opening may not have been seen: segments are sampled. */
		if (state->zero_received_ns && !READ(struct tcp_sock, sk, snd_wnd))
			count(ZERO_WINDOW_RECEIVED_NS, now - state->zero_received_ns);
		state->zero_received_ns = 0;
	}
	state->closed_from = old;
	if (state->reset_ns && now - state->reset_ns < 10000000 && here) {
		here->resets_after[BOUNDED(old, TCP_STATES - 1)] += 1;
		state->closed_from = 0;
	}
}

static __always_inline void count_transition(u8 from, u8 to)
{
	struct totals *here = totals_here();

	if (here)
		here->transitions[BOUNDED(from * TCP_STATES + to, TCP_STATES * TCP_STATES - 1)] += 1;
}

int state_change(struct bpf_raw_tracepoint_args *ctx)
{
	const void *sk = (const void *)ctx->args[0];
	u8 old = ctx->args[1], new = ctx->args[2];
	struct socket_state *state;
	struct tuple tuple;
	u64 now;

	if (protocol_of(sk) != IPPROTO_TCP)
		return 0;
	if (NETNS && netns_of(sk) != NETNS)
		return 0;
	state = state_for(sk);
	if (!state)
		return 0;
	now = bpf_ktime_get_ns();
	if (new == TCP_SYN_SENT) {
		state->role = ROLE_CLIENT;
		state->closed_from = 0;
		state->reset_ns = 0;
		own(sk, state, PID_CONNECT);
		/* Neither the port nor the route of a client is there yet. */
		state->deferred = FILTERED;
		if (FILTERED) {
			state->entered_ns = now;
			return 0;
		}
	} else if (new == TCP_LISTEN) {
		own(sk, state, PID_LISTEN);
	} else if (new == TCP_SYN_RECV && old != TCP_SYN_SENT) {
		state->role = ROLE_SERVER;
		inherit(sk, state);
		/* The child is a copy of its listener; some kernels give it its peer and its route only later. */
		state->deferred = FILTERED;
		if (FILTERED) {
			state->entered_ns = now;
			return 0;
		}
	}
	/* The tracepoint comes before the change. */
	if (!(new == TCP_LISTEN ? watched_as(sk, TCP_LISTEN) : watched(sk))) {
		forget(sk);
		return 0;
	}
	if (state->deferred) {
		state->deferred = 0;
		if (state->role == ROLE_SERVER)
			count_transition(TCP_LISTEN, TCP_SYN_RECV);
		else
			count_transition(TCP_CLOSE, TCP_SYN_SENT);
	}
	count_transition(old, new);
	if (new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK || (new == TCP_CLOSE && old != TCP_LISTEN))
		own_if_locked(sk, state);
	if (state->entered_ns)
		observe(DWELL_US + (old & (TCP_STATES - 1)), (now - state->entered_ns) / 1000);
	if (new == TCP_ESTABLISHED)
		handshake_done(sk, state, old, now);
	else if (new == TCP_CLOSE)
		leave(sk, state, old, now);
	state->entered_ns = now;
	return 0;
}

int destroy(struct bpf_raw_tracepoint_args *ctx)
{
	forget((const void *)ctx->args[0]);
	return 0;
}

/* ---- resets and drops */

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

/* Addresses of a received TCP packet, as its receiver sees them; false: it is none. */
static __always_inline bool read_packet(const void *skb, struct tuple *out)
{
	const void *device, *ip = READ(struct sk_buff, skb, head);
	u16 protocol = READ(struct sk_buff, skb, protocol), ports[2] = {};
	u8 first = 0, next = 0;
	u32 address = 0, length;
	unsigned long route;

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
	device = READ(struct sk_buff, skb, dev);
	if (!device) {
		route = READ(struct sk_buff, skb, _skb_refdst) & ~1UL;
		if (!route)
			return true;
		device = READ(struct dst_entry, route, dev);
	}
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

	if (sk ? !watched(sk) || !packet_of_listener_passes(sk, skb) : !packet_watched(skb, &tuple))
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

static __always_inline bool is_benign(u32 reason)
{
	if (reason < 64)
		return BENIGN_0 >> reason & 1;
	if (reason < 128)
		return BENIGN_1 >> (reason & 63) & 1;
	if (reason < 192)
		return BENIGN_2 >> (reason & 63) & 1;
	return reason < 256 && BENIGN_3 >> (reason & 63) & 1;
}

static __always_inline void count_drop(u64 location, u32 reason, u32 unlisted)
{
	struct drop_key key = { .location = location, .reason = reason };
	u64 *packets = drops.lookup(&key), nothing = 0;

	if (!packets) {
		/* Another CPU may be first: then it is there, too. */
		drops.insert(&key, &nothing);
		packets = drops.lookup(&key);
	}
	if (packets)
		*packets += 1;
	else
		count(unlisted, 1);
}

static __always_inline bool is_tcp(const void *sk)
{
	u16 family = READ(struct sock, sk, __sk_common.skc_family);

	if (family != AF_INET && family != AF_INET6)
		return false;
	return !is_full(READ(struct sock, sk, __sk_common.skc_state)) || protocol_of(sk) == IPPROTO_TCP;
}

static __always_inline int dropped(void *ctx, const void *skb, u64 location, u32 reason, const void *sk)
{
	struct cause cause = { .trigger = DROP, .reason = reason, .location = location, .value = 1 };
	struct tuple tuple;

	if (!sk)
		sk = READ(struct sk_buff, skb, sk);
	if (sk) {
		if (!is_tcp(sk) || !watched(sk) || !packet_of_listener_passes(sk, skb))
			return 0;
	} else if (!packet_watched(skb, &tuple)) {
		return 0;
	}
	if (reason == 0 || is_benign(reason)) {
		count(DROPS_BENIGN, 1);
		count_drop(0, reason, DROPS_BENIGN_UNLISTED);
		return 0;
	}
	count(DROPS, 1);
	count_drop(location, reason, DROPS_UNLISTED);
	if (!DROP_EVENTS)
		return 0;
	if (sk)
		emit(ctx, sk, &cause);
	else
		emit_tuple(ctx, &tuple, &cause);
	return 0;
}

int drop_2(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], REASON_UNKNOWN, NULL);
}

int drop_3(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], ctx->args[2], NULL);
}

int drop_4(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped((void *)ctx, (const void *)ctx->args[0], ctx->args[1], ctx->args[2],
		       (const void *)ctx->args[3]);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* All sockets of one namespace, when user space asks: what changes too often to be watched for each segment. */
#pragma once

static __always_inline void sample_histograms(const struct connection *now)
{
	observe(CWND, now->cwnd);
	/* 0x7fffffff: no loss yet (TCP_INFINITE_SSTHRESH) */
	if (now->ssthresh < 0x7fffffff)
		observe(SSTHRESH, now->ssthresh);
	if (now->pacing_rate != ~0ULL && now->pacing_rate != 0xffffffff)
		observe(PACING_BPS, now->pacing_rate);
	observe(SEND_QUEUE_BYTES, now->send_queue);
	observe(UNSENT_QUEUE_BYTES, now->unsent_queue);
	observe(RECEIVE_QUEUE_BYTES, now->receive_queue);
}

SEC("iter/tcp")
int sample(struct bpf_iter__tcp *context)
{
	struct sock_common *common = context->sk_common;
	struct cause cause = { .trigger = PACING_ZERO };
	struct connection *out;
	struct tcp_sock *tp;
	struct sock *sk;
	__u32 key = 0;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0; /* TIME_WAIT and requests have no figures */
	sk = (struct sock *)tp;
	if (config.filtered && !passes(sk))
		return 0;
	out = bpf_map_lookup_elem(&record, &key);
	if (!out)
		return 0;
	read_connection(sk, out);
	out->cookie = cookie_of(sk);
	/* With no room left this socket comes again, in front of the next ones: it counts then. */
	if (bpf_seq_write(context->meta->seq, out, sizeof(*out)))
		return 0;
	if (out->kind == RECORD_CONNECTION && out->state != TCP_CLOSE) {
		sample_histograms(out);
		cause.cookie = out->cookie;
		windows_at_look(sk, out);
		/* Once it ends, no window of ours closes anew; one that is closed may still open. */
		if (out->receive_window ? runtime.zero_windows_sent : out->state == TCP_ESTABLISHED)
			own_window(sk, out->cookie, !out->receive_window);
		if (out->state == TCP_ESTABLISHED && config.pacing_zero && out->pacing_rate == 0)
			emit(sk, &cause);
	}
	return 0;
}

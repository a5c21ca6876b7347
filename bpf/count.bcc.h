/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counters, histograms, and the state that is kept of a socket, as in count.h. All of it is inlined: programs that BCC
 * makes call no functions. The number of buckets is a constant, so that their place is bounded by a mask alone.
 */
#pragma once

/* The compiler knows what is needless, the verifier does not. */
#define BOUNDED(value, mask)                                                                       \
	({                                                                                         \
		u64 bounded = (value);                                                             \
		asm volatile("%0 &= %1" : "+r"(bounded) : "i"(mask));                              \
		bounded;                                                                           \
	})

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

/* SPDX-License-Identifier: GPL-2.0 */
/* The maps; sizes that user space sets before it loads stand here as 1. Nothing is ever pinned. */
#pragma once

const volatile struct config config SEC(".rodata.config");
const volatile __u64 local_ports[1024] SEC(".rodata.local_ports"); /* a bit each */
const volatile __u64 remote_ports[1024] SEC(".rodata.remote_ports");
const volatile struct prefix local_networks[PREFIXES] SEC(".rodata.local_nets");
const volatile struct prefix remote_networks[PREFIXES] SEC(".rodata.remote_nets");
struct runtime runtime SEC(".data.runtime") = { .rtt_p99_us = 0 };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HISTOGRAMS);
	__uint(key_size, 4);
	__uint(value_size, 16); /* grows with sub_bits */
} histograms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct socket_state);
} sockets SEC(".maps");

/* Owner of a listening port, for the connections that it accepts. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct listener_key);
	__type(value, struct owner);
} listener_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct drop_key);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} closed SEC(".maps");

/* What --last keeps of each flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct last_key);
	__type(value, struct event);
} last_events SEC(".maps");

/* Processes to watch, and the inodes of the sockets that they had when the observer began. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} watched_pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} watched_inodes SEC(".maps");

/* One record while it is written out; the iterator alone uses it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection);
} record SEC(".maps");

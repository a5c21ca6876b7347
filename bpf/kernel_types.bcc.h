/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs know of the kernel's types. kernel_types.h declares structures that CO-RE relocates; here
 * engine/tcp/bcc/types.py has declared them, each with the members that READ() names and at their places in BTF
 * (KERNEL_TYPES), or else the kernel's own headers do. Names of states and modes are missing in BTF alone.
 */
#pragma once

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
#include <linux/sched.h>
#include <linux/tcp.h>
#include <net/inet_sock.h>
#include <net/sock.h>
#include <net/tcp.h>
#define HAVE_IPV6 IS_ENABLED(CONFIG_IPV6)
#endif

#define TCP_STATES 16

/* By offset: nothing is left for BCC to rewrite, and a member of any width is read as it is. */
#define READ(type, pointer, member)                                                                \
	({                                                                                         \
		__typeof__(((type *)0)->member) value_ = 0;                                       \
		bpf_probe_read((void *)&value_, sizeof(value_),                                    \
			       (const void *)(pointer) + __builtin_offsetof(type, member));        \
		value_;                                                                            \
	})

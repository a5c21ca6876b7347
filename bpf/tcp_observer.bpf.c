// SPDX-License-Identifier: GPL-2.0
/*
 * The TCP observer: what the kernel's TCP does, counted where it happens.
 *
 * tp_btf, raw_tp and iter programs only. Each program is switched on by itself (engine/tcp/libbpf/programs.py), from
 * the prototypes in the kernel's BTF; README.md says which one gives which metric, since which kernel. Where a
 * tracepoint's argument may be NULL the program is a raw_tp one: there the verifier takes no argument for a
 * valid pointer, and so removes no check of it.
 *
 * The suffix _2, _3, _4 is the number of arguments that the kernel's prototype has.
 */
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
#include "highest_bit.h"
#include "count.h"
#include "filter.h"
#include "report.h"
#include "segment.h"
#include "retransmit.h"
#include "state.h"
#include "reset.h"
#include "drop.h"
#include "sample.h"

char LICENSE[] SEC("license") = "GPL";

// SPDX-License-Identifier: GPL-2.0
/*
 * The TCP observer for BCC, which compiles it when it starts: with the types that engine/tcp/bcc/types.py made from
 * the kernel's BTF (KERNEL_TYPES), or against the kernel's own headers where there is no BTF.
 *
 * Features of Linux 4.19 only: raw tracepoints, perf buffer, plain maps, bpf_probe_read, no loops, no global data, no
 * calls, less than 4096 instructions. The programs have the names and count into the records of observer.h, so that
 * engine/tcp/bcc reads them as engine/tcp/libbpf does; README.md says which metric each gives. What needs no
 * program is asked of inet_diag.
 * The parts are those of tcp_observer.bpf.c: x.bcc.h does what x.h does there, and says how it differs. source.py puts
 * them in where they are included. What stands in capitals and is defined nowhere here comes before this text, from
 * there, too.
 */
#include "kernel_types.bcc.h"
#include "observer.h"
#include "maps.bcc.h"
#include "highest_bit.h"
#include "count.bcc.h"
#include "filter.bcc.h"
#include "report.bcc.h"
#include "segment.bcc.h"
#include "retransmit.bcc.h"
#include "state.bcc.h"
#include "reset.bcc.h"
#include "drop.bcc.h"

// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/* Counts the system calls of a few processes. Attached only while someone waits for a count. */
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16);
    __type(key, u32);
    __type(value, u64);
} counts SEC(".maps");

SEC("raw_tp/sys_enter")
int on_syscall(void *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u64 *count = bpf_map_lookup_elem(&counts, &tgid);

    if (count)
        __sync_fetch_and_add(count, 1);
    return 0;
}

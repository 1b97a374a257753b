/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * The way of a record to user space: two ring buffers, so that a flood of flow data cannot push out process
 * starts; a bucket per process and class, so that one process cannot push out others; losses counted by kind.
 */
#ifndef DAVY_LANES_H
#define DAVY_LANES_H

#include "kernel.h"
#include "abi.h"

const volatile struct settings settings SEC(".rodata.settings");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22);
} priority_lane SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 21);
} bulk_lane SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, RECORD_KINDS * LOSSES);
    __type(key, u32);
    __type(value, u64);
} losses SEC(".maps");

/* Least recently used buckets are forgotten when full; a forgotten bucket starts full of tokens. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, u64);
    __type(value, u64);
} buckets SEC(".maps");

static __always_inline void count_loss(u32 kind, u32 why)
{
    u32 index = kind * LOSSES + why;
    u64 *count = bpf_map_lookup_elem(&losses, &index);

    if (count)
        (*count)++;
}

/*
 * The kernel wakes the consumer for the first record after it had read everything (flags of zero), and the consumer
 * waits a little before it reads: one wake-up a batch, and none while nothing happens.
 */
#define WAKE_IF_IDLE 0

enum bucket_class {
    BUCKET_LIFE,
    BUCKET_ACT,
    BUCKET_FLOW,
    BUCKET_NAME,
};

/*
 * A token bucket as its theoretical arrival time: one word, and a race between processors costs a token at most.
 * Returns whether the record may pass.
 */
static __always_inline bool admit(u64 *arrival, u64 now, u64 interval, u64 burst)
{
    u64 at = *arrival > now ? *arrival : now;

    if (at - now > interval * burst)
        return false;
    *arrival = at + interval;
    return true;
}

static __always_inline bool admit_process(u32 tgid, enum bucket_class class, u64 now, u64 interval, u64 burst)
{
    u64 key = ((u64)tgid << 8) | class;
    u64 *arrival = bpf_map_lookup_elem(&buckets, &key);

    if (arrival)
        return admit(arrival, now, interval, burst);
    u64 first = now + interval;
    bpf_map_update_elem(&buckets, &key, &first, BPF_ANY);
    return true;
}

#define PER_SECOND(n) (1000000000ULL / (n))

/* Begins a record of a task whose type the verifier knows: its fields are plain loads. */
static __always_inline void begin(struct record_head *head, u16 kind, u64 now, struct task_struct *task)
{
    head->kind = kind;
    head->version = DAVY_ABI_VERSION;
    head->time = now;
    head->pid = task->tgid;
    head->start = task->group_leader->start_boottime;
}

/* The same of a task known by its address only, as in programs that are not tracing ones. */
static __always_inline void begin_at(struct record_head *head, u16 kind, u64 now, struct task_struct *task)
{
    head->kind = kind;
    head->version = DAVY_ABI_VERSION;
    head->time = now;
    head->pid = BPF_CORE_READ(task, tgid);
    head->start = BPF_CORE_READ(task, group_leader, start_boottime);
}

#endif

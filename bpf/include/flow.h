/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* What is kept of a flow while it lives, and how its records begin. */
#ifndef DAVY_FLOW_H
#define DAVY_FLOW_H

#include "aggregate.h"

struct way {
    /* TCP: sequence number of the first byte seen, and the one after the last. */
    u32 first;
    u32 next;
    u32 skip;
    u16 begun;
    u16 captured;
    u64 arrival;
    u64 bytes;
    u64 packets;
};

/* Flows get one with their first payload. Accepted TCP flows have no process. */
struct flow {
    u64 start;
    u32 pid;
    /* Whether user space was told of it by itself, and so wants to know its end. */
    u32 told;
    /* UDP: the peer last told, and the bucket for telling another. */
    u8 peer[16];
    u64 peer_arrival;
    u16 peer_port;
    u16 reserved[3];
    struct way ways[2];
};

/* Freed by the kernel with its socket, so its bound is the number of sockets. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct flow);
} flows SEC(".maps");

/*
 * TCP flows that carried nothing yet, by the address of their socket: making storage for each would cost a connection
 * that carries nothing more than all else. Taken out when the socket is closed. When full, flows get storage at once.
 */
struct young {
    u64 start;
    u32 pid;
    u32 told;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __type(key, u64);
    __type(value, struct young);
} young_flows SEC(".maps");

static __always_inline void own(struct flow *flow)
{
    struct task_struct *task = bpf_get_current_task_btf();

    flow->pid = task->tgid;
    flow->start = task->group_leader->start_boottime;
}

static __always_inline void begin_flow(struct record_head *head, u16 kind, u64 now, struct flow *flow)
{
    head->kind = kind;
    head->version = DAVY_ABI_VERSION;
    head->pid = flow ? flow->pid : 0;
    head->time = now;
    head->start = flow ? flow->start : 0;
}

static __always_inline bool admit_flow(struct flow *flow, u16 kind, u64 now)
{
    if (admit_process(flow->pid, BUCKET_FLOW, now, PER_SECOND(5000), 10000))
        return true;
    count_loss(kind, LOSS_THROTTLED);
    return false;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * TCP connections from beginning to end: whether they are told or counted. The kernel tells of every change of state; packets
 * come in network.bpf.c.
 */
#ifndef DAVY_TCP_H
#define DAVY_TCP_H

#include "flow.h"
#include "packet.h"

/* A port is given back before the end of a connection is told; the socket remembers it only in network order. */
static __always_inline u16 local_port(struct sock *sk)
{
    u16 port = sk->__sk_common.skc_num;

    return port ? port : bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
}

static __always_inline void read_socket(struct flow_record *record, struct sock *sk)
{
    if (sk->__sk_common.skc_family == AF_INET6) {
        bpf_probe_read_kernel(record->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
        bpf_probe_read_kernel(record->remote, 16, &sk->__sk_common.skc_v6_daddr);
    } else {
        map_v4(record->local, sk->__sk_common.skc_rcv_saddr);
        map_v4(record->remote, sk->__sk_common.skc_daddr);
    }
    record->local_port = local_port(sk);
    record->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
    record->netns = sk->__sk_common.skc_net.net->ns.inum;
    record->udp = sk->sk_protocol == PROTOCOL_UDP;
    __builtin_memset(record->reserved, 0, sizeof(record->reserved));
}

/* What the flow of a socket is counted with. Without an owner it was accepted. */
static __always_inline void read_key(struct aggregate_key *key, struct sock *sk, struct flow *owner)
{
    key->udp = 0;
    if (owner->pid) {
        key->start = owner->start;
        key->owner = owner->pid;
        key->accepted = 0;
        key->port = bpf_ntohs(sk->__sk_common.skc_dport);
        if (sk->__sk_common.skc_family == AF_INET6)
            bpf_probe_read_kernel(key->address, 16, &sk->__sk_common.skc_v6_daddr);
        else
            map_v4(key->address, sk->__sk_common.skc_daddr);
    } else {
        __builtin_memset(key->address, 0, sizeof(key->address));
        key->start = 0;
        key->owner = sk->__sk_common.skc_net.net->ns.inum;
        key->accepted = 1;
        key->port = local_port(sk);
    }
}

/* Accepted flows are bounded by the port they come to. */
static __always_inline u32 bucket_of(struct flow *owner, u16 port)
{
    return owner->pid ? owner->pid : 0x80000000 | port;
}

static __always_inline bool tell_tcp(struct sock *sk, struct flow *owner, u64 cookie, u64 now)
{
    struct flow_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record), 0);

    if (!record) {
        count_loss(RECORD_FLOW_OPEN, LOSS_FULL);
        return false;
    }
    begin_flow(&record->head, RECORD_FLOW_OPEN, now, owner);
    record->cookie = cookie;
    read_socket(record, sk);
    record->accepted = !owner->pid;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return true;
}

/* Tells of a TCP flow that begins, or remembers it for when it carries something. Without an owner it is accepted. */
static __always_inline void begin_tcp(struct sock *sk, struct flow *owner)
{
    u64 now = bpf_ktime_get_boot_ns();
    u64 place = (u64)sk;
    struct aggregate_key key;

    read_key(&key, sk, owner);
    if (tell_singly(&key, bucket_of(owner, key.port), now))
        owner->told = tell_tcp(sk, owner, bpf_get_socket_cookie(sk), now);
    else if (!owner->pid)
        return;
    struct young young = {.start = owner->start, .pid = owner->pid, .told = owner->told};
    if (!bpf_map_update_elem(&young_flows, &place, &young, BPF_ANY))
        return;
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (flow) {
        flow->pid = owner->pid;
        flow->start = owner->start;
        flow->told = owner->told;
    }
}

/* A connection begins in the context of the process that wants it, and is accepted in anyone's. */
static __always_inline void tell_connect(struct sock *sk)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct flow owner = {.pid = task->tgid, .start = task->group_leader->start_boottime};

    begin_tcp(sk, &owner);
}

static __always_inline void tell_accept(struct sock *sk)
{
    struct flow owner = {};

    begin_tcp(sk, &owner);
}

static __always_inline void tell_listen(struct sock *sk)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct flow owner = {.pid = task->tgid, .start = task->group_leader->start_boottime};
    u64 now = bpf_ktime_get_boot_ns();

    if (!admit_flow(&owner, RECORD_LISTEN, now))
        return;
    struct flow_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_LISTEN, LOSS_FULL);
        return;
    }
    begin_flow(&record->head, RECORD_LISTEN, now, &owner);
    record->cookie = bpf_get_socket_cookie(sk);
    read_socket(record, sk);
    record->accepted = 0;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
}

static __always_inline void tell_tcp_close(struct sock *sk, int before)
{
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, 0);
    struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
    struct flow owner = {};
    u64 place = (u64)sk;
    struct young *young = bpf_map_lookup_elem(&young_flows, &place);

    if (young) {
        owner.start = young->start;
        owner.pid = young->pid;
        owner.told = young->told;
        bpf_map_delete_elem(&young_flows, &place);
    }
    if (flow) {
        owner.start = flow->start;
        owner.pid = flow->pid;
        owner.told = flow->told;
    }
    if (!tcp)
        return;
    struct volume volume = {
        .sent_bytes = tcp->bytes_sent - tcp->bytes_retrans,
        .received_bytes = tcp->bytes_received,
        .sent_packets = tcp->data_segs_out,
        .received_packets = tcp->data_segs_in,
    };
    /* The peer's FIN is counted as a byte. */
    if (volume.received_bytes && (before == STATE_FIN_WAIT2 || before == STATE_TIME_WAIT ||
                                  before == STATE_CLOSE_WAIT || before == STATE_LAST_ACK || before == STATE_CLOSING))
        volume.received_bytes--;
    u64 now = 0;
    if (!owner.told) {
        struct aggregate_key key;

        read_key(&key, sk, &owner);
        if (!(volume.sent_packets | volume.received_packets)) {
            count_flow(&key, &volume);
            return;
        }
        now = bpf_ktime_get_boot_ns();
        /* What carried something is told even at its end; packets are not seen where there is no cgroup v2. */
        if (!admit_process(bucket_of(&owner, key.port), BUCKET_FLOW, now, PER_SECOND(5000), 10000) ||
            !tell_tcp(sk, &owner, bpf_get_socket_cookie(sk), now)) {
            count_flow(&key, &volume);
            return;
        }
    }
    if (!now)
        now = bpf_ktime_get_boot_ns();
    struct flow_close_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_FLOW_CLOSE, LOSS_FULL);
        return;
    }
    begin_flow(&record->head, RECORD_FLOW_CLOSE, now, 0);
    record->cookie = bpf_get_socket_cookie(sk);
    record->volume = volume;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
}

#endif

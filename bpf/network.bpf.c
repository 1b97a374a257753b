// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Flows: who opened them, the first bytes each way, the sizes of their messages, and their end. Every program
 * here watches only: the cgroup programs always allow.
 */
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALLOW 1

#define PORT_DNS 53

/* Messages told beyond the captured bytes: a burst, then two a second; a bulk flow is looked at again every 16. */
#define MESSAGE_BURST 64
#define MESSAGES_PER_SECOND 2
#define SKIP_WHEN_EMPTY 16

/* A question and an answer: a UDP socket that carries no more may be counted instead of told. */
#define UDP_EXCHANGE 2

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int before, int after)
{
    if (sk->sk_protocol != PROTOCOL_TCP)
        return 0;
    if (after == STATE_SYN_SENT)
        tell_connect(sk);
    else if (after == STATE_ESTABLISHED && before == STATE_SYN_RECV)
        tell_accept(sk);
    else if (after == STATE_CLOSE && before != STATE_CLOSE && before != STATE_LISTEN)
        tell_tcp_close(sk, before);
    else if (after == STATE_LISTEN)
        tell_listen(sk);
    return 0;
}

/* Packets of sockets. */

struct chunk {
    u64 cookie;
    u64 offset;
    u64 now;
    u32 capture;
    bool received;
};

/* One size of record: a reservation must be a constant, so there are four. */
static __always_inline void tell_chunk_in(struct __sk_buff *skb, struct packet *packet, struct flow *flow,
                                          struct chunk *chunk, u32 room)
{
    struct flow_chunk_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record) + room, 0);
    u32 capture = chunk->capture;

    if (!record) {
        count_loss(RECORD_FLOW_CHUNK, LOSS_FULL);
        return;
    }
    begin_flow(&record->head, RECORD_FLOW_CHUNK, chunk->now, flow);
    record->cookie = chunk->cookie;
    record->offset = chunk->offset;
    record->size = packet->payload;
    record->captured = 0;
    record->received = chunk->received;
    record->udp = packet->protocol == PROTOCOL_UDP;
    if (room && load_payload(skb, packet, record + 1, capture, room))
        record->captured = capture;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
}

static __always_inline void tell_chunk(struct __sk_buff *skb, struct packet *packet, struct flow *flow,
                                       struct chunk *chunk)
{
    if (chunk->capture == 0)
        tell_chunk_in(skb, packet, flow, chunk, 0);
    else if (chunk->capture <= 128)
        tell_chunk_in(skb, packet, flow, chunk, 128);
    else if (chunk->capture <= 512)
        tell_chunk_in(skb, packet, flow, chunk, 512);
    else
        tell_chunk_in(skb, packet, flow, chunk, CAPTURE_MAX);
}

static __always_inline void tell_names_in(struct __sk_buff *skb, struct packet *packet, struct flow *flow, u64 now,
                                          u32 room)
{
    struct name_answer_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record) + room, 0);
    u32 capture = packet->payload;

    if (!record) {
        count_loss(RECORD_NAME_ANSWER, LOSS_FULL);
        return;
    }
    begin_flow(&record->head, RECORD_NAME_ANSWER, now, flow);
    record->captured = 0;
    record->reserved = 0;
    if (capture > room)
        capture = room;
    if (load_payload(skb, packet, record + 1, capture, room))
        record->captured = capture;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
}

static __always_inline void tell_udp(struct packet *packet, struct flow *flow, u64 cookie, bool accepted, u64 now)
{
    struct flow_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record), 0);

    if (!record) {
        count_loss(RECORD_FLOW_OPEN, LOSS_FULL);
        return;
    }
    begin_flow(&record->head, RECORD_FLOW_OPEN, now, flow);
    record->cookie = cookie;
    __builtin_memcpy(record->local, packet->local, 16);
    __builtin_memcpy(record->remote, packet->remote, 16);
    record->local_port = packet->local_port;
    record->remote_port = packet->remote_port;
    record->netns = 0;
    record->udp = 1;
    record->accepted = accepted;
    __builtin_memset(record->reserved, 0, sizeof(record->reserved));
    flow->told = 1;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
}

static __always_inline bool same_peer(struct flow *flow, struct packet *packet)
{
    u64 *told = (u64 *)flow->peer;
    u64 *seen = (u64 *)packet->remote;

    return told[0] == seen[0] && told[1] == seen[1] && flow->peer_port == packet->remote_port;
}

static __always_inline void udp_key(struct aggregate_key *key, struct flow *flow)
{
    __builtin_memcpy(key->address, flow->peer, sizeof(key->address));
    key->start = flow->start;
    key->owner = flow->pid;
    key->port = flow->peer_port;
    key->udp = 1;
    key->accepted = 0;
}

/*
 * One socket may talk to many peers: each change is told, sixteen at once and then one a second. Returns whether the
 * flow is one that is told by itself.
 */
static __always_inline bool follow_peer(struct packet *packet, struct flow *flow, u64 cookie, bool received, u64 now)
{
    u64 packets = flow->ways[0].packets + flow->ways[1].packets;
    bool same = same_peer(flow, packet);

    if (same && (flow->told || packets <= UDP_EXCHANGE))
        return flow->told;
    if (!same) {
        if (!admit(&flow->peer_arrival, now, PER_SECOND(1), 16))
            return flow->told;
        __builtin_memcpy(flow->peer, packet->remote, 16);
        flow->peer_port = packet->remote_port;
    }
    if (packets == 1 && !received) {
        struct aggregate_key key;

        udp_key(&key, flow);
        if (!tell_singly(&key, flow->pid, now))
            return false;
    } else if (!admit_process(flow->pid, BUCKET_FLOW, now, PER_SECOND(5000), 10000)) {
        if (flow->told)
            count_loss(RECORD_FLOW_OPEN, LOSS_THROTTLED);
        return flow->told;
    }
    tell_udp(packet, flow, cookie, received && !same, now);
    return true;
}

/*
 * A TCP flow that was not told when it began is told before its first payload is. Without an owner it is one that was
 * accepted: those that are opened are among the young ones or have their own.
 */
static __always_inline void tell_late(struct __sk_buff *skb, struct bpf_sock *sk, struct flow *flow, u64 cookie,
                                      u64 now)
{
    struct sock *whole = (void *)bpf_skc_to_tcp_sock(sk);

    if (!whole || whole->__sk_common.skc_state == STATE_LISTEN)
        return;
    if (admit_process(bucket_of(flow, whole->__sk_common.skc_num), BUCKET_FLOW, now, PER_SECOND(5000), 10000))
        flow->told = tell_tcp(whole, flow, cookie, now);
}

/* A flow's first payload: whose it is and whether it was told goes into its storage. */
static __always_inline void grow_up(struct bpf_sock *sk, struct flow *flow)
{
    u64 place = (u64)sk;
    struct young *young = bpf_map_lookup_elem(&young_flows, &place);

    if (!young)
        return;
    flow->start = young->start;
    flow->pid = young->pid;
    flow->told = young->told;
}

static __always_inline int on_packet(struct __sk_buff *skb, bool received)
{
    struct packet packet = {};

    if (!read_packet(skb, &packet, received))
        return ALLOW;
    struct bpf_sock *sk = skb->sk;
    if (!sk)
        return ALLOW;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return ALLOW;
    bool udp = packet.protocol == PROTOCOL_UDP;
    /* A datagram leaves in the context of the process that sends it, and arrives in anyone's. */
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, udp && received ? 0 : BPF_SK_STORAGE_GET_F_CREATE);
    if (!flow)
        return ALLOW;
    struct way *way = &flow->ways[received];
    struct chunk chunk = {.received = received};

    if (udp) {
        if (!flow->pid)
            own(flow);
        chunk.offset = way->bytes;
        way->bytes += packet.payload;
        way->packets++;
    } else {
        u32 next = packet.sequence + packet.payload;

        if (way->skip) {
            way->skip--;
            return ALLOW;
        }
        if (!flow->ways[0].begun && !flow->ways[1].begun && !flow->told)
            grow_up(sk, flow);
        if (!way->begun) {
            way->begun = 1;
            way->first = way->next = packet.sequence;
        }
        /* Sent again, or before what was seen first. */
        if ((s32)(next - way->next) <= 0 || (s32)(packet.sequence - way->first) < 0)
            return ALLOW;
        way->next = next;
        chunk.offset = packet.sequence - way->first;
    }
    if (chunk.offset >= CAPTURE_MAX)
        way->captured = 1;
    if (!way->captured)
        chunk.capture = packet.payload < CAPTURE_MAX - chunk.offset ? packet.payload : CAPTURE_MAX - chunk.offset;

    chunk.now = bpf_ktime_get_boot_ns();
    chunk.cookie = bpf_get_socket_cookie(skb);
    if (udp) {
        bool told = follow_peer(&packet, flow, chunk.cookie, received, chunk.now);

        if (packet.remote_port == PORT_DNS) {
            if (!received)
                return ALLOW;
            if (!admit_process(flow->pid, BUCKET_NAME, chunk.now, PER_SECOND(500), 2000))
                count_loss(RECORD_NAME_ANSWER, LOSS_THROTTLED);
            else if (packet.payload <= 512)
                tell_names_in(skb, &packet, flow, chunk.now, 512);
            else
                tell_names_in(skb, &packet, flow, chunk.now, NAME_ANSWER_MAX);
            return ALLOW;
        }
        if (!told)
            return ALLOW;
    } else if (!flow->told) {
        tell_late(skb, sk, flow, chunk.cookie, chunk.now);
    }
    if (!admit(&way->arrival, chunk.now, PER_SECOND(MESSAGES_PER_SECOND), MESSAGE_BURST) && !chunk.capture) {
        way->skip = SKIP_WHEN_EMPTY;
        return ALLOW;
    }
    tell_chunk(skb, &packet, flow, &chunk);
    return ALLOW;
}

SEC("cgroup_skb/egress")
int on_sent(struct __sk_buff *skb)
{
    return on_packet(skb, false);
}

SEC("cgroup_skb/ingress")
int on_received(struct __sk_buff *skb)
{
    return on_packet(skb, true);
}

/* UDP: bound sockets serve, and the end of a socket is the end of its flow. */

static __always_inline int on_bind(struct bpf_sock *sk, bool v6)
{
    /* Clients that bind do so to the ephemeral range. */
    if (sk->protocol != PROTOCOL_UDP || sk->type != 2 || sk->src_port >= 32768)
        return ALLOW;
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

    if (!flow)
        return ALLOW;
    own(flow);
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_flow(flow, RECORD_LISTEN, now))
        return ALLOW;
    struct flow_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_LISTEN, LOSS_FULL);
        return ALLOW;
    }
    begin_flow(&record->head, RECORD_LISTEN, now, flow);
    record->cookie = bpf_get_socket_cookie(sk);
    __builtin_memset(record->remote, 0, sizeof(record->remote));
    if (v6) {
        u32 words[4] = {sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]};

        __builtin_memcpy(record->local, words, 16);
    } else {
        map_v4(record->local, sk->src_ip4);
    }
    record->local_port = sk->src_port;
    record->remote_port = 0;
    record->netns = 0;
    record->udp = 1;
    record->accepted = 0;
    __builtin_memset(record->reserved, 0, sizeof(record->reserved));
    flow->told = 1;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return ALLOW;
}

SEC("cgroup/post_bind4")
int on_bind_v4(struct bpf_sock *sk)
{
    return on_bind(sk, false);
}

SEC("cgroup/post_bind6")
int on_bind_v6(struct bpf_sock *sk)
{
    return on_bind(sk, true);
}

SEC("cgroup/sock_release")
int on_release(struct bpf_sock *sk)
{
    if (sk->protocol != PROTOCOL_UDP)
        return ALLOW;
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, 0);
    if (!flow)
        return ALLOW;
    struct volume volume = {
        .sent_bytes = flow->ways[0].bytes,
        .received_bytes = flow->ways[1].bytes,
        .sent_packets = flow->ways[0].packets,
        .received_packets = flow->ways[1].packets,
    };
    if (!flow->told) {
        struct aggregate_key key;

        if (!volume.sent_packets)
            return ALLOW;
        udp_key(&key, flow);
        count_flow(&key, &volume);
        return ALLOW;
    }
    flow->told = 0;
    struct flow_close_record *record = bpf_ringbuf_reserve(&bulk_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_FLOW_CLOSE, LOSS_FULL);
        return ALLOW;
    }
    begin_flow(&record->head, RECORD_FLOW_CLOSE, bpf_ktime_get_boot_ns(), flow);
    record->cookie = bpf_get_socket_cookie(sk);
    record->volume = volume;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return ALLOW;
}

/* Sockets that were there before: run once, it tells user space which process holds each. */
SEC("iter/task_file")
int adopt_sockets(struct bpf_iter__task_file *ctx)
{
    struct task_struct *task = ctx->task;
    struct file *file = ctx->file;
    struct flow_record record = {};

    if (!task || !file)
        return 0;
    struct socket *socket = bpf_sock_from_file(file);
    if (!socket)
        return 0;
    struct sock *sk = socket->sk;
    if (!sk || (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6))
        return 0;
    if (sk->sk_protocol != PROTOCOL_TCP && sk->sk_protocol != PROTOCOL_UDP)
        return 0;
    u64 start = BPF_CORE_READ(task, group_leader, start_boottime);
    record.head.kind = sk->__sk_common.skc_state == STATE_LISTEN ? RECORD_LISTEN : RECORD_FLOW_OPEN;
    record.head.version = DAVY_ABI_VERSION;
    record.head.pid = task->tgid;
    record.head.start = start;
    record.cookie = bpf_get_socket_cookie(sk);
    read_socket(&record, sk);
    bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
    if (record.head.kind == RECORD_LISTEN)
        return 0;
    struct flow *flow = bpf_sk_storage_get(&flows, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!flow || flow->pid)
        return 0;
    flow->pid = task->tgid;
    flow->start = start;
    flow->told = 1;
    return 0;
}

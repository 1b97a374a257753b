// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Flows: who opened them, the first bytes each way, the sizes of their messages, and their end. Every program
 * here watches only: the cgroup programs always allow.
 */
#include "aggregate.h"
#include "packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALLOW 1

#define PORT_DNS 53

/* Messages told beyond the captured bytes: a burst, then two a second; a bulk flow is looked at again every 16. */
#define MESSAGE_BURST 64
#define MESSAGES_PER_SECOND 2
#define SKIP_WHEN_EMPTY 16

/* A question and an answer: a UDP socket that carries no more may be counted instead of told. */
#define UDP_EXCHANGE 2

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

/* TCP: the kernel tells of every change of state. */

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

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Names and their addresses, read from answers before the process that asked can read them: whoever connects at once finds its
 * rule there. Believed is an answer of one of the host's name servers to a question that the same socket asked it.
 */
#ifndef DAVY_ANSWERS_H
#define DAVY_ANSWERS_H

#include "subject.h"

#define PORT_DNS 53
#define DNS_HEADER 12
#define ANSWERS_MAX 32
#define LABELS_MAX 128
#define TYPE_A 1
#define TYPE_AAAA 28

/* An address is remembered for as long as the answer says, within these bounds, in seconds. */
#define TTL_FLOOR 60
#define TTL_MOST 86400

struct asked_key {
    u64 cookie;
    u64 id;
};

/* Questions under way, with a sum over the name; the oldest go when full, and their answers are not believed then. Like all that
 * was heard it goes on under the next policy. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct asked_key);
    __type(value, u64);
} outbound_asked SEC(".maps");

/* Rules by name. */
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct name_key);
    __type(value, struct rule_set);
} outbound_names SEC(".maps");

/* Addresses of names that rules are about; the least used go when full. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, OUTBOUND_NAMED_MAX);
    __type(key, struct named_key);
    __type(value, struct named);
} outbound_named SEC(".maps");

/* Every answer that was believed, until when: for people, and for the rules of the next policy. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, OUTBOUND_ANSWERED_MAX);
    __type(key, struct answered_key);
    __type(value, u64);
} names_answered SEC(".maps");

struct resolver_key {
    u8 address[16];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, struct resolver_key);
    __type(value, u32);
} outbound_resolvers SEC(".maps");

/* Loopback, and what connects to nowhere, which the kernel takes for loopback. */
static __always_inline bool is_own(const u8 *address)
{
    const u32 *words = (const u32 *)address;

    if (words[0] || words[1])
        return false;
    if (words[2] == bpf_htonl(0xffff))
        return address[12] == 127 || !words[3];
    return !words[2] && (!words[3] || words[3] == bpf_htonl(1));
}

/* Whoever may listen on loopback is no name server for that: the host's own is one that its configuration names. */
static __always_inline bool is_resolver(const u8 *address)
{
    return bpf_map_lookup_elem(&outbound_resolvers, address);
}

static __always_inline u16 two_bytes(const struct workbench *bench, u32 at)
{
    return bench->message[at & (MESSAGE_MAX - 1)] << 8 | bench->message[(at + 1) & (MESSAGE_MAX - 1)];
}

/* Where the label at this place ends; the place itself at the end of the name, and zero for what is no label. */
__noinline int skip_label(u64 who, u32 at, u32 length)
{
    struct workbench *bench = own_workbench(who);

    if (!bench || at >= length || at >= DNS_HEADER + 255)
        return 0;
    u8 label = bench->message[at & (MESSAGE_MAX - 1)];
    if (!label)
        return at;
    return label > 63 ? 0 : at + label + 1;
}

/* Reads the name that is asked for into `asked`; gives where it ends, or zero for what is no single question. */
__noinline int read_question(u64 who, u32 length)
{
    struct workbench *bench = own_workbench(who);
    u32 end = DNS_HEADER;

    if (!bench || two_bytes(bench, 4) != 1)
        return 0;
    for (int i = 0; i < LABELS_MAX; i++) {
        u32 next = skip_label(who, end, length);

        if (!next)
            return 0;
        if (next == end)
            break;
        end = next;
    }
    if (end <= DNS_HEADER || end > DNS_HEADER + 254)
        return 0;
    for (u32 i = 0; i < 254; i++) {
        if (i >= end - DNS_HEADER)
            break;
        u8 byte = bench->message[(end - 1 - i) & (MESSAGE_MAX - 1)];
        /* Lengths are below every letter. */
        bench->asked.reversed[i] = byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
    }
    return end + 1;
}

static __noinline u64 sum_of_name(struct workbench *bench)
{
    u64 sum = 0xcbf29ce484222325ULL;

    for (u32 i = 0; i < 255; i++) {
        if (!bench->asked.reversed[i])
            break;
        sum = (sum ^ bench->asked.reversed[i]) * 0x100000001b3ULL;
    }
    return sum;
}

/* Remembers that the name that was asked for has this address. */
__noinline int remember(u64 who, u32 ttl)
{
    struct workbench *bench = own_workbench(who);

    if (!bench)
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    struct named_key key = {.net = bench->answered.net};
    struct named named = {};

    if (ttl < TTL_FLOOR)
        ttl = TTL_FLOOR;
    if (ttl > TTL_MOST)
        ttl = TTL_MOST;
    named.until = now + (u64)ttl * 1000000000ULL;
    bpf_map_update_elem(&names_answered, &bench->answered, &named.until, BPF_ANY);
    struct rule_set *rules = bpf_map_lookup_elem(&outbound_names, &bench->asked);
    if (!rules)
        return 0;
    named.rules = *rules;
    __builtin_memcpy(key.address, bench->answered.address, 16);
    /* Several names may lead to one address; whoever may talk to one of them may talk to it. */
    struct named *before = bpf_map_lookup_elem(&outbound_named, &key);
    if (before && before->until > now) {
        add_rules(&named.rules, &before->rules);
        if (before->until > named.until)
            named.until = before->until;
    }
    return bpf_map_update_elem(&outbound_named, &key, &named, BPF_ANY);
}

/* Where the name at this place ends; zero where it does not. */
__noinline int skip_name(u64 who, u32 at, u32 length)
{
    struct workbench *bench = own_workbench(who);

    if (!bench)
        return 0;
    for (int i = 0; i < 16; i++) {
        if (at >= length)
            return 0;
        u8 label = bench->message[at & (MESSAGE_MAX - 1)];
        if (label >= 0xc0)
            return at + 2;
        if (!label)
            return at + 1;
        at += label + 1;
    }
    return 0;
}

/*
 * Reads one record at this place; gives where it ends, or zero for the end of all. Every address in the answer belongs to the name
 * that was asked for: a name server follows the aliases in between, and whoever answers for the name could name any address anyway.
 */
__noinline int read_record(u64 who, u32 at, u32 length)
{
    struct workbench *bench = own_workbench(who);
    u32 head = skip_name(who, at, length);

    if (!bench || !head || head + 10 > length)
        return 0;
    u16 type = two_bytes(bench, head), size = two_bytes(bench, head + 8);
    u32 ttl = (u32)two_bytes(bench, head + 4) << 16 | two_bytes(bench, head + 6);
    u32 end = head + 10 + size;
    bool v4 = type == TYPE_A && size == 4;

    if (end > length)
        return 0;
    if (!v4 && !(type == TYPE_AAAA && size == 16))
        return end;
    __builtin_memset(bench->answered.address, 0, 16);
    if (v4)
        bench->answered.address[10] = bench->answered.address[11] = 0xff;
    for (u32 byte = v4 ? 12 : 0; byte < 16; byte++)
        bench->answered.address[byte & 15] = bench->message[(end - 16 + byte) & (MESSAGE_MAX - 1)];
    remember(who, ttl);
    return end;
}

/* The network namespace of a packet's socket. The pointer goes through a map, since the verifier lets nobody look into it else. */
static __always_inline u64 net_of(struct workbench *bench, struct bpf_sock *sk)
{
    bench->pointer = (u64)sk;
    barrier();
    struct sock *socket = (void *)*(volatile u64 *)&bench->pointer;
    return BPF_CORE_READ(socket, __sk_common.skc_net.net, net_cookie);
}

static __always_inline void take_down_question(struct workbench *bench, u64 who, u64 cookie, u32 length)
{
    struct asked_key key = {.cookie = cookie, .id = two_bytes(bench, 0)};

    if (bench->message[2] & 0x80 || !read_question(who, length))
        return;
    u64 sum = sum_of_name(bench);
    bpf_map_update_elem(&outbound_asked, &key, &sum, BPF_ANY);
}

static __always_inline void take_down_answer(struct workbench *bench, u64 who, u64 cookie, u32 length, u64 net)
{
    struct asked_key key = {.cookie = cookie, .id = two_bytes(bench, 0)};
    u64 *sum = bpf_map_lookup_elem(&outbound_asked, &key);

    if (!sum || !(bench->message[2] & 0x80))
        return;
    u32 at = read_question(who, length);
    if (!at || sum_of_name(bench) != *sum)
        return;
    bpf_map_delete_elem(&outbound_asked, &key);
    bench->asked.bits = 8 * sizeof(bench->asked.reversed);
    bench->answered.net = net;
    __builtin_memcpy(bench->answered.reversed, bench->asked.reversed, sizeof(bench->asked.reversed));
    u16 answers = two_bytes(bench, 6);
    at += 4;
    for (int i = 0; i < ANSWERS_MAX; i++) {
        if (i >= answers)
            break;
        at = read_record(who, at, length);
        if (!at)
            break;
    }
}

/* Whoever sends a datagram to a socket may be answered through it: that is no way out of the process's own. */
struct heard_key {
    u64 cookie;
    u8 address[16];
    u64 port;
};

/* Those who were heard last; when one is forgotten, the next answer to it is judged like any datagram. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 32768);
    __type(key, struct heard_key);
    __type(value, u8);
} outbound_heard SEC(".maps");

static __always_inline void hear(struct packet *packet, u64 cookie)
{
    struct heard_key key = {.cookie = cookie, .port = packet->remote_port};
    u8 yes = 1;

    __builtin_memcpy(key.address, packet->remote, 16);
    if (!bpf_map_lookup_elem(&outbound_heard, &key))
        bpf_map_update_elem(&outbound_heard, &key, &yes, BPF_ANY);
}

static __always_inline void look_at_datagram(struct __sk_buff *skb, bool received)
{
    struct packet packet = {};

    if (!read_packet(skb, &packet, received) || packet.protocol != PROTOCOL_UDP)
        return;
    struct bpf_sock *sk = skb->sk;
    if (!sk)
        return;
    if (packet.remote_port != PORT_DNS || !is_resolver(packet.remote)) {
        if (received && !is_own(packet.remote))
            hear(&packet, bpf_get_socket_cookie(skb));
        return;
    }
    sk = bpf_sk_fullsock(sk);
    u64 cookie = bpf_get_socket_cookie(skb);
    /* No process has such a number, and no packet of this socket is looked at twice at once here. */
    u64 who = 1ULL << 63 | cookie << 16 | (bpf_get_smp_processor_id() & 0x7fff) << 1 | received;
    struct workbench *bench = sk && packet.payload > DNS_HEADER ? take_workbench(who) : NULL;
    if (!bench)
        return;
    u32 length = packet.payload < MESSAGE_MAX ? packet.payload : MESSAGE_MAX;
    if (load_payload(skb, &packet, bench->message, length, MESSAGE_MAX)) {
        if (received)
            take_down_answer(bench, who, cookie, length, net_of(bench, sk));
        else
            take_down_question(bench, who, cookie, length);
    }
    leave_workbench(who);
}

#endif

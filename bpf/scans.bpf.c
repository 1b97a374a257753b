// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Who looks for what answers on this host: the first probe of each kind from an address to a port, and whether the port was
 * open, refused or silent. A filter of a packet socket: it sees each packet once, keeps none for the socket, and has no say
 * in what becomes of it.
 */
#include "datagram.h"
#include "firsts.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* No byte of the packet for the socket. */
#define KEEP_NOTHING 0

#define TO_THIS_HOST 0
#define OUTGOING 4

static __always_inline void begin(struct probe_record *record, struct datagram *datagram, u8 kind, u16 port)
{
    __builtin_memcpy(record->key.source, datagram->source, 16);
    __builtin_memcpy(record->key.local, datagram->destination, 16);
    record->key.port = port;
    record->key.kind = kind;
    record->key.protocol = datagram->protocol;
    record->ip_id = datagram->ip_id;
    record->ttl = datagram->ttl;
    record->dont_fragment = datagram->dont_fragment;
}

/* The same of an answer, which goes the other way. */
static __always_inline void begin_answer(struct probe_record *record, struct datagram *datagram, u8 kind, u16 port)
{
    begin(record, datagram, kind, port);
    __builtin_memcpy(record->key.source, datagram->destination, 16);
    __builtin_memcpy(record->key.local, datagram->source, 16);
    record->ttl = 0;
}

static __always_inline bool is_local(u8 *address)
{
    return bpf_map_lookup_elem(&locals, address) != 0;
}

static __always_inline void name_talk(struct talk_key *key, u8 *remote, u16 port, u8 protocol)
{
    __builtin_memcpy(key->remote, remote, 16);
    key->port = port;
    key->protocol = protocol;
    key->reserved = 0;
}

static __always_inline bool is_talk(u8 *remote, u16 port, u8 protocol)
{
    struct talk_key key;

    name_talk(&key, remote, port, protocol);
    return bpf_map_lookup_elem(&talks, &key) != 0;
}

/* Remembers that this host talks with somebody; true when it is news. */
static __always_inline bool talk(u8 *remote, u16 port, u8 protocol)
{
    struct talk_key key;
    u32 yes = 1;

    name_talk(&key, remote, port, protocol);
    if (bpf_map_lookup_elem(&talks, &key))
        return false;
    bpf_map_update_elem(&talks, &key, &yes, BPF_ANY);
    return true;
}

/* Which place a handshake has, and a word that tells it from others in the same place. */
static __always_inline u32 place_handshake(u8 *remote, u16 remote_port, u16 port, u32 *whose)
{
    u32 *words = (u32 *)remote;
    u64 mixed = ((u64)words[0] << 32 | words[1]) * 0x9e3779b97f4a7c15ULL;

    mixed = (mixed ^ ((u64)words[2] << 32 | words[3])) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 29 ^ ((u32)remote_port << 16 | port)) * 0x94d049bb133111ebULL;
    *whose = mixed;
    return mixed >> 48;
}

static __always_inline void expect_handshake(struct datagram *datagram, struct tcp_header *tcp)
{
    u32 whose;
    u32 place = place_handshake(datagram->destination, tcp->destination, tcp->source, &whose);
    struct handshake *handshake = bpf_map_lookup_elem(&handshakes, &place);

    if (handshake) {
        handshake->acknowledges = bpf_ntohl(tcp->sequence) + 1;
        handshake->whose = whose;
    }
}

static __always_inline bool ends_handshake(struct datagram *datagram, struct tcp_header *tcp)
{
    u32 whose;
    u32 place = place_handshake(datagram->source, tcp->source, tcp->destination, &whose);
    struct handshake *handshake = bpf_map_lookup_elem(&handshakes, &place);

    if (!handshake || handshake->whose != whose || handshake->acknowledges != bpf_ntohl(tcp->acknowledged))
        return false;
    /* One answer is enough; zero is nobody's word but by rare chance. */
    handshake->whose = 0;
    handshake->acknowledges = 0;
    return true;
}

/* What a segment is a probe of, if it is one; its flags come without those of congestion. */
static __always_inline u8 kind_of(u8 flags)
{
    if (flags & TCP_SYN)
        return flags == TCP_SYN ? PROBE_SYN : PROBE_ODD;
    if (flags & TCP_ACK)
        return flags & TCP_FIN ? PROBE_MAIMON : PROBE_ACK;
    if (flags == 0)
        return PROBE_NULL;
    if (flags == TCP_FIN)
        return PROBE_FIN;
    return flags == (TCP_FIN | TCP_PSH | TCP_URG) ? PROBE_XMAS : PROBE_ODD;
}

static __always_inline void take_tcp(struct __sk_buff *skb, struct datagram *datagram)
{
    struct probe_record record = {};
    struct tcp_header tcp = {};

    if (datagram->first_fragment && datagram->end < datagram->at + sizeof(tcp)) {
        /* No sender cuts a packet before its header ends; eight bytes have the ports. */
        if (bpf_skb_load_bytes(skb, datagram->at, &tcp, 8) || !is_local(datagram->destination))
            return;
        begin(&record, datagram, PROBE_FRAGMENT, bpf_ntohs(tcp.destination));
        record.source_port = bpf_ntohs(tcp.source);
        tell(&record);
        return;
    }
    if (bpf_skb_load_bytes(skb, datagram->at, &tcp, sizeof(tcp)))
        return;
    u8 flags = tcp.flags & 0x3f;
    u8 words = tcp.words >> 4;

    /* Answers to this host, and ends. */
    if (flags & TCP_RST || (flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
        return;
    u8 kind = kind_of(flags);

    if (flags & TCP_ACK) {
        /* What carries something belongs to a connection, or is answered as if it did not. */
        if (datagram->end > datagram->at + words * 4)
            return;
        if (kind == PROBE_ACK && ends_handshake(datagram, &tcp)) {
            u64 now = bpf_ktime_get_boot_ns();

            bpf_map_update_elem(&proven, datagram->source, &now, BPF_ANY);
            kind = ANSWER_HANDSHAKE;
        } else if (words > 5 || is_talk(datagram->source, bpf_ntohs(tcp.destination), PROTOCOL_TCP)) {
            /* Scanners send these without options, and connections hardly ever are without. */
            return;
        }
    }
    if (!is_local(datagram->destination))
        return;
    begin(&record, datagram, kind, bpf_ntohs(tcp.destination));
    record.source_port = bpf_ntohs(tcp.source);
    record.sequence = bpf_ntohl(tcp.sequence);
    record.window = bpf_ntohs(tcp.window);
    record.header_words = words;
    if (words > 5)
        bpf_skb_load_bytes(skb, datagram->at + sizeof(tcp), &record.first_option, 1);
    if (kind == PROBE_SYN) {
        u32 port = record.key.port;
        u64 *last = bpf_map_lookup_elem(&opened, &port);

        record.time = bpf_ktime_get_boot_ns();
        record.open = last && *last && record.time - *last < OPEN_FOR;
    }
    tell(&record);
}

static __always_inline void take_udp(struct __sk_buff *skb, struct datagram *datagram)
{
    struct probe_record record = {};
    u16 ports[2];

    if (bpf_skb_load_bytes(skb, datagram->at, ports, sizeof(ports)))
        return;
    u16 port = bpf_ntohs(ports[1]);
    if (is_talk(datagram->source, port, PROTOCOL_UDP) || !is_local(datagram->destination))
        return;
    u8 anybody[16] = {};

    if (is_talk(anybody, port, PROTOCOL_UDP))
        return;
    begin(&record, datagram, PROBE_UDP, port);
    record.source_port = bpf_ntohs(ports[0]);
    tell(&record);
}

#define ECHO_V4 8
#define TIMESTAMP_V4 13
#define MASK_V4 17
#define ECHO_V6 128

static __always_inline void take_icmp(struct __sk_buff *skb, struct datagram *datagram, bool v6)
{
    struct probe_record record = {};
    u8 head[2];
    u8 kind;

    if (bpf_skb_load_bytes(skb, datagram->at, head, sizeof(head)))
        return;
    if (head[0] == (v6 ? ECHO_V6 : ECHO_V4))
        kind = head[1] ? PROBE_ODD : PROBE_ECHO;
    else if (!v6 && head[0] == TIMESTAMP_V4)
        kind = PROBE_TIMESTAMP;
    else if (!v6 && head[0] == MASK_V4)
        kind = PROBE_MASK;
    else
        return;
    if (!is_local(datagram->destination))
        return;
    begin(&record, datagram, kind, 0);
    tell(&record);
}

static __always_inline void answer_tcp(struct __sk_buff *skb, struct datagram *datagram)
{
    struct probe_record record = {};
    struct tcp_header tcp;

    if (bpf_skb_load_bytes(skb, datagram->at, &tcp, sizeof(tcp)))
        return;
    u8 flags = tcp.flags & 0x3f;
    u16 port = bpf_ntohs(tcp.source);
    u32 place = port;

    /* What only passes through takes no place. */
    if (!(flags & (TCP_SYN | TCP_RST)) || !is_local(datagram->source))
        return;
    if (flags & TCP_RST) {
        if (is_talk(datagram->destination, port, PROTOCOL_TCP))
            return;
        u64 never = 0;

        bpf_map_update_elem(&opened, &place, &never, BPF_ANY);
        begin_answer(&record, datagram, ANSWER_REFUSED, port);
        tell(&record);
        return;
    }
    talk(datagram->destination, port, PROTOCOL_TCP);
    if (!(flags & TCP_ACK))
        return;
    expect_handshake(datagram, &tcp);
    u64 now = bpf_ktime_get_boot_ns();
    u64 *last = bpf_map_lookup_elem(&opened, &place);
    bool news = !last || !*last || now - *last >= OPEN_FOR;

    bpf_map_update_elem(&opened, &place, &now, BPF_ANY);
    if (!news)
        return;
    begin_answer(&record, datagram, ANSWER_OPEN, port);
    tell(&record);
}

/*
 * A question to all who listen, which anybody answers: multicast, or a broadcast of IPv4, which ends in 255 in most networks.
 */
static __always_inline bool asks_everybody(const u8 *address)
{
    if (address[0] == 0xff)
        return true;
    for (int i = 0; i < 10; i++)
        if (address[i])
            return false;
    return address[10] == 0xff && address[11] == 0xff && ((address[12] & 0xf0) == 0xe0 || address[15] == 255);
}

static __always_inline void answer_udp(struct __sk_buff *skb, struct datagram *datagram)
{
    struct probe_record record = {};
    u16 port;

    if (bpf_skb_load_bytes(skb, datagram->at, &port, sizeof(port)))
        return;
    port = bpf_ntohs(port);
    if (!is_local(datagram->source))
        return;
    if (asks_everybody(datagram->destination)) {
        u8 anybody[16] = {};

        talk(anybody, port, PROTOCOL_UDP);
        return;
    }
    if (!talk(datagram->destination, port, PROTOCOL_UDP))
        return;
    begin_answer(&record, datagram, PROBE_UDP, port);
    if (!bpf_map_lookup_elem(&firsts, &record.key))
        return;
    record.key.kind = ANSWER_OPEN;
    tell(&record);
}

#define UNREACHABLE_V4 3
#define CODE_PROTOCOL_V4 2
#define CODE_PORT_V4 3
#define UNREACHABLE_V6 1
#define CODE_PORT_V6 4

/* This host says that nobody is there; behind eight bytes it repeats what it answers. */
static __always_inline void answer_icmp(struct __sk_buff *skb, struct datagram *datagram, bool v6)
{
    struct probe_record record = {};
    u8 head[2];
    u8 first[10];

    if (bpf_skb_load_bytes(skb, datagram->at, head, sizeof(head)))
        return;
    if (v6 ? head[0] != UNREACHABLE_V6 || head[1] != CODE_PORT_V6
           : head[0] != UNREACHABLE_V4 || (head[1] != CODE_PORT_V4 && head[1] != CODE_PROTOCOL_V4))
        return;
    u32 at = datagram->at + 8;
    if (bpf_skb_load_bytes(skb, at, first, sizeof(first)) || !is_local(datagram->source))
        return;
    u8 protocol = v6 ? first[6] : first[9];
    u16 port = protocol;

    if (v6 || head[1] == CODE_PORT_V4) {
        at += v6 ? 40 : (first[0] & 15) * 4;
        if (bpf_skb_load_bytes(skb, at + 2, &port, sizeof(port)))
            return;
        port = bpf_ntohs(port);
    }
    begin_answer(&record, datagram, ANSWER_REFUSED, port);
    record.key.protocol = protocol;
    tell(&record);
}

/* What is left of the packets that the entry below lets by. */
SEC("socket")
int look(struct __sk_buff *skb)
{
    struct datagram datagram = {};

    if (!read_datagram(skb, &datagram))
        return KEEP_NOTHING;
    u8 protocol = datagram.protocol;
    bool outgoing = skb->pkt_type == OUTGOING;

    if (protocol == PROTOCOL_TCP) {
        if (outgoing)
            answer_tcp(skb, &datagram);
        else
            take_tcp(skb, &datagram);
    } else if (protocol == PROTOCOL_UDP) {
        if (outgoing)
            answer_udp(skb, &datagram);
        else
            take_udp(skb, &datagram);
    } else if (protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMP_V6) {
        bool v6 = protocol == PROTOCOL_ICMP_V6;

        if (outgoing)
            answer_icmp(skb, &datagram, v6);
        else
            take_icmp(skb, &datagram, v6);
    } else if (!outgoing && is_local(datagram.destination)) {
        struct probe_record record = {};

        begin(&record, &datagram, PROBE_PROTOCOL, protocol);
        tell(&record);
    }
    return KEEP_NOTHING;
}

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(u32));
    __array(values, int(void *));
} looks SEC(".maps") = {
    .values = {[0] = (void *)&look},
};

/*
 * The program of the socket. Its size counts against net.core.optmem_max (20 KiB before Linux 6.7), which all of it
 * together does not fit in, so it calls the rest.
 */
SEC("socket")
int watch(struct __sk_buff *skb)
{
    u32 way = skb->pkt_type;

    if (way == TO_THIS_HOST || way == OUTGOING)
        bpf_tail_call(skb, &looks, 0);
    return KEEP_NOTHING;
}

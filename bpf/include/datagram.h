/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * What the headers of a packet say, read by copies: a socket filter may not look at packets in place. The packet begins
 * with its IP header.
 */
#ifndef DAVY_DATAGRAM_H
#define DAVY_DATAGRAM_H

#include "packet.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_ICMP_V6 58

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60

/* Extension headers that are passed over. What comes behind more of them is not looked at. */
#define EXTENSIONS 3

struct datagram {
    u8 source[16];
    u8 destination[16];
    /* Where the transport header begins, and where the packet ends. */
    u32 at;
    u32 end;
    u16 ip_id;
    u8 protocol;
    u8 ttl;
    u8 dont_fragment;
    /* It begins here and goes on in other packets. */
    u8 first_fragment;
    u8 reserved[2];
};

struct tcp_header {
    u16 source;
    u16 destination;
    u32 sequence;
    u32 acknowledged;
    u8 words;
    u8 flags;
    u16 window;
    u16 sum;
    u16 urgent;
};

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_PSH 8
#define TCP_ACK 16
#define TCP_URG 32

/* False for what is no IP packet, or is the middle of one. */
static __always_inline bool read_v4(struct __sk_buff *skb, struct datagram *datagram)
{
    struct ipv4_header header;

    if (bpf_skb_load_bytes(skb, 0, &header, sizeof(header)) || header.version_length >> 4 != 4)
        return false;
    u16 fragment = bpf_ntohs(header.fragment);
    if (fragment & 0x1fff)
        return false;
    map_v4(datagram->source, header.source);
    map_v4(datagram->destination, header.destination);
    datagram->at = (header.version_length & 15) * 4;
    datagram->end = bpf_ntohs(header.total);
    datagram->ip_id = bpf_ntohs(header.id);
    datagram->protocol = header.protocol;
    datagram->ttl = header.ttl;
    datagram->dont_fragment = (fragment & 0x4000) != 0;
    datagram->first_fragment = (fragment & 0x2000) != 0;
    return true;
}

static __always_inline bool read_v6(struct __sk_buff *skb, struct datagram *datagram)
{
    struct ipv6_header header;
    u8 extension[4];

    if (bpf_skb_load_bytes(skb, 0, &header, sizeof(header)))
        return false;
    __builtin_memcpy(datagram->source, header.source, 16);
    __builtin_memcpy(datagram->destination, header.destination, 16);
    datagram->at = sizeof(header);
    datagram->end = sizeof(header) + bpf_ntohs(header.length);
    datagram->protocol = header.next;
    datagram->ttl = header.hops;
    for (int i = 0; i < EXTENSIONS; i++) {
        u8 next = datagram->protocol;

        if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_DESTINATION && next != NEXT_FRAGMENT)
            return true;
        if (bpf_skb_load_bytes(skb, datagram->at, extension, sizeof(extension)))
            return false;
        datagram->protocol = extension[0];
        if (next == NEXT_FRAGMENT) {
            u16 offset = (u16)extension[2] << 8 | extension[3];

            if (offset & 0xfff8)
                return false;
            datagram->first_fragment = offset & 1;
            datagram->at += 8;
        } else {
            datagram->at += ((u32)extension[1] + 1) * 8;
        }
    }
    return true;
}

static __always_inline bool read_datagram(struct __sk_buff *skb, struct datagram *datagram)
{
    if (skb->protocol == bpf_htons(0x0800))
        return read_v4(skb, datagram);
    return skb->protocol == bpf_htons(0x86dd) && read_v6(skb, datagram);
}

#endif

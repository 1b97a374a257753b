/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* What a packet's headers say, and its payload. */
#ifndef DAVY_PACKET_H
#define DAVY_PACKET_H

#include "kernel.h"
#include "abi.h"

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

static __always_inline void map_v4(u8 *address, u32 v4)
{
    __builtin_memset(address, 0, 10);
    address[10] = address[11] = 0xff;
    __builtin_memcpy(address + 12, &v4, 4);
}

struct packet {
    u32 sequence;
    u32 payload;
    u32 at;
    u16 local_port;
    u16 remote_port;
    u8 protocol;
    u8 reserved[7];
    /* UDP only. */
    u8 local[16];
    u8 remote[16];
};

struct ipv4_header {
    u8 version_length;
    u8 service;
    u16 total;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 sum;
    u32 source;
    u32 destination;
};

struct ipv6_header {
    u32 first;
    u16 length;
    u8 next;
    u8 hops;
    u8 source[16];
    u8 destination[16];
};

/*
 * Reads the headers in place and returns whether there is payload. Fragments and packets with extension headers
 * are not looked into.
 */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *packet, bool received)
{
    void *data = (void *)(long)skb->data;
    void *end = (void *)(long)skb->data_end;
    struct ipv4_header *v4 = data;
    struct ipv6_header *v6 = data;
    bool is_v4 = skb->protocol == bpf_htons(0x0800);
    u32 header = sizeof(*v6);

    if (is_v4) {
        if ((void *)(v4 + 1) > end || v4->fragment & bpf_htons(0x3fff))
            return false;
        header = (v4->version_length & 15) * 4;
        packet->protocol = v4->protocol;
    } else {
        if (skb->protocol != bpf_htons(0x86dd) || (void *)(v6 + 1) > end)
            return false;
        packet->protocol = v6->next;
    }
    u16 *ports = data + header;
    u32 transport = 8;

    if (packet->protocol == PROTOCOL_TCP) {
        if ((void *)(ports + 8) > end)
            return false;
        packet->sequence = bpf_ntohl(*(u32 *)(ports + 2));
        transport = (*(u8 *)(ports + 6) >> 4) * 4;
    } else if (packet->protocol != PROTOCOL_UDP || (void *)(ports + 4) > end) {
        return false;
    }
    packet->at = header + transport;
    if (skb->len <= packet->at)
        return false;
    packet->payload = skb->len - packet->at;
    packet->local_port = bpf_ntohs(ports[received]);
    packet->remote_port = bpf_ntohs(ports[!received]);
    if (packet->protocol == PROTOCOL_TCP)
        return true;
    if (is_v4) {
        map_v4(packet->local, received ? v4->destination : v4->source);
        map_v4(packet->remote, received ? v4->source : v4->destination);
    } else {
        __builtin_memcpy(packet->local, received ? v6->destination : v6->source, 16);
        __builtin_memcpy(packet->remote, received ? v6->source : v6->destination, 16);
    }
    return true;
}

/*
 * Copies payload of at most `room` bytes, a power of two. The mask says again what the test said, in the form that
 * every verifier follows; the barrier keeps the compiler from dropping it.
 */
static __always_inline bool load_payload(struct __sk_buff *skb, struct packet *packet, void *to, u32 length, u32 room)
{
    if (length == 0 || length > room)
        return false;
    asm volatile("" : "+r"(length));
    length = ((length - 1) & (room - 1)) + 1;
    return !bpf_skb_load_bytes(skb, packet->at, to, length);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Isolation: whoever is in an isolated cgroup, or below it, reaches nobody and is reached by nobody but through the
 * loopback device, in sessions that stay, and in networks that stay. What a host needs to keep its address is let
 * through as well: neighbours (ICMPv6) and DHCP.
 */
#ifndef DAVY_ISOLATION_H
#define DAVY_ISOLATION_H

#include "kernel.h"
#include "abi.h"

#define LOOPBACK_INDEX 1
#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547
#define ICMPV6 58

/* By cgroup: until when, in nanoseconds of the boot-time clock. Zero, which is no cgroup, has the latest of all. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, ISOLATED_MAX);
    __type(key, u64);
    __type(value, u64);
} isolated SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, ISOLATION_KEEPS_MAX);
    __type(key, struct session_key);
    __type(value, u64);
} kept_sessions SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, ISOLATION_KEEPS_MAX);
    __type(key, struct network_key);
    __type(value, u64);
} kept_networks SEC(".maps");

/* The two ends of a packet, or of what somebody asks for. Ports are zero where they are not known. */
struct ends {
    u8 remote[16];
    u16 local_port;
    u16 remote_port;
    u8 protocol;
    u8 neighbours;
    u8 reserved[2];
};

static __always_inline bool any_isolated(u64 now)
{
    u64 none = 0;
    u64 *latest = bpf_map_lookup_elem(&isolated, &none);

    return latest && *latest > now;
}

static __always_inline bool is_isolated(u64 cgroup, u64 now)
{
    u64 *until = bpf_map_lookup_elem(&isolated, &cgroup);

    return until && *until > now;
}

static __always_inline bool is_loopback(const u8 *address)
{
    u8 any = 0;

    for (int i = 0; i < 10; i++)
        any |= address[i];
    if (any)
        return false;
    if (address[10] == 0xff && address[11] == 0xff)
        return address[12] == 127;
    for (int i = 10; i < 15; i++)
        any |= address[i];
    return !any && address[15] == 1;
}

static __always_inline bool is_dhcp(u16 client, u16 server)
{
    return (client == DHCP_CLIENT && server == DHCP_SERVER) || (client == DHCP6_CLIENT && server == DHCP6_SERVER);
}

static __always_inline bool stays(const struct ends *ends)
{
    struct session_key session = {};
    struct network_key network = {.prefix = 128};

    if (is_loopback(ends->remote) || ends->neighbours)
        return true;
    if (ends->protocol == 17 && is_dhcp(ends->local_port, ends->remote_port))
        return true;
    __builtin_memcpy(session.address, ends->remote, 16);
    session.local_port = ends->local_port;
    if (ends->protocol == 6 && session.local_port && bpf_map_lookup_elem(&kept_sessions, &session))
        return true;
    __builtin_memcpy(network.address, ends->remote, 16);
    return bpf_map_lookup_elem(&kept_networks, &network) != NULL;
}

/* Neighbour and router discovery and multicast listeners: RFC 4861 and RFC 3810. */
static __always_inline bool is_neighbour_message(u8 type)
{
    return (type >= 130 && type <= 137) || type == 143;
}

#endif

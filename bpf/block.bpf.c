// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Closes destinations to the host or to a cgroup and all below it, or everything but a few (isolation.h). Whether the
 * one who asks is in the scope is settled before anything is denied; whatever is unknown is allowed.
 */
#include "kernel.h"
#include "abi.h"
#include "isolation.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALLOW 1
#define DENY 0

/* Deeper cgroups count as the one at this depth. */
#define DEPTH_MAX 32

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, struct block_key);
    __type(value, struct block_entry);
} blocked SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, struct scoped_block_key);
    __type(value, u64);
} blocked_in_scope SEC(".maps");

/*
 * Who asks: the current process, or the owner of a packet's socket. Told by a constant and not by the pointer: 6.1
 * does not know that a context is never NULL, and not every program type has both helpers.
 */
enum asker {
    CURRENT_PROCESS,
    PACKET_OWNER,
};

static __always_inline u64 ancestor(void *ctx, enum asker asker, int level)
{
    return asker == PACKET_OWNER ? bpf_skb_ancestor_cgroup_id(ctx, level) : bpf_get_current_ancestor_cgroup_id(level);
}

static __always_inline bool closed(struct block_key *key, void *ctx, enum asker asker)
{
    struct block_entry *entry = bpf_map_lookup_elem(&blocked, key);

    if (!entry)
        return false;
    u64 now = bpf_ktime_get_boot_ns();
    if (entry->host_until > now)
        return true;
    if (!entry->scopes)
        return false;
    struct scoped_block_key scoped = {};
    __builtin_memcpy(scoped.address, key->address, 16);
    scoped.port = key->port;
    for (int level = 0; level < DEPTH_MAX; level++) {
        scoped.cgroup = ancestor(ctx, asker, level);
        if (!scoped.cgroup)
            return false;
        u64 *until = bpf_map_lookup_elem(&blocked_in_scope, &scoped);
        if (until && *until > now)
            return true;
    }
    return false;
}

static __always_inline bool cut_from_all(const struct ends *ends, void *ctx, enum asker asker)
{
    u64 now = bpf_ktime_get_boot_ns();

    if (!any_isolated(now))
        return false;
    for (int level = 0; level < DEPTH_MAX; level++) {
        u64 cgroup = ancestor(ctx, asker, level);
        if (!cgroup)
            return false;
        if (is_isolated(cgroup, now))
            return !stays(ends);
    }
    return false;
}

/* What somebody asks for, before there is a packet. Which port it is sent from is not known yet. */
static __always_inline bool asks_outside(const struct block_key *key, struct bpf_sock_addr *ctx)
{
    struct ends ends = {.protocol = ctx->protocol, .remote_port = key->port};

    __builtin_memcpy(ends.remote, key->address, 16);
    if (ends.remote_port == DHCP_SERVER || ends.remote_port == DHCP6_SERVER)
        return false;
    return cut_from_all(&ends, ctx, CURRENT_PROCESS);
}

static __always_inline int judge(struct block_key *key, void *ctx, enum asker asker)
{
    u16 port = key->port;

    if (closed(key, ctx, asker))
        return DENY;
    if (!port)
        return ALLOW;
    key->port = 0;
    return closed(key, ctx, asker) ? DENY : ALLOW;
}

static __always_inline void set_v4(struct block_key *key, u32 address)
{
    key->address[10] = key->address[11] = 0xff;
    __builtin_memcpy(key->address + 12, &address, 4);
}

static __always_inline int judge_v4(struct bpf_sock_addr *ctx)
{
    struct block_key key = {};

    set_v4(&key, ctx->user_ip4);
    key.port = bpf_ntohs(ctx->user_port);
    if (asks_outside(&key, ctx))
        return DENY;
    return judge(&key, ctx, CURRENT_PROCESS);
}

static __always_inline int judge_v6(struct bpf_sock_addr *ctx)
{
    struct block_key key = {};
    u32 words[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

    __builtin_memcpy(key.address, words, 16);
    key.port = bpf_ntohs(ctx->user_port);
    if (asks_outside(&key, ctx))
        return DENY;
    return judge(&key, ctx, CURRENT_PROCESS);
}

SEC("cgroup/connect4")
int block_connect_v4(struct bpf_sock_addr *ctx)
{
    return judge_v4(ctx);
}

SEC("cgroup/connect6")
int block_connect_v6(struct bpf_sock_addr *ctx)
{
    return judge_v6(ctx);
}

SEC("cgroup/sendmsg4")
int block_send_v4(struct bpf_sock_addr *ctx)
{
    return judge_v4(ctx);
}

SEC("cgroup/sendmsg6")
int block_send_v6(struct bpf_sock_addr *ctx)
{
    return judge_v6(ctx);
}

/* Reads the ends of a packet; false for what is neither IPv4 nor IPv6 or too short to tell. */
static __always_inline bool read_ends(struct __sk_buff *skb, struct ends *ends, bool received)
{
    void *data = (void *)(long)skb->data;
    void *end = (void *)(long)skb->data_end;
    u32 header;

    if (skb->protocol == bpf_htons(0x0800)) {
        u8 *ip = data;

        if ((void *)(ip + 20) > end)
            return false;
        header = (ip[0] & 15) * 4;
        ends->protocol = ip[9];
        ends->remote[10] = ends->remote[11] = 0xff;
        __builtin_memcpy(ends->remote + 12, ip + (received ? 12 : 16), 4);
        /* Only the first fragment has ports; the later ones are judged by address alone. */
        if (*(u16 *)(ip + 6) & bpf_htons(0x1fff))
            ends->protocol = 0;
    } else if (skb->protocol == bpf_htons(0x86dd)) {
        u8 *ip = data;

        if ((void *)(ip + 40) > end)
            return false;
        header = 40;
        ends->protocol = ip[6];
        __builtin_memcpy(ends->remote, ip + (received ? 8 : 24), 16);
    } else {
        return false;
    }
    u16 *ports = data + header;
    if ((void *)(ports + 2) > end)
        return true;
    if (ends->protocol == 6 || ends->protocol == 17) {
        ends->local_port = bpf_ntohs(ports[received ? 1 : 0]);
        ends->remote_port = bpf_ntohs(ports[received ? 0 : 1]);
    } else if (ends->protocol == ICMPV6) {
        ends->neighbours = is_neighbour_message(*(u8 *)ports);
    }
    return true;
}

/* Cuts flows that live already: what they send is dropped, and they run into their time limits. */
SEC("cgroup_skb/egress")
int block_packet(struct __sk_buff *skb)
{
    struct ends ends = {};
    struct block_key key = {};

    if (!read_ends(skb, &ends, false))
        return ALLOW;
    if (skb->ifindex != LOOPBACK_INDEX && cut_from_all(&ends, skb, PACKET_OWNER))
        return DENY;
    __builtin_memcpy(key.address, ends.remote, 16);
    key.port = ends.remote_port;
    return judge(&key, skb, PACKET_OWNER);
}

/* Lets nobody in to what is isolated. */
SEC("cgroup_skb/ingress")
int isolate_packet(struct __sk_buff *skb)
{
    struct ends ends = {};

    if (skb->ifindex == LOOPBACK_INDEX || !read_ends(skb, &ends, true))
        return ALLOW;
    return cut_from_all(&ends, skb, PACKET_OWNER) ? DENY : ALLOW;
}

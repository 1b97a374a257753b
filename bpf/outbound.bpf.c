// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Which process may connect to what. Each lookup gives the rules whose condition holds: for the cgroup, the user, the port, the
 * destination. What is in all of them allows. Where neither observe nor enforce holds nothing is looked at; what cannot be found
 * out is allowed.
 */
#include "answers.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALLOW 1
#define DENY 0

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define PROTOCOL_MPTCP 262

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, OUTBOUND_RULES_MAX);
    __type(key, u32);
    __type(value, struct rule_set);
} outbound_users SEC(".maps");

/* Users of whose connections none is refused. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 256);
    __type(key, u32);
    __type(value, u32);
} outbound_spared SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 131072);
    __type(key, struct port_key);
    __type(value, struct rule_set);
} outbound_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, struct destination_key);
    __type(value, struct rule_set);
} outbound_destinations SEC(".maps");

/* What no rule allowed. User space takes entries out; the least repeated go when it does not. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, OUTBOUND_ATTEMPTS_MAX);
    __type(key, struct attempt_key);
    __type(value, struct attempt);
} outbound_attempts SEC(".maps");

static __noinline int tell_attempt(struct attempt_key *key)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct attempt *known = bpf_map_lookup_elem(&outbound_attempts, key);
    u64 now = bpf_ktime_get_boot_ns();

    if (known) {
        known->last = now;
        __sync_fetch_and_add(&known->count, 1);
        return 0;
    }
    struct attempt attempt = {.last = now, .count = 1, .pid = task->tgid};
    attempt.start = task->group_leader->start_boottime;
    bpf_get_current_comm(attempt.comm, sizeof(attempt.comm));
    return bpf_map_update_elem(&outbound_attempts, key, &attempt, BPF_ANY);
}

static __always_inline struct subject *who_asks(u64 cgroup, u32 epoch)
{
    struct subject *subject = bpf_map_lookup_elem(&outbound_subjects, &cgroup);

    if (subject && subject->epoch == epoch)
        return subject;
    if (learn_subject(cgroup))
        return NULL;
    return bpf_map_lookup_elem(&outbound_subjects, &cgroup);
}

/* Rules by the address alone: the one of the longest prefix, and those of names that led to it. */
static __always_inline void rules_to(struct rule_set *rules, struct attempt_key *wanted, u64 net)
{
    struct destination_key place = {.bits = 128};
    struct named_key key = {.net = net};

    __builtin_memcpy(place.address, wanted->address, 16);
    __builtin_memcpy(key.address, wanted->address, 16);
    add_rules(rules, bpf_map_lookup_elem(&outbound_destinations, &place));
    struct named *named = bpf_map_lookup_elem(&outbound_named, &key);
    if (named && named->until > bpf_ktime_get_boot_ns())
        add_rules(rules, &named->rules);
}

static __always_inline bool is_allowed(struct attempt_key *wanted, u64 net, struct outbound_state *state,
                                       struct subject *subject)
{
    struct port_key port = {.port = wanted->port, .protocol = wanted->protocol};
    struct rule_set *ports = bpf_map_lookup_elem(&outbound_ports, &port);
    struct rule_set *users = bpf_map_lookup_elem(&outbound_users, &wanted->uid);
    struct rule_set to = {};
    u32 protocol = wanted->protocol;
    u64 both = 0;

    if (protocol >= OUTBOUND_PROTOCOLS)
        return true;
    if (!ports)
        ports = &state->any_port[protocol];
    if (!users)
        users = &state->any_user;
    /* A socket that has no destination yet: its rules are those for all. */
    if (protocol == OUTBOUND_RAW)
        __builtin_memset(&to, 0xff, sizeof(to));
    else
        rules_to(&to, wanted, net);
    for (int i = 0; i < OUTBOUND_RULES_MAX / 64; i++)
        both |= subject->rules.words[i] & users->words[i] & ports->words[i] & to.words[i];
    return both;
}

static __noinline int judge(struct attempt_key *wanted, u64 net)
{
    struct task_struct *task = bpf_get_current_task_btf();
    u32 zero = 0;
    struct outbound_state *state = bpf_map_lookup_elem(&outbound_state, &zero);

    if (!state || task->tgid == 1 || task->flags & PF_KTHREAD)
        return ALLOW;
    wanted->cgroup = bpf_get_current_cgroup_id();
    struct subject *subject = who_asks(wanted->cgroup, state->epoch);
    if (!subject || subject->mode == OUTBOUND_OFF)
        return ALLOW;
    wanted->uid = bpf_get_current_uid_gid();
    if (is_allowed(wanted, net, state, subject))
        return ALLOW;
    wanted->refused = subject->mode == OUTBOUND_ENFORCE && !bpf_map_lookup_elem(&outbound_spared, &wanted->uid);
    tell_attempt(wanted);
    return wanted->refused ? DENY : ALLOW;
}

static __always_inline bool answers(struct bpf_sock_addr *ctx, struct attempt_key *wanted)
{
    struct heard_key key = {.cookie = bpf_get_socket_cookie(ctx), .port = wanted->port};

    __builtin_memcpy(key.address, wanted->address, 16);
    return bpf_map_lookup_elem(&outbound_heard, &key);
}

static __always_inline int judge_address(struct bpf_sock_addr *ctx, struct attempt_key *wanted, bool datagram)
{
    wanted->port = bpf_ntohs(ctx->user_port);
    if (ctx->protocol == PROTOCOL_UDP)
        wanted->protocol = OUTBOUND_UDP;
    else if (ctx->protocol != PROTOCOL_TCP && ctx->protocol != PROTOCOL_MPTCP)
        return ALLOW; /* Judged when the socket was made. */
    if (is_own(wanted->address) || (wanted->port == PORT_DNS && is_resolver(wanted->address)))
        return ALLOW;
    if (datagram && answers(ctx, wanted))
        return ALLOW;
    return judge(wanted, bpf_get_netns_cookie(ctx));
}

static __always_inline int judge_v4(struct bpf_sock_addr *ctx, bool datagram)
{
    struct attempt_key wanted = {};

    map_v4(wanted.address, ctx->user_ip4);
    return judge_address(ctx, &wanted, datagram);
}

static __always_inline int judge_v6(struct bpf_sock_addr *ctx, bool datagram)
{
    struct attempt_key wanted = {};
    u32 words[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

    __builtin_memcpy(wanted.address, words, 16);
    return judge_address(ctx, &wanted, datagram);
}

SEC("cgroup/connect4")
int outbound_connect_v4(struct bpf_sock_addr *ctx)
{
    return judge_v4(ctx, false);
}

SEC("cgroup/connect6")
int outbound_connect_v6(struct bpf_sock_addr *ctx)
{
    return judge_v6(ctx, false);
}

SEC("cgroup/sendmsg4")
int outbound_send_v4(struct bpf_sock_addr *ctx)
{
    return judge_v4(ctx, true);
}

SEC("cgroup/sendmsg6")
int outbound_send_v6(struct bpf_sock_addr *ctx)
{
    return judge_v6(ctx, true);
}

/* What needs no connection to talk, or talks to many: judged once, when it is made. */
SEC("cgroup/sock_create")
int outbound_socket(struct bpf_sock *sk)
{
    struct attempt_key wanted = {.protocol = OUTBOUND_RAW};
    u32 protocol = sk->protocol, type = sk->type;

    if (type == SOCK_STREAM && (protocol == PROTOCOL_TCP || protocol == PROTOCOL_MPTCP))
        return ALLOW;
    if (type == SOCK_DGRAM && protocol == PROTOCOL_UDP)
        return ALLOW;
    return judge(&wanted, 0);
}

/* Only where there are rules by name. */
SEC("cgroup_skb/egress")
int outbound_sent(struct __sk_buff *skb)
{
    look_at_datagram(skb, false);
    return ALLOW;
}

SEC("cgroup_skb/ingress")
int outbound_received(struct __sk_buff *skb)
{
    look_at_datagram(skb, true);
    return ALLOW;
}

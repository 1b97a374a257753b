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

/*
 * A datagram socket that was given a destination which no rule allows. That sends nothing: resolvers do so to learn which of their own
 * addresses would be used. So it is refused, and told, when it sends. What it sends is judged from then on datagram by datagram,
 * wherever it goes: which destination the socket has at that moment may change between two of the kernel's steps.
 */
struct unsent {
    /* The destination that was told last, if any was; and whether it is refused, by what held when its cgroup was last known. */
    struct attempt_key wanted;
    struct attempt who;
    u64 net;
    /* Zero before anything was told, else 1, or 2 for a refusal. */
    u32 told;
    u32 reserved;
};

/* With the socket itself: nobody can push it out, and it goes when the socket goes. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct unsent);
} outbound_unsent SEC(".maps");

static __always_inline void who_tries(struct attempt *attempt)
{
    struct task_struct *task = bpf_get_current_task_btf();

    attempt->count = 1;
    attempt->pid = task->tgid;
    attempt->start = task->group_leader->start_boottime;
    bpf_get_current_comm(attempt->comm, sizeof(attempt->comm));
}

static __noinline int tell_attempt(struct attempt_key *key, struct attempt *attempt)
{
    struct attempt *known = bpf_map_lookup_elem(&outbound_attempts, key);

    attempt->last = bpf_ktime_get_boot_ns();
    if (known) {
        known->last = attempt->last;
        __sync_fetch_and_add(&known->count, 1);
        return 0;
    }
    return bpf_map_update_elem(&outbound_attempts, key, attempt, BPF_ANY);
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

/* By what holds for this subject; says in `wanted` what is to be done where no rule allows it. */
static __noinline bool passes(struct attempt_key *wanted, u64 net, struct outbound_state *state,
                              struct subject *subject)
{
    if (!state || !subject || subject->mode == OUTBOUND_OFF || is_allowed(wanted, net, state, subject))
        return true;
    wanted->refused = subject->mode == OUTBOUND_ENFORCE && !bpf_map_lookup_elem(&outbound_spared, &wanted->uid);
    return false;
}

/* Whether this process may; fills in who it is. */
static __noinline bool may(struct attempt_key *wanted, u64 net)
{
    struct task_struct *task = bpf_get_current_task_btf();
    u32 zero = 0;
    struct outbound_state *state = bpf_map_lookup_elem(&outbound_state, &zero);

    if (!state || task->tgid == 1 || task->flags & PF_KTHREAD)
        return true;
    wanted->cgroup = bpf_get_current_cgroup_id();
    wanted->uid = bpf_get_current_uid_gid();
    return passes(wanted, net, state, who_asks(wanted->cgroup, state->epoch));
}

static __always_inline int judge(struct attempt_key *wanted, u64 net)
{
    struct attempt attempt = {};

    if (may(wanted, net))
        return ALLOW;
    who_tries(&attempt);
    tell_attempt(wanted, &attempt);
    return wanted->refused ? DENY : ALLOW;
}

/* A datagram socket is given a destination. */
static __always_inline int judge_later(struct bpf_sock_addr *ctx, struct attempt_key *wanted)
{
    struct bpf_sock *sk = ctx->sk;
    u64 net = bpf_get_netns_cookie(ctx);
    struct attempt attempt = {};

    if (may(wanted, net))
        return ALLOW;
    who_tries(&attempt);
    struct unsent *unsent =
        sk ? bpf_sk_storage_get(&outbound_unsent, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
    if (!unsent) {
        /* The socket has no room for it, which takes somebody who fills it up. */
        tell_attempt(wanted, &attempt);
        return wanted->refused ? DENY : ALLOW;
    }
    unsent->wanted = *wanted;
    unsent->who = attempt;
    unsent->net = net;
    unsent->told = 0;
    return ALLOW;
}

static __always_inline bool was_heard(u64 cookie, const u8 *address, u16 port)
{
    struct heard_key key = {.cookie = cookie, .port = port};

    __builtin_memcpy(key.address, address, 16);
    return bpf_map_lookup_elem(&outbound_heard, &key);
}

static __always_inline bool is_open(const u8 *address, u16 port)
{
    return is_own(address) || (port == PORT_DNS && is_resolver(address));
}

static __always_inline bool same_destination(const struct attempt_key *one, const struct attempt_key *other)
{
    const u64 *a = (const u64 *)one->address, *b = (const u64 *)other->address;

    return a[0] == b[0] && a[1] == b[1] && one->port == other->port;
}

/*
 * Something is about to go out of such a socket. Who sends may not be the process here, so that the cgroup is asked only where it is
 * known already; where it is not, and of what cannot be read, what was found when the socket got its destination goes on, as far as
 * anything is refused anywhere.
 */
static __noinline int judge_sent(struct __sk_buff *skb, struct unsent *unsent)
{
    struct packet packet = {};
    u32 zero = 0;
    struct outbound_state *state = bpf_map_lookup_elem(&outbound_state, &zero);

    if (!unsent || !state || state->strictest == OUTBOUND_OFF)
        return ALLOW;
    struct attempt_key wanted = unsent->wanted;
    if (state->strictest != OUTBOUND_ENFORCE)
        wanted.refused = 0;
    if (read_packet(skb, &packet, false) && packet.protocol == PROTOCOL_UDP) {
        struct subject *subject = bpf_map_lookup_elem(&outbound_subjects, &wanted.cgroup);

        if (is_open(packet.remote, packet.remote_port) ||
            was_heard(bpf_get_socket_cookie(skb), packet.remote, packet.remote_port))
            return ALLOW;
        __builtin_memcpy(wanted.address, packet.remote, 16);
        wanted.port = packet.remote_port;
        if (subject && subject->epoch == state->epoch) {
            if (passes(&wanted, unsent->net, state, subject))
                return ALLOW;
            unsent->wanted.refused = wanted.refused;
        }
    }
    u32 told = wanted.refused ? 2 : 1;

    if (unsent->told != told || !same_destination(&wanted, &unsent->wanted)) {
        struct attempt attempt = unsent->who;

        unsent->told = told;
        __builtin_memcpy(unsent->wanted.address, wanted.address, 16);
        unsent->wanted.port = wanted.port;
        tell_attempt(&wanted, &attempt);
    }
    return wanted.refused ? DENY : ALLOW;
}

static __always_inline int judge_address(struct bpf_sock_addr *ctx, struct attempt_key *wanted, bool datagram)
{
    wanted->port = bpf_ntohs(ctx->user_port);
    if (ctx->protocol == PROTOCOL_UDP)
        wanted->protocol = OUTBOUND_UDP;
    else if (ctx->protocol != PROTOCOL_TCP && ctx->protocol != PROTOCOL_MPTCP)
        return ALLOW; /* Judged when the socket was made. */
    if (is_open(wanted->address, wanted->port))
        return ALLOW;
    if (wanted->protocol == OUTBOUND_UDP && !datagram)
        return judge_later(ctx, wanted);
    if (datagram && was_heard(bpf_get_socket_cookie(ctx), wanted->address, wanted->port))
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

SEC("cgroup_skb/egress")
int outbound_sent(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;

    sk = sk ? bpf_sk_fullsock(sk) : NULL;
    struct unsent *unsent = sk ? bpf_sk_storage_get(&outbound_unsent, sk, NULL, 0) : NULL;
    if (unsent && judge_sent(skb, unsent) == DENY)
        return DENY;
    look_at_datagram(skb, false);
    return ALLOW;
}

SEC("cgroup_skb/ingress")
int outbound_received(struct __sk_buff *skb)
{
    look_at_datagram(skb, true);
    return ALLOW;
}

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * What is remembered of who came to which port, and what of it is told. Every table is bounded, and a flood pushes out its own
 * traces first.
 */
#ifndef DAVY_FIRSTS_H
#define DAVY_FIRSTS_H

#include "kernel.h"
#include "abi.h"

#define SECOND 1000000000ULL

/* A port that took no connection for so long may not be open any more. */
#define OPEN_FOR (3600 * SECOND)

/* So much is told, each as a rate a second and a burst: of one source; of all sources that come again; of all that come for the
 * first time; of those of them that visit what is open, which teach nothing but how usual that is; and of all that completed a
 * handshake, which those that may be forged take no room from. */
#define SOURCE_RATE 100
#define SOURCE_BURST 2048
#define AGAIN_RATE 8000
#define AGAIN_BURST 16000
#define FRESH_RATE 2000
#define FRESH_BURST 4000
#define VISIT_RATE 200
#define VISIT_BURST 400
#define PROVEN_RATE 4000
#define PROVEN_BURST 8000

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} told SEC(".maps");

/* This host's addresses, kept by user space. What goes through to others is none of its business. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u8[16]);
    __type(value, u32);
} locals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct probe_key);
    __type(value, u64);
} firsts SEC(".maps");

/* Whoever began it. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 32768);
    __type(key, struct talk_key);
    __type(value, u32);
} talks SEC(".maps");

struct source_state {
    u64 arrival;
    u32 seen;
    u32 reserved;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 32768);
    __type(key, u8[16]);
    __type(value, struct source_state);
} sources SEC(".maps");

/* Sources that completed a handshake, apart from the others: forged ones never get in here, nor push anyone out. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, u8[16]);
    __type(value, u64);
} proven SEC(".maps");

struct handshake {
    u32 acknowledges;
    u32 whose;
};

/* Handshakes of which the last part is not here yet, by a hash of who has them; a later one takes the place of an earlier. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536);
    __type(key, u32);
    __type(value, struct handshake);
} handshakes SEC(".maps");

/* When a port last took a connection, by its number. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536);
    __type(key, u32);
    __type(value, u64);
} opened SEC(".maps");

enum budget {
    BUDGET_AGAIN = 0,
    BUDGET_FRESH = 1,
    BUDGET_VISIT = 2,
    BUDGET_PROVEN = 3,
    BUDGETS = 4,
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, BUDGETS);
    __type(key, u32);
    __type(value, u64);
} budgets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PROBE_COUNTS);
    __type(key, u32);
    __type(value, u64);
} counts SEC(".maps");

static __always_inline void count(u32 what)
{
    u64 *counter = bpf_map_lookup_elem(&counts, &what);

    if (counter)
        (*counter)++;
}

/* A token bucket as the time at which it is full again; a race between processors costs a token at most. */
static __always_inline bool pay(u64 *arrival, u64 now, u64 rate, u64 burst)
{
    u64 interval = SECOND / rate;
    u64 at = *arrival > now ? *arrival : now;

    if (at - now > interval * burst)
        return false;
    *arrival = at + interval;
    return true;
}

static __always_inline bool pay_from(u32 budget, u64 now, u64 rate, u64 burst)
{
    u64 *arrival = bpf_map_lookup_elem(&budgets, &budget);

    return arrival && pay(arrival, now, rate, burst);
}

/* Whether the source completed a handshake, and there is room to tell of one that did. */
static __always_inline bool may_tell_proven(struct probe_record *record)
{
    record->proven = bpf_map_lookup_elem(&proven, record->key.source) != 0;
    return record->proven && pay_from(BUDGET_PROVEN, record->time, PROVEN_RATE, PROVEN_BURST);
}

/* Whether there is room to tell of a source that was not told of before; counts it when there is not. */
static __always_inline bool may_tell_fresh(struct probe_record *record)
{
    u64 now = record->time;

    if (may_tell_proven(record))
        return true;
    if (record->open ? pay_from(BUDGET_VISIT, now, VISIT_RATE, VISIT_BURST)
                     : pay_from(BUDGET_FRESH, now, FRESH_RATE, FRESH_BURST))
        return true;
    count(record->open ? COUNT_SAMPLED : COUNT_THROTTLED);
    return false;
}

/* The same of one that comes again. */
static __always_inline bool may_tell_again(struct source_state *state, struct probe_record *record)
{
    u64 now = record->time;

    if (pay(&state->arrival, now, SOURCE_RATE, SOURCE_BURST) &&
        (may_tell_proven(record) || pay_from(BUDGET_AGAIN, now, AGAIN_RATE, AGAIN_BURST)))
        return true;
    count(COUNT_THROTTLED);
    return false;
}

/*
 * Tells of it, unless the same was told before. What there is no room for leaves no trace, so that a flood costs little and
 * pushes nobody out, and who comes again may be told then.
 */
static __always_inline void tell(struct probe_record *record)
{
    struct probe_key *key = &record->key;
    struct source_state *state = bpf_map_lookup_elem(&sources, key->source);
    bool probe = key->kind < ANSWER_OPEN;

    if (state && bpf_map_lookup_elem(&firsts, key))
        return;
    if (!record->time)
        record->time = bpf_ktime_get_boot_ns();
    record->seen = probe;
    if (state) {
        if (probe)
            __sync_fetch_and_add(&state->seen, 1);
        record->seen = state->seen;
        if (!may_tell_again(state, record))
            return;
    } else {
        struct source_state fresh = {.seen = probe};

        if (!may_tell_fresh(record))
            return;
        bpf_map_update_elem(&sources, key->source, &fresh, BPF_NOEXIST);
    }
    bpf_map_update_elem(&firsts, key, &record->time, BPF_ANY);
    if (bpf_ringbuf_output(&told, record, sizeof(*record), 0))
        count(COUNT_FULL);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Flows that are not told one by one. A process that opens many flows to one destination, or a port at which many are
 * accepted, has its first ones told singly; the others are counted here when they end, unless something made them
 * worth telling before. User space reads the counts now and then, and takes out entries that nobody touches.
 */
#ifndef DAVY_AGGREGATE_H
#define DAVY_AGGREGATE_H

#include "lanes.h"

/* Told singly for each key: a burst, and so many a second. */
#define SINGLE_BURST 64
#define SINGLES_PER_SECOND 16

/* When full, flows to further destinations are bounded by their process's bucket alone. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, AGGREGATES_MAX);
    __type(key, struct aggregate_key);
    __type(value, struct aggregate);
} aggregates SEC(".maps");

/* The entry of a key, made if there is none. The clock is read for a new one only, when the caller did not. */
static __always_inline struct aggregate *aggregate_of(struct aggregate_key *key, u64 now)
{
    struct aggregate *known = bpf_map_lookup_elem(&aggregates, key);

    if (known)
        return known;
    if (!now)
        now = bpf_ktime_get_boot_ns();
    struct aggregate fresh = {.touched = now};
    bpf_map_update_elem(&aggregates, key, &fresh, BPF_NOEXIST);
    return bpf_map_lookup_elem(&aggregates, key);
}

/* Whether a flow that begins is told by itself. `bucket` is the process's, or stands for the port. */
static __always_inline bool tell_singly(struct aggregate_key *key, u32 bucket, u64 now)
{
    struct aggregate *known = aggregate_of(key, now);

    if (known)
        known->touched = now;
    if (known && !admit(&known->arrival, now, PER_SECOND(SINGLES_PER_SECOND), SINGLE_BURST))
        return false;
    return admit_process(bucket, BUCKET_FLOW, now, PER_SECOND(5000), 10000);
}

/* Counts a flow that ended without having been told. */
static __always_inline void count_flow(struct aggregate_key *key, struct volume *volume)
{
    struct aggregate *known = aggregate_of(key, 0);

    if (!known) {
        count_loss(RECORD_FLOW_OPEN, LOSS_THROTTLED);
        return;
    }
    __sync_fetch_and_add(&known->flows, 1);
    if (volume->sent_packets) {
        __sync_fetch_and_add(&known->volume.sent_bytes, volume->sent_bytes);
        __sync_fetch_and_add(&known->volume.sent_packets, volume->sent_packets);
    }
    if (volume->received_packets) {
        __sync_fetch_and_add(&known->volume.received_bytes, volume->received_bytes);
        __sync_fetch_and_add(&known->volume.received_packets, volume->received_packets);
    }
}

#endif

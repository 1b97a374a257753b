/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* The tables of the judge of code, whom it binds, and how what it finds is told. */
#ifndef DAVY_TRUST_H
#define DAVY_TRUST_H

#include "lanes.h"

#define DEPTH_MAX 32
#define EPOCHS 4096
#define SECOND 1000000000ULL
#define SHA256_BYTES 32

/* Within which a file that was mapped as code counts as mapped, although the mapping may not be there yet. */
#define MAPPING_TIME (10 * SECOND)

/* Of the same kind of act on the same file one is told in this time; the others are counted. */
#define TELL_AGAIN (60 * SECOND)

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, u8[SHA256_BYTES]);
    __type(value, struct digest_place);
} digests SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536);
    __type(key, u32);
    __type(value, struct digest_judgement);
} judgements SEC(".maps");

/* Least recently used files are forgotten when full. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct file_key);
    __type(value, struct file_verdict);
} files SEC(".maps");

/* Until when what trusted writers wrote is trusted, and by whom, as a mark says it. */
struct written_content {
    u32 until;
    u32 source;
};

/* Contents that trusted writers alone wrote, by digest: a copy is as good as what was copied. The oldest are forgotten. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, u8[SHA256_BYTES]);
    __type(value, struct written_content);
} written SEC(".maps");

/* When a mark was last set, in seconds of the boot-time clock. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} last_mark SEC(".maps");

/* By device; devices that share a place only forget more often. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, EPOCHS);
    __type(key, u32);
    __type(value, u64);
} epochs SEC(".maps");

/* By cgroup id; zero is the host. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, u64);
    __type(value, struct trust_scope);
} scopes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct trust_state);
} trust_state SEC(".maps");

/* The number of the next judge. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} judges SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, struct told_key);
    __type(value, struct told);
} told SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CODE_KINDS * JUDGED_COUNTS);
    __type(key, u32);
    __type(value, u64);
} judged_counts SEC(".maps");

/* What a digest lets its program do. */
struct rights {
    u32 flags;
    u32 marks;
    u32 source;
    u32 classes;
    u32 services;
    u32 releases;
};

#define NAME_WORDS 16
#define NAME_BYTES 256

/* A process whose program may do more than run, or interprets. */
struct program {
    struct rights now;
    /* Those of the program that is being executed. */
    struct rights next;
    /* A Bloom filter of the file names among its arguments; names once they were read. */
    u64 names[NAME_WORDS];
    u32 has_names;
    /* It followed a named link to nobody knows where. */
    u32 judge_next;
    /* Scratch: this process alone uses it, whoever runs meanwhile. */
    u8 text[NAME_BYTES];
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct program);
} programs SEC(".maps");

/* Processes that come from a service; apart from `programs`, because user space writes here as well. */
struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct service_bound);
} bound SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct service_profiles);
} profiles SEC(".maps");

/* A constant the compiler cannot compute with: 6.12 wants to see that a hook returns within [-4095, 0]. */
static __always_inline int refuse(void)
{
    int result;

    asm volatile("%[result] = -1" : [result] "=r"(result));
    return result;
}

static __always_inline struct trust_state *the_state(void)
{
    u32 zero = 0;

    return bpf_map_lookup_elem(&trust_state, &zero);
}

static __always_inline struct program *current_program(void)
{
    return bpf_task_storage_get(&programs, bpf_get_current_task_btf(), 0, 0);
}

static __always_inline bool program_may(u32 flag)
{
    struct program *program = current_program();

    return program && program->now.flags & flag;
}

/*
 * The mode that binds the current process: of the nearest cgroup that has one, else the host's. Nobody is bound below an
 * exempt cgroup, and the first process is watched only.
 */
static __noinline u32 mode_of(u32 kind)
{
    u64 host = 0;
    struct trust_scope *scope = bpf_map_lookup_elem(&scopes, &host);
    u32 mode = MODE_OFF;

    if (kind >= CODE_KINDS)
        return MODE_OFF;
    if (scope)
        mode = scope->modes[kind];
    for (int level = 0; level < DEPTH_MAX; level++) {
        u64 id = bpf_get_current_ancestor_cgroup_id(level);

        if (!id)
            break;
        scope = bpf_map_lookup_elem(&scopes, &id);
        if (!scope)
            continue;
        if (scope->exempt)
            return scope->modes[kind] == MODE_READ ? MODE_READ : MODE_OFF;
        mode = scope->modes[kind];
    }
    if (mode == MODE_ENFORCE && (bpf_get_current_pid_tgid() >> 32) == 1)
        return MODE_OBSERVE;
    return mode;
}

static __always_inline void count_judged(u32 kind, enum judged_count what)
{
    u32 index = kind * JUDGED_COUNTS + what;
    u64 *count = bpf_map_lookup_elem(&judged_counts, &index);

    if (count)
        (*count)++;
}

/* Whether to tell of it now, and of how many that were not told. */
static __always_inline bool tell_now(struct file_key *key, u32 kind, u32 reason, u32 outcome, u64 now, u64 *repeats)
{
    /* Without a file, by process. */
    u64 what = key->ino ? key->ino : bpf_get_current_pid_tgid() >> 32;
    struct told_key about = {.ino = what, .dev = key->dev, .what = (u64)outcome << 16 | kind << 8 | reason};
    struct told *before = bpf_map_lookup_elem(&told, &about);
    struct told fresh = {.time = now};

    *repeats = 0;
    if (!before) {
        bpf_map_update_elem(&told, &about, &fresh, BPF_ANY);
        return true;
    }
    if (now - before->time < TELL_AGAIN) {
        __sync_fetch_and_add(&before->repeats, 1);
        return false;
    }
    *repeats = before->repeats;
    before->repeats = 0;
    before->time = now;
    return true;
}

/* What came of looking at code. A reason of zero means that it is trusted. */
struct finding {
    struct file_key key;
    u32 kind;
    u32 reason;
    u32 has_sha256;
    u32 reserved;
    struct rights rights;
    u8 sha256[SHA256_BYTES];
};

/* Begins a record; nothing when it is not to be told, or cannot be. */
static __always_inline struct judged_record *begin_judged(struct finding *found, u32 outcome)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    u64 now = bpf_ktime_get_boot_ns();
    u64 repeats;

    if (!tell_now(&found->key, found->kind, found->reason, outcome, now, &repeats))
        return 0;
    if (!admit_process(BPF_CORE_READ(task, tgid), BUCKET_ACT, now, PER_SECOND(50), 100)) {
        count_loss(RECORD_JUDGED, LOSS_THROTTLED);
        return 0;
    }
    struct judged_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_JUDGED, LOSS_FULL);
        return 0;
    }
    begin_at(&record->head, RECORD_JUDGED, now, task);
    record->ino = found->key.ino;
    record->dev = found->key.dev;
    record->repeats = repeats;
    __builtin_memcpy(record->sha256, found->sha256, SHA256_BYTES);
    record->kind = found->kind;
    record->reason = found->reason;
    record->outcome = outcome;
    record->has_sha256 = found->has_sha256;
    record->path_len = 0;
    record->reserved = 0;
    return record;
}

static __always_inline u32 outcome_of(struct finding *found, u32 mode)
{
    bool denied = mode == MODE_ENFORCE;

    if (found->reason == REASON_MARKED)
        return OUTCOME_MARKED;
    count_judged(found->kind, denied ? COUNT_DENIED : COUNT_WOULD_DENY);
    return denied ? OUTCOME_DENIED : OUTCOME_WOULD_DENY;
}

static __always_inline bool tells(u32 mode)
{
    return mode == MODE_OBSERVE || mode == MODE_ENFORCE;
}

/* Refuses, or tells that it would have been refused. */
static __always_inline int settle(struct finding *found, u32 mode)
{
    if (!found->reason || !tells(mode))
        return 0;
    u32 outcome = outcome_of(found, mode);
    struct judged_record *record = begin_judged(found, outcome);
    if (record)
        bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return outcome == OUTCOME_DENIED ? refuse() : 0;
}

/* The same with the path, from a hook that may sleep. */
static __always_inline int settle_with_path(struct finding *found, u32 mode, struct path *path)
{
    if (!found->reason || !tells(mode))
        return 0;
    u32 outcome = outcome_of(found, mode);
    struct judged_record *record = begin_judged(found, outcome);
    if (record) {
        long length = bpf_d_path(path, (char *)record->path, sizeof(record->path));

        if (length > 0 && length <= sizeof(record->path))
            record->path_len = length;
        bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    }
    return outcome == OUTCOME_DENIED ? refuse() : 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * What is known of files by their content.
 *
 * The place of a file in the cache can be taken for another file at any moment, also while a program holds a pointer to
 * it. So what decides is one word, `state`, and it is given a verdict only by exchanging it for the number that this very
 * judge wrote there before it read the file: whoever opens the file for writing meanwhile sets the word to zero, the
 * exchange fails, and nothing is kept. A word that is lost means that the file is read again, never a wrong answer.
 */
#ifndef DAVY_CONTENT_H
#define DAVY_CONTENT_H

#include "trust.h"

/* enum hash_algo */
#define HASH_ALGO_SHA256 4

#define EXT4_SUPER_MAGIC 0xef53
#define XFS_SUPER_MAGIC 0x58465342
#define F2FS_SUPER_MAGIC 0xf2f52010
#define SQUASHFS_MAGIC 0x73717368
#define EROFS_SUPER_MAGIC_V1 0xe0f5e1e2
#define FUSE_SUPER_MAGIC 0x65735546
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define FIRST_USER_NAMESPACE 0xeffffffd

/* `state`: a judge's number, the place and serial of a digest, a mark with its source and end, or a digest unknown. */
#define STATE_JUDGING (1ULL << 63)
#define STATE_DIGEST (1ULL << 60)
#define STATE_MARK (2ULL << 60)
#define STATE_UNKNOWN (3ULL << 60)
#define STATE_FORM (7ULL << 60)
/* Of a mark: the digest of what it stands on is among the contents that were written. */
#define STATE_MARK_READ (1ULL << 48)
#define SERIAL_MASK 0xffffff

/* Whether what is known of a file here may be kept: every change of its bytes goes by hooks that see this inode. */
static __always_inline bool keeps(u64 magic)
{
    return magic == EXT4_SUPER_MAGIC || magic == XFS_SUPER_MAGIC || magic == TMPFS_MAGIC || magic == F2FS_SUPER_MAGIC ||
           magic == SQUASHFS_MAGIC || magic == EROFS_SUPER_MAGIC_V1;
}

/* Whether another than the kernel chooses what each reader gets, so that a digest says nothing. */
static __always_inline bool unstable(struct super_block *sb)
{
    return sb->s_magic == FUSE_SUPER_MAGIC ||
           (sb->s_magic == OVERLAYFS_SUPER_MAGIC && sb->s_user_ns->ns.inum != FIRST_USER_NAMESPACE);
}

static __always_inline u64 *epoch_of(u64 dev)
{
    /* Anonymous devices count upwards in the minor; a major's disks are few. */
    u32 place = (dev ^ dev >> 20) % EPOCHS;

    return bpf_map_lookup_elem(&epochs, &place);
}

enum answer {
    ANSWER_NONE,
    ANSWER_TRUSTED,
    ANSWER_DISTRUSTED,
};

static __always_inline u32 boot_seconds(void)
{
    return bpf_ktime_get_boot_ns() / SECOND;
}

/* What the digest at a place says now. */
static __always_inline enum answer answer_of_digest(u32 place, u32 serial, struct finding *found)
{
    struct digest_judgement *judgement = bpf_map_lookup_elem(&judgements, &place);

    if (!judgement || (judgement->serial & SERIAL_MASK) != serial)
        return ANSWER_NONE;
    if (judgement->verdict == VERDICT_DENY) {
        found->reason = REASON_BLOCKED;
        return ANSWER_DISTRUSTED;
    }
    if (judgement->verdict != VERDICT_ALLOW)
        return ANSWER_NONE;
    if (judgement->until && judgement->until <= boot_seconds()) {
        found->reason = REASON_EXPIRED;
        return ANSWER_DISTRUSTED;
    }
    found->rights.flags = judgement->flags;
    found->rights.marks = judgement->marks;
    found->rights.source = judgement->source;
    found->rights.classes = judgement->classes;
    found->rights.services = judgement->services;
    found->rights.releases = judgement->releases;
    return ANSWER_TRUSTED;
}

static __always_inline enum answer answer_of_state(u64 state, struct finding *found)
{
    if (state & STATE_JUDGING)
        return ANSWER_NONE;
    switch (state & STATE_FORM) {
    case STATE_DIGEST:
        return answer_of_digest(state, state >> 32 & SERIAL_MASK, found);
    case STATE_MARK:
        if ((u32)state <= boot_seconds())
            return ANSWER_NONE;
        found->reason = REASON_MARKED;
        found->rights.source = state >> 32 & 0xffff;
        return ANSWER_TRUSTED;
    case STATE_UNKNOWN: {
        struct trust_state *settings = the_state();

        if (!settings || settings->vouched != (u32)state)
            return ANSWER_NONE;
        found->reason = REASON_UNKNOWN;
        return ANSWER_DISTRUSTED;
    }
    }
    return ANSWER_NONE;
}

static __always_inline struct file_verdict *known_of(struct file_key *key, struct inode *inode, u64 epoch)
{
    struct file_verdict *known = bpf_map_lookup_elem(&files, key);

    if (known && (known->epoch != epoch || known->generation != inode->i_generation))
        return 0;
    return known;
}

/* Read once, whatever the compiler thinks of it. */
static __always_inline u64 state_of(struct file_verdict *known)
{
    return *(volatile u64 *)&known->state;
}

static __always_inline bool written_now(struct inode *inode)
{
    return inode->i_writecount.counter > 0;
}

/* Asks the cache. The mapping is noted before the writers are looked at, as they do it the other way round. */
static __always_inline enum answer ask_cache(struct inode *inode, u64 epoch, bool maps, struct finding *found)
{
    struct file_verdict *known = known_of(&found->key, inode, epoch);

    if (!known)
        return ANSWER_NONE;
    if (maps)
        known->mapped = bpf_ktime_get_boot_ns();
    enum answer answer = answer_of_state(state_of(known), found);
    if (answer == ANSWER_TRUSTED && written_now(inode)) {
        found->reason = REASON_OPEN_FOR_WRITING;
        return ANSWER_DISTRUSTED;
    }
    return answer;
}

/* Announces a judge; gives the number that its verdict is exchanged for. */
static __always_inline u64 begin_judging(struct inode *inode, u64 epoch, bool maps, struct finding *found)
{
    struct file_verdict *known = known_of(&found->key, inode, epoch);
    u32 zero = 0;
    u64 *judge = bpf_map_lookup_elem(&judges, &zero);

    if (!judge)
        return 0;
    u64 number = STATE_JUDGING | __sync_fetch_and_add(judge, 1);
    u64 now = maps ? bpf_ktime_get_boot_ns() : 0;
    if (known) {
        if (maps)
            known->mapped = now;
        __sync_lock_test_and_set(&known->state, number);
        return number;
    }
    struct file_verdict fresh = {
        .state = number,
        .epoch = epoch,
        .mapped = now,
        .generation = inode->i_generation,
    };
    bpf_map_update_elem(&files, &found->key, &fresh, BPF_ANY);
    return number;
}

static __always_inline void end_judging(struct finding *found, u64 number, u64 state)
{
    struct file_verdict *known = bpf_map_lookup_elem(&files, &found->key);

    if (known)
        __sync_val_compare_and_swap(&known->state, number, state);
}

static __always_inline u64 mark_of(u32 source, u32 until)
{
    return STATE_MARK | (u64)(source & 0xffff) << 32 | until;
}

/*
 * Reads a marked file once and remembers its content, so that copies by anyone are trusted like it. A trusted writer that
 * comes while it is read may leave a content that is not remembered, never one that is and should not be: every byte that
 * can be read is a trusted writer's.
 */
static __always_inline void remember_written(struct file *file, struct inode *inode, struct finding *found)
{
    struct file_verdict *known = bpf_map_lookup_elem(&files, &found->key);
    u64 state = known ? state_of(known) : 0;
    struct written_content content = {.until = state, .source = state >> 32 & 0xffff};

    if (state & STATE_JUDGING || (state & STATE_FORM) != STATE_MARK || state & STATE_MARK_READ || written_now(inode))
        return;
    count_judged(found->kind, COUNT_HASHED);
    if (bpf_ima_file_hash(file, found->sha256, SHA256_BYTES) != HASH_ALGO_SHA256)
        return;
    known = bpf_map_lookup_elem(&files, &found->key);
    if (!known || written_now(inode) || __sync_val_compare_and_swap(&known->state, state, state | STATE_MARK_READ) != state)
        return;
    found->has_sha256 = 1;
    bpf_map_update_elem(&written, found->sha256, &content, BPF_ANY);
}

/* Reads the file and asks its digest. For hooks that may sleep. */
static __always_inline void judge_content(struct file *file, struct inode *inode, u64 number, struct finding *found)
{
    struct trust_state *settings = the_state();
    u32 vouched = settings ? settings->vouched : 0;

    if (written_now(inode)) {
        found->reason = REASON_OPEN_FOR_WRITING;
        return;
    }
    count_judged(found->kind, COUNT_HASHED);
    if (bpf_ima_file_hash(file, found->sha256, SHA256_BYTES) != HASH_ALGO_SHA256) {
        found->reason = REASON_UNREADABLE;
        return;
    }
    found->has_sha256 = 1;
    struct digest_place *place = bpf_map_lookup_elem(&digests, found->sha256);
    u64 state = STATE_UNKNOWN | vouched;
    enum answer answer = ANSWER_NONE;
    if (place) {
        u32 serial = place->serial & SERIAL_MASK;

        state = STATE_DIGEST | (u64)serial << 32 | place->place;
        answer = answer_of_digest(place->place, serial, found);
    } else {
        struct written_content *content = bpf_map_lookup_elem(&written, found->sha256);

        if (content && content->until > boot_seconds()) {
            state = mark_of(content->source, content->until) | STATE_MARK_READ;
            found->reason = REASON_MARKED;
            answer = ANSWER_TRUSTED;
        }
    }
    if (answer == ANSWER_NONE)
        found->reason = REASON_UNKNOWN;
    if (written_now(inode)) {
        found->reason = REASON_OPEN_FOR_WRITING;
        return;
    }
    if (number)
        end_judging(found, number, state);
}

static __always_inline bool nameless(struct inode *inode, struct super_block *sb)
{
    return !inode->i_nlink || (inode->i_mode & S_IFMT) != S_IFREG ||
           (sb->s_flags & SB_KERNMOUNT && (sb->s_magic == TMPFS_MAGIC || sb->s_magic == HUGETLBFS_MAGIC));
}

#endif

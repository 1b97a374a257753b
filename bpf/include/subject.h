/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Who wants to connect: the rules that may be about it, and what holds where it is, by the names of the cgroups it is in. */
#ifndef DAVY_SUBJECT_H
#define DAVY_SUBJECT_H

#include "workbench.h"

/* A cgroup that lies deeper than this was put there to be lost. */
#define CLIMB_MAX 256

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct outbound_state);
} outbound_state SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, OUTBOUND_RULES_MAX);
    __type(key, struct unit_key);
    __type(value, struct rule_set);
} outbound_units SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, OUTBOUND_RULES_MAX);
    __type(key, struct container_key);
    __type(value, struct rule_set);
} outbound_containers SEC(".maps");

/* enum outbound_mode by the path of a cgroup; the innermost decides. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, struct place_key);
    __type(value, u32);
} outbound_places SEC(".maps");

/* What was found out about a cgroup. Names of cgroups never change, so it holds as long as its epoch. */
struct subject {
    struct rule_set rules;
    u32 epoch;
    u32 mode;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, OUTBOUND_SUBJECTS_MAX);
    __type(key, u64);
    __type(value, struct subject);
} outbound_subjects SEC(".maps");

static __always_inline bool ends_with(const struct unit_key *key, u32 length, const char *end, u32 end_length)
{
    if (length <= end_length)
        return false;
    for (u32 i = 0; i < end_length; i++)
        if (key->name[(length - end_length + i) & 127] != end[i])
            return false;
    return true;
}

static __always_inline bool is_hexadecimal(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/*
 * Cuts the name of an instance (foo@bar.service) behind the sign that its template's name ends in, which is how rules for all
 * instances are kept. Computed without branches, so that the verifier follows one way and not one for each place of the sign.
 */
static __always_inline void cut_to_template(struct unit_key *key)
{
    u8 past = 0;

    for (u32 i = 0; i < sizeof(key->name); i++) {
        u8 c = key->name[i] & (u8)(past - 1);
        u8 other = c ^ '@';

        key->name[i] = c;
        /* The highest bit of a number or of its negative is set unless it is zero. */
        past |= (u8)~(other | (u8)-other) >> 7;
    }
}

/* Takes the container's id out of a name that ends in one of 64 digits. */
static __always_inline bool read_container(struct workbench *bench, u32 length)
{
    if (ends_with(&bench->name, length, ".scope", 6))
        length -= 6;
    if (length < 64 || length > 127)
        return false;
    for (u32 i = 0; i < sizeof(bench->container.id); i++) {
        char digit = bench->name.name[(length - 64 + i) & 127];

        if (!is_hexadecimal(digit))
            return false;
        bench->container.id[i] = digit;
    }
    return true;
}

static __always_inline void add_rules(struct rule_set *to, const struct rule_set *more)
{
    if (!more)
        return;
    for (int i = 0; i < OUTBOUND_RULES_MAX / 64; i++)
        to->words[i] |= more->words[i];
}

/* Lists the cgroups from this one to the root, the last of them at the root's end; gives how many there are. */
__noinline int climb(u64 who)
{
    struct workbench *bench = own_workbench(who);

    if (!bench)
        return 0;
    struct cgroup *cgroup = BPF_CORE_READ(bpf_get_current_task_btf(), cgroups, dfl_cgrp);
    int levels = 0;

    for (int i = 0; i < CLIMB_MAX; i++) {
        if (!cgroup)
            break;
        bench->line[i & (LINE_MAX - 1)] = (u64)cgroup;
        levels = i + 1;
        void *above = BPF_CORE_READ(cgroup, self.parent);
        if (!above)
            return levels;
        cgroup = above - bpf_core_field_offset(struct cgroup, self);
    }
    return 0;
}

/*
 * Looks at one cgroup on the way from the root. A unit or a container is what lies nearest to the root: what it makes below
 * itself, under whatever name, is still that unit. Slices and plain folders above it are made by root alone.
 *
 * This and other functions are global so that the verifier follows each of them once, and not once for each turn of a loop.
 */
__noinline int read_level(u64 who, u32 level)
{
    struct workbench *bench = own_workbench(who);

    if (!bench)
        return 1;
    struct cgroup *cgroup = (void *)bench->line[level & (LINE_MAX - 1)];
    const char *name = BPF_CORE_READ(cgroup, kn, name);
    u32 at = bench->path_length;

    __builtin_memset(&bench->name, 0, sizeof(bench->name));
    long read = bpf_probe_read_kernel_str(bench->name.name, sizeof(bench->name.name), name);
    if (read <= 1 || read > 128)
        return 1;
    u32 length = read - 1;
    /* A name that does not fit is nobody's, and no place below it has a mode of its own. */
    if (length >= 127 || at > 254 || at + 1 + length > 255)
        bench->lost = 1;
    if (!bench->lost) {
        bench->path[at & 255] = '/';
        bpf_probe_read_kernel_str(bench->path + ((at + 1) & 255), sizeof(bench->name.name), name);
        bench->path_length = at + 1 + length;
        u32 *here = bpf_map_lookup_elem(&outbound_places, bench->path);
        if (here)
            bench->mode = *here;
    }
    if (bench->found)
        return 0;
    add_rules(&bench->units, bpf_map_lookup_elem(&outbound_units, &bench->name));
    if (read_container(bench, length)) {
        add_rules(&bench->containers, bpf_map_lookup_elem(&outbound_containers, &bench->container));
        bench->found = 1;
    }
    if (bench->name.name[0] == 'l' && bench->name.name[1] == 'x' && bench->name.name[2] == 'c' &&
        bench->name.name[3] == '.')
        bench->found = 1;
    if (ends_with(&bench->name, length, ".scope", 6))
        bench->found = 1;
    if (ends_with(&bench->name, length, ".service", 8)) {
        bench->found = 1;
        cut_to_template(&bench->name);
        add_rules(&bench->units, bpf_map_lookup_elem(&outbound_units, &bench->name));
    }
    return 0;
}

/* Finds out about the cgroup of this process and remembers it. */
__noinline int learn_subject(u64 cgroup)
{
    u64 who = bpf_get_current_pid_tgid();
    struct subject subject = {};
    u32 zero = 0;
    struct outbound_state *state = bpf_map_lookup_elem(&outbound_state, &zero);
    struct workbench *bench = state ? take_workbench(who) : NULL;

    if (!bench)
        return -1;
    subject.epoch = state->epoch;
    int levels = climb(who);
    bench->mode = levels ? state->everywhere : state->strictest;
    for (int i = 1; i < LINE_MAX; i++) {
        if (i >= levels || read_level(who, levels - 1 - i))
            break;
    }
    subject.mode = bench->mode;
    for (int i = 0; i < OUTBOUND_RULES_MAX / 64; i++)
        subject.rules.words[i] = (state->any_unit.words[i] | bench->units.words[i]) &
                                 (state->any_container.words[i] | bench->containers.words[i]);
    leave_workbench(who);
    return bpf_map_update_elem(&outbound_subjects, &cgroup, &subject, BPF_ANY);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Room to work in beyond the stack. A place for each user of it, and not one for each processor: programs at connect may be
 * interrupted by others of their kind on the same processor, and must not find another's name in their hands.
 */
#ifndef DAVY_WORKBENCH_H
#define DAVY_WORKBENCH_H

#include "packet.h"

/* Cgroups that are looked at by name, from the root on. */
#define LINE_MAX 32

#define MESSAGE_MAX 2048

struct workbench {
    u64 pointer;
    /* Cgroups, and what was found out about them so far. */
    u64 line[LINE_MAX];
    u32 mode;
    u32 path_length;
    u32 found;
    u32 lost;
    struct rule_set units;
    struct rule_set containers;
    /* Beyond the key there is room for what is appended to it and then found to be too long. */
    char path[sizeof(struct place_key) + sizeof(struct unit_key)];
    struct unit_key name;
    struct container_key container;
    u8 message[MESSAGE_MAX];
    struct answered_key answered;
    struct name_key asked;
    u32 reserved;
};

static const struct workbench blank;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 128);
    __type(key, u64);
    __type(value, struct workbench);
} workbenches SEC(".maps");

static __always_inline struct workbench *own_workbench(u64 who)
{
    return bpf_map_lookup_elem(&workbenches, &who);
}

/* NULL when all are taken. */
static __always_inline struct workbench *take_workbench(u64 who)
{
    if (bpf_map_update_elem(&workbenches, &who, &blank, BPF_NOEXIST))
        return NULL;
    return own_workbench(who);
}

static __always_inline void leave_workbench(u64 who)
{
    bpf_map_delete_elem(&workbenches, &who);
}

#endif

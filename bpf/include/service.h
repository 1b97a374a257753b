/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* What comes from a service, and what the service has no use for. */
#ifndef DAVY_SERVICE_H
#define DAVY_SERVICE_H

#include "trust.h"

/* The classes of programs that profiles have no use for. */
static __noinline u32 forbidden_to(u32 by)
{
    u32 zero = 0, classes = 0;
    struct service_profiles *all = bpf_map_lookup_elem(&profiles, &zero);

    if (!all)
        return 0;
    for (u32 index = 0; index < PROFILES; index++)
        if (by & 1U << index)
            classes |= all->forbids[index];
    return classes;
}

/*
 * A program is about to be executed. Says whether the profiles that bind the process forbid it. A service binds what it
 * becomes itself; what begins a container is let go by the profiles that say so, and by no other.
 */
static __always_inline bool breaks_profile(struct rights *rights)
{
    struct service_bound *held = bpf_task_storage_get(&bound, bpf_get_current_task_btf(), 0,
                                                      rights->services ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);

    if (!held)
        return false;
    u32 still = held->now & ~rights->releases;
    held->next = still | rights->services;
    return rights->classes && rights->classes & forbidden_to(still);
}

/* From here on the old program is gone. */
static __always_inline void bind_program(void)
{
    struct service_bound *held = bpf_task_storage_get(&bound, bpf_get_current_task_btf(), 0, 0);

    if (held)
        held->now = held->next;
}

/* Who is forked by what is bound is bound, whatever becomes of its parent. */
static __always_inline void bind_copy(struct task_struct *task)
{
    struct service_bound *held = bpf_task_storage_get(&bound, bpf_get_current_task_btf(), 0, 0);
    struct service_bound *copy;

    if (!held || !held->now)
        return;
    copy = bpf_task_storage_get(&bound, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (copy) {
        copy->now = held->now;
        copy->next = 0;
    }
}

#endif

// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Ends programs that have no file before their first instruction. For kernels that take no security programs: what was
 * executed is killed, not refused. Nothing is in a scope until user space says so.
 */
#include "kernel.h"
#include "abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Deeper cgroups count as the one at this depth. */
#define DEPTH_MAX 32

#define SIGKILL 9

/* enum nameless_mode by cgroup; each stands for all cgroups below it too. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, NAMELESS_SCOPES_MAX);
    __type(key, u64);
    __type(value, u32);
} nameless_scopes SEC(".maps");

/* Programs whose children may run without a file: container runtimes seal a copy of themselves in a memfd. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, NAMELESS_RUNTIMES_MAX);
    __type(key, struct file_key);
    __type(value, u32);
} nameless_runtimes SEC(".maps");

/* What was ended, by the start of its process. User space takes entries out; the oldest go when it does not. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, NAMELESS_ENDED_MAX);
    __type(key, u64);
    __type(value, struct ended);
} nameless_ended SEC(".maps");

/* An exemption anywhere above is stronger than any enforcement. */
static __always_inline bool is_enforced(void)
{
    bool enforced = false;

    for (int level = 0; level < DEPTH_MAX; level++) {
        u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);

        if (!cgroup)
            break;
        u32 *mode = bpf_map_lookup_elem(&nameless_scopes, &cgroup);
        if (mode && *mode == NAMELESS_EXEMPT)
            return false;
        enforced |= mode && *mode == NAMELESS_ENFORCED;
    }
    return enforced;
}

static __always_inline bool is_runtimes_child(struct task_struct *task)
{
    struct file *program = BPF_CORE_READ(task, real_parent, mm, exe_file);

    if (!program)
        return false;
    struct file_key key = {
        .ino = BPF_CORE_READ(program, f_inode, i_ino),
        .dev = BPF_CORE_READ(program, f_inode, i_sb, s_dev),
    };
    return bpf_map_lookup_elem(&nameless_runtimes, &key);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_nameless_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
    struct inode *inode = bprm->file->f_inode;
    struct super_block *sb = inode->i_sb;
    struct file_key key = {.ino = inode->i_ino, .dev = sb->s_dev};
    struct ended ended = {};
    bool in_memory =
        (sb->s_magic == TMPFS_MAGIC || sb->s_magic == HUGETLBFS_MAGIC) && (sb->s_flags & SB_KERNMOUNT);

    if (inode->i_nlink && !in_memory)
        return 0;
    if (task->tgid == 1 || !is_enforced() || is_runtimes_child(task))
        return 0;
    /* An exec leaves one thread, and this is it: nothing of the new program has run. */
    if (bpf_send_signal(SIGKILL))
        ended.failed = 1;
    ended.pid = task->tgid;
    ended.time = bpf_ktime_get_boot_ns();
    ended.file = key;
    u64 start = task->group_leader->start_boottime;
    bpf_map_update_elem(&nameless_ended, &start, &ended, BPF_ANY);
    return 0;
}

// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/* Births, programs, names and ends of processes, signals between them, and module loads. */
#include "lanes.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TAIL_MAX (ARGS_MAX + ENV_MAX + 2 * PATH_BYTES_MAX)

/* Too large for the stack. Exec runs in process context and is not nested on one processor. */
struct exec_scratch {
    struct exec_record record;
    char tail[TAIL_MAX];
    /* Kept in memory because the verifier forgets its bounds there, which makes the walk below one state a step. */
    u32 walked;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct exec_scratch);
} scratch SEC(".maps");

/*
 * Writes a path's components, leaf first, each ended by a NUL, to the tail at `at`, from `dentry` up to the root
 * of the mount namespace. Returns their length, with WALK_CUT when a bound ended the walk. A function of its own
 * that takes numbers only, so that the verifier looks at it once.
 */
#define WALK_CUT 0x10000

__noinline u32 walk_path(u64 dentry_at, u64 mount_at, u32 at)
{
    u32 zero = 0;
    struct exec_scratch *work = bpf_map_lookup_elem(&scratch, &zero);
    struct dentry *dentry = (void *)dentry_at;
    struct mount *mount = (void *)mount_at - bpf_core_field_offset(struct mount, mnt);
    struct dentry *root = BPF_CORE_READ(mount, mnt.mnt_root);

    if (!work)
        return 0;
    work->walked = 0;
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        u32 walked = work->walked;

        if (dentry == root) {
            struct mount *above = BPF_CORE_READ(mount, mnt_parent);

            if (above == mount)
                return walked;
            dentry = BPF_CORE_READ(mount, mnt_mountpoint);
            mount = above;
            root = BPF_CORE_READ(mount, mnt.mnt_root);
            continue;
        }
        struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
        u32 to = at + walked;

        if (walked > PATH_BYTES_MAX - 256 || to > TAIL_MAX - 256)
            break;
        long got = bpf_probe_read_kernel_str(work->tail + to, 256, BPF_CORE_READ(dentry, d_name.name));
        if (got < 1)
            break;
        work->walked = walked + got;
        if (parent == dentry)
            return work->walked;
        dentry = parent;
    }
    return work->walked | WALK_CUT;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
    if (child->pid != child->tgid)
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(parent->tgid, BUCKET_LIFE, now, PER_SECOND(60000), 60000)) {
        count_loss(RECORD_FORK, LOSS_THROTTLED);
        return 0;
    }
    struct fork_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_FORK, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_FORK, now, parent);
    record->child = child->tgid;
    record->child_start = child->start_boottime;
    record->reserved = 0;
    bpf_probe_read_kernel(record->comm, sizeof(record->comm), child->comm);
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

static __always_inline void read_identity(struct exec_record *record, struct task_struct *task)
{
    struct task_struct *parent = task->real_parent;
    const struct cred *cred = task->cred;
    struct nsproxy *nsproxy = task->nsproxy;
    /* By a helper, which gives a plain number: 6.1 does not let a typed pointer be computed with. */
    struct pid *pid = BPF_CORE_READ(task, thread_pid);
    unsigned int level = BPF_CORE_READ(pid, level);

    record->parent = parent->tgid;
    record->parent_start = parent->group_leader->start_boottime;
    record->uid = cred->uid.val;
    record->euid = cred->euid.val;
    record->gid = cred->gid.val;
    bpf_core_read(&record->caps, sizeof(record->caps), &cred->cap_effective);
    record->ns_user = cred->user_ns->ns.inum;
    record->ns_mnt = nsproxy->mnt_ns->ns.inum;
    record->ns_net = nsproxy->net_ns->ns.inum;
    record->ns_pid = 0;
    if (level < 32) {
        void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
        struct upid *own = numbers + level * bpf_core_type_size(struct upid);

        record->ns_pid = BPF_CORE_READ(own, ns, ns.inum);
    }
    record->cgroup = task->cgroups->dfl_cgrp->kn->id;
    record->has_audit = 0;
    if (bpf_core_field_exists(task->loginuid) && bpf_core_field_exists(task->sessionid)) {
        record->login_uid = task->loginuid.val;
        record->session = task->sessionid;
        record->has_audit = 1;
    }
    bpf_probe_read_kernel(record->comm, sizeof(record->comm), task->comm);
    struct tty_struct *tty = task->signal->tty;
    record->tty[0] = 0;
    if (tty)
        bpf_probe_read_kernel_str(record->tty, sizeof(record->tty), tty->name);
}

static __always_inline void read_image(struct exec_record *record, struct inode *inode)
{
    struct super_block *sb = inode->i_sb;
    unsigned long magic = sb->s_magic;

    record->ino = inode->i_ino;
    record->nlink = inode->i_nlink;
    record->dev = sb->s_dev;
    record->memfd = (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC) && (sb->s_flags & SB_KERNMOUNT);
}

/* Copies at most `most` bytes of [from, to) of the new program's stack, and returns how many. */
static __always_inline u32 read_strings(char *out, unsigned long from, unsigned long to, u32 most, u8 *cut)
{
    unsigned long length = to - from;

    if (to <= from)
        return 0;
    if (length > most) {
        length = most;
        *cut = 1;
    }
    /* Keeps the compiler from proving the bound by means the verifier cannot follow. */
    asm volatile("%[l] &= 8191" : [l] "+r"(length));
    if (length > most)
        return 0;
    if (bpf_probe_read_user(out, length, (void *)from))
        return 0;
    return length;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
    u32 zero = 0;
    u64 now = bpf_ktime_get_boot_ns();
    struct exec_scratch *work = bpf_map_lookup_elem(&scratch, &zero);

    if (!work)
        return 0;
    struct exec_record *record = &work->record;
    struct mm_struct *mm = task->mm;
    struct file *file = bprm->file;
    u32 at = 0;

    begin(&record->head, RECORD_EXEC, now, task);
    read_identity(record, task);
    read_image(record, file->f_inode);
    record->args_cut = record->env_cut = 0;
    record->reserved[0] = record->reserved[1] = 0;

    record->args_len =
        read_strings(work->tail, mm->arg_start, mm->arg_end, ARGS_MAX, &record->args_cut);
    at += record->args_len;
    record->env_len = read_strings(work->tail + (at & (ARGS_MAX * 2 - 1)), mm->env_start,
                                   mm->env_end, ENV_MAX, &record->env_cut);
    at += record->env_len;
    u32 walk = walk_path((u64)BPF_CORE_READ(file, f_path.dentry), (u64)BPF_CORE_READ(file, f_path.mnt), at);
    record->exe_len = walk;
    record->exe_cut = walk >= WALK_CUT;
    at += record->exe_len;
    struct fs_struct *fs = task->fs;
    walk = walk_path((u64)BPF_CORE_READ(fs, pwd.dentry), (u64)BPF_CORE_READ(fs, pwd.mnt), at);
    record->cwd_len = walk;
    record->cwd_cut = walk >= WALK_CUT;
    at += record->cwd_len;

    u64 size = at & (2 * TAIL_MAX - 1);
    if (size > TAIL_MAX)
        return 0;
    size += sizeof(*record);
    if (bpf_ringbuf_output(&priority_lane, work, size, WAKE_IF_IDLE))
        count_loss(RECORD_EXEC, LOSS_FULL);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
    struct signal_struct *signal = task->signal;

    /* The group has ended when its last thread has; the count was taken down before this point. */
    if (signal->live.counter != 0)
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(task->real_parent->tgid, BUCKET_LIFE, now, PER_SECOND(60000), 60000)) {
        count_loss(RECORD_EXIT, LOSS_THROTTLED);
        return 0;
    }
    struct exit_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_EXIT, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_EXIT, now, task);
    struct task_struct *leader = task->group_leader;
    u64 cpu = signal->sum_sched_runtime + task->se.sum_exec_runtime;
    if (leader->pid != task->pid)
        cpu += leader->se.sum_exec_runtime;
    record->cpu_ns = cpu;
    record->code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : leader->exit_code;
    record->reserved = 0;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *task, const char *comm)
{
    if (task->pid != task->tgid)
        return 0;
    /* An exec sets the name too, and tells it in its own record. */
    if (bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(task->tgid, BUCKET_ACT, now, PER_SECOND(100), 200)) {
        count_loss(RECORD_RENAME, LOSS_THROTTLED);
        return 0;
    }
    struct rename_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_RENAME, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_RENAME, now, task);
    __builtin_memset(record->comm, 0, sizeof(record->comm));
    bpf_probe_read_kernel_str(record->comm, sizeof(record->comm), comm);
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

#define SIGINT 2
#define SIGQUIT 3
#define SIGKILL 9
#define SIGTERM 15
#define SIGSTOP 19

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *target)
{
    if (sig != SIGINT && sig != SIGQUIT && sig != SIGKILL && sig != SIGTERM && sig != SIGSTOP)
        return 0;
    /* The kernel's own signals carry no siginfo but a small number in its place. */
    if ((unsigned long)info <= 2 || BPF_CORE_READ(info, si_code) > 0)
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    if (task->tgid == target->tgid)
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(task->tgid, BUCKET_ACT, now, PER_SECOND(100), 200)) {
        count_loss(RECORD_SIGNAL, LOSS_THROTTLED);
        return 0;
    }
    struct signal_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_SIGNAL, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_SIGNAL, now, task);
    record->target = target->tgid;
    record->target_start = target->group_leader->start_boottime;
    record->signal = sig;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

SEC("?tp_btf/module_load")
int BPF_PROG(on_module, struct module *module)
{
    struct module_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);

    if (!record) {
        count_loss(RECORD_MODULE, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_MODULE, bpf_ktime_get_boot_ns(), bpf_get_current_task_btf());
    bpf_probe_read_kernel_str(record->name, sizeof(record->name), module->name);
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

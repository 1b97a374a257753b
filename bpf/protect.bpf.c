// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * The agent's protection of itself, and what only security hooks see. From outside the agent's cgroup its
 * processes cannot be signalled or traced, its files not changed, its programs and maps not taken hold of. The
 * first process is let through, because it must be able to shut the machine down.
 */
#include "lanes.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DEPTH_MAX 32
#define PTRACE_MODE_ATTACH 2
/* x86-64 */
#define CALL_MPROTECT 10
#define CALL_PKEY_MPROTECT 329
#define CALL_BPF 321
/* The same by the way of 32-bit programs; no 64-bit call has this number. */
#define CALL_BPF_32 357
/* A number of the x32 way in, which is otherwise the same. */
#define CALL_X32 0x40000000
#define SIGCHLD 17
#define SIGCONT 18
#define SIGURG 23
#define SIGWINCH 28
#define CAP_DAC_OVERRIDE 1
#define CAP_DAC_READ_SEARCH 2
/* Of ioctl(2), as 64-bit and 32-bit programs call them. */
#define SET_FLAGS 0x40086602
#define SET_FLAGS_32 0x40046602
#define SET_FLAGS_XFS 0x401c5820
#define ENABLE_VERITY 0x40806685

/* The cgroup whose members may; zero while nothing is protected. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} guard_cgroup SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, u32);
    __type(value, u32);
} guarded_processes SEC(".maps");

/* What a guarded file is: itself, or a folder whose files are not written either, those of later included. */
#define GUARD_ITSELF 1
#define GUARD_CONTENTS 2

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, struct file_key);
    __type(value, u32);
} guarded_files SEC(".maps");

/* Ids of programs, maps and links, told apart by the high word. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 256);
    __type(key, u64);
    __type(value, u32);
} guarded_objects SEC(".maps");

/* One file that one process may not open: the probe's canary. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct file_key);
    __type(value, u32);
} canary SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_map {
    u32 id;
};

struct bpf_prog_aux {
    u32 id;
};

struct bpf_prog {
    struct bpf_prog_aux *aux;
};
#pragma clang attribute pop

/* A constant the compiler cannot compute with: 6.12 wants to see that a hook returns within [-4095, 0]. */
static __always_inline int refuse(void)
{
    int result;

    asm volatile("%[result] = -1" : [result] "=r"(result));
    return result;
}

/* Whether the current process may: the guard is off, or it is the first process, or of the agent's cgroup. */
static __always_inline bool may(void)
{
    u32 zero = 0;
    u64 *guard = bpf_map_lookup_elem(&guard_cgroup, &zero);

    if (!guard || !*guard || (bpf_get_current_pid_tgid() >> 32) == 1)
        return true;
    for (int level = 0; level < DEPTH_MAX; level++) {
        u64 id = bpf_get_current_ancestor_cgroup_id(level);

        if (!id)
            return false;
        if (id == *guard)
            return true;
    }
    return false;
}

static __always_inline bool guarded_process(u32 tgid)
{
    return bpf_map_lookup_elem(&guarded_processes, &tgid) != 0;
}

static __always_inline struct file_key key_of(struct inode *inode)
{
    struct file_key key = {
        .ino = BPF_CORE_READ(inode, i_ino),
        .dev = BPF_CORE_READ(inode, i_sb, s_dev),
    };

    return key;
}

/* Zero for what is not guarded. */
static __always_inline u32 guard_of(struct inode *inode)
{
    if (!inode)
        return 0;
    struct file_key key = key_of(inode);
    u32 *guard = bpf_map_lookup_elem(&guarded_files, &key);

    return guard ? *guard : 0;
}

static __always_inline bool guarded_dentry(struct dentry *dentry)
{
    return guard_of(BPF_CORE_READ(dentry, d_inode)) != 0;
}

static __always_inline u32 guard_of_folder(struct dentry *dentry)
{
    return guard_of(BPF_CORE_READ(dentry, d_parent, d_inode));
}

/* Whether the bytes are guarded: of the file itself, or of whatever lies in its folder. */
static __always_inline bool guarded_bytes(struct dentry *dentry)
{
    return guarded_dentry(dentry) || guard_of_folder(dentry) == GUARD_CONTENTS;
}

/* Whether owner, mode, times and the like are: also of whatever lies in a guarded folder, such as a socket. */
static __always_inline bool guarded_attributes(struct dentry *dentry)
{
    return guarded_dentry(dentry) || guard_of_folder(dentry);
}

/* Told at once, and not throttled away by whoever tries often: sixteen tries a second each. */
static __always_inline void tell_denied(u32 act, u32 detail, struct task_struct *target)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    u64 now = bpf_ktime_get_boot_ns();

    if (!admit_process(BPF_CORE_READ(task, tgid), BUCKET_ACT, now, PER_SECOND(16), 32)) {
        count_loss(RECORD_DENIED, LOSS_THROTTLED);
        return;
    }
    struct denied_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_DENIED, LOSS_FULL);
        return;
    }
    begin_at(&record->head, RECORD_DENIED, now, task);
    record->target = target ? BPF_CORE_READ(target, tgid) : 0;
    record->target_start = target ? BPF_CORE_READ(target, group_leader, start_boottime) : 0;
    record->act = act;
    record->detail = detail;
    record->reserved = 0;
    bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP);
}

SEC("lsm/task_kill")
int BPF_PROG(guard_signal, struct task_struct *target, struct kernel_siginfo *info, int sig)
{
    if (sig == 0 || sig == SIGCHLD || sig == SIGCONT || sig == SIGURG || sig == SIGWINCH)
        return 0;
    if (!guarded_process(BPF_CORE_READ(target, tgid)) || may())
        return 0;
    tell_denied(DENIED_SIGNAL, sig, target);
    return refuse();
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(guard_trace, struct task_struct *target, unsigned int mode)
{
    if (!(mode & PTRACE_MODE_ATTACH) || !guarded_process(BPF_CORE_READ(target, tgid)) || may())
        return 0;
    tell_denied(DENIED_TRACE, 0, target);
    return refuse();
}

static __always_inline int guard_change(bool guarded)
{
    if (!guarded || may())
        return 0;
    tell_denied(DENIED_FILE, 0, 0);
    return refuse();
}

SEC("lsm/file_open")
int BPF_PROG(guard_open, struct file *file)
{
    if (!(file->f_mode & FMODE_WRITE))
        return 0;
    return guard_change(guarded_bytes(BPF_CORE_READ(file, f_path.dentry)));
}

SEC("lsm/path_truncate")
int BPF_PROG(guard_truncate, struct path *path)
{
    return guard_change(guarded_bytes(BPF_CORE_READ(path, dentry)));
}

/*
 * Owner, mode and times. Until 6.8 the hook has the file first; since, what maps its owners comes before. One of the
 * two is loaded.
 */
SEC("lsm/inode_setattr")
int BPF_PROG(guard_setattr, void *owners, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

SEC("lsm/inode_setattr")
int BPF_PROG(guard_setattr_before_6_9, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(guard_setxattr, void *owners, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

SEC("lsm/inode_removexattr")
int BPF_PROG(guard_removexattr, void *owners, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

/* Since 6.2 access control lists are no longer extended attributes to the kernel. */
SEC("lsm/inode_set_acl")
int BPF_PROG(guard_set_acl, void *owners, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(guard_remove_acl, void *owners, struct dentry *dentry)
{
    return guard_change(guarded_attributes(dentry));
}

static __always_inline int guard_flags(struct file *file, unsigned int command)
{
    if (command != SET_FLAGS && command != SET_FLAGS_32 && command != SET_FLAGS_XFS && command != ENABLE_VERITY)
        return 0;
    return guard_change(guarded_attributes(BPF_CORE_READ(file, f_path.dentry)));
}

/* chattr +i would stop the agent's own writing. It needs no more than a file open for reading. */
SEC("lsm/file_ioctl")
int BPF_PROG(guard_ioctl, struct file *file, unsigned int command)
{
    return guard_flags(file, command);
}

/* Since 6.8 the calls of 32-bit programs have a hook of their own. */
SEC("lsm/file_ioctl_compat")
int BPF_PROG(guard_ioctl_compat, struct file *file, unsigned int command)
{
    return guard_flags(file, command);
}

SEC("lsm/path_unlink")
int BPF_PROG(guard_unlink, struct path *dir, struct dentry *dentry)
{
    return guard_change(guarded_dentry(dentry) || guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

SEC("lsm/path_rmdir")
int BPF_PROG(guard_rmdir, struct path *dir, struct dentry *dentry)
{
    return guard_change(guarded_dentry(dentry) || guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

SEC("lsm/path_mknod")
int BPF_PROG(guard_create, struct path *dir)
{
    return guard_change(guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

SEC("lsm/path_symlink")
int BPF_PROG(guard_symlink, struct path *dir)
{
    return guard_change(guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

/* Into a guarded folder, or of a guarded file to anywhere. */
SEC("lsm/path_link")
int BPF_PROG(guard_hard_link, struct dentry *old, struct path *dir)
{
    return guard_change(guarded_bytes(old) || guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

/* A cgroup made below the agent's would be a way into it. */
SEC("lsm/path_mkdir")
int BPF_PROG(guard_mkdir, struct path *dir)
{
    return guard_change(guarded_dentry(BPF_CORE_READ(dir, dentry)));
}

SEC("lsm/path_rename")
int BPF_PROG(guard_rename, struct path *old_dir, struct dentry *old, struct path *new_dir, struct dentry *new)
{
    return guard_change(guarded_dentry(old) || guarded_dentry(new) || guarded_dentry(BPF_CORE_READ(old_dir, dentry)) ||
                        guarded_dentry(BPF_CORE_READ(new_dir, dentry)));
}

#define OBJECT_PROGRAM (1ULL << 32)
#define OBJECT_MAP (2ULL << 32)
#define OBJECT_LINK (3ULL << 32)

static __always_inline int guard_object(u64 key)
{
    if (!bpf_map_lookup_elem(&guarded_objects, &key) || may())
        return 0;
    tell_denied(DENIED_BPF, key, 0);
    return refuse();
}

SEC("lsm/bpf_map")
int BPF_PROG(guard_map, struct bpf_map *map)
{
    return guard_object(OBJECT_MAP | BPF_CORE_READ(map, id));
}

SEC("lsm/bpf_prog")
int BPF_PROG(guard_program, struct bpf_prog *prog)
{
    return guard_object(OBJECT_PROGRAM | BPF_CORE_READ(prog, aux, id));
}

/*
 * Links have no hook of their own. Taking hold of one by its id is a command, which this sees; by its pin it is the
 * opening of a file, for which see guard_pin.
 */
SEC("lsm/bpf")
int BPF_PROG(guard_link, int cmd, union bpf_attr *attr)
{
    u32 id = 0;

    if (cmd != BPF_LINK_GET_FD_BY_ID)
        return 0;
    bpf_probe_read_kernel(&id, sizeof(id), attr);
    return guard_object(OBJECT_LINK | id);
}

/* Whether the running system call is bpf(BPF_OBJ_GET). Its registers are the kernel's copy. */
static __always_inline bool opens_pin(void)
{
#if defined(__TARGET_ARCH_x86)
    struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
    u64 call = BPF_CORE_READ(registers, orig_ax);

    if (call == CALL_BPF_32)
        return (u32)BPF_CORE_READ(registers, bx) == BPF_OBJ_GET;
    if ((call & ~(u64)CALL_X32) == CALL_BPF)
        return (u32)BPF_CORE_READ(registers, di) == BPF_OBJ_GET;
#endif
    return false;
}

/*
 * The pin of a link. No hook sees which file BPF_OBJ_GET opens but inode_permission, which every step of every path
 * would pay for. So the pins' mode lets nobody open them, root neither, without overriding it; and within that command
 * overriding is refused to outsiders. Asked for last is the right to override for reading and writing: it is told once.
 */
SEC("lsm/capable")
int BPF_PROG(guard_pin, const struct cred *cred, struct user_namespace *owner, int capability)
{
    if (capability != CAP_DAC_OVERRIDE && capability != CAP_DAC_READ_SEARCH)
        return 0;
    if (!opens_pin() || may())
        return 0;
    if (capability == CAP_DAC_OVERRIDE)
        tell_denied(DENIED_BPF, 0, 0);
    return refuse();
}

/* What only these hooks see. Always allowed. */

SEC("lsm/ptrace_access_check")
int BPF_PROG(on_trace, struct task_struct *target, unsigned int mode)
{
    struct task_struct *task = bpf_get_current_task_btf();

    if (!(mode & PTRACE_MODE_ATTACH) || BPF_CORE_READ(task, tgid) == BPF_CORE_READ(target, tgid))
        return 0;
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(BPF_CORE_READ(task, tgid), BUCKET_ACT, now, PER_SECOND(100), 200)) {
        count_loss(RECORD_TRACE, LOSS_THROTTLED);
        return 0;
    }
    struct trace_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_TRACE, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_TRACE, now, task);
    record->target = BPF_CORE_READ(target, tgid);
    record->target_start = BPF_CORE_READ(target, group_leader, start_boottime);
    record->write = 1;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

/*
 * How much of a mapping is made executable. The hook sees the mapping before it is split, and neighbours may have
 * been merged into it, so the system call's own range is asked as well.
 */
static __always_inline u64 length_asked(struct task_struct *task, u64 from, u64 to)
{
#if defined(__TARGET_ARCH_x86)
    struct pt_regs *registers = (void *)bpf_task_pt_regs(task);
    u64 call = BPF_CORE_READ(registers, orig_ax);
    u64 begin = BPF_CORE_READ(registers, di);
    u64 end = begin + BPF_CORE_READ(registers, si);

    if (call != CALL_MPROTECT && call != CALL_PKEY_MPROTECT)
        return to - from;
    begin = begin > from ? begin : from;
    end = end < to ? end : to;
    if (begin < end)
        return end - begin;
#endif
    return to - from;
}

SEC("lsm/file_mprotect")
int BPF_PROG(on_protect, struct vm_area_struct *area, unsigned long asked, unsigned long protection)
{
    if (!(protection & PROT_EXEC) || BPF_CORE_READ(area, vm_flags) & VM_EXEC || !BPF_CORE_READ(area, anon_vma) ||
        BPF_CORE_READ(area, vm_file))
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(BPF_CORE_READ(task, tgid), BUCKET_ACT, now, PER_SECOND(100), 200)) {
        count_loss(RECORD_WRITTEN_CODE, LOSS_THROTTLED);
        return 0;
    }
    struct written_code_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_WRITTEN_CODE, LOSS_FULL);
        return 0;
    }
    begin(&record->head, RECORD_WRITTEN_CODE, now, task);
    record->bytes = length_asked(task, BPF_CORE_READ(area, vm_start), BPF_CORE_READ(area, vm_end));
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return 0;
}

SEC("lsm/file_open")
int BPF_PROG(canary_open, struct file *file)
{
    struct file_key key = key_of(BPF_CORE_READ(file, f_inode));
    u32 *tgid = bpf_map_lookup_elem(&canary, &key);

    if (!tgid || *tgid != bpf_get_current_pid_tgid() >> 32)
        return 0;
    return refuse();
}

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * The few fields of kernel types that Davy's programs read. Offsets are not taken from here: every access is
 * relocated against the running kernel's type information when the program is loaded (CO-RE), so one object
 * serves all kernels. A type whose field moved between versions has a second description with a `___` suffix.
 */
#ifndef DAVY_KERNEL_H
#define DAVY_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
    u32 val;
} kuid_t;

typedef struct {
    u32 val;
} kgid_t;

/* Two 32-bit words before 6.3, one 64-bit word since: the same eight bytes on a little-endian machine. */
typedef struct {
    u64 val;
} kernel_cap_t;

typedef struct {
    int counter;
} atomic_t;

struct ns_common {
    unsigned int inum;
};

struct user_namespace {
    struct ns_common ns;
};

struct pid_namespace {
    struct ns_common ns;
};

struct mnt_namespace {
    struct ns_common ns;
};

struct net {
    struct ns_common ns;
    u64 net_cookie;
};

struct nsproxy {
    struct mnt_namespace *mnt_ns;
    struct net *net_ns;
};

struct upid {
    int nr;
    struct pid_namespace *ns;
};

struct pid {
    unsigned int level;
    struct upid numbers[1];
};

struct cred {
    kuid_t uid;
    kgid_t gid;
    kuid_t euid;
    kernel_cap_t cap_effective;
    struct user_namespace *user_ns;
};

struct super_block {
    u32 s_dev;
    unsigned long s_flags;
    unsigned long s_magic;
    struct user_namespace *s_user_ns;
};

struct rb_root {
    void *rb_node;
};

struct rb_root_cached {
    struct rb_root rb_root;
};

struct address_space {
    struct rb_root_cached i_mmap;
};

struct inode {
    u16 i_mode;
    unsigned long i_ino;
    unsigned int i_nlink;
    struct super_block *i_sb;
    u32 i_rdev;
    s64 i_size;
    u32 i_generation;
    atomic_t i_writecount;
    struct address_space *i_mapping;
    /* The text of a symbolic link where it is short. */
    char *i_link;
};

struct qstr {
    const unsigned char *name;
};

struct dentry {
    struct dentry *d_parent;
    struct qstr d_name;
    struct inode *d_inode;
};

struct vfsmount {
    struct dentry *mnt_root;
};

struct mount {
    struct mount *mnt_parent;
    struct dentry *mnt_mountpoint;
    struct vfsmount mnt;
};

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
};

struct file {
    unsigned int f_flags;
    unsigned int f_mode;
    struct path f_path;
    struct inode *f_inode;
};

struct fs_struct {
    struct path pwd;
};

struct fdtable {
    unsigned int max_fds;
    struct file **fd;
};

struct files_struct {
    struct fdtable *fdt;
};

struct mm_struct {
    unsigned long arg_start;
    unsigned long arg_end;
    unsigned long env_start;
    unsigned long env_end;
    struct file *exe_file;
};

struct vm_area_struct {
    unsigned long vm_start;
    unsigned long vm_end;
    unsigned long vm_flags;
    struct file *vm_file;
    void *anon_vma;
};

struct linux_binprm {
    struct file *file;
    char buf[256];
};

struct tty_struct {
    char name[64];
};

struct signal_struct {
    atomic_t live;
    unsigned int flags;
    int group_exit_code;
    unsigned long long sum_sched_runtime;
    struct tty_struct *tty;
};

struct kernfs_node {
    u64 id;
    const char *name;
};

struct cgroup_subsys_state {
    struct cgroup_subsys_state *parent;
};

struct cgroup {
    struct cgroup_subsys_state self;
    struct kernfs_node *kn;
};

struct css_set {
    struct cgroup *dfl_cgrp;
};

struct sched_entity {
    u64 sum_exec_runtime;
};

struct fxregs_state {
    u32 mxcsr;
};

struct xstate_header {
    u64 xfeatures;
};

struct xregs_state {
    struct xstate_header header;
};

union fpregs_state {
    struct fxregs_state fxsave;
    struct xregs_state xsave;
};

struct fpstate {
    union fpregs_state regs;
};

/* 5.16 and newer. */
struct fpu {
    struct fpstate *fpstate;
};

/* Up to 5.15 the registers lie in struct fpu itself. */
struct fpu___before_fpstate {
    union fpregs_state state;
};

/* Up to 6.14 struct fpu ends thread_struct; since 6.15 it lies right behind task_struct. */
struct thread_struct {
    struct fpu fpu;
};

struct task_struct {
    unsigned int flags;
    int pid;
    int tgid;
    unsigned int in_execve : 1;
    int exit_code;
    int static_prio;
    unsigned int policy;
    int nr_cpus_allowed;
    u64 start_boottime;
    unsigned long nvcsw;
    unsigned long nivcsw;
    struct sched_entity se;
    struct task_struct *real_parent;
    struct task_struct *group_leader;
    const struct cred *cred;
    struct mm_struct *mm;
    struct fs_struct *fs;
    struct files_struct *files;
    struct nsproxy *nsproxy;
    struct pid *thread_pid;
    struct signal_struct *signal;
    struct css_set *cgroups;
    char comm[16];
    /* CONFIG_AUDIT */
    kuid_t loginuid;
    unsigned int sessionid;
    struct thread_struct thread;
};

/* The registers of x86-64 that carry a system call's number and first arguments. */
struct pt_regs {
    unsigned long bx;
    unsigned long orig_ax;
    unsigned long di;
    unsigned long si;
};

struct kernel_siginfo {
    int si_code;
};

struct module {
    char name[56];
};

struct in6_addr {
    union {
        u8 u6_addr8[16];
    } in6_u;
};

typedef struct {
    struct net *net;
} possible_net_t;

struct sock_common {
    u32 skc_daddr;
    u32 skc_rcv_saddr;
    u16 skc_dport;
    u16 skc_num;
    u16 skc_family;
    volatile unsigned char skc_state;
    possible_net_t skc_net;
    struct in6_addr skc_v6_daddr;
    struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
    struct sock_common __sk_common;
    u16 sk_type;
    u16 sk_protocol;
};

struct socket {
    struct sock *sk;
};

struct inet_sock {
    u16 inet_sport;
};

struct tcp_sock {
    u32 data_segs_in;
    u32 data_segs_out;
    u64 bytes_received;
    u64 bytes_sent;
    u64 bytes_retrans;
};

struct seq_file;

struct bpf_iter_meta {
    struct seq_file *seq;
    u64 session_id;
    u64 seq_num;
};

struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
};

struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    u32 fd;
    struct file *file;
};

#pragma clang attribute pop

#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004
#define SB_KERNMOUNT (1UL << 22)
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define FMODE_READ 1
#define FMODE_WRITE 2
#define VM_EXEC 4
#define VM_SHARED 8
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_ANONYMOUS 0x20
#define S_IFMT 0170000
#define S_IFREG 0100000
#define AF_INET 2
#define AF_INET6 10
#define MXCSR_INITIAL 0x1f80
#define XFEATURE_SSE (1UL << 1)

enum tcp_state {
    STATE_ESTABLISHED = 1,
    STATE_SYN_SENT = 2,
    STATE_SYN_RECV = 3,
    STATE_FIN_WAIT2 = 5,
    STATE_TIME_WAIT = 6,
    STATE_CLOSE = 7,
    STATE_CLOSE_WAIT = 8,
    STATE_LAST_ACK = 9,
    STATE_LISTEN = 10,
    STATE_CLOSING = 11,
};

#endif

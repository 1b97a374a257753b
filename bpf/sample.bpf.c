// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/* One sweep over all threads: their counters, and the SSE control register they were last switched out with. */
#include "kernel.h"
#include "abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct settings settings SEC(".rodata.settings");

/*
 * Where a thread's saved registers lie differs by kernel: behind task_struct (6.15 on), behind the pointer in
 * thread.fpu (5.16 on), or in thread.fpu itself.
 */
static __always_inline union fpregs_state *saved_registers(struct task_struct *task)
{
    struct fpu *fpu;

    if (bpf_core_field_exists(struct thread_struct, fpu))
        fpu = (void *)task + bpf_core_field_offset(struct task_struct, thread) +
              bpf_core_field_offset(struct thread_struct, fpu);
    else
        fpu = (void *)task + bpf_core_type_size(struct task_struct);
    if (bpf_core_field_exists(struct fpu, fpstate)) {
        struct fpstate *fpstate = BPF_CORE_READ(fpu, fpstate);

        return fpstate ? (void *)fpstate + bpf_core_field_offset(struct fpstate, regs) : 0;
    }
    if (bpf_core_field_exists(struct fpu___before_fpstate, state))
        return (void *)fpu + bpf_core_field_offset(struct fpu___before_fpstate, state);
    return 0;
}

static __always_inline void read_mxcsr(struct thread_record *record, struct task_struct *task)
{
    union fpregs_state *registers;
    u64 features;
    u32 mxcsr;

    record->mxcsr = record->has_mxcsr = 0;
    if (!bpf_core_type_exists(struct fpu) || !settings.has_xsave)
        return;
    registers = saved_registers(task);
    if (!registers)
        return;
    if (bpf_core_read(&mxcsr, sizeof(mxcsr), &registers->fxsave.mxcsr) ||
        bpf_core_read(&features, sizeof(features), &registers->xsave.header.xfeatures))
        return;
    /* The processor leaves out a component in its initial state and marks it absent (Intel SDM vol. 1, 13.6). */
    record->mxcsr = features & XFEATURE_SSE ? mxcsr : MXCSR_INITIAL;
    record->has_mxcsr = 1;
}

SEC("iter/task")
int sample_threads(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    struct thread_record record = {};

    if (!task || task->flags & PF_KTHREAD)
        return 0;
    record.tgid = task->tgid;
    record.tid = task->pid;
    record.start = BPF_CORE_READ(task, group_leader, start_boottime);
    record.cpu_ns = task->se.sum_exec_runtime;
    record.voluntary = task->nvcsw;
    record.involuntary = task->nivcsw;
    record.policy = task->policy;
    record.nice = task->static_prio - 120;
    record.allowed_cpus = task->nr_cpus_allowed;
    read_mxcsr(&record, task);
    bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
    return 0;
}

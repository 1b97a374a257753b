// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/* Opens of device nodes that reach model-specific registers or GPUs. Watches only: always allows. */
#include "lanes.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ALLOW 1

SEC("cgroup/dev")
int on_device(struct bpf_cgroup_dev_ctx *ctx)
{
    u32 access = ctx->access_type >> 16;
    u32 type = ctx->access_type & 0xffff;
    bool watched = false;

    if (type != BPF_DEVCG_DEV_CHAR || !(access & (BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE)))
        return ALLOW;
    for (int i = 0; i < 7; i++)
        watched |= settings.device_majors[i] && settings.device_majors[i] == ctx->major;
    if (!watched)
        return ALLOW;
    struct task_struct *task = (void *)bpf_get_current_task();
    u64 now = bpf_ktime_get_boot_ns();
    if (!admit_process(BPF_CORE_READ(task, tgid), BUCKET_ACT, now, PER_SECOND(100), 200)) {
        count_loss(RECORD_DEVICE, LOSS_THROTTLED);
        return ALLOW;
    }
    struct device_record *record = bpf_ringbuf_reserve(&priority_lane, sizeof(*record), 0);
    if (!record) {
        count_loss(RECORD_DEVICE, LOSS_FULL);
        return ALLOW;
    }
    begin_at(&record->head, RECORD_DEVICE, now, task);
    record->major = ctx->major;
    record->minor = ctx->minor;
    record->write = !!(access & BPF_DEVCG_ACC_WRITE);
    record->reserved = 0;
    bpf_ringbuf_submit(record, WAKE_IF_IDLE);
    return ALLOW;
}

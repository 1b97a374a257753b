// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * Which code may run: programs, libraries, scripts, modules, memory. The kernel reads a file once, asks the map of
 * digests, and keeps the answer until somebody opens the file for writing. Nobody in user space is asked.
 */
#include "content.h"
#include "interpreter.h"
#include "service.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PTRACE_MODE_ATTACH 2
#define PROC_SUPER_MAGIC 0x9fa0
/* enum kernel_read_file_id and kernel_load_data_id */
#define READING_MODULE 2
/* __FMODE_EXEC, of a file's flags */
#define OPENED_TO_EXECUTE 0x20
/* In seconds: how long after the last mark files that are read are looked at for one. */
#define COPIED_WITHIN 3600
/* Of a process, that are looked at. */
#define OPEN_FILES_MAX 4096

/* Judges a file by a hook that may sleep. Gives the mode that binds the current process, unless the file is trusted. */
static __always_inline u32 judge(struct file *file, bool maps, struct finding *found)
{
    struct inode *inode = file->f_inode;
    struct super_block *sb = inode->i_sb;
    u64 number = 0;
    u32 mode;

    found->key.ino = inode->i_ino;
    found->key.dev = sb->s_dev;
    if (nameless(inode, sb)) {
        mode = mode_of(CODE_NAMELESS);
        if (mode == MODE_OFF || (maps && program_may(PROGRAM_MAY_WRITE_AND_EXECUTE)))
            return MODE_OFF;
        judge_content(file, inode, 0, found);
        if (found->reason || !(found->rights.flags & PROGRAM_MAY_BE_NAMELESS)) {
            found->kind = CODE_NAMELESS;
            found->reason = REASON_NAMELESS;
        }
        return mode;
    }
    u64 *epoch = epoch_of(found->key.dev);
    bool kept = epoch && keeps(sb->s_magic);
    enum answer answer = kept ? ask_cache(inode, *epoch, maps, found) : ANSWER_NONE;
    if (answer == ANSWER_TRUSTED && !found->reason)
        return MODE_OFF;
    mode = mode_of(found->kind);
    if (found->reason == REASON_MARKED)
        remember_written(file, inode, found);
    if (answer != ANSWER_NONE)
        return mode;
    struct trust_state *settings = the_state();
    /* Programs that nobody is bound for are read too, while some digest is a trusted writer's, and where services are bound. */
    if (mode == MODE_OFF && !(found->kind == CODE_EXEC &&
                              ((kept && settings && settings->writers) || mode_of(CODE_SERVICE) != MODE_OFF)))
        return mode;
    if (unstable(sb)) {
        found->reason = REASON_UNSTABLE;
        return mode;
    }
    if (kept)
        number = begin_judging(inode, *epoch, maps, found);
    judge_content(file, inode, number, found);
    return mode;
}

/* Some are trusted writers only while root runs them, or only in the hands of another. */
static __always_inline void settle_writer(struct rights *rights)
{
    struct program *by = current_program();

    if (rights->flags & PROGRAM_WRITES_AS_ROOT && (u32)bpf_get_current_uid_gid())
        rights->flags &= ~PROGRAM_TRUSTED_WRITER;
    if (rights->flags & PROGRAM_WRITES_FOR_WRITERS && by && by->now.flags & PROGRAM_TRUSTED_WRITER) {
        rights->flags |= PROGRAM_TRUSTED_WRITER;
        rights->marks = by->now.marks;
        rights->source = by->now.source;
    }
}

SEC("lsm.s/bprm_check_security")
int BPF_PROG(trust_exec, struct linux_binprm *bprm)
{
    struct file *file = bprm->file;
    bool script = bprm->buf[0] == '#' && bprm->buf[1] == '!';
    struct finding found = {.kind = script ? CODE_SCRIPT : CODE_EXEC};
    u32 mode = judge(file, false, &found);
    struct program *program;

    if (found.reason && found.reason != REASON_MARKED)
        found.rights.flags = 0;
    settle_writer(&found.rights);
    program = bpf_task_storage_get(&programs, bpf_get_current_task_btf(), 0,
                                   found.rights.flags ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
    if (program)
        program->next = found.rights;
    bool breach = breaks_profile(&found.rights);
    int result = settle_with_path(&found, mode, &file->f_path);

    if (result || !breach)
        return result;
    found.kind = CODE_SERVICE;
    found.reason = REASON_NOT_ALLOWED;
    return settle_with_path(&found, mode_of(CODE_SERVICE), &file->f_path);
}

static long lose_mark(u32 index, struct file ***open)
{
    struct file *file = 0;
    struct file_key key = {};

    bpf_probe_read_kernel(&file, sizeof(file), *open + index);
    if (!file || !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
        return 0;
    key.ino = BPF_CORE_READ(file, f_inode, i_ino);
    key.dev = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
    struct file_verdict *known = bpf_map_lookup_elem(&files, &key);
    if (known)
        known->state = 0;
    return 0;
}

/* What a trusted writer leaves open for writing to the program that it becomes is no longer its own alone. */
static __always_inline void lose_marks(void)
{
    struct fdtable *table = BPF_CORE_READ(bpf_get_current_task_btf(), files, fdt);
    struct file **open = BPF_CORE_READ(table, fd);
    u32 bound = BPF_CORE_READ(table, max_fds);

    bpf_loop(bound < OPEN_FILES_MAX ? bound : OPEN_FILES_MAX, lose_mark, &open, 0);
}

/* From here on the old program is gone, whatever happens. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(trust_become, struct linux_binprm *bprm)
{
    struct program *program = current_program();

    bind_program();
    if (!program)
        return 0;
    if (program->now.flags & PROGRAM_TRUSTED_WRITER && !(program->next.flags & PROGRAM_TRUSTED_WRITER))
        lose_marks();
    program->now = program->next;
    __builtin_memset(&program->next, 0, sizeof(program->next));
    program->has_names = 0;
    program->judge_next = 0;
    __builtin_memset(program->names, 0, sizeof(program->names));
    return 0;
}

/* Threads and copies of a process are the same program. */
SEC("lsm/task_alloc")
int BPF_PROG(trust_copy, struct task_struct *task, unsigned long flags)
{
    struct program *program = current_program();
    struct program *copy;

    bind_copy(task);
    if (!program || !program->now.flags)
        return 0;
    copy = bpf_task_storage_get(&programs, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (copy)
        __builtin_memcpy(copy, program, sizeof(*copy));
    return 0;
}

static __always_inline int judge_memory(u32 reason, struct file_key *key)
{
    struct finding found = {.kind = CODE_MEMORY, .reason = reason};

    if (program_may(PROGRAM_MAY_WRITE_AND_EXECUTE))
        return 0;
    if (key)
        found.key = *key;
    return settle(&found, mode_of(CODE_MEMORY));
}

static __always_inline bool in_execve(void)
{
    struct task_struct *task = bpf_get_current_task_btf();

    return BPF_CORE_READ_BITFIELD(task, in_execve);
}

/*
 * `protection` is what the kernel grants, which may be more than was asked (READ_IMPLIES_EXEC). Memory that is executable
 * and not written may still be filled by userfaultfd, so all of it is judged.
 */
SEC("lsm.s/mmap_file")
int BPF_PROG(trust_map, struct file *file, unsigned long asked, unsigned long protection, unsigned long flags)
{
    u64 address = 0;

    if (!(protection & PROT_EXEC))
        return 0;
    if (flags & MAP_ANONYMOUS)
        return judge_memory(REASON_WRITTEN_MEMORY, 0);
    /*
     * Without a file, and not called anonymous: a program under MMAP_PAGE_ZERO. The verifier takes `file` for never NULL
     * and would remove a test of it, so it is tested as the number it came as.
     */
    bpf_probe_read_kernel(&address, sizeof(address), ctx);
    if (!address || !file)
        return 0;
    struct finding found = {.kind = CODE_LIBRARY};
    /* The program itself is kept from writers by the kernel; what loads it, and libraries, are not. */
    bool maps = file->f_inode->i_writecount.counter >= 0 || !in_execve();
    u32 mode = judge(file, maps, &found);
    int result = settle_with_path(&found, mode, &file->f_path);

    if (result || !(protection & PROT_WRITE))
        return result;
    return judge_memory(REASON_WRITTEN_MEMORY, &found.key);
}

/* This hook may not sleep: a file's content is asked of the cache alone. */
SEC("lsm/file_mprotect")
int BPF_PROG(trust_protect, struct vm_area_struct *area, unsigned long asked, unsigned long protection)
{
    struct finding found = {.kind = CODE_LIBRARY};
    unsigned long now = BPF_CORE_READ(area, vm_flags);
    struct file *file;
    struct inode *inode;
    struct super_block *sb;
    u64 *epoch;

    if (!(protection & PROT_EXEC) || (now & VM_EXEC && !(protection & PROT_WRITE)))
        return 0;
    file = BPF_CORE_READ(area, vm_file);
    if (!file)
        return judge_memory(REASON_WRITTEN_MEMORY, 0);
    inode = BPF_CORE_READ(file, f_inode);
    sb = BPF_CORE_READ(inode, i_sb);
    found.key.ino = BPF_CORE_READ(inode, i_ino);
    found.key.dev = BPF_CORE_READ(sb, s_dev);
    /* Pages of its own are no longer the file's. */
    if (BPF_CORE_READ(area, anon_vma) || protection & PROT_WRITE)
        return judge_memory(REASON_WRITTEN_MEMORY, &found.key);
    u64 flags = BPF_CORE_READ(sb, s_flags);
    u64 magic = BPF_CORE_READ(sb, s_magic);
    if (!BPF_CORE_READ(inode, i_nlink) || (BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFREG ||
        (flags & SB_KERNMOUNT && (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC))) {
        if (program_may(PROGRAM_MAY_WRITE_AND_EXECUTE))
            return 0;
        found.kind = CODE_NAMELESS;
        found.reason = REASON_NAMELESS;
        return settle(&found, mode_of(CODE_NAMELESS));
    }
    epoch = epoch_of(found.key.dev);
    struct file_verdict *known = bpf_map_lookup_elem(&files, &found.key);
    found.reason = REASON_NOT_JUDGED;
    if (known && epoch && keeps(magic) && known->epoch == *epoch &&
        known->generation == BPF_CORE_READ(inode, i_generation)) {
        struct finding asked_of = {};

        known->mapped = bpf_ktime_get_boot_ns();
        if (answer_of_state(state_of(known), &asked_of) == ANSWER_TRUSTED &&
            BPF_CORE_READ(inode, i_writecount.counter) <= 0)
            return 0;
        if (asked_of.reason)
            found.reason = asked_of.reason;
    }
    if (found.reason == REASON_MARKED)
        found.reason = REASON_OPEN_FOR_WRITING;
    return settle(&found, mode_of(CODE_LIBRARY));
}

/* A file that is mapped as code is not opened for writing from within a scope, as running programs are not by anyone. */
static __always_inline bool in_use(struct file_verdict *known, struct inode *inode)
{
    if (!known->mapped)
        return false;
    return bpf_ktime_get_boot_ns() - known->mapped < MAPPING_TIME || inode->i_mapping->i_mmap.rb_root.rb_node;
}

/*
 * A mark says that every byte of a file was written by trusted writers: it is set when one of them opens an empty file
 * that nobody else has open for writing (`alone`: nor shares this opening), stays while only such open it, and falls
 * when anyone else does.
 */
static __always_inline int opened_for_writing(struct inode *inode, bool alone)
{
    struct super_block *sb = inode->i_sb;
    struct finding found = {.kind = CODE_LIBRARY, .reason = REASON_IN_USE};
    struct program *program = current_program();
    struct file_verdict *known;
    u64 *epoch;

    if (!keeps(sb->s_magic))
        return 0;
    found.key.ino = inode->i_ino;
    found.key.dev = sb->s_dev;
    epoch = epoch_of(found.key.dev);
    if (!epoch)
        return 0;
    known = bpf_map_lookup_elem(&files, &found.key);
    bool fresh = known && known->epoch == *epoch && known->generation == inode->i_generation;
    bool trusted = program && program->now.flags & PROGRAM_TRUSTED_WRITER && program->now.marks;
    if (fresh && trusted && (state_of(known) & (STATE_JUDGING | STATE_FORM)) == STATE_MARK) {
        /* What it becomes has another digest. */
        __sync_fetch_and_and(&known->state, ~STATE_MARK_READ);
        return 0;
    }
    if (fresh && in_use(known, inode)) {
        int refused = settle(&found, mode_of(CODE_LIBRARY));

        if (refused)
            return refused;
    }
    if (alone && trusted && !inode->i_size && inode->i_writecount.counter == 1) {
        u64 until = boot_seconds() + program->now.marks;
        struct file_verdict mark = {
            .state = mark_of(program->now.source, until),
            .epoch = *epoch,
            .generation = inode->i_generation,
        };

        u32 zero = 0;
        u64 *last = bpf_map_lookup_elem(&last_mark, &zero);

        if (last)
            *last = boot_seconds();
        bpf_map_update_elem(&files, &found.key, &mark, BPF_ANY);
        return 0;
    }
    if (known)
        known->state = 0;
    return 0;
}

static __always_inline bool is_memory_of_a_process(struct file *file)
{
    char name[4] = {};

    bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
    return name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && !name[3];
}

SEC("lsm/file_open")
int BPF_PROG(trust_open, struct file *file)
{
    struct inode *inode = file->f_inode;

    if (!(file->f_mode & FMODE_WRITE) || (inode->i_mode & S_IFMT) != S_IFREG)
        return 0;
    /* Writing there goes round every protection of pages; of the process's own no other hook tells. */
    if (inode->i_sb->s_magic == PROC_SUPER_MAGIC && is_memory_of_a_process(file)) {
        struct finding found = {.kind = CODE_TRACE, .reason = REASON_NOT_ALLOWED};

        if (program_may(PROGRAM_MAY_TRACE))
            return 0;
        found.key.ino = inode->i_ino;
        found.key.dev = inode->i_sb->s_dev;
        return settle(&found, mode_of(CODE_TRACE));
    }
    return opened_for_writing(inode, true);
}

/* A file that an interpreter was told to run; where no hook may sleep, the cache alone is asked. */
static __always_inline struct program *interprets(struct file *file)
{
    struct program *program = current_program();

    if (!program || !(program->now.flags & PROGRAM_INTERPRETER) || (file->f_mode & FMODE_WRITE) ||
        !(file->f_mode & FMODE_READ) || (file->f_inode->i_mode & S_IFMT) != S_IFREG || !told_to_run(program, file))
        return 0;
    return program;
}

SEC("lsm/file_open")
int BPF_PROG(trust_script_by_cache, struct file *file)
{
    struct finding found = {.kind = CODE_SCRIPT};
    struct inode *inode = file->f_inode;
    u64 *epoch;

    if (!interprets(file))
        return 0;
    found.key.ino = inode->i_ino;
    found.key.dev = inode->i_sb->s_dev;
    epoch = epoch_of(found.key.dev);
    if (!epoch || !keeps(inode->i_sb->s_magic) || ask_cache(inode, *epoch, false, &found) == ANSWER_NONE)
        found.reason = REASON_NOT_JUDGED;
    /* The program may not sleep, its hook may: paths are told from such. */
    return settle_with_path(&found, mode_of(CODE_SCRIPT), &file->f_path);
}

/* What is read may be on its way to another place, as installing does with what was built. */
static __always_inline void read_before_copied(struct file *file)
{
    struct inode *inode = file->f_inode;
    struct program *program = current_program();
    struct finding found = {.kind = CODE_LIBRARY};
    u32 zero = 0;
    u64 *last = bpf_map_lookup_elem(&last_mark, &zero);

    /* What is opened to be executed is judged by its own hook. */
    if (!last || !*last || boot_seconds() - *last > COPIED_WITHIN || !(file->f_mode & FMODE_READ) ||
        file->f_flags & OPENED_TO_EXECUTE ||
        (inode->i_mode & S_IFMT) != S_IFREG || !keeps(inode->i_sb->s_magic) ||
        (program && program->now.flags & PROGRAM_TRUSTED_WRITER))
        return;
    found.key.ino = inode->i_ino;
    found.key.dev = inode->i_sb->s_dev;
    u64 *epoch = epoch_of(found.key.dev);
    if (epoch && ask_cache(inode, *epoch, false, &found) == ANSWER_TRUSTED && found.reason == REASON_MARKED)
        remember_written(file, inode, &found);
}

SEC("lsm.s/file_post_open")
int BPF_PROG(trust_script, struct file *file, int mask)
{
    struct finding found = {.kind = CODE_SCRIPT};

    if (!interprets(file)) {
        read_before_copied(file);
        return 0;
    }
    u32 mode = judge(file, false, &found);
    return settle_with_path(&found, mode, &file->f_path);
}

SEC("lsm/inode_follow_link")
int BPF_PROG(trust_follow, struct dentry *dentry, struct inode *inode)
{
    struct program *program = current_program();

    if (program && program->now.flags & PROGRAM_INTERPRETER)
        followed(program, dentry, inode);
    return 0;
}

/* A writable file that is handed over is written by whoever gets it, and may still be by who had it. */
SEC("lsm/file_receive")
int BPF_PROG(trust_receive, struct file *file)
{
    struct inode *inode = file->f_inode;

    if (!(file->f_mode & FMODE_WRITE) || (inode->i_mode & S_IFMT) != S_IFREG)
        return 0;
    return opened_for_writing(inode, false);
}

SEC("lsm/path_truncate")
int BPF_PROG(trust_truncate, struct path *path)
{
    struct inode *inode = path->dentry->d_inode;

    if (!inode)
        return 0;
    return opened_for_writing(inode, false);
}

/* Whatever is known of a device's files was known of another file system. */
static __always_inline void begin_epoch(struct super_block *sb)
{
    u64 *epoch;

    if (!keeps(BPF_CORE_READ(sb, s_magic)))
        return;
    epoch = epoch_of(BPF_CORE_READ(sb, s_dev));
    if (epoch)
        __sync_fetch_and_add(epoch, 1);
}

SEC("lsm/sb_set_mnt_opts")
int BPF_PROG(trust_mounted, struct super_block *sb)
{
    begin_epoch(sb);
    return 0;
}

SEC("lsm/sb_free_security")
int BPF_PROG(trust_unmounted, struct super_block *sb)
{
    begin_epoch(sb);
    return 0;
}

SEC("lsm.s/kernel_read_file")
int BPF_PROG(trust_module, struct file *file, int id)
{
    struct finding found = {.kind = CODE_MODULE};

    if (id != READING_MODULE)
        return 0;
    u32 mode = judge(file, false, &found);
    return settle_with_path(&found, mode, &file->f_path);
}

SEC("lsm/kernel_load_data")
int BPF_PROG(trust_module_without_file, int id)
{
    struct finding found = {.kind = CODE_MODULE, .reason = REASON_WITHOUT_FILE};

    if (id != READING_MODULE)
        return 0;
    return settle(&found, mode_of(CODE_MODULE));
}

SEC("lsm/bpf")
int BPF_PROG(trust_bpf, int cmd)
{
    struct finding found = {.kind = CODE_BPF, .reason = REASON_NOT_ALLOWED};

    if (cmd != BPF_PROG_LOAD || program_may(PROGRAM_MAY_LOAD_BPF))
        return 0;
    return settle(&found, mode_of(CODE_BPF));
}

static __always_inline int judge_trace(void)
{
    struct finding found = {.kind = CODE_TRACE, .reason = REASON_NOT_ALLOWED};

    if (program_may(PROGRAM_MAY_TRACE))
        return 0;
    return settle(&found, mode_of(CODE_TRACE));
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(trust_trace, struct task_struct *target, unsigned int mode)
{
    return mode & PTRACE_MODE_ATTACH ? judge_trace() : 0;
}

/* Asked for by the one who is traced: its parent would write into it. */
SEC("lsm/ptrace_traceme")
int BPF_PROG(trust_traced, struct task_struct *parent)
{
    return judge_trace();
}

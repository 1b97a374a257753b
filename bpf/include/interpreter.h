/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Files that an interpreter was told to run. At its first read after an exec the names among its arguments are put into
 * a Bloom filter; a file of such a name that it opens for reading is judged as code. A name too many is a file judged
 * too many; a name too few there is not.
 */
#ifndef DAVY_INTERPRETER_H
#define DAVY_INTERPRETER_H

#include "trust.h"

#define FNV_OFFSET 2166136261U
#define FNV_PRIME 16777619U
/* Arguments behind this many bytes are not looked at. */
#define ARGUMENTS_MAX 65536

static __always_inline void add_name(struct program *program, u32 hash)
{
    u32 first = hash % (NAME_WORDS * 64);
    u32 second = (hash >> 16) % (NAME_WORDS * 64);

    program->names[first / 64 % NAME_WORDS] |= 1ULL << first % 64;
    program->names[second / 64 % NAME_WORDS] |= 1ULL << second % 64;
}

static __always_inline bool has_name(struct program *program, u32 hash)
{
    u32 first = hash % (NAME_WORDS * 64);
    u32 second = (hash >> 16) % (NAME_WORDS * 64);

    return program->names[first / 64 % NAME_WORDS] >> first % 64 & 1 &&
           program->names[second / 64 % NAME_WORDS] >> second % 64 & 1;
}

struct argument_walk {
    unsigned long begin;
    unsigned long end;
    /* Since the last slash; and since the last sign that options join a value with. */
    u32 name;
    u32 value;
    u32 failed;
};

/* Takes in one byte. An argument may be a path, or an option with a path behind a sign. */
static long walk_argument(u32 index, struct argument_walk *walk)
{
    struct program *program = current_program();

    if (!program)
        return 1;
    if (index % NAME_BYTES == 0) {
        unsigned long from = walk->begin + index;
        unsigned long size = walk->end - from;

        /* No further than they go: behind them what is mapped may end. */
        if (size > NAME_BYTES)
            size = NAME_BYTES;
        if (bpf_probe_read_user(program->text, size, (void *)from)) {
            walk->failed = 1;
            return 1;
        }
    }
    u8 byte = program->text[index % NAME_BYTES];
    switch (byte) {
    case 0:
    case ':':
        add_name(program, walk->name);
        add_name(program, walk->value);
        walk->value = FNV_OFFSET;
        if (!byte) {
            walk->name = FNV_OFFSET;
            return 0;
        }
        break;
    case '/':
        walk->name = walk->value = FNV_OFFSET;
        return 0;
    case '=':
    case ',':
        walk->value = FNV_OFFSET;
        break;
    default:
        walk->value = (walk->value ^ byte) * FNV_PRIME;
    }
    walk->name = (walk->name ^ byte) * FNV_PRIME;
    return 0;
}

static __always_inline void read_arguments(struct program *program)
{
    struct mm_struct *mm = BPF_CORE_READ(bpf_get_current_task_btf(), mm);
    unsigned long begin = BPF_CORE_READ(mm, arg_start);
    unsigned long end = BPF_CORE_READ(mm, arg_end);
    unsigned long length = end - begin;
    struct argument_walk walk = {.begin = begin, .end = end, .name = FNV_OFFSET, .value = FNV_OFFSET};

    bpf_loop(length < ARGUMENTS_MAX ? length : ARGUMENTS_MAX, walk_argument, &walk, 0);
    program->has_names = !walk.failed;
}

/* The hash of a text, or of what is behind its last slash. Zero when it is longer than fits. */
static __always_inline u32 hash_of(struct program *program, const void *text, bool path)
{
    u32 hash = FNV_OFFSET;
    long length = bpf_probe_read_kernel_str(program->text, NAME_BYTES, text);

    if (length <= 0 || length >= NAME_BYTES)
        return 0;
    for (int i = 0; i < NAME_BYTES; i++) {
        u8 byte = program->text[i];

        if (!byte)
            break;
        hash = path && byte == '/' ? FNV_OFFSET : (hash ^ byte) * FNV_PRIME;
    }
    return hash;
}

/* Whether the current process is an interpreter that was told to run this file. */
static __always_inline bool told_to_run(struct program *program, struct file *file)
{
    if (!program->has_names)
        read_arguments(program);
    u32 next = program->judge_next;
    u32 hash = hash_of(program, file->f_path.dentry->d_name.name, false);

    program->judge_next = 0;
    /* Where they could not be read, or the name is too long, it may be one. */
    return next || !hash || !program->has_names || has_name(program, hash);
}

/* What a named link leads to is named as well. Where its text is not to be had, the next file that is opened is. */
static __always_inline void followed(struct program *program, struct dentry *dentry, struct inode *inode)
{
    u32 hash;
    char *text;

    if (!program->has_names)
        read_arguments(program);
    hash = hash_of(program, dentry->d_name.name, false);
    if (hash && program->has_names && !has_name(program, hash))
        return;
    text = inode->i_link;
    hash = text ? hash_of(program, text, true) : 0;
    if (hash)
        add_name(program, hash);
    else
        program->judge_next = 1;
}

#endif

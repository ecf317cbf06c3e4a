// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* What lifecycle.bpf.c counts, for kernels without BTF. bcc compiles it where it runs; exporter/loaders/bcc_child.py says how.
 *
 * This is the half that any kernel shares. The other half says what is known of a process that exits, and is put behind this one, for bcc
 * rewrites one file only: task.bcc.c where the kernel's headers are installed, live_processes.bcc.c where they are not. The invariants are those
 * of lifecycle.bpf.c.
 */
#ifdef WITH_TASK
#include <linux/sched.h>
#include <linux/sched/signal.h>
#else
#include <linux/types.h>
#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#include "lifecycle.h"

#ifndef SIGKILL
#define SIGKILL 9
#define E2BIG 7
#define CLONE_PARENT 0x00008000 /* include/uapi/linux/sched.h */
#define CLONE_THREAD 0x00010000
#endif

/* A process that has just exited. */
struct life {
	u64 start_ns;
	u64 runtime_ns;
	struct comm comm;
	struct comm parent_comm;
	u32 ppid;   /* 0 where it is not known */
	s32 code;   /* as wait(2) has it; -1 where it is not known */
	u8 outcome; /* enum outcome */
	u8 core_dump;
	u8 sigkill;
};

BPF_TABLE("array", int, struct config, configs, 1);
BPF_TABLE("array", int, struct control, control, 1);
BPF_TABLE("array", int, struct shared, shared, 1);
BPF_TABLE("percpu_array", int, struct cpu, cpus, 1);
BPF_TABLE("hash", struct comm, struct counts, comms_a, MAX_COMMS);
BPF_TABLE("hash", struct comm, struct counts, comms_b, MAX_COMMS);
BPF_TABLE("array", int, u32, barrier_inner, 1);
BPF_ARRAY_OF_MAPS(barrier, "barrier_inner", 1);
BPF_F_TABLE("hash", u32, struct exe, exes, MAX_EXES, BPF_F_NO_PREALLOC);
#ifdef WITH_RING
BPF_RINGBUF_OUTPUT(records, RECORDS_BYTES / 4096);
#else
BPF_PERF_OUTPUT(record_events);
BPF_TABLE("percpu_array", int, struct record, scratch, 1); /* a record is too large for the stack beside the rest */
#endif

/* The arrays' only elements. Never null, but the verifier wants to see it tested. */
struct known {
	struct config *config;
	struct control *control;
	struct shared *shared;
	struct cpu *cpu;
};

static __always_inline int look_up(struct known *known)
{
	int zero = 0;

	known->config = configs.lookup(&zero);
	known->control = control.lookup(&zero);
	known->shared = shared.lookup(&zero);
	known->cpu = cpus.lookup(&zero);
	return known->config && known->control && known->shared && known->cpu;
}

/* What to do after a comm was entered into one of the two maps, or was not. */
static __always_inline void entered(struct known *known, int err, struct counts *counts)
{
	if (!err)
		ADD(known->cpu->comms_entered, 1);
	if (!counts && err != -E2BIG)
		ADD(known->cpu->lost[LOST_NAME_BUSY], 1);
}

static __always_inline struct counts *counts_of(struct known *known, struct comm *comm)
{
	struct counts *counts;
	int err;

	if (known->control->active) {
		counts = comms_b.lookup(comm);
		if (counts)
			return counts;
		err = comms_b.insert(comm, &known->config->none);
		counts = comms_b.lookup(comm);
	} else {
		asm volatile(""); /* two calls, each with one map, or the kernel can't make them direct */
		counts = comms_a.lookup(comm);
		if (counts)
			return counts;
		err = comms_a.insert(comm, &known->config->none);
		counts = comms_a.lookup(comm);
	}
	entered(known, err, counts);
	return counts ? counts : &known->shared->other;
}

static __always_inline void current_comm(struct comm *comm)
{
	bpf_get_current_comm(comm, sizeof(*comm));
	pad_comm(comm);
}

static __always_inline void count_clone(struct known *known, int is_thread)
{
	if (!counts_now(known->control))
		return;
	if (is_thread)
		known->cpu->threads++;
	else
		known->cpu->forks++;
}

static __always_inline void count_exec(struct known *known, struct comm *comm)
{
	if (counts_now(known->control))
		ADD(counts_of(known, comm)->execs, 1);
}

static __always_inline void fill_record(struct record *record, u32 pid, u64 now, struct life *life)
{
	struct exe *exe;

	record->ended_ns = now;
	record->runtime_ns = life->runtime_ns;
	record->cgroup = bpf_get_current_cgroup_id();
	record->pid = pid;
	record->ppid = life->ppid;
	record->uid = bpf_get_current_uid_gid();
	record->code = life->code;
	record->comm = life->comm;
	record->parent_comm = life->parent_comm;
	exe = exes.lookup(&pid);
	if (exe)
		bpf_probe_read_kernel_str(record->exe, sizeof(record->exe), exe->path);
	else
		record->exe[0] = 0;
}

static __always_inline void send_record(void *ctx, struct known *known, u32 pid, u64 now, struct life *life)
{
	struct record *record;
#ifndef WITH_RING
	int zero = 0;
#endif

	if (!known->control->records)
		return;
#ifdef WITH_RING
	record = records.ringbuf_reserve(sizeof(struct record));
	if (!record) {
		known->cpu->records_dropped++;
		return;
	}
	fill_record(record, pid, now, life);
	records.ringbuf_submit(record, known->control->records == RECORDS_LIVE ? 0 : BPF_RB_NO_WAKEUP);
#else
	record = scratch.lookup(&zero);
	if (!record)
		return;
	fill_record(record, pid, now, life);
	if (record_events.perf_submit(ctx, record, sizeof(*record)))
		known->cpu->records_dropped++;
#endif
}

/* The path of an executable is in the formatted tracepoint; where the kernel skips that one, a record is without it. */
int on_path(struct tracepoint__sched__sched_process_exec *args)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct known known = {};
	struct exe *exe;

	if (!look_up(&known) || !known.control->records)
		return 0;
	if (exes.update(&pid, (struct exe *)known.config->no_exe)) {
		ADD(known.cpu->lost[LOST_EXES_FULL], 1);
		return 0;
	}
	exe = exes.lookup(&pid);
	if (exe)
		bpf_probe_read_kernel_str(exe->path, sizeof(exe->path), (char *)args + (args->data_loc_filename & 0xffff));
	return 0;
}

static __always_inline void forget_exe(struct known *known, u32 pid)
{
	if (known->control->records)
		exes.delete(&pid);
}

static __always_inline void count_exit(void *ctx, struct known *known, u32 pid, u64 now, struct life *life)
{
	struct counts *counts, *parent_counts = 0;

	if (!counts_at(known->control, now)) {
		forget_exe(known, pid);
		return;
	}
	counts = counts_of(known, &life->comm);
	if (life->runtime_ns < known->config->threshold_ns)
		parent_counts = same_comm(&life->parent_comm, &life->comm) ? counts : counts_of(known, &life->parent_comm);
	known->cpu->core_dumps += life->core_dump;
	known->cpu->signals[SIGKILL] += life->sigkill;
	ADD(counts->exits[life->outcome & (OUTCOMES - 1)], 1);
	ADD(counts->runtime_ns, life->runtime_ns);
	if (parent_counts) {
		ADD(parent_counts->short_children, 1);
		count_second(known->cpu, now);
		send_record(ctx, known, pid, now, life);
	} else {
		ADD(counts->long_exits, 1);
	}
	forget_exe(known, pid);
	ADD(counts->buckets[bucket_of(known->config->bounds_ns, life->runtime_ns)], 1);
}

/* Delivered to each thread of every exit_group, a SIGKILL is counted where a process exits by it, if that can be known. */
int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	u32 number = ctx->args[0];
	struct known known = {};

	if (look_up(&known) && number < SIGNALS && number != SIGKILL && counts_now(known.control))
		known.cpu->signals[number]++;
	return 0;
}

// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Counts the same as lifecycle.bpf.c, for kernels without BTF. bcc compiles it on the host, see exporter/loaders/bcc_child.py.
 *
 * This half is the same for all kernels. The other half finds the facts about a process that exits: task.bcc.c if the kernel's headers are
 * installed, else live_processes.bcc.c. It is appended to this file, since bcc rewrites only one file. The invariants are those of
 * lifecycle.bpf.c.
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
struct exit_facts {
	u64 start_ns;
	u64 runtime_ns;
	struct origin origin; /* cgroup and user are filled in here, the rest by the other half */
	u32 ppid;   /* 0 if unknown */
	s32 code;   /* wait status, see wait(2); -1 if unknown */
	u8 outcome; /* enum outcome */
	u8 core_dump;
	u8 sigkill;
	u8 oom_killed;
	u32 spawner_pid; /* 0 if unknown */
	u32 between_n;
};

/* Keyed by PID here: without the kernel's headers the start of a process is not at hand. */
struct exe_path {
	char path[EXE_LEN];
};

/* The start of `struct counts`; the loader says how many buckets of native histograms it has. */
struct row {
	u64 words[(__builtin_offsetof(struct counts, lifetimes) + ROW_LIFETIMES * sizeof(u32)) / sizeof(u64)];
};

BPF_TABLE("array", int, struct config, configs, 1);
BPF_TABLE("array", int, struct control, control, 1);
BPF_TABLE("array", int, struct shared, shared, 1);
BPF_TABLE("percpu_array", int, struct cpu, cpus, COPIES);
#ifdef SEVERAL_COPIES
BPF_TABLE("array", u32, u64, exit_marks, EXIT_MARKS);
#endif
BPF_TABLE("hash", struct comm, struct row, comms_a, MAX_COMMS);
BPF_TABLE("hash", struct comm, struct row, comms_b, MAX_COMMS);
BPF_TABLE("array", int, u32, barrier_inner, 1);
BPF_TABLE("hash", struct origin, struct origin_counts, origins_a, MAX_ORIGINS);
BPF_TABLE("hash", struct origin, struct origin_counts, origins_b, MAX_ORIGINS);
BPF_TABLE("hash", struct cgroup_key, struct cgroup_counts, cgroup_counts_a, 1); /* not filled here */
BPF_TABLE("hash", struct cgroup_key, struct cgroup_counts, cgroup_counts_b, 1);
#ifdef MKDIR_TELLS_ID
BPF_TABLE("lru_hash", u64, struct cgroup_path, cgroup_paths, MAX_CGROUP_PATHS);
#endif
BPF_ARRAY_OF_MAPS(barrier, "barrier_inner", 1);
BPF_F_TABLE("hash", u32, struct exe_path, exes, MAX_EXES, BPF_F_NO_PREALLOC);
#ifdef WITH_RING
BPF_RINGBUF_OUTPUT(records, BCC_RECORDS_BYTES / 4096);
#else
BPF_PERF_OUTPUT(record_events);
BPF_TABLE("percpu_array", int, struct record_with_exe, scratch, 1); /* a record is too large for the stack beside the rest */
#endif

/* The only elements of the arrays. They are never null, but the verifier demands the test. */
struct globals {
	struct config *config;
	struct control *control;
	struct shared *shared;
	struct cpu *cpu;
};

static __always_inline int look_up_for(struct globals *globals, int copy)
{
	int zero = 0;

	globals->config = configs.lookup(&zero);
	globals->control = control.lookup(&zero);
	globals->shared = shared.lookup(&zero);
	globals->cpu = cpus.lookup(&copy);
	return globals->config && globals->control && globals->shared && globals->cpu;
}

static __always_inline int look_up(struct globals *globals)
{
	return look_up_for(globals, 0);
}

/* For an exit: returns whether this copy of the program is to count it. */
static __always_inline int is_turn(struct globals *globals, int copy)
{
#ifdef SEVERAL_COPIES
	u64 id = bpf_get_current_pid_tgid(), *mark;
	u32 slot = id & (EXIT_MARKS - 1);

	mark = exit_marks.lookup(&slot);
	return mark && is_my_turn(mark, globals->cpu, id, copy);
#else
	return 1;
#endif
}

/* Counts the result of adding a comm to one of the two maps. */
static __always_inline void count_insert(struct globals *globals, int err, struct counts *counts)
{
	if (!err)
		ADD(globals->cpu->entered, 1);
	if (!counts && err != -E2BIG)
		ADD(globals->cpu->lost[LOST_NAME_BUSY], 1);
}

static __always_inline struct counts *counts_of(struct globals *globals, struct comm *comm)
{
	struct counts *counts;
	int err;

	if (globals->control->active) {
		counts = (struct counts *)comms_b.lookup(comm);
		if (counts)
			return counts;
		err = comms_b.insert(comm, (struct row *)&globals->config->none);
		counts = (struct counts *)comms_b.lookup(comm);
	} else {
		asm volatile(""); /* keeps the two calls apart: the kernel makes a look-up direct only if it always has the same map */
		counts = (struct counts *)comms_a.lookup(comm);
		if (counts)
			return counts;
		err = comms_a.insert(comm, (struct row *)&globals->config->none);
		counts = (struct counts *)comms_a.lookup(comm);
	}
	count_insert(globals, err, counts);
	return counts ? counts : &globals->shared->other;
}

static __always_inline struct origin_counts *origin_counts_of(struct globals *globals, struct origin *origin)
{
	struct origin_counts *counts;
	int err;

	if (globals->control->active) {
		counts = origins_b.lookup(origin);
		if (counts)
			return counts;
		err = origins_b.insert(origin, &globals->config->no_origin);
		counts = origins_b.lookup(origin);
	} else {
		asm volatile("");
		counts = origins_a.lookup(origin);
		if (counts)
			return counts;
		err = origins_a.insert(origin, &globals->config->no_origin);
		counts = origins_a.lookup(origin);
	}
	if (!err)
		ADD(globals->cpu->entered, 1);
	if (!counts)
		ADD(globals->cpu->lost[LOST_ORIGINS_FULL], 1);
	return counts ? counts : &globals->shared->other_origin;
}

static __always_inline void count_origin(struct globals *globals, struct exit_facts *facts, int is_short)
{
	int is_failed = facts->outcome == OUTCOME_ERROR || facts->outcome == OUTCOME_SIGNAL;
	struct origin_counts *counts;

	/* With only v1 mounted, the helper returns the root. */
	facts->origin.cgroup = globals->config->pids_cgroups ? 0 : bpf_get_current_cgroup_id();
	facts->origin.uid = bpf_get_current_uid_gid();
	if (!globals->config->origins || (!is_short && !is_failed))
		return;
	counts = origin_counts_of(globals, &facts->origin);
	if (is_short)
		ADD(counts->short_exits, 1);
	if (is_failed)
		ADD(counts->failed_exits, 1);
}

/* Ancestors between the parent and the spawner are not named here. */
static __always_inline void found_spawner(struct exit_facts *facts, u32 pid, int hops)
{
	facts->origin.spawner_state = SPAWNER_FOUND;
	facts->spawner_pid = pid;
	if (hops < 2)
		facts->between_n = 0;
}

static __always_inline void current_comm(struct comm *comm)
{
	bpf_get_current_comm(comm, sizeof(*comm));
	pad_comm(comm);
}

static __always_inline void count_clone(struct globals *globals, int is_thread)
{
	if (!counts_now(globals->control))
		return;
	if (is_thread)
		globals->cpu->threads++;
	else
		globals->cpu->forks++;
}

static __always_inline void count_exec(struct globals *globals, struct comm *comm)
{
	if (counts_now(globals->control))
		ADD(counts_of(globals, comm)->execs, 1);
}

static __always_inline void fill_record(struct record_with_exe *sent, u32 pid, u64 now, struct exit_facts *facts)
{
	struct record *record = &sent->record;
	struct exe_path *exe;

	record->ended_ns = now;
	record->runtime_ns = facts->runtime_ns;
	record->cgroup = facts->origin.cgroup;
	record->pid = pid;
	record->ppid = facts->ppid;
	record->uid = facts->origin.uid;
	record->code = facts->code;
	record->comm = facts->origin.comm;
	record->parent_comm = facts->origin.parent;
	record->spawner = facts->origin.spawner;
	record->spawner_state = facts->origin.spawner_state;
	exe = exes.lookup(&pid);
	if (exe)
		bpf_probe_read_kernel_str(sent->exe, sizeof(sent->exe), exe->path);
	else
		sent->exe[0] = 0;
	record->has_exe = !!exe;
	record->oom_killed = facts->oom_killed;
	record->spawner_start_ns = 0;
	record->spawner_pid = facts->spawner_pid;
	record->between_n = facts->between_n;
}

static __always_inline void send_record(void *ctx, struct globals *globals, u32 pid, u64 now, struct exit_facts *facts)
{
	struct record_with_exe *record;
#ifndef WITH_RING
	int zero = 0;
#endif

	if (!globals->control->records)
		return;
#ifdef WITH_RING
	record = records.ringbuf_reserve(sizeof(*record));
	if (!record) {
		globals->cpu->records_dropped++;
		return;
	}
	fill_record(record, pid, now, facts);
	records.ringbuf_submit(record, globals->control->records == RECORDS_LIVE ? 0 : BPF_RB_NO_WAKEUP);
#else
	record = scratch.lookup(&zero);
	if (!record)
		return;
	fill_record(record, pid, now, facts);
	if (record_events.perf_submit(ctx, record, sizeof(*record)))
		globals->cpu->records_dropped++;
#endif
}

/* Only the formatted tracepoint has the path of the executable. If the kernel skips it, the record has no path. */
int on_path(struct tracepoint__sched__sched_process_exec *args)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct globals globals = {};
	struct exe_path *exe;

	if (!look_up(&globals) || !globals.control->records)
		return 0;
	if (exes.update(&pid, (struct exe_path *)globals.config->no_exe)) {
		ADD(globals.cpu->lost[LOST_EXES_FULL], 1);
		return 0;
	}
	exe = exes.lookup(&pid);
	if (exe)
		bpf_probe_read_kernel_str(exe->path, sizeof(exe->path), (char *)args + (args->data_loc_filename & 0xffff));
	return 0;
}

static __always_inline void forget_exe(struct globals *globals, u32 pid)
{
	if (globals->control->records)
		exes.delete(&pid);
}

static __always_inline void count_exit(void *ctx, struct globals *globals, u32 pid, u64 now, struct exit_facts *facts)
{
	int is_short = facts->runtime_ns < globals->config->threshold_ns;
	struct counts *counts;

	if (!counts_at(globals->control, now)) {
		forget_exe(globals, pid);
		return;
	}
	counts = counts_of(globals, &facts->origin.comm);
	count_origin(globals, facts, is_short);
	globals->cpu->core_dumps += facts->core_dump;
	globals->cpu->signals[SIGKILL] += facts->sigkill;
	ADD(counts->exits[facts->outcome & (OUTCOMES - 1)], 1);
	ADD(counts->runtime_ns, facts->runtime_ns);
	if (is_short) {
		count_second(globals->cpu, now);
		send_record(ctx, globals, pid, now, facts);
	} else {
		ADD(counts->long_exits, 1);
	}
	forget_exe(globals, pid);
	if (ROW_LIFETIMES)
		ADD(counts->lifetimes[lifetime_of(facts->runtime_ns, ROW_LIFETIMES == FINE_LIFETIMES)], 1);
	ADD(counts->buckets[bucket_of(globals->config->bounds_ns, facts->runtime_ns)], 1);
}

/* In the second half of the source. */
static __always_inline int exited(struct bpf_raw_tracepoint_args *ctx, int copy);

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return exited(ctx, 0);
}

#ifdef SEVERAL_COPIES
int on_exit_2(struct bpf_raw_tracepoint_args *ctx)
{
	return exited(ctx, 1);
}

int on_exit_3(struct bpf_raw_tracepoint_args *ctx)
{
	return exited(ctx, 2);
}
#endif

#ifdef MKDIR_TELLS_ID
int on_mkdir(struct tracepoint__cgroup__cgroup_mkdir *args)
{
	struct globals globals = {};
	struct cgroup_path *path;
	u64 id = args->id;

	if (!look_up(&globals) || !globals.config->origins || args->root != (int)globals.config->hierarchy_id)
		return 0;
	cgroup_paths.update(&id, (struct cgroup_path *)globals.config->no_path);
	path = cgroup_paths.lookup(&id);
	if (path)
		bpf_probe_read_kernel_str(path->path, sizeof(path->path), (char *)args + (args->data_loc_path & 0xffff));
	return 0;
}
#endif

/* SIGKILL is delivered to each thread at every exit_group. So it is counted at the exit of a process that it killed, where that is known. */
int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	u32 number = ctx->args[0];
	struct globals globals = {};

	if (look_up(&globals) && number < SIGNALS && number != SIGKILL && counts_now(globals.control))
		globals.cpu->signals[number]++;
	return 0;
}

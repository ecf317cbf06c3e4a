// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Counts processes in kernel maps, at the event itself, where nothing is lost.
 *
 * Invariants
 * - The exit of a process is counted once: by the thread that the kernel calls the last one (`group_dead`). If the tracepoint does not have
 *   that, it is counted by the first thread that sees no live thread left.
 * - No count waits for another event. Only CPU does: the kernel knows it when it frees the leader, after the exit. The free finds comm,
 *   start and CPU in the task itself. It can't know whether the process was long-lived, had several threads, or exited while these programs
 *   did not count: of exactly these processes the exit leaves a note. So most short processes need no map entry.
 * - CPU is counted by the mode that counted the exit, even if another mode has taken over since.
 * - No program deletes from the maps of comms. User space swaps the two maps and drains the old one, which no program uses any more.
 * - A comm that finds no room is counted in `shared.other`, so sums are complete. Totals are the sum over all comms and `other`.
 *
 * The cost of a program is its cold cache lines, about 100 ns each. Tried and rejected: totals besides the counts by comm, an entry for
 * each process that exited, a map of live processes; see docs/adr/0002-cold-cache-lines.md.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"
#include "lifecycle.h"
#include "maps.h"
#include "tasks.h"
#include "exe_path.h"
#include "arguments.h"

char LICENSE[] SEC("license") = "GPL";

/* `err` has to be an int: kernels before 6.4 call the map's own function instead of the helper, and do not sign-extend its int. */
static __always_inline struct counts *enter_comm(void *comms, const struct comm *comm)
{
	int err = bpf_map_update_elem(comms, comm, (const void *)&config.none, BPF_NOEXIST);
	struct counts *counts = bpf_map_lookup_elem(comms, comm);
	struct cpu *cpu = this_cpu();

	if (cpu && !err)
		ADD(cpu->entered, 1);
	if (cpu && !counts && err != -E2BIG)
		ADD(cpu->lost[LOST_NAME_BUSY], 1);
	return counts ?: &shared.other;
}

static __always_inline struct counts *counts_of(const struct comm *comm)
{
	struct counts *counts;

	if (control.active) {
		counts = bpf_map_lookup_elem(&comms_b, comm);
		return counts ?: enter_comm(&comms_b, comm);
	}
	asm volatile(""); /* keeps the two calls apart: the kernel makes a look-up direct only if it always has the same map */
	counts = bpf_map_lookup_elem(&comms_a, comm);
	return counts ?: enter_comm(&comms_a, comm);
}

#include "origins.h"
#include "lineage.h"
#include "records.h"

/* The row of this copy of on_exit. */
static __always_inline struct cpu *own_cpu(void)
{
	const __u32 copy = config.copy;

	return config.copies > 1 ? bpf_map_lookup_elem(&cpus, &copy) : this_cpu();
}

static __always_inline bool is_turn(struct cpu *cpu)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 slot = id & (EXIT_MARKS - 1);
	__u64 *mark = bpf_map_lookup_elem(&exit_marks, &slot);

	return mark && is_my_turn(mark, cpu, id, config.copy);
}

/* Returns the slot that counts notes of such start times. If it is 0, a free need not look into the map; for most it is. */
static __always_inline __u32 *filter_of(__u64 start_ns)
{
	return &shared.filter[(start_ns >> 10) % FILTER];
}

static __always_inline void set_exit_note(struct cpu *cpu, struct task_struct *leader, struct exit_note *note)
{
	int is_here = born_here(&control, note->start_ns);
	__u64 key = (__u64)leader;
	struct exit_note *old;
	int err;

	if (note->skip ? !is_here : is_here && !note->is_long && !note->is_kernel && !note->had_threads)
		return;
	err = bpf_map_update_elem(&exit_notes, &key, note, BPF_NOEXIST);
	if (err == -EEXIST) { /* from an earlier process at this address, whose free was not seen */
		old = bpf_map_lookup_elem(&exit_notes, &key);
		if (old)
			ADD(*filter_of(old->start_ns), -1);
		err = bpf_map_update_elem(&exit_notes, &key, note, BPF_ANY);
	}
	if (err)
		ADD(cpu->lost[LOST_CPU_MARKS_FULL], 1);
	else
		ADD(*filter_of(note->start_ns), 1);
}

SEC("tp_btf/task_newtask")
int on_newtask(__u64 *ctx)
{
	struct cpu *cpu = this_cpu();

	if (!cpu || !counts_now(&control))
		return 0;
	if (ctx[1] & CLONE_THREAD)
		cpu->threads++;
	else
		cpu->forks++;
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct comm comm;

	if (control.records) {
		keep_exe((void *)ctx[0], (void *)ctx[2]);
		if (config.arguments)
			keep_arguments((void *)ctx[0]);
	}
	if (!counts_now(&control))
		return 0;
	read_comm(&comm, (void *)ctx[0]);
	ADD(counts_of(&comm)->execs, 1);
	return 0;
}

/* Last of all: the verifier would follow the places in both histograms through all code after it. */
static __always_inline void count_runtime(struct counts *counts, __u64 runtime)
{
	__u64 *bucket = &counts->buckets[bucket_of(config.bounds_ns, runtime)];
	const __u64 lifetimes = config.lifetimes;
	__u32 *lifetime;

	if (lifetimes) {
		lifetime = &counts->lifetimes[lifetime_of(runtime, lifetimes == FINE_LIFETIMES)];
		fetch(bucket);
		fetch(lifetime);
		ADD(*lifetime, 1);
	}
	ADD(*bucket, 1);
}

/* Returns the counts that the exit was added to. All reads come before all adds: an atomic add delays the reads after it. */
static __always_inline struct counts *count_exit(struct cpu *cpu, struct task_struct *leader, struct exit_note *note, __u64 now,
						 __u64 runtime)
{
	struct task_struct *parent = leader->real_parent->group_leader;
	struct signal_struct *signal = leader->signal;
	struct origin_counts *origin_counts = 0;
	struct origin origin = {};
	struct task_struct *spawner = 0;
	struct counts *counts;
	enum outcome outcome;
	bool is_failed, is_told, oom_killed = 0;
	int code;

	note->is_kernel = !!(leader->flags & PF_KTHREAD);
	/* What is left of threads that have gone, and those that are about to go. */
	note->had_threads = is_nonzero((signal->nr_threads & ~1) | signal->sum_sched_runtime);
	note->is_long = runtime >= config.threshold_ns;

	read_name(&origin.comm, leader, note->is_kernel);
	code = wait_status(leader, signal);
	outcome = outcome_of(code);
	is_failed = outcome != OUTCOME_OK;
	is_told = !note->is_long | is_failed;
	if (is_told && (config.origins || control.records)) {
		origin.cgroup = config.pids_cgroups ? cgroup_of(leader) : bpf_get_current_cgroup_id();
		origin.uid = bpf_get_current_uid_gid();
		spawner = find_spawner(&origin, parent, now);
	}
	counts = counts_of(&origin.comm);
	if (is_told) {
		read_name(&origin.parent, parent, parent->flags & PF_KTHREAD);
		if (config.origins)
			origin_counts = origin_counts_of(&origin);
	}

	if (code & CORE_DUMPED)
		cpu->core_dumps++;
	/* Delivered to each thread of every exit_group, so it is counted here, once a process. */
	if ((code & 0x7f) == SIGKILL) {
		cpu->signals[SIGKILL]++;
		oom_killed = BPF_CORE_READ(signal, oom_mm) != 0; /* set for its victims: mm/oom_kill.c, mark_oom_victim() */
		if (oom_killed && config.origins)
			count_oom_kill(origin.cgroup);
	}
	ADD(counts->exits[outcome], 1);
	ADD(counts->runtime_ns, runtime);
	if (origin_counts && !note->is_long)
		ADD(origin_counts->short_exits, 1);
	if (origin_counts && is_failed)
		ADD(origin_counts->failed_exits, 1);
	if (!note->is_long) {
		count_second(cpu, now);
		if (control.records)
			send_record(cpu, &origin, leader, parent, spawner, now, runtime, code, oom_killed);
	} else {
		ADD(counts->long_exits, 1);
	}
	return counts;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0], *leader;
	struct counts *counts = 0;
	struct exit_note note = {};
	__u64 now, runtime;
	struct cpu *cpu;

	if (config.copies > 1) { /* for each thread, so that the skipped runs are counted exactly */
		cpu = own_cpu();
		if (!cpu || !is_turn(cpu))
			return 0;
	}
	if (!is_last(task, ctx))
		return 0;
	now = bpf_ktime_get_ns(); /* before the reads below: it would wait for them */
	cpu = own_cpu();
	if (!cpu)
		return 0;
	leader = task->group_leader;
	note.start_ns = leader->start_time;
	runtime = now > note.start_ns ? now - note.start_ns : 0;
	if (counts_at(&control, now))
		counts = count_exit(cpu, leader, &note, now, runtime);
	note.skip = !counts;
	set_exit_note(cpu, leader, &note);
	if (counts)
		count_runtime(counts, runtime);
	return 0;
}

SEC("tp_btf/sched_process_free")
int on_free(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 key = (__u64)task, start_ns, cpu_ns;
	struct exit_note *found = 0, note = {};
	struct counts *counts;
	struct comm comm;

	if (task->group_leader != task)
		return 0;
	/* User and system time, as in getrusage(): kernel/sched/cputime.c, cputime_adjust() */
	cpu_ns = task->se.sum_exec_runtime;
	start_ns = task->start_time;
	if (*filter_of(start_ns))
		found = bpf_map_lookup_elem(&exit_notes, &key);
	if (found && found->start_ns == start_ns) {
		note = *found;
		if (!bpf_map_delete_elem(&exit_notes, &key)) /* it fails if this CPU holds the bucket's lock */
			ADD(*filter_of(start_ns), -1);
	} else if (!born_here(&control, start_ns)) {
		return 0;
	}
	if (note.skip)
		return 0;
	if (note.had_threads)
		cpu_ns = task->signal->sum_sched_runtime; /* by now it includes the leader's own: __exit_signal() */
	read_name(&comm, task, note.is_kernel);
	counts = counts_of(&comm);
	if (note.is_long)
		ADD(counts->long_cpu_ns, cpu_ns);
	else
		ADD(counts->short_cpu_ns, cpu_ns);
	if (config.origins && !note.is_long)
		ADD(cgroup_counts_of(cgroup_of(task))->short_cpu_ns, cpu_ns);
	if (control.records && !note.is_long)
		send_cpu(task, start_ns, cpu_ns);
	ADD(counts->cpu_recorded, 1);
	return 0;
}

SEC("tp_btf/signal_deliver")
int on_signal(__u64 *ctx)
{
	struct cpu *cpu = this_cpu();
	__u32 number = ctx[0];

	if (cpu && number < SIGNALS && number != SIGKILL && counts_now(&control))
		cpu->signals[number]++;
	return 0;
}

// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Counts the lives of processes where nothing is lost: in the kernel, in maps, at the event itself.
 *
 * Invariants
 * - A process's end is counted once: by the thread that the kernel calls the last one (`group_dead`), or, where the tracepoint does not
 *   tell, by the first of those that see no live thread left.
 * - No count waits for another event. Only CPU does: the kernel knows it when it frees the leader, later than the exit. What the exit
 *   knew is kept in `pending` until then; an entry whose free never came is counted as lost, not guessed.
 * - Nothing here deletes from the map of comms. User space swaps the inner map and drains the old one, which no program holds any more.
 * - A comm that finds no room is counted in `totals.other`: sums stay whole.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"
#include "lifecycle.h"

char LICENSE[] SEC("license") = "GPL";

const volatile struct config config = {};
struct totals totals = {};

struct comms {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_COMMS);
	__type(key, struct comm);
	__type(value, struct counts);
} comms_a SEC(".maps"), comms_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct comms);
} comms SEC(".maps") = {.values = {&comms_a}};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PENDING);
	__type(key, __u64);
	__type(value, struct pending);
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_GUARDED);
	__type(key, struct ended);
	__type(value, __u8);
} guard SEC(".maps");

/* Per CPU, because a second that begins resets its slot, and that must not race. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seconds);
} seconds SEC(".maps");

static __always_inline struct counts *counts_of(const struct comm *comm)
{
	const __u32 zero = 0;
	void *active = bpf_map_lookup_elem(&comms, &zero);
	struct counts *counts;
	long err;

	if (!active)
		return &totals.other;
	counts = bpf_map_lookup_elem(active, comm);
	if (counts)
		return counts;
	err = bpf_map_update_elem(active, comm, (const void *)&config.none, BPF_NOEXIST);
	counts = bpf_map_lookup_elem(active, comm);
	if (counts) {
		if (!err)
			ADD(totals.comms_entered, 1);
		return counts;
	}
	if (err != -E2BIG)
		ADD(totals.lost[LOST_NAME_BUSY], 1);
	return &totals.other;
}

static __always_inline void read_comm(struct comm *comm, struct task_struct *task)
{
	if (task->flags & PF_KTHREAD)
		*comm = *(const struct comm *)&config.kernel_threads;
	else /* up to the zero only: old kernels leave rubbish behind it */
		bpf_probe_read_kernel_str(comm->name, COMM_LEN, task->comm);
}

static __always_inline bool is_last(struct task_struct *leader, __u64 *ctx)
{
	struct ended ended = {};
	const __u8 yes = 1;

	if (config.group_dead_arg)
		return ctx[1];
	if (leader->signal->live.counter)
		return 0;
	ended.leader = (__u64)leader;
	ended.start_ns = leader->start_time;
	return bpf_map_update_elem(&guard, &ended, &yes, BPF_NOEXIST) != -EEXIST;
}

static __always_inline enum outcome outcome_of(int code)
{
	if (code & 0x80)
		ADD(totals.core_dumps, 1);
	/* Delivered to each thread of every exit_group, so it is counted here, once a process. */
	if ((code & 0x7f) == SIGKILL)
		ADD(totals.signals[SIGKILL], 1);
	return code & 0x7f ? OUTCOME_SIGNAL : code ? OUTCOME_ERROR : OUTCOME_OK;
}

static __always_inline void count_short(__u64 now)
{
	const __u32 zero = 0;
	__u32 second = now / 1000000000;
	struct seconds *mine = bpf_map_lookup_elem(&seconds, &zero);
	struct second *slot;

	if (!mine)
		return;
	slot = &mine->ring[second % SECONDS];
	if (slot->second != second) {
		slot->second = second;
		slot->short_exits = 0;
	}
	ADD(slot->short_exits, 1);
}

static __always_inline void await_cpu(struct task_struct *leader, struct pending *entry)
{
	__u64 key = (__u64)leader;
	struct pending *old;
	long err = bpf_map_update_elem(&pending, &key, entry, BPF_NOEXIST);

	if (err == -EEXIST) { /* the kernel reuses the address, so the old one's free has passed us by */
		old = bpf_map_lookup_elem(&pending, &key);
		if (old && !old->charged)
			ADD(totals.lost[LOST_CPU_NEVER_CAME], 1);
		err = bpf_map_update_elem(&pending, &key, entry, BPF_ANY);
	}
	if (err)
		ADD(totals.lost[LOST_CPU_PENDING_FULL], 1);
}

SEC("tp_btf/task_newtask")
int on_newtask(__u64 *ctx)
{
	if (ctx[1] & CLONE_THREAD)
		ADD(totals.threads, 1);
	else
		ADD(totals.forks, 1);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct comm comm;

	bpf_get_current_comm(comm.name, COMM_LEN);
	ADD(totals.all.execs, 1);
	ADD(counts_of(&comm)->execs, 1);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_struct *leader = task->group_leader;
	struct pending entry = {};
	struct comm parent = {};
	enum outcome outcome;
	struct counts *counts;
	__u64 runtime;
	__u32 bucket;

	if (!is_last(leader, ctx))
		return 0;

	entry.start_ns = leader->start_time;
	entry.end_ns = bpf_ktime_get_ns();
	entry.tgid = leader->tgid;
	read_comm(&entry.comm, leader);
	runtime = entry.end_ns > entry.start_ns ? entry.end_ns - entry.start_ns : 0;
	entry.is_short = runtime < config.threshold_ns;
	/* wait4() answers the same: kernel/exit.c, wait_task_zombie() */
	outcome = outcome_of(leader->signal->flags & SIGNAL_GROUP_EXIT ? leader->signal->group_exit_code : leader->exit_code);
	bucket = bucket_of(config.bounds_ns, runtime);

	ADD(totals.all.exits[outcome], 1);
	ADD(totals.all.runtime_ns, runtime);
	ADD(totals.all.buckets[bucket], 1);

	counts = counts_of(&entry.comm);
	ADD(counts->exits[outcome], 1);
	ADD(counts->runtime_ns, runtime);
	if (config.comm_buckets)
		ADD(counts->buckets[bucket], 1);

	if (entry.is_short) {
		ADD(totals.all.short_exits, 1);
		ADD(counts->short_exits, 1);
		count_short(entry.end_ns);
		read_comm(&parent, leader->real_parent->group_leader);
		ADD(counts_of(&parent)->short_children, 1);
	}
	await_cpu(leader, &entry);
	return 0;
}

SEC("tp_btf/sched_process_free")
int on_free(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 key = (__u64)task;
	struct pending *entry;
	struct counts *counts;
	__u64 cpu;

	if (task->group_leader != task)
		return 0;
	entry = bpf_map_lookup_elem(&pending, &key);
	if (!entry || entry->charged)
		return 0;
	entry->charged = 1; /* the delete may fail while this CPU holds the bucket */
	if (entry->start_ns == task->start_time) {
		/* user and system time of all threads, as getrusage() has it: kernel/sched/cputime.c, cputime_adjust() */
		cpu = task->signal->sum_sched_runtime;
		counts = counts_of(&entry->comm);
		ADD(totals.all.cpu_ns, cpu);
		ADD(counts->cpu_ns, cpu);
		if (entry->is_short) {
			ADD(totals.all.short_cpu_ns, cpu);
			ADD(counts->short_cpu_ns, cpu);
		}
	} else {
		ADD(totals.lost[LOST_CPU_NEVER_CAME], 1);
	}
	bpf_map_delete_elem(&pending, &key);
	return 0;
}

SEC("tp_btf/signal_deliver")
int on_signal(__u64 *ctx)
{
	__u32 number = ctx[0];

	if (number < SIGNALS && number != SIGKILL)
		ADD(totals.signals[number], 1);
	return 0;
}

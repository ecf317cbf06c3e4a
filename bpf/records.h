/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Records of single short processes, for lifecycle.bpf.c. No count depends on them. */
#ifndef RECORDS_H
#define RECORDS_H

/* Never called or loaded. It makes the compiler describe the type in BTF, which a test compares with exporter/kernel/layout.py. */
static __noinline __attribute__((used)) int described(struct record_with_exe *record)
{
	return !!record;
}

static __always_inline struct exe *exe_of(struct task_struct *leader)
{
	__u32 slot = leader->tgid & (EXE_SLOTS - 1);

	return bpf_map_lookup_elem(&exes, &slot);
}

/* A ring that becomes half full wakes the reader. A few records may do that, since one may be overtaken on another CPU before it looks.
 * Otherwise the reader looks now and then or, if it is live, is woken by the first record that it has not read.
 */
static __always_inline __u64 wakeup(void)
{
	__u64 unread = bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA);

	if (unread - RECORDS_BYTES / 2 < 16 * sizeof(struct record))
		return BPF_RB_FORCE_WAKEUP;
	return control.records == RECORDS_LIVE ? 0 : BPF_RB_NO_WAKEUP;
}

static __always_inline void send_record(struct cpu *cpu, const struct origin *origin, struct task_struct *leader,
					struct task_struct *parent, struct task_struct *spawner, __u64 now, __u64 runtime, int code,
					bool oom_killed)
{
	struct record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (!record) {
		cpu->records_dropped++;
		return;
	}
	record->ended_ns = now;
	record->runtime_ns = runtime;
	record->cgroup = origin->cgroup;
	record->pid = leader->tgid;
	record->ppid = leader->real_parent->tgid;
	record->uid = origin->uid;
	record->code = code;
	record->comm = origin->comm;
	record->parent_comm = origin->parent;
	record->spawner = origin->spawner;
	record->spawner_state = origin->spawner_state;
	record->has_exe = !(leader->flags & PF_FORKNOEXEC);
	record->oom_killed = oom_killed;
	name_between(record, leader, parent, spawner);
	record->spawner_pid = 0;
	if (spawner) {
		record->spawner_start_ns = spawner->start_time;
		record->spawner_pid = spawner->tgid;
		keep_above(spawner, now);
	}
	bpf_ringbuf_submit(record, wakeup());
}

/* The record was sent at the exit. Where this free doesn't come, it stays without CPU. */
static __always_inline void send_cpu(struct task_struct *leader, __u64 start_ns, __u64 cpu_ns)
{
	__u32 slot = leader->tgid & (RECORD_CPU_SLOTS - 1);
	struct record_cpu *cpu = bpf_map_lookup_elem(&record_cpus, &slot);

	if (!cpu)
		return;
	cpu->cpu_ns = cpu_ns;
	asm volatile("" ::: "memory");
	cpu->start_ns = start_ns;
}

/* Two processes whose slot is the same may be here at once, on two CPUs. Then none of them has a path: the one that writes last finds that
 * the slot is not its own.
 */
static __always_inline void keep_exe(struct task_struct *task, struct linux_binprm *bprm)
{
	struct exe *exe = exe_of(task);
	__u64 start_ns = task->start_time;

	if (!exe)
		return;
	exe->start_ns = start_ns;
	asm volatile("" ::: "memory");
	bpf_probe_read_kernel_str(exe->path, sizeof(exe->path), bprm->filename);
	if (is_by_fd(exe))
		find_path(exe, task, bprm);
	if (*(volatile __u64 *)&exe->start_ns != start_ns)
		exe->start_ns = 0;
}

#endif

/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Records of single short processes, for lifecycle.bpf.c. No count depends on them. */
#ifndef RECORDS_H
#define RECORDS_H

/* Never called or loaded. It makes the compiler describe the type in BTF, which a test compares with exporter/kernel/layout.py. */
static __noinline __attribute__((used)) int described(struct record *record)
{
	return !!record;
}

static __always_inline void send_record(struct cpu *cpu, struct comm *comm, struct comm *parent_comm, struct task_struct *leader, __u64 now,
					__u64 runtime, int code)
{
	struct record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	__u32 pid = leader->tgid;
	struct exe *exe;

	if (!record) {
		cpu->records_dropped++;
		return;
	}
	record->ended_ns = now;
	record->runtime_ns = runtime;
	record->cgroup = bpf_get_current_cgroup_id();
	record->pid = pid;
	record->ppid = leader->real_parent->tgid;
	record->uid = bpf_get_current_uid_gid();
	record->code = code;
	record->comm = *comm;
	record->parent_comm = *parent_comm;
	exe = bpf_map_lookup_elem(&exes, &pid);
	if (exe)
		bpf_probe_read_kernel_str(record->exe, sizeof(record->exe), exe->path); /* only the text, for fewer cold cache lines */
	else
		record->exe[0] = 0;
	bpf_ringbuf_submit(record, control.records == RECORDS_LIVE ? 0 : BPF_RB_NO_WAKEUP);
}

static __always_inline void keep_exe(struct task_struct *task, struct linux_binprm *bprm)
{
	struct cpu *cpu = this_cpu();
	__u32 pid = task->tgid;
	struct exe *exe;

	if (bpf_map_update_elem(&exes, &pid, (const void *)&config.no_exe, BPF_ANY)) {
		if (cpu)
			ADD(cpu->lost[LOST_EXES_FULL], 1);
		return;
	}
	exe = bpf_map_lookup_elem(&exes, &pid);
	if (!exe)
		return;
	bpf_probe_read_kernel_str(exe->path, sizeof(exe->path), bprm->filename);
	if (is_by_fd(exe))
		find_path(exe, task, bprm);
}

static __always_inline void forget_exe(__u32 pid)
{
	if (control.records)
		bpf_map_delete_elem(&exes, &pid);
}

#endif

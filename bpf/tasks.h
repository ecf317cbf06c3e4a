/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* What lifecycle.bpf.c and events.bpf.c read of tasks. Each has a `config` of its own, with `group_dead_arg` and `kernel_threads`. */
#ifndef TASKS_H
#define TASKS_H

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_GUARDED);
	__type(key, struct ended);
	__type(value, __u8);
} guard SEC(".maps");

static __always_inline void read_comm(struct comm *comm, struct task_struct *task)
{
	bpf_probe_read_kernel(comm, sizeof(*comm), task->comm);
	pad_comm(comm);
}

static __always_inline void read_name(struct comm *comm, struct task_struct *task, int is_kernel)
{
	bpf_probe_read_kernel(comm, sizeof(*comm), is_kernel ? (const void *)&config.kernel_threads : task->comm);
	pad_comm(comm);
}

/* Whether a thread that exits is the last one of its process. */
static __always_inline bool is_last(struct task_struct *task, __u64 *ctx)
{
	struct task_struct *leader;
	struct ended ended = {};
	const __u8 yes = 1;
	int err;

	if (config.group_dead_arg)
		return ctx[1];
	leader = task->group_leader;
	if (leader->signal->live.counter)
		return 0;
	ended.leader = (__u64)leader;
	ended.start_ns = leader->start_time;
	err = bpf_map_update_elem(&guard, &ended, &yes, BPF_NOEXIST);
	return err != -EEXIST;
}

/* wait4() answers the same: kernel/exit.c, wait_task_zombie() */
static __always_inline int wait_status(struct task_struct *leader, struct signal_struct *signal)
{
	return signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : leader->exit_code;
}

#endif

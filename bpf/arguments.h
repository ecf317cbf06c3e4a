/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The arguments of processes, for records in lifecycle.bpf.c. Only where they are asked for: `config.arguments`. See docs/adr/0018-arguments.md */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

/* At the exec, since the kernel has just written them: the process itself could write others. Slots are as in keep_exe(). */
static __always_inline void keep_arguments(struct task_struct *task)
{
	__u32 slot = task->tgid & (ARGUMENTS_SLOTS - 1);
	struct arguments *kept = bpf_map_lookup_elem(&arguments, &slot);
	__u64 start_ns = task->start_time, from, len;
	struct mm_struct *mm = task->mm;

	if (!kept || !mm)
		return;
	from = mm->arg_start;
	len = mm->arg_end - from;
	kept->start_ns = start_ns;
	asm volatile("" ::: "memory");
	kept->size = len;
	if (len > ARGUMENTS_LEN)
		len = ARGUMENTS_LEN;
	if (bpf_probe_read_user(kept->text, len, (void *)from) || *(volatile __u64 *)&kept->start_ns != start_ns)
		kept->start_ns = 0;
}

#endif

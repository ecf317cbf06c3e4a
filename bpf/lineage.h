/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The names of a process's ancestors, for the records of lifecycle.bpf.c. See docs/adr/0017-lineage.md */
#ifndef LINEAGE_H
#define LINEAGE_H

/* To the verifier, the address is a number then. */
static __always_inline __u64 number_of(struct task_struct *task)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &task);
	return address;
}

/* Those between the parent and the spawner, but the parent. Global, so that the verifier follows it once and not for each path to the call; then
 * it can take only numbers. Returns how many there are, or BETWEEN_UNKNOWN if this walk does not meet the spawner again: an ancestor may exit
 * meanwhile, and then its children have another parent.
 */
__noinline int read_between(__u64 leader, __u64 spawner)
{
	struct task_struct *each = (void *)leader;
	__u32 slot = BPF_CORE_READ(each, tgid) & (BETWEEN_SLOTS - 1);
	struct between *between = bpf_map_lookup_elem(&between_slots, &slot);
	int i;

	if (!between)
		return BETWEEN_UNKNOWN;
	between->start_ns = BPF_CORE_READ(each, start_time);
	each = BPF_CORE_READ(each, real_parent, group_leader, real_parent, group_leader);
#pragma unroll
	for (i = 0; i < MAX_BETWEEN; i++) {
		bpf_probe_read_kernel(&between->names[i], sizeof(struct comm), each->comm);
		each = BPF_CORE_READ(each, real_parent, group_leader);
		if ((__u64)each == spawner)
			return i + 1;
	}
	return spawner ? BETWEEN_UNKNOWN : MAX_BETWEEN;
}

/* They are short-lived, so they are read for each process. Most have none. */
static __always_inline void name_between(struct record *record, struct task_struct *leader, struct task_struct *parent,
					 struct task_struct *spawner)
{
	record->between_n = 0;
	if (parent != spawner && parent->real_parent->group_leader != spawner)
		record->between_n = read_between(number_of(leader), number_of(spawner));
}

/* Those above the spawner. Two spawners whose slot is the same may be here at once, on two CPUs: the one that finishes last finds that the slot is not its own, and
 * empties it.
 */
__noinline int read_above(__u64 spawner, __u64 now)
{
	struct task_struct *each = (void *)spawner;
	__u32 pid = BPF_CORE_READ(each, tgid), slot = pid & (ABOVE_SLOTS - 1), flags;
	struct above *above = bpf_map_lookup_elem(&above_slots, &slot);
	__u64 start_ns = BPF_CORE_READ(each, start_time);
	int i;

	if (!above)
		return 0;
	above->start_ns = 0;
	above->read_ns = now;
	above->pid = pid;
	above->n = 0;
#pragma unroll
	for (i = 0; i < MAX_ABOVE; i++) {
		each = BPF_CORE_READ(each, real_parent, group_leader);
		flags = BPF_CORE_READ(each, flags);
		if (flags & PF_KTHREAD) /* process 0, or a kernel thread that started a helper */
			break;
		bpf_probe_read_kernel(&above->names[i], sizeof(struct comm), each->comm);
		above->n = i + 1;
	}
	above->top_pid = BPF_CORE_READ(each, tgid);
	above->top_is_kernel = !!(flags & PF_KTHREAD);
	asm volatile("" ::: "memory");
	above->start_ns = *(volatile __u32 *)&above->pid == pid ? start_ns : 0;
	return 0;
}

/* They are the same for all descendants of the spawner, so they are read only now and then. */
static __always_inline void keep_above(struct task_struct *spawner, __u64 now)
{
	__u32 slot = spawner->tgid & (ABOVE_SLOTS - 1);
	struct above *above = bpf_map_lookup_elem(&above_slots, &slot);

	if (!above || (above->start_ns == spawner->start_time && (__s64)(now - above->read_ns) < ABOVE_NS)) /* another CPU may be ahead */
		return;
	read_above(number_of(spawner), now);
}

#endif

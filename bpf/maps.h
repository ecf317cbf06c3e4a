/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The maps and global variables of lifecycle.bpf.c. lifecycle.bcc.c has the same, in bcc's syntax. */
#ifndef MAPS_H
#define MAPS_H

const volatile struct config config = {};
struct shared shared = {};
volatile struct control control SEC(".data.control") = {};

/* Two maps: programs write to one, user space drains the other; `control.active` says which. Programs choose by this flag, not through a
 * map of maps, because the kernel then calls the look-up directly.
 */
struct comms {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_COMMS);
	__uint(key_size, sizeof(struct comm));
	__uint(value_size, sizeof(struct counts)); /* at most: the loader sets it */
} comms_a SEC(".maps"), comms_b SEC(".maps");

struct origins {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ORIGINS);
	__type(key, struct origin);
	__type(value, struct origin_counts);
} origins_a SEC(".maps"), origins_b SEC(".maps");

struct cgroup_rows {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CGROUP_COUNTS);
	__type(key, struct cgroup_key);
	__type(value, struct cgroup_counts);
} cgroup_counts_a SEC(".maps"), cgroup_counts_b SEC(".maps");

/* Paths of cgroups from their making on, so that those that live for milliseconds have a name. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CGROUP_PATHS);
	__type(key, __u64);
	__type(value, struct cgroup_path);
} cgroup_paths SEC(".maps");

/* A barrier for user space; no program uses it. An update of a map of maps returns when all programs that were running have finished
 * (kernel/bpf/syscall.c, maybe_wait_bpf_programs()). User space does that after it has changed `control`.
 */
struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} barrier_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} barrier SEC(".maps") = {.values = {&barrier_inner}};

struct cpus {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COPIES);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* By the PID of a task: see is_my_turn(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EXIT_MARKS);
	__type(key, __u32);
	__type(value, __u64);
} exit_marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_EXIT_NOTES);
	__type(key, __u64);
	__type(value, struct exit_note);
} exit_notes SEC(".maps");

/* Paths of the executables of processes that may be short, for records only. The slot is the PID modulo EXE_SLOTS: PIDs are given out in
 * order, so a slot is used again only when so many other processes and threads have started. User space maps this memory. See docs/adr/0014-cheap-records.md
 */
struct exes {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EXE_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct exe);
} exes SEC(".maps");

/* The same for arguments. It has one slot unless records have arguments. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ARGUMENTS_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct arguments);
} arguments SEC(".maps");

/* Where the path of a file is put together, from its end. */
struct path_buffer {
	__u32 start;
	char path[2 * EXE_LEN]; /* one is used. The verifier does not know that a name ends before the next one starts */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_buffer);
} path_buffers SEC(".maps");

/* User space maps this memory. The slot is the PID modulo RECORD_CPU_SLOTS. Frees come in the order of PIDs, more or less, so that several in
 * a row write to the same cache line. An event for each in a ring would cost more.
 */
struct record_cpus {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RECORD_CPU_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct record_cpu);
} record_cpus SEC(".maps");

/* For records only: names of ancestors. The slot is the PID modulo BETWEEN_SLOTS, as in `exes`; and that of the spawner modulo ABOVE_SLOTS.
 * User space maps this memory.
 */
struct between_slots {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BETWEEN_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct between);
} between_slots SEC(".maps");

struct above_slots {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ABOVE_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct above);
} above_slots SEC(".maps");

/* No count depends on it. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RECORDS_BYTES);
} records SEC(".maps");

static __always_inline struct cpu *this_cpu(void)
{
	const __u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

#endif

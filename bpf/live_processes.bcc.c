// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The half of lifecycle.bcc.c for kernels whose headers are not installed, so the layout of task_struct is unknown. A map of live processes
 * keeps what an exit needs: start time, parent, current comm and number of live threads. Outcomes and CPU are unknown. Newtask and rename
 * are formatted tracepoints, since tracefs describes their fields. The others are raw tracepoints, of which only plain arguments are read.
 *
 * Invariants
 * - An exit is counted by the thread that deletes the entry of its process: a deletion succeeds once. If the tracepoint does not tell which
 *   thread is the last one (no GROUP_DEAD_ARG), a thread tries to delete when it sees no live thread left. An entry is deleted only after
 *   all threads of the process have subtracted themselves. So no old pointer writes to an entry that the kernel has already reused.
 * - A process without an entry is not counted: the map was full when it started (LOST_BIRTHS_FULL), or it exited before all
 *   programs were attached.
 */
#define KTHREADD 2 /* the parent of all kernel threads: init/main.c, rest_init() */
#define MAX_LIVE_PROCESSES 65536

struct live_process {
	u64 start_ns;
	u32 parent; /* process ID */
	u32 live; /* number of live threads, without GROUP_DEAD_ARG */
	struct comm comm; /* the leader's */
	u64 is_kernel;
};

BPF_F_TABLE("hash", u32, struct live_process, live_processes, MAX_LIVE_PROCESSES, BPF_F_NO_PREALLOC);

static __always_inline void read_name(struct globals *globals, struct comm *comm, struct live_process *process)
{
	*comm = process->is_kernel ? globals->config->kernel_threads : process->comm;
}

/* The parent of an orphan has exited, and the process that adopted it cannot be found: its comm is `unknown`. */
static __always_inline void read_parent(struct globals *globals, struct exit_facts *facts, struct live_process *child)
{
	struct comm *comm = &facts->origin.parent;

	struct live_process *parent = live_processes.lookup(&child->parent);

	comm->word[0] = 0x006e776f6e6b6e75; /* little-endian for "unknown" */
	comm->word[1] = 0;
	if (parent && parent->start_ns <= child->start_ns) {
		read_name(globals, comm, parent);
		facts->ppid = child->parent;
	}
}

/* The nearest ancestor that is older than the threshold of short processes. */
static __always_inline void find_spawner(struct globals *globals, struct exit_facts *facts, struct live_process *child, u64 now)
{
	u64 born_before = child->start_ns;
	struct live_process *each;
	u32 pid = child->parent;
	int i;

	facts->origin.spawner_state = SPAWNER_DEEP;
	facts->between_n = BETWEEN_UNKNOWN;
#pragma unroll
	for (i = 0; i < MAX_HOPS; i++) {
		each = live_processes.lookup(&pid);
		if (!each || each->start_ns > born_before) { /* the parent of an orphan has exited */
			facts->origin.spawner_state = SPAWNER_UNKNOWN;
			break;
		}
		if (now - each->start_ns >= globals->config->threshold_ns) {
			found_spawner(facts, pid, i);
			read_name(globals, &facts->origin.spawner, each);
			break;
		}
		born_before = each->start_ns;
		pid = each->parent;
	}
}

/* Runs in the context of the process that forks, so the current comm is the one that the new process inherits. */
int on_birth(struct tracepoint__task__task_newtask *args)
{
	u32 pid = args->pid, maker = bpf_get_current_pid_tgid() >> 32;
	struct live_process *parent, process = {};
	struct globals globals = {};
	int is_thread = !!(args->clone_flags & CLONE_THREAD);

	if (!look_up(&globals))
		return 0;
	if (!is_thread) {
		process.start_ns = bpf_ktime_get_ns();
		parent = live_processes.lookup(&maker);
		process.parent = parent && args->clone_flags & CLONE_PARENT ? parent->parent : maker;
		process.live = 1;
		process.is_kernel = maker == KTHREADD || (parent && parent->is_kernel);
		current_comm(&process.comm);
		if (live_processes.update(&pid, &process))
			ADD(globals.cpu->lost[LOST_BIRTHS_FULL], 1);
	}
#ifndef GROUP_DEAD_ARG
	else {
		parent = live_processes.lookup(&maker);
		if (parent)
			ADD(parent->live, 1);
	}
#endif
	count_clone(&globals, is_thread);
	return 0;
}

#ifdef RENAME_TELLS_PID
/* Only IDs of leaders are keys of the map. */
int on_rename(struct tracepoint__task__task_rename *args)
{
	u32 pid = args->pid;
	struct live_process *process = live_processes.lookup(&pid);
	struct comm comm = {};

	if (!process)
		return 0;
	__builtin_memcpy(&comm, args->newcomm, sizeof(comm));
	pad_comm(&comm);
	process->comm = comm;
	return 0;
}
#else
/* Some kernels (early 6.17 and 6.18) don't tell which thread is renamed. It is nearly always the running one (prctl(2)). A leader that is
 * renamed by another thread through /proc keeps its old comm here.
 */
int on_own_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_task();
	u32 pid = bpf_get_current_pid_tgid();
	struct live_process *process = live_processes.lookup(&pid);
	struct comm comm = {};

	if (!process || ctx->args[0] != task)
		return 0;
	bpf_probe_read_kernel_str(&comm, sizeof(comm), (void *)ctx->args[1]);
	process->comm = comm;
	return 0;
}
#endif

/* By now the thread that execs is the leader: fs/exec.c, de_thread(). */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct live_process *process = live_processes.lookup(&pid);
	struct globals globals = {};
	struct comm comm = {};

	if (!look_up(&globals))
		return 0;
	current_comm(&comm);
	if (process) {
		process->comm = comm;
		process->is_kernel = 0;
	}
	count_exec(&globals, &comm);
	return 0;
}

static __always_inline int exited(struct bpf_raw_tracepoint_args *ctx, int copy)
{
	u64 now = bpf_ktime_get_ns();
	struct live_process *found, process;
	struct globals globals = {};
	struct exit_facts facts = {};
	u32 pid;

	if (!look_up_for(&globals, copy) || !is_turn(&globals, copy))
		return 0;
#ifdef GROUP_DEAD_ARG
	if (!ctx->args[1])
		return 0;
#endif
	pid = bpf_get_current_pid_tgid() >> 32;
	found = live_processes.lookup(&pid);
	if (!found)
		return 0;
#ifndef GROUP_DEAD_ARG
	ADD(found->live, -1);
	if (*(volatile u32 *)&found->live)
		return 0;
#endif
	process = *found;
	if (live_processes.delete(&pid))
		return 0;
	facts.start_ns = process.start_ns;
	facts.runtime_ns = now > process.start_ns ? now - process.start_ns : 0;
	facts.outcome = OUTCOME_UNKNOWN;
	facts.code = -1;
	read_name(&globals, &facts.origin.comm, &process);
	read_parent(&globals, &facts, &process);
	find_spawner(&globals, &facts, &process, now);
	count_exit(ctx, &globals, pid, now, &facts);
	return 0;
}

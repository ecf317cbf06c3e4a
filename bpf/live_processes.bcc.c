// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The half of lifecycle.bcc.c for a kernel whose headers are not installed: nobody knows how a task_struct is laid out. So what an exit
 * needs is kept from the birth on, by process: when it was, the names since, how many threads live. How a process exits and what CPU it
 * used can't be known. Newtask and rename are formatted tracepoints, whose fields tracefs describes, where those are enough; the
 * others are raw ones, of which only plain arguments are read.
 *
 * Invariants
 * - An exit is counted by the thread whose exit deletes the birth: the deletion succeeds once. Where the tracepoint doesn't tell which
 *   thread is the last one (GROUP_DEAD_ARG), a thread tries that if it sees no live thread left. No birth goes before every thread of
 *   its process has taken itself off, so an entry that the kernel uses again at once is never written through an old pointer.
 * - A process without a birth is not counted: it found no room then (LOST_BIRTHS_FULL), or it exited before all was attached.
 */
#define KTHREADD 2 /* the parent of all kernel threads: init/main.c, rest_init() */
#define MAX_LIVE_PROCESSES 65536

struct live_process {
	u64 start_ns;
	u32 parent; /* its process id */
	u32 live;   /* threads, where nothing else tells the last one */
	struct comm comm; /* the leader's */
	u64 is_kernel;
};

BPF_F_TABLE("hash", u32, struct live_process, live_processes, MAX_LIVE_PROCESSES, BPF_F_NO_PREALLOC);

static __always_inline void read_name(struct known *known, struct comm *comm, struct live_process *birth)
{
	*comm = birth->is_kernel ? known->config->kernel_threads : birth->comm;
}

/* An orphan's parent has gone, and which process adopted it is not to be known: then it is `unknown`. */
static __always_inline void read_parent(struct known *known, struct life *life, struct live_process *child)
{
	struct comm *comm = &life->parent_comm;

	struct live_process *parent = live_processes.lookup(&child->parent);

	comm->word[0] = 0x006e776f6e6b6e75; /* little-endian for "unknown" */
	comm->word[1] = 0;
	if (parent && parent->start_ns <= child->start_ns) {
		read_name(known, comm, parent);
		life->ppid = child->parent;
	}
}

/* In the context of the process that makes the new one, so the current comm is what the new one inherits. */
int on_birth(struct tracepoint__task__task_newtask *args)
{
	u32 pid = args->pid, maker = bpf_get_current_pid_tgid() >> 32;
	struct live_process *parent, birth = {};
	struct known known = {};
	int is_thread = !!(args->clone_flags & CLONE_THREAD);

	if (!look_up(&known))
		return 0;
	if (!is_thread) {
		birth.start_ns = bpf_ktime_get_ns();
		parent = live_processes.lookup(&maker);
		birth.parent = parent && args->clone_flags & CLONE_PARENT ? parent->parent : maker;
		birth.live = 1;
		birth.is_kernel = maker == KTHREADD || (parent && parent->is_kernel);
		current_comm(&birth.comm);
		if (live_processes.update(&pid, &birth))
			ADD(known.cpu->lost[LOST_BIRTHS_FULL], 1);
	}
#ifndef GROUP_DEAD_ARG
	else {
		parent = live_processes.lookup(&maker);
		if (parent)
			ADD(parent->live, 1);
	}
#endif
	count_clone(&known, is_thread);
	return 0;
}

#ifdef RENAME_TELLS_PID
/* Only a leader's id is that of a birth. */
int on_rename(struct tracepoint__task__task_rename *args)
{
	u32 pid = args->pid;
	struct live_process *birth = live_processes.lookup(&pid);
	struct comm comm = {};

	if (!birth)
		return 0;
	__builtin_memcpy(&comm, args->newcomm, sizeof(comm));
	pad_comm(&comm);
	birth->comm = comm;
	return 0;
}
#else
/* Some kernels (6.17 and 6.18 at first) don't tell whom they rename. Nearly always it is who runs: prctl(2). A leader that another of its
 * threads renames through /proc keeps the name that it had.
 */
int on_own_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_task();
	u32 pid = bpf_get_current_pid_tgid();
	struct live_process *birth = live_processes.lookup(&pid);
	struct comm comm = {};

	if (!birth || ctx->args[0] != task)
		return 0;
	bpf_probe_read_kernel_str(&comm, sizeof(comm), (void *)ctx->args[1]);
	birth->comm = comm;
	return 0;
}
#endif

/* The thread that execs is the leader by now: fs/exec.c, de_thread(). */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct live_process *birth = live_processes.lookup(&pid);
	struct known known = {};
	struct comm comm = {};

	if (!look_up(&known))
		return 0;
	current_comm(&comm);
	if (birth) {
		birth->comm = comm;
		birth->is_kernel = 0;
	}
	count_exec(&known, &comm);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct live_process *found, birth;
	struct known known = {};
	struct life life = {};
	u32 pid;

#ifdef GROUP_DEAD_ARG
	if (!ctx->args[1])
		return 0;
#endif
	pid = bpf_get_current_pid_tgid() >> 32;
	found = live_processes.lookup(&pid);
	if (!found || !look_up(&known))
		return 0;
#ifndef GROUP_DEAD_ARG
	ADD(found->live, -1);
	if (*(volatile u32 *)&found->live)
		return 0;
#endif
	birth = *found;
	if (live_processes.delete(&pid))
		return 0;
	life.start_ns = birth.start_ns;
	life.runtime_ns = now > birth.start_ns ? now - birth.start_ns : 0;
	life.outcome = OUTCOME_UNKNOWN;
	life.code = -1;
	read_name(&known, &life.comm, &birth);
	read_parent(&known, &life, &birth);
	count_exit(ctx, &known, pid, now, &life);
	return 0;
}

// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The half of lifecycle.bcc.c for a kernel whose headers are installed: everything is in the task, as in lifecycle.bpf.c, whose comments
 * hold here. Fields are read by address, so that it is plain what is read and bcc need not guess.
 */
#define DUMPED 0x80 /* wait(2), WCOREDUMP */
#define GET(to, field) bpf_probe_read_kernel(&(to), sizeof(to), &(field))

BPF_TABLE("hash", u64, struct exit_note, exit_notes, MAX_EXIT_NOTES);
#ifndef GROUP_DEAD_ARG
BPF_TABLE("lru_hash", struct ended, u8, guard, MAX_GUARDED);
#endif

static __always_inline void read_name(struct known *known, struct comm *comm, struct task_struct *task, int is_kernel)
{
	if (is_kernel) {
		*comm = known->config->kernel_threads;
	} else {
		bpf_probe_read_kernel(comm, sizeof(*comm), &task->comm);
		pad_comm(comm);
	}
}

static __always_inline int is_kernel_thread(struct task_struct *task)
{
	u32 flags = 0;

	GET(flags, task->flags);
	return !!(flags & PF_KTHREAD);
}

static __always_inline u32 *filter_of(struct known *known, u64 start_ns)
{
	return &known->shared->filter[(start_ns >> 10) % FILTER];
}

static __always_inline void set_exit_note(struct known *known, u64 leader, struct exit_note *note)
{
	int is_here = born_here(known->control, note->start_ns), err;
	struct exit_note *old;

	if (note->skip ? !is_here : is_here && !note->is_long && !note->is_kernel && !note->had_threads)
		return;
	err = exit_notes.insert(&leader, note);
	if (err == -EEXIST) {
		old = exit_notes.lookup(&leader);
		if (old)
			ADD(*filter_of(known, old->start_ns), -1);
		err = exit_notes.update(&leader, note);
	}
	if (err)
		ADD(known->cpu->lost[LOST_CPU_MARKS_FULL], 1);
	else
		ADD(*filter_of(known, note->start_ns), 1);
}

int on_newtask(struct bpf_raw_tracepoint_args *ctx)
{
	struct known known = {};

	if (look_up(&known))
		count_clone(&known, !!(ctx->args[1] & CLONE_THREAD));
	return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct known known = {};
	struct comm comm = {};

	if (!look_up(&known))
		return 0;
	current_comm(&comm);
	count_exec(&known, &comm);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 now = bpf_ktime_get_ns(), group_cpu_ns = 0;
	struct task_struct *task = (void *)ctx->args[0], *leader = 0, *parent = 0;
	struct signal_struct *signal = 0;
	struct known known = {};
	struct exit_note note = {};
	struct life life = {};
	int code = 0, group_code = 0, threads = 0;
	u32 flags = 0;

	if (!look_up(&known))
		return 0;
	GET(leader, task->group_leader);
	GET(signal, task->signal);
	GET(note.start_ns, leader->start_time);
#ifdef GROUP_DEAD_ARG
	if (!ctx->args[1])
		return 0;
#else
	struct ended ended = {.leader = (u64)leader, .start_ns = note.start_ns};
	int live = 0;
	u8 yes = 1;

	GET(live, signal->live.counter);
	if (live || guard.insert(&ended, &yes) == -EEXIST)
		return 0;
#endif
	GET(parent, leader->real_parent);
	GET(parent, parent->group_leader);
	GET(life.ppid, parent->tgid);
	GET(threads, signal->nr_threads);
	GET(group_cpu_ns, signal->sum_sched_runtime);
	note.is_kernel = is_kernel_thread(leader);
	note.had_threads = threads > 1 || group_cpu_ns;
	life.start_ns = note.start_ns;
	life.runtime_ns = now > note.start_ns ? now - note.start_ns : 0;
	note.is_long = life.runtime_ns >= known.config->threshold_ns;
	note.skip = !counts_at(known.control, now);
	GET(code, leader->exit_code);
	GET(flags, signal->flags);
	GET(group_code, signal->group_exit_code);
	if (flags & SIGNAL_GROUP_EXIT)
		code = group_code;
	life.code = code;
	life.outcome = outcome_of(code);
	life.core_dump = !!(code & DUMPED);
	life.sigkill = (code & 0x7f) == SIGKILL;
	read_name(&known, &life.comm, leader, note.is_kernel);
	read_name(&known, &life.parent_comm, parent, is_kernel_thread(parent));
	set_exit_note(&known, (u64)leader, &note);
	count_exit(ctx, &known, bpf_get_current_pid_tgid() >> 32, now, &life);
	return 0;
}

int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *leader = 0;
	u64 key = (u64)task, start_ns = 0, cpu_ns = 0;
	struct exit_note *found = 0, note = {};
	struct signal_struct *signal = 0;
	struct known known = {};
	struct counts *counts;
	struct comm comm;

	GET(leader, task->group_leader);
	if (leader != task || !look_up(&known))
		return 0;
	GET(cpu_ns, task->se.sum_exec_runtime);
	GET(start_ns, task->start_time);
	if (*filter_of(&known, start_ns))
		found = exit_notes.lookup(&key);
	if (found && found->start_ns == start_ns) {
		note = *found;
		if (!exit_notes.delete(&key))
			ADD(*filter_of(&known, start_ns), -1);
	} else if (!born_here(known.control, start_ns)) {
		return 0;
	}
	if (note.skip)
		return 0;
	if (note.had_threads) {
		GET(signal, task->signal);
		GET(cpu_ns, signal->sum_sched_runtime);
	}
	read_name(&known, &comm, task, note.is_kernel);
	counts = counts_of(&known, &comm);
	if (note.is_long)
		ADD(counts->long_cpu_ns, cpu_ns);
	else
		ADD(counts->short_cpu_ns, cpu_ns);
	ADD(counts->cpu_recorded, 1);
	return 0;
}

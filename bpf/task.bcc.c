// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The half of lifecycle.bcc.c for kernels whose headers are installed: all facts are in the task, as in lifecycle.bpf.c, whose comments
 * apply here too. GET reads a field by its address, so that bcc need not guess which accesses to rewrite.
 */
#define DUMPED 0x80 /* wait(2), WCOREDUMP */
#define GET(to, field) bpf_probe_read_kernel(&(to), sizeof(to), &(field))

BPF_TABLE("hash", u64, struct exit_note, exit_notes, MAX_EXIT_NOTES);
#ifdef WITH_RING
BPF_F_TABLE("array", u32, struct record_cpu, record_cpus, RECORD_CPU_SLOTS, BPF_F_MMAPABLE);
#endif
#ifndef GROUP_DEAD_ARG
BPF_TABLE("lru_hash", struct ended, u8, guard, MAX_GUARDED);
#endif

static __always_inline void read_name(struct globals *globals, struct comm *comm, struct task_struct *task, int is_kernel)
{
	if (is_kernel) {
		*comm = globals->config->kernel_threads;
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

static __always_inline void find_spawner(struct globals *globals, struct exit_facts *facts, struct task_struct *parent, u64 now)
{
	struct task_struct *each = parent;
	u64 start_ns;
	u32 pid = 0;
	int i;

	facts->origin.spawner_state = SPAWNER_DEEP;
	facts->between_n = BETWEEN_UNKNOWN;
#pragma unroll
	for (i = 0; i < MAX_HOPS; i++) {
		start_ns = 0;
		GET(start_ns, each->start_time);
		if (now - start_ns >= globals->config->threshold_ns) {
			GET(pid, each->tgid);
			found_spawner(facts, pid, i);
			read_name(globals, &facts->origin.spawner, each, is_kernel_thread(each));
			break;
		}
		GET(each, each->real_parent);
		GET(each, each->group_leader);
	}
}

static __always_inline u32 *filter_of(struct globals *globals, u64 start_ns)
{
	return &globals->shared->filter[(start_ns >> 10) % FILTER];
}

static __always_inline void set_exit_note(struct globals *globals, u64 leader, struct exit_note *note)
{
	int is_here = born_here(globals->control, note->start_ns), err;
	struct exit_note *old;

	if (note->skip ? !is_here : is_here && !note->is_long && !note->is_kernel && !note->had_threads)
		return;
	err = exit_notes.insert(&leader, note);
	if (err == -EEXIST) {
		old = exit_notes.lookup(&leader);
		if (old)
			ADD(*filter_of(globals, old->start_ns), -1);
		err = exit_notes.update(&leader, note);
	}
	if (err)
		ADD(globals->cpu->lost[LOST_CPU_MARKS_FULL], 1);
	else
		ADD(*filter_of(globals, note->start_ns), 1);
}

int on_newtask(struct bpf_raw_tracepoint_args *ctx)
{
	struct globals globals = {};

	if (look_up(&globals))
		count_clone(&globals, !!(ctx->args[1] & CLONE_THREAD));
	return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct globals globals = {};
	struct comm comm = {};

	if (!look_up(&globals))
		return 0;
	current_comm(&comm);
	count_exec(&globals, &comm);
	return 0;
}

static __always_inline int exited(struct bpf_raw_tracepoint_args *ctx, int copy)
{
	u64 now = bpf_ktime_get_ns(), group_cpu_ns = 0;
	struct task_struct *task = (void *)ctx->args[0], *leader = 0, *parent = 0;
	struct signal_struct *signal = 0;
	struct mm_struct *oom_mm = 0;
	struct globals globals = {};
	struct exit_note note = {};
	struct exit_facts facts = {};
	int code = 0, group_code = 0, threads = 0;
	u32 flags = 0;

	if (!look_up_for(&globals, copy) || !is_turn(&globals, copy))
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
	GET(facts.ppid, parent->tgid);
	GET(threads, signal->nr_threads);
	GET(group_cpu_ns, signal->sum_sched_runtime);
	note.is_kernel = is_kernel_thread(leader);
	note.had_threads = threads > 1 || group_cpu_ns;
	facts.start_ns = note.start_ns;
	facts.runtime_ns = now > note.start_ns ? now - note.start_ns : 0;
	note.is_long = facts.runtime_ns >= globals.config->threshold_ns;
	note.skip = !counts_at(globals.control, now);
	GET(code, leader->exit_code);
	GET(flags, signal->flags);
	GET(group_code, signal->group_exit_code);
	if (flags & SIGNAL_GROUP_EXIT)
		code = group_code;
	facts.code = code;
	facts.outcome = outcome_of(code);
	facts.core_dump = !!(code & DUMPED);
	facts.sigkill = (code & 0x7f) == SIGKILL;
	if (facts.sigkill)
		GET(oom_mm, signal->oom_mm);
	facts.oom_killed = !!oom_mm;
	read_name(&globals, &facts.origin.comm, leader, note.is_kernel);
	read_name(&globals, &facts.origin.parent, parent, is_kernel_thread(parent));
	find_spawner(&globals, &facts, parent, now);
	set_exit_note(&globals, (u64)leader, &note);
	count_exit(ctx, &globals, bpf_get_current_pid_tgid() >> 32, now, &facts);
	return 0;
}

#ifdef WITH_RING
static __always_inline void send_cpu(struct task_struct *leader, u64 start_ns, u64 cpu_ns)
{
	struct record_cpu *cpu;
	u32 slot = 0;

	GET(slot, leader->tgid);
	slot &= RECORD_CPU_SLOTS - 1;
	cpu = record_cpus.lookup(&slot);
	if (!cpu)
		return;
	cpu->cpu_ns = cpu_ns;
	asm volatile("" ::: "memory");
	cpu->start_ns = start_ns;
}
#endif

int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *leader = 0;
	u64 key = (u64)task, start_ns = 0, cpu_ns = 0;
	struct exit_note *found = 0, note = {};
	struct signal_struct *signal = 0;
	struct globals globals = {};
	struct counts *counts;
	struct comm comm;

	GET(leader, task->group_leader);
	if (leader != task || !look_up(&globals))
		return 0;
	GET(cpu_ns, task->se.sum_exec_runtime);
	GET(start_ns, task->start_time);
	if (*filter_of(&globals, start_ns))
		found = exit_notes.lookup(&key);
	if (found && found->start_ns == start_ns) {
		note = *found;
		if (!exit_notes.delete(&key))
			ADD(*filter_of(&globals, start_ns), -1);
	} else if (!born_here(globals.control, start_ns)) {
		return 0;
	}
	if (note.skip)
		return 0;
	if (note.had_threads) {
		GET(signal, task->signal);
		GET(cpu_ns, signal->sum_sched_runtime);
	}
	read_name(&globals, &comm, task, note.is_kernel);
	counts = counts_of(&globals, &comm);
	if (note.is_long)
		ADD(counts->long_cpu_ns, cpu_ns);
	else
		ADD(counts->short_cpu_ns, cpu_ns);
#ifdef WITH_RING
	if (globals.control->records && !note.is_long)
		send_cpu(task, start_ns, cpu_ns);
#endif
	ADD(counts->cpu_recorded, 1);
	return 0;
}

// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Sends events of any process to those who subscribe to them: forks, execs, exits and signals. No count of lifecycle.bpf.c depends on it.
 *
 * It is loaded only if somebody subscribes (exporter/loaders/events.py), and of it only the programs of the kinds that are wanted. What no
 * subscriber's filter allows is not sent.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"
#include "lifecycle.h"
#include "events.h"

#define TRACE_SIGNAL_DELIVERED 0 /* include/trace/events/signal.h */
#define SI_USER 0 /* include/uapi/asm-generic/siginfo.h */
#define SI_QUEUE -1
#define SI_TKILL -6
#define SEND_SIG_NOINFO 0 /* include/linux/sched/signal.h: no siginfo, but this number */

char LICENSE[] SEC("license") = "GPL";

const volatile struct event_config config = {};

/* The map of lifecycle.bpf.c, so that a switch of modes is at the same moment for all. */
volatile struct control control SEC(".data.control") = {};

#include "tasks.h"

/* The loader sets the sizes of this map and of `event_keys`. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_counts);
} event_counts SEC(".maps");

/* The value has a bit for each kind of events that may have this key. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct event_key);
	__type(value, __u32);
} event_keys SEC(".maps");

/* Never called or loaded. It makes the compiler describe the type in BTF, which a test compares with exporter/kernel/event_layout.py. */
static __noinline __attribute__((used)) int described(struct event *event)
{
	return !!event;
}

static __always_inline bool is_wanted(enum event_kind kind, enum event_by by, __u32 number, const struct comm *name)
{
	struct event_key key = {.by = by, .number = number};
	__u32 *kinds;

	if (!(config.filtered_by[kind] & (1 << by)))
		return 1;
	if (name)
		key.name = *name;
	kinds = bpf_map_lookup_elem(&event_keys, &key);
	return kinds && *kinds & (1 << kind);
}

/* Returns room for an event, with what all kinds have; 0 if it is not wanted, or is lost. */
static __always_inline struct event *event_of(enum event_kind kind, struct task_struct *leader, __u32 uid)
{
	struct task_struct *parent = leader->real_parent->group_leader;
	__u32 pid = leader->tgid, ppid = parent->tgid;
	__u64 now = bpf_ktime_get_ns();
	struct comm comm, parent_comm;
	struct event_counts *counts;
	const __u32 zero = 0;
	struct event *event;

	if (!counts_at(&control, now))
		return 0;
	read_name(&comm, leader, leader->flags & PF_KTHREAD);
	read_name(&parent_comm, parent, parent->flags & PF_KTHREAD);
	if (!is_wanted(kind, BY_UID, uid, 0) || !is_wanted(kind, BY_PID, pid, 0) || !is_wanted(kind, BY_PPID, ppid, 0) ||
	    !is_wanted(kind, BY_COMM, 0, &comm) || !is_wanted(kind, BY_PARENT, 0, &parent_comm))
		return 0;
	counts = bpf_map_lookup_elem(&event_counts, &zero);
	if (!counts)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		counts->dropped[kind]++;
		return 0;
	}
	counts->sent[kind]++;
	event->at_ns = now;
	event->runtime_ns = 0;
	event->kind = kind;
	event->pid = pid;
	event->ppid = ppid;
	event->uid = uid;
	event->code = 0;
	event->other_pid = 0;
	event->comm = comm;
	event->parent_comm = parent_comm;
	event->sender_comm = (struct comm){};
	event->exe[0] = 0;
	return event;
}

/* Wakes the reader only if it has read all events before this one. */
static __always_inline void send(struct event *event)
{
	bpf_ringbuf_submit(event, 0);
}

SEC("tp_btf/sched_process_fork")
int send_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	struct event *event;

	if (child->group_leader != child) /* a thread */
		return 0;
	event = event_of(EVENT_FORK, parent->group_leader, bpf_get_current_uid_gid());
	if (!event)
		return 0;
	event->other_pid = child->tgid;
	send(event);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int send_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct event *event = event_of(EVENT_EXEC, task->group_leader, bpf_get_current_uid_gid());

	if (!event)
		return 0;
	bpf_probe_read_kernel_str(event->exe, sizeof(event->exe), bprm->filename);
	send(event);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int send_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0], *leader;
	struct event *event;

	if (!is_last(task, ctx))
		return 0;
	leader = task->group_leader;
	event = event_of(EVENT_EXIT, leader, bpf_get_current_uid_gid());
	if (!event)
		return 0;
	event->runtime_ns = event->at_ns > leader->start_time ? event->at_ns - leader->start_time : 0;
	event->code = wait_status(leader, leader->signal);
	send(event);
	return 0;
}

/* Whether the task that runs is the sender, as siginfo tells the receiver. `info` may be a number instead of a pointer: it is read as one. */
static __always_inline bool is_sent_by_task(__u64 *ctx)
{
	struct kernel_siginfo *info;
	int code;

	if (bpf_probe_read_kernel(&info, sizeof(info), &ctx[1]))
		return 0;
	if ((__u64)info == SEND_SIG_NOINFO)
		return 1;
	if (bpf_core_read(&code, sizeof(code), &info->si_code))
		return 0;
	return code == SI_USER || code == SI_QUEUE || code == SI_TKILL;
}

/* Not signal_deliver: by then the sender may be gone, and nothing tells its name. */
SEC("tp_btf/signal_generate")
int send_signal(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[2];
	struct event *event;

	if ((__s32)ctx[4] != TRACE_SIGNAL_DELIVERED)
		return 0;
	event = event_of(EVENT_SIGNAL, task->group_leader, BPF_CORE_READ(task, real_cred, uid.val));
	if (!event)
		return 0;
	event->code = ctx[0];
	if (is_sent_by_task(ctx)) {
		event->other_pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(&event->sender_comm, sizeof(event->sender_comm));
	}
	send(event);
	return 0;
}

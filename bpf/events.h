/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The layouts of events.bpf.c, shared with exporter/kernel/event_layout.py. */
#ifndef EVENTS_H
#define EVENTS_H

/* The order is that of EventKind in exporter/model/events.py. */
enum event_kind { EVENT_FORK, EVENT_EXEC, EVENT_EXIT, EVENT_SIGNAL, EVENT_KINDS };

/* What the programs can filter by. The order is that of EventKey in exporter/model/events.py. */
enum event_by { BY_UID, BY_PID, BY_PPID, BY_COMM, BY_PARENT };

/* All events have one size, so that the reader can decode many at once. */
struct event {
	__u64 at_ns; /* monotonic */
	__u64 runtime_ns; /* exit */
	__u32 kind; /* enum event_kind */
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__s32 code; /* exit: wait status, see wait(2); signal: its number */
	__u32 other_pid; /* fork: the child; signal: the sender, 0 if that is the kernel */
	struct comm comm;
	struct comm parent_comm;
	struct comm sender_comm;
	char exe[EXE_LEN]; /* exec */
};

/* By CPU. Each kind has a program of its own, which the kernel never enters twice on a CPU: plain adds are exact. */
struct event_counts {
	__u64 sent[EVENT_KINDS];
	__u64 dropped[EVENT_KINDS]; /* the ring was full */
};

/* A value that a filter allows. */
struct event_key {
	__u32 by; /* enum event_by */
	__u32 number;
	struct comm name;
};

/* Constant after loading, so the verifier removes filters that are not used. */
struct event_config {
	__u64 group_dead_arg;
	__u64 filtered_by[EVENT_KINDS]; /* bits of enum event_by: the event's value must be in `event_keys` */
	struct comm kernel_threads;
};

#endif

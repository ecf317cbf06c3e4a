/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The layouts shared with exporter/kernel/layout.py, and the code that all BPF programs of the project share. */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#include "native.h"

#define COMM_LEN 16
#define MAX_BOUNDS 31
#define BUCKETS (MAX_BOUNDS + 1)
#define SIGNALS 65
#define SECONDS 64
#ifndef MAX_COMMS /* the loaders give the maps more if more comms may have series: comm_rows() in exporter/kernel/layout.py */
#define MAX_COMMS 800
#endif
#define MAX_EXIT_NOTES 4096
#define MAX_GUARDED 8192
#define FILTER 64 /* few, so that they stay in the cache */
#define MAX_ORIGINS 8192
#define MAX_CGROUP_COUNTS 4096
#define MAX_CGROUP_PATHS 4096
#define CGROUP_PATH_LEN 384
#define MAX_HOPS 8
#define MAX_BETWEEN (MAX_HOPS - 1)
#define BETWEEN_UNKNOWN 255
#define MAX_ABOVE 8
#define BETWEEN_SLOTS 4096 /* powers of two, as EXE_SLOTS and RECORD_CPU_SLOTS */
#define ABOVE_SLOTS 1024
#define ABOVE_NS 1000000000
#define EXE_SLOTS 8192 /* a power of two, as RECORD_CPU_SLOTS */
#define MAX_EXES 16384 /* in lifecycle.bcc.c */
#define EXE_LEN 256
#define ARGUMENTS_SLOTS 8192
#define ARGUMENTS_LEN 512
#define RECORD_CPU_SLOTS 16384
#define EXIT_MARKS 32768
#define COPIES 3 /* of on_exit, where programs can be preempted */
#define RECORDS_BYTES (256 << 10)
#define BCC_RECORDS_BYTES (2 << 20)

/* The order is that of Outcome in exporter/model/__init__.py. */
enum outcome { OUTCOME_OK, OUTCOME_ERROR, OUTCOME_SIGNAL, OUTCOME_UNKNOWN, OUTCOMES };

/* Named as the label values of shortproc_detection_lost_total, in the order of KERNEL_LOST in exporter/kernel/layout.py. */
enum lost { LOST_NAME_BUSY, LOST_CPU_MARKS_FULL, LOST_BIRTHS_FULL, LOST_EXES_FULL, LOST_ORIGINS_FULL, LOST_REASONS };

/* Whether records of single short processes are sent, and whether each wakes the reader. */
enum records { RECORDS_OFF, RECORDS_ON, RECORDS_LIVE };

struct comm {
	__u64 word[COMM_LEN / 8]; /* padded with zeros, so that equal names are equal keys */
};

/* Whether the spawner was found; else its name is empty. */
enum spawner { SPAWNER_FOUND, SPAWNER_DEEP, SPAWNER_UNKNOWN };

/* For whom a process ran. With the header of a map's element, 48 bytes, and its counts it takes two cache lines. */
struct origin {
	__u64 cgroup; /* cgroup ID: the inode of its directory */
	__u32 uid;
	__u32 spawner_state; /* enum spawner */
	struct comm comm;
	struct comm parent;
	struct comm spawner; /* the nearest ancestor that was not short-lived at that time */
};

struct origin_counts {
	__u64 short_exits;
	__u64 failed_exits; /* of any runtime */
};

/* Padded, so that the counts begin on a cache line. */
struct cgroup_key {
	__u64 cgroup;
	__u64 unused;
};

struct cgroup_counts {
	__u64 short_cpu_ns;
	__u64 oom_kills; /* of any runtime */
};

struct cgroup_path {
	char path[CGROUP_PATH_LEN];
};

/* The exit and the free, which often run on different CPUs, write to different cache lines. The rows of the maps end after the buckets that
 * are counted: row_bytes() in exporter/kernel/layout.py.
 */
struct counts {
	__u64 exits[OUTCOMES];
	__u64 long_exits; /* the others were short */
	__u64 execs;
	__u64 runtime_ns;
	__u64 unused;
	__u64 buckets[BUCKETS]; /* of runtimes, not cumulative */
	__u64 short_cpu_ns;
	__u64 long_cpu_ns;
	__u64 cpu_recorded; /* exited processes whose CPU is included */
	__u64 unused_too[5];
	__u32 lifetimes[FINE_LIFETIMES]; /* see native.h; 32 bits, since rows are emptied each few seconds */
} __attribute__((aligned(64)));

struct second {
	__u32 second; /* of the monotonic clock */
	__u32 short_exits;
};

/* Counts without a comm. They are per CPU: shared cache lines would move between CPUs at each fork, and resets of a slot would race. The
 * kernel never enters a program twice on a CPU, so a plain add is exact for a field of one program. Fields of several programs need atomic
 * adds. Each copy of on_exit has a row of its own.
 */
struct cpu {
	__u64 forks;
	__u64 threads;
	__u64 core_dumps;
	__u64 entered; /* rows inserted into the maps that are drained */
	__u64 records_dropped; /* the ring was full */
	__u64 stand_ins; /* runs of later copies of on_exit that counted, since the kernel had skipped those before */
	__u64 lost[LOST_REASONS];
	__u64 signals[SIGNALS];
	struct second ring[SECONDS];
};

/* Only programs write to it. */
struct shared {
	struct counts other; /* comms that found no room in the map */
	__u32 filter[FILTER];
	struct origin_counts other_origin;
	struct cgroup_counts other_cgroup;
	__u64 unused[4]; /* explicit: else clang describes the variable in another section than it puts it */
};

/* Only user space writes to it. Times are of the monotonic clock. */
struct control {
	__u64 active;   /* the maps that programs write to: 0 for those named _a, 1 for those named _b */
	__u64 since;    /* processes that start from then on exit while all programs are attached and count */
	__u64 is_cut;   /* whether the two times below apply; each event then costs a read of the clock */
	__u64 from_ns;  /* the first moment whose events count */
	__u64 until_ns; /* the first moment whose events don't count */
	__u64 records;  /* enum records */
	__u64 unused[2];
} __attribute__((aligned(64)));

/* Set before the programs are loaded and constant from then on, so the verifier removes code that is switched off. */
struct config {
	__u64 threshold_ns;
	__u64 bounds_ns[BUCKETS]; /* rising, padded with 2^63 - 1; the last is never compared */
	__u64 group_dead_arg;
	struct comm kernel_threads;
	__u64 origins;       /* whether exits are counted by origin, and CPU by cgroup */
	__u64 pids_cgroups;  /* whether cgroups are those of the v1 controller `pids`, not v2 */
	__u64 hierarchy_id;  /* of these cgroups: /proc/cgroups; 0 for v2 */
	__u64 arguments;     /* whether records have the arguments of their processes */
	__u64 lifetimes;     /* buckets of native histograms: LIFETIMES or FINE_LIFETIMES, 0 without them */
	__u64 copies;        /* of on_exit: COPIES where the kernel can preempt programs, else one */
	__u64 copy;          /* which of them this is */
	__u64 unused[5];
	struct counts none; /* zeros: the value of a new comm */
	struct origin_counts no_origin;
	__u64 unused_too[6];
	char no_exe[EXE_LEN];
	char no_path[CGROUP_PATH_LEN];
};

/* What the free of a process needs from its exit and can't find in the task. Keyed by the address of the leader. */
struct exit_note {
	__u64 start_ns;
	__u8 is_long;
	__u8 is_kernel;
	__u8 had_threads;
	__u8 skip; /* the exit was not counted here, so the CPU is not either */
	__u8 unused[4];
};

struct ended {
	__u64 leader;
	__u64 start_ns;
};

/* One short process that has exited. All records have one size, so that the reader can decode many at once. */
struct record {
	__u64 ended_ns; /* monotonic */
	__u64 runtime_ns;
	__u64 cgroup; /* as in struct origin */
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__s32 code; /* wait status, see wait(2); -1 if unknown */
	struct comm comm;
	struct comm parent_comm;
	struct comm spawner;
	__u32 spawner_state; /* enum spawner */
	__u16 has_exe; /* it called exec, so user space finds the path in its slot */
	__u16 oom_killed; /* the OOM killer chose it; 0 too where that is not known */
	__u64 spawner_start_ns;
	__u32 spawner_pid; /* 0 if unknown */
	__u32 between_n; /* ancestors between the parent and the spawner, or BETWEEN_UNKNOWN; their names are in a slot */
};

/* In lifecycle.bcc.c. */
struct record_with_exe {
	struct record record;
	char exe[EXE_LEN];
};

/* The CPU of a short process, from its free, for its record. Written from the end: the start tells that the CPU is there. */
struct record_cpu {
	__u64 start_ns;
	__u64 cpu_ns;
};

/* The path of a process's executable. A short path is in one cache line with the start of the process, which tells whose it is. User space
 * reads it: to copy it into each record would cost more cache lines at the exit than all the rest of the record.
 */
struct exe {
	__u64 start_ns;
	char path[EXE_LEN];
} __attribute__((aligned(64)));

/* The arguments of a process, each with its terminating zero. User space reads them, as it does the path. */
struct arguments {
	__u64 start_ns;
	__u64 size; /* of all of them; only the first ARGUMENTS_LEN bytes are kept */
	char text[ARGUMENTS_LEN];
} __attribute__((aligned(64)));

/* The ancestors of a short process between its parent and its spawner, the nearest first. The start tells whose they are. */
struct between {
	__u64 start_ns;
	struct comm names[MAX_BETWEEN]; /* not padded */
} __attribute__((aligned(64)));

/* The ancestors of a spawner, the nearest first. The start tells whose they are; it is 0 while they are written. */
struct above {
	__u64 start_ns;
	__u64 read_ns;
	__u32 pid;
	__u32 n;
	__u32 top_pid; /* where the walk ended: 0 and 1 have no ancestors */
	__u32 top_is_kernel;
	struct comm names[MAX_ABOVE]; /* not padded */
} __attribute__((aligned(64)));

#define ADD(where, n) __sync_fetch_and_add(&(where), (n))

/* Returns how many of the 31 bounds are less than v. Without branches: verifiers before Linux 6.12 reject a loop over the bounds. */
static __always_inline __u64 bucket_of(const volatile __u64 *bounds, __u64 v)
{
	__u64 step, i = 0;

#pragma unroll
	for (step = BUCKETS / 2; step; step /= 2) {
		i += step * is_greater(v, bounds[(i + step - 1) & (BUCKETS - 1)]);
		asm volatile("" : "+r"(i)); /* else the compiler leaves out masks, and Linux 5.10 does not see what is left */
	}
	return i & (BUCKETS - 1);
}

/* Has the CPU fetch a cache line, and goes on meanwhile. An atomic add waits for its line; so several would wait one after the other. */
static __always_inline void fetch(const void *at)
{
	*(const volatile __u32 *)at;
}

/* Returns 1 for all but 0, without a branch that the verifier would follow through all code after it. */
static __always_inline __u64 is_nonzero(__u64 v)
{
	v |= -v;
	asm volatile("" : "+r"(v)); /* else the compiler makes a branch of it */
	return v >> 63;
}

/* Returns a mask of all bits before the first zero byte of a little-endian word. */
static __always_inline __u64 before_zero(__u64 word)
{
	__u64 zero = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;

	return (zero & -zero) - 1;
}

/* Old kernels leave garbage after the terminating zero. */
static __always_inline void pad_comm(struct comm *comm)
{
	__u64 first = before_zero(comm->word[0]);

	comm->word[0] &= first;
	comm->word[1] &= before_zero(comm->word[1]) & (is_nonzero(~first) - 1);
}

static __always_inline int in_time(const volatile struct control *control, __u64 now)
{
	return now >= control->from_ns && now < control->until_ns;
}

/* At a switch two modes run for a while. Each event counts in one of them, by its time on the monotonic clock. */
static __always_inline int counts_at(const volatile struct control *control, __u64 now)
{
	return !control->is_cut || in_time(control, now);
}

static __always_inline int counts_now(const volatile struct control *control)
{
	return !control->is_cut || in_time(control, bpf_ktime_get_ns());
}

/* Returns whether the start time alone tells that the exit counts here; the free then needs no note. */
static __always_inline int born_here(const volatile struct control *control, __u64 start_ns)
{
	return start_ns >= control->since && start_ns < control->until_ns;
}

/* A wait status, see wait(2): bits 0 to 6 are the signal, bit 7 is set for a core dump, bits 8 to 15 are the exit code. */
static __always_inline enum outcome outcome_of(int code)
{
	_Static_assert(OUTCOME_OK == 0 && OUTCOME_ERROR == 1 && OUTCOME_SIGNAL == 2, "is a sum");
	return is_nonzero(code) + is_nonzero(code & 0x7f);
}

static __always_inline void count_second(struct cpu *cpu, __u64 now)
{
	__u32 second = now / 1000000000;
	struct second *slot = &cpu->ring[second % SECONDS];

	if (slot->second != second) {
		slot->second = second;
		slot->short_exits = 0;
	}
	slot->short_exits++;
}

/* Of the copies of on_exit, which run one after the other in the task that exits: returns whether this one is to count. It then leaves a mark
 * in the slot of the task. If a later one doesn't find it, the kernel skipped those before. See docs/adr/0022-copies.md
 */
static __always_inline int is_my_turn(__u64 *mark, struct cpu *cpu, __u64 task, int copy)
{
	int is_last = copy == COPIES - 1;

	if (copy && *mark == task) {
		if (is_last)
			*mark = 0;
		return 0;
	}
	if (copy)
		cpu->stand_ins++;
	if (!is_last)
		*mark = task;
	return 1;
}

static __always_inline int same_comm(const struct comm *a, const struct comm *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

#endif

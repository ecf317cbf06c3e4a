/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Layouts that the kernel side and exporter/kernel/layout.py share, and the code that every BPF program of the project uses. */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#define COMM_LEN 16
#define MAX_BOUNDS 31
#define BUCKETS (MAX_BOUNDS + 1)
#define SIGNALS 65
#define SECONDS 64
#define MAX_COMMS 2048
#define MAX_EXIT_NOTES 4096
#define MAX_GUARDED 8192
#define FILTER 64 /* few, so that they stay in the cache */
#define MAX_EXES 16384
#define EXE_LEN 256
#define RECORDS_BYTES (2 << 20)

/* The order is that of Outcome in exporter/model/__init__.py. */
enum outcome { OUTCOME_OK, OUTCOME_ERROR, OUTCOME_SIGNAL, OUTCOME_UNKNOWN, OUTCOMES };

/* The order is that of KERNEL_LOST in exporter/kernel/layout.py. */
enum lost { LOST_NAME_BUSY, LOST_CPU_MARKS_FULL, LOST_BIRTHS_FULL, LOST_EXES_FULL, LOST_REASONS };

/* Whether there are records of single short processes, and whether each wakes the reader. */
enum records { RECORDS_OFF, RECORDS_ON, RECORDS_LIVE };

struct comm {
	__u64 word[COMM_LEN / 8]; /* padded with zeros, so that equal names are equal keys */
};

/* A cache line for what the exit writes, and another for what the free writes, often on another CPU. */
struct counts {
	__u64 exits[OUTCOMES];
	__u64 long_exits; /* the others were short */
	__u64 execs;
	__u64 runtime_ns;
	__u64 short_children; /* short exits of which this comm was the parent */
	__u64 buckets[BUCKETS]; /* of runtimes, not cumulative */
	__u64 short_cpu_ns;
	__u64 long_cpu_ns;
	__u64 cpu_recorded; /* ended processes whose CPU is in */
	__u64 unused_too[5];
} __attribute__((aligned(64)));

struct second {
	__u32 second; /* of the monotonic clock */
	__u32 short_exits;
};

/* What has no name, per CPU: these lines would else travel between CPUs at each fork, and a slot's reset must not race. Only one program
 * writes a field, and the kernel never enters a program twice on a CPU, so a plain add is exact; what several write is added atomically.
 */
struct cpu {
	__u64 forks;
	__u64 threads;
	__u64 core_dumps;
	__u64 comms_entered;
	__u64 records_dropped; /* for the ring was full */
	__u64 lost[LOST_REASONS];
	__u64 signals[SIGNALS];
	struct second ring[SECONDS];
};

/* Written by programs only. */
struct shared {
	struct counts other; /* what found no room among the comms */
	__u32 filter[FILTER];
};

/* Written by user space only. Times are of the monotonic clock. */
struct control {
	__u64 active;   /* which of the two maps of comms programs write */
	__u64 since;    /* processes born from then on exit while all programs are attached and count */
	__u64 is_cut;   /* whether to compare events with the two times that follow, which takes a look at the clock */
	__u64 from_ns;  /* the first moment whose events count */
	__u64 until_ns; /* the first one whose events don't count any more */
	__u64 records;  /* enum records */
	__u64 unused[2];
} __attribute__((aligned(64)));

/* Set before load and constant from then on, so the verifier removes what is off. */
struct config {
	__u64 threshold_ns;
	__u64 bounds_ns[BUCKETS]; /* rising, filled up with the greatest value; the last is never compared */
	__u64 group_dead_arg;
	struct comm kernel_threads;
	__u64 unused[4];
	struct counts none; /* zeros: what a new comm starts with */
	char no_exe[EXE_LEN];
};

/* What the free of a process has to know of its exit and can't find out by itself, keyed by the address of its leader. */
struct exit_note {
	__u64 start_ns;
	__u8 is_long;
	__u8 is_kernel;
	__u8 had_threads;
	__u8 skip; /* the exit was not counted here, so its CPU is not either */
	__u8 unused[4];
};

struct ended {
	__u64 leader;
	__u64 start_ns;
};

/* One short process that has ended. All of one size, so that a reader can decode many at once. */
struct record {
	__u64 ended_ns; /* monotonic */
	__u64 runtime_ns;
	__u64 cgroup; /* its id: the inode of its folder */
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__s32 code; /* as wait(2) has it; -1 where it is not known */
	struct comm comm;
	struct comm parent_comm;
	char exe[EXE_LEN];
};

struct exe {
	char path[EXE_LEN];
};

#define ADD(where, n) __sync_fetch_and_add(&(where), (n))

/* How many of the 31 bounds are less than v. Branch-free: kernels before 6.12 give up on a loop over the bounds. */
static __always_inline __u32 bucket_of(const volatile __u64 *bounds, __u64 v)
{
	__u32 i = 0;

	i += (v > bounds[15]) << 4;
	i += (v > bounds[(i + 7) & (BUCKETS - 1)]) << 3;
	i += (v > bounds[(i + 3) & (BUCKETS - 1)]) << 2;
	i += (v > bounds[(i + 1) & (BUCKETS - 1)]) << 1;
	i += (v > bounds[i & (BUCKETS - 1)]);
	return i & (BUCKETS - 1);
}

/* All bits before the first zero byte of a little-endian word. */
static __always_inline __u64 before_zero(__u64 word)
{
	__u64 zero = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;

	return zero ? (zero & -zero) - 1 : ~0ULL;
}

/* Old kernels leave rubbish behind the zero. */
static __always_inline void pad_comm(struct comm *comm)
{
	__u64 first = before_zero(comm->word[0]);

	comm->word[0] &= first;
	comm->word[1] &= first == ~0ULL ? before_zero(comm->word[1]) : 0;
}

static __always_inline int in_time(const volatile struct control *control, __u64 now)
{
	return now >= control->from_ns && now < control->until_ns;
}

/* At a switch of modes both run for a while, and each event counts in one of them, by the clock that both read. */
static __always_inline int counts_at(const volatile struct control *control, __u64 now)
{
	return !control->is_cut || in_time(control, now);
}

static __always_inline int counts_now(const volatile struct control *control)
{
	return !control->is_cut || in_time(control, bpf_ktime_get_ns());
}

/* Whether the exit of a process counts here because of its birth alone, so that its free need not be told. */
static __always_inline int born_here(const volatile struct control *control, __u64 start_ns)
{
	return start_ns >= control->since && start_ns < control->until_ns;
}

/* As wait(2) has it: a signal's number in the low seven bits, then whether core was dumped, then the exit code. */
static __always_inline enum outcome outcome_of(int code)
{
	return code & 0x7f ? OUTCOME_SIGNAL : code ? OUTCOME_ERROR : OUTCOME_OK;
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

static __always_inline int same_comm(const struct comm *a, const struct comm *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

#endif

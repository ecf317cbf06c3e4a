/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Layouts that the kernel side and exporter/layout.py share, and the code that every BPF program of the project uses. */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#define COMM_LEN 16
#define MAX_BOUNDS 31
#define BUCKETS (MAX_BOUNDS + 1)
#define SIGNALS 65
#define SECONDS 64
#define MAX_COMMS 4096
#define MAX_PENDING 32768
#define MAX_GUARDED 8192

enum outcome { OUTCOME_OK, OUTCOME_ERROR, OUTCOME_SIGNAL, OUTCOMES };

/* The order is that of KERNEL_LOST in exporter/layout.py. */
enum lost { LOST_NAME_BUSY, LOST_CPU_PENDING_FULL, LOST_CPU_NEVER_CAME, LOST_REASONS };

struct comm {
	char name[COMM_LEN]; /* padded with zeros, so that equal names are equal keys */
};

struct counts {
	__u64 exits[OUTCOMES];
	__u64 short_exits;
	__u64 execs;
	__u64 runtime_ns;
	__u64 cpu_ns;
	__u64 short_cpu_ns;
	__u64 short_children;   /* short exits of which this comm was the parent */
	__u64 buckets[BUCKETS]; /* not cumulative */
};

/* Everything that has no name: never drained, only read. */
struct totals {
	struct counts all;
	struct counts other; /* what found no room among the comms */
	__u64 forks;
	__u64 threads;
	__u64 core_dumps;
	__u64 comms_entered;
	__u64 signals[SIGNALS];
	__u64 lost[LOST_REASONS];
};

/* Set before load and constant from then on, so the verifier removes what is off. */
struct config {
	__u64 threshold_ns;
	__u64 bounds_ns[BUCKETS]; /* rising, filled up with the greatest value; the last is never compared */
	__u32 comm_buckets;
	__u32 group_dead_arg;
	struct comm kernel_threads;
	struct counts none; /* zeros: what a new comm starts with */
};

/* An ended process that waits for its CPU, keyed by the address of its leader. */
struct pending {
	__u64 start_ns;
	__u64 end_ns;
	struct comm comm;
	__u32 tgid;
	__u16 is_short;
	__u16 charged;
};

struct ended {
	__u64 leader;
	__u64 start_ns;
};

struct second {
	__u32 second; /* of the monotonic clock */
	__u32 short_exits;
};

struct seconds {
	struct second ring[SECONDS];
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

#endif

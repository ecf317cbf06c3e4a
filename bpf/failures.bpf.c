// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Counts why processes don't start, or are killed for memory: failed forks, failed execs and OOM kills.
 *
 * Not every kernel lets programs attach to its functions, so they are apart from lifecycle.bpf.c, which must attach. The loader
 * (exporter/loaders/failures.py) chooses the functions, which differ between kernels and architectures. Each takes one argument, so its
 * result is ctx[1].
 *
 * The kernel can preempt one of these programs and run another one on the same CPU: adds are atomic.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#include "lifecycle.h"
#include "failures.h"

#define ERESTARTSYS 512 /* include/linux/errno.h: the kernel itself repeats the call, user space does not see these */
#define ERESTART_RESTARTBLOCK 516

char LICENSE[] SEC("license") = "GPL";

/* The map of the other programs, so that a switch of modes is at the same moment for all. */
volatile struct control control SEC(".data.control") = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct failures);
} failures SEC(".maps");

static __always_inline void count(enum failure what)
{
	const __u32 zero = 0;
	struct failures *mine;

	if (!counts_now(&control))
		return;
	mine = bpf_map_lookup_elem(&failures, &zero);
	if (mine)
		ADD(mine->counts[what], 1);
}

static __always_inline int failed(__s64 result)
{
	return result < 0 && (result > -ERESTARTSYS || result < -ERESTART_RESTARTBLOCK);
}

static __always_inline int count_exec(__s64 result)
{
	if (!failed(result))
		return 0;
	if (result == -ENOENT)
		count(FAILURE_EXEC_ENOENT);
	else if (result == -EACCES)
		count(FAILURE_EXEC_EACCES);
	else if (result == -ENOEXEC)
		count(FAILURE_EXEC_ENOEXEC);
	else if (result == -E2BIG)
		count(FAILURE_EXEC_E2BIG);
	else
		count(FAILURE_EXEC_OTHER);
	return 0;
}

SEC("fexit")
int on_clone(__u64 *ctx)
{
	__s64 result = (__s32)ctx[1]; /* a pid_t: the kernel does not extend its sign */

	if (!failed(result))
		return 0;
	if (result == -EAGAIN)
		count(FAILURE_FORK_EAGAIN);
	else if (result == -ENOMEM)
		count(FAILURE_FORK_ENOMEM);
	else
		count(FAILURE_FORK_OTHER);
	return 0;
}

SEC("fexit")
int on_execve(__u64 *ctx)
{
	return count_exec(ctx[1]);
}

SEC("fexit")
int on_execveat(__u64 *ctx)
{
	return count_exec(ctx[1]);
}

SEC("fexit")
int on_execve_32(__u64 *ctx)
{
	return count_exec(ctx[1]);
}

SEC("fexit")
int on_execveat_32(__u64 *ctx)
{
	return count_exec(ctx[1]);
}

SEC("tp_btf/mark_victim")
int on_oom_kill(__u64 *ctx)
{
	count(FAILURE_OOM_KILL);
	return 0;
}

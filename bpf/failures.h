/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
#ifndef FAILURES_H
#define FAILURES_H

/* The order is that of FAILURES in exporter/model/failures.py. */
enum failure {
	FAILURE_FORK_EAGAIN,
	FAILURE_FORK_ENOMEM,
	FAILURE_FORK_OTHER,
	FAILURE_EXEC_ENOENT,
	FAILURE_EXEC_EACCES,
	FAILURE_EXEC_ENOEXEC,
	FAILURE_EXEC_E2BIG,
	FAILURE_EXEC_OTHER,
	FAILURE_OOM_KILL,
	FAILURE_KINDS
};

struct failures {
	__u64 counts[FAILURE_KINDS];
};

#endif

// SPDX-License-Identifier: Apache-2.0
/* Processes whose truth is known. Each command starts a bounded number of them, waits for all, and prints what the kernel charged for
 * its children and for itself, from getrusage(2): `children_ns N own_ns N`. One source for the tests and for bench/.
 *
 *   forkexec N FILE      fork, then exec of FILE
 *   vfork N              vfork, then exit
 *   together N THREADS   children whose threads all leave at once, by exit_group
 *   scatter N THREADS    children whose threads each leave by themselves, at the same moment
 *   leader N MS CODE     children whose leader leaves with 0 first, and whose last thread exits with CODE after MS
 *   burn N MS THREADS    children that burn MS of CPU in each of THREADS threads
 *   end N CODE           children that exit with CODE
 *   kill N SIGNAL        children that end by SIGNAL
 *   dump N THREADS MS    children that dump core after MS: in turn the leader, or another thread, aborts
 *   chain N FILE         children that exec themselves twice, then FILE
 *   comms N [FIRST]      children each with a name of its own, numbered from FIRST, ending as its number % 3 says: 0, 1, by a signal
 *   uring N              children that start one io_uring worker
 *   compat N             execve and execveat of a missing file, N times each, by the system calls of 32-bit programs; no children
 *   stop N               children stopped for good and killed: SIGKILL once a process
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64

static pthread_barrier_t barrier;
static int last_code;
static long milliseconds;

static void fail(const char *what)
{
	perror(what);
	exit(99);
}

static void pause_ms(long ms)
{
	struct timespec left = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

static void burn_ms(long ms)
{
	struct timespec now;
	long long end;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	end = now.tv_sec * 1000000000LL + now.tv_nsec + ms * 1000000LL;
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	while (now.tv_sec * 1000000000LL + now.tv_nsec < end);
}

static void *wait_for_all(void *unused)
{
	pthread_barrier_wait(&barrier);
	return unused;
}

static void *wait_for_ever(void *unused)
{
	pthread_barrier_wait(&barrier);
	pause();
	return unused;
}

static void *abort_all(void *unused)
{
	pthread_barrier_wait(&barrier);
	pause_ms(milliseconds);
	abort();
	return unused;
}

static void *exit_last(void *unused)
{
	pause_ms(milliseconds);
	syscall(SYS_exit_group, last_code);
	return unused;
}

static void *burn(void *unused)
{
	burn_ms(milliseconds);
	return unused;
}

static void start(pthread_t *threads, int n, void *(*body)(void *))
{
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 * 1024);
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], &small, body, NULL))
			fail("pthread_create");
}

/* One no-op that may not run inline starts one worker. */
static void use_uring(void)
{
	struct io_uring_params params = {0};
	int ring = syscall(SYS_io_uring_setup, 4, &params);
	char *rings;
	struct io_uring_sqe *sqe;
	unsigned *tail;

	if (ring < 0)
		_exit(98);
	rings = mmap(NULL, params.sq_off.array + params.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	sqe = mmap(NULL, params.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (rings == MAP_FAILED || sqe == MAP_FAILED)
		_exit(97);
	sqe->opcode = IORING_OP_NOP;
	sqe->flags = IOSQE_ASYNC;
	tail = (unsigned *)(rings + params.sq_off.tail);
	((unsigned *)(rings + params.sq_off.array))[0] = 0;
	__atomic_store_n(tail, 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		_exit(96);
}

static void child(char **argv, int number)
{
	const char *what = argv[1];
	int extra = argv[3] ? atoi(argv[3]) : 0;
	pthread_t threads[MAX_THREADS];
	char name[16];

	if (!strcmp(what, "forkexec")) {
		execl(argv[3], argv[3], NULL);
		_exit(95);
	} else if (!strcmp(what, "together")) {
		pthread_barrier_init(&barrier, NULL, extra);
		start(threads, extra - 1, wait_for_ever);
		pthread_barrier_wait(&barrier);
		_exit(0);
	} else if (!strcmp(what, "scatter")) {
		pthread_barrier_init(&barrier, NULL, extra);
		start(threads, extra - 1, wait_for_all);
		pthread_barrier_wait(&barrier);
		syscall(SYS_exit, 0);
	} else if (!strcmp(what, "leader")) {
		milliseconds = extra;
		last_code = atoi(argv[4]);
		start(threads, 1, exit_last);
		syscall(SYS_exit, 0);
	} else if (!strcmp(what, "burn")) {
		milliseconds = extra;
		start(threads, atoi(argv[4]) - 1, burn);
		burn_ms(milliseconds);
		for (int i = 0; i < atoi(argv[4]) - 1; i++)
			pthread_join(threads[i], NULL);
	} else if (!strcmp(what, "end")) {
		_exit(extra);
	} else if (!strcmp(what, "kill")) {
		signal(extra, SIG_DFL);
		raise(extra);
		pause();
	} else if (!strcmp(what, "dump")) {
		milliseconds = atoi(argv[4]);
		pthread_barrier_init(&barrier, NULL, extra);
		start(threads, 1, number % 2 ? abort_all : wait_for_ever);
		start(threads + 1, extra - 2, wait_for_ever);
		number % 2 ? wait_for_ever(NULL) : abort_all(NULL);
	} else if (!strcmp(what, "chain")) {
		execl("/proc/self/exe", "workload", "rechain", "1", argv[3], NULL);
		_exit(94);
	} else if (!strcmp(what, "comms")) {
		number += extra;
		snprintf(name, sizeof(name), "c%d", number);
		prctl(PR_SET_NAME, name);
		if (number % 3 == 2) {
			raise(SIGTERM);
			pause();
		}
		_exit(number % 3);
	} else if (!strcmp(what, "uring")) {
		use_uring();
	} else if (!strcmp(what, "stop")) {
		raise(SIGSTOP);
	}
	_exit(0);
}

static long long cpu_ns(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000LL;
}

#define STACK 4096

static int sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused != NULL;
}

/* N processes that sleep until the input ends, and are then killed. They share their memory, or many would need too much. */
static int sleepers(int n)
{
	char *stacks = malloc((size_t)n * STACK), byte;
	pid_t group = 0, pid;
	int made;

	if (!stacks)
		fail("malloc");
	for (made = 0; made < n; made++) {
		pid = clone(sleep_for_ever, stacks + (size_t)(made + 1) * STACK, CLONE_VM | SIGCHLD, NULL);
		if (pid < 0)
			break;
		if (!group)
			group = pid;
		setpgid(pid, group);
	}
	printf("%d\n", made);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	kill(-group, SIGKILL);
	while (wait(NULL) > 0)
		;
	return 0;
}

/* Returns 0 if all failed as they have to; 90 where there are no such system calls. */
static int compat_execs(int n)
{
#ifdef __x86_64__
	/* they take addresses of 32 bits */
	char *path = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long result;

	if (path == MAP_FAILED)
		fail("mmap");
	strcpy(path, "/missing");
	for (int i = 0; i < n; i++) {
		asm volatile("int $0x80" : "=a"(result) : "a"(11), "b"(path), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
		if (result != -ENOENT)
			return 90;
		asm volatile("int $0x80"
			     : "=a"(result)
			     : "a"(358), "b"(AT_FDCWD), "c"(path), "d"(0), "S"(0), "D"(0)
			     : "memory", "r8", "r9", "r10", "r11");
		if (result != -ENOENT)
			return 90;
	}
	return 0;
#else
	return n ? 90 : 0;
#endif
}

int main(int argc, char **argv)
{
	int n, status;
	pid_t pid;

	if (argc < 3)
		return 2;
	n = atoi(argv[2]);
	if (!strcmp(argv[1], "rechain")) {
		if (n)
			execl("/proc/self/exe", "workload", "rechain", "0", argv[3], NULL);
		execl(argv[3], argv[3], NULL);
		return 93;
	}
	if (n < 0 || n > 100000)
		return 2;
	if (!strcmp(argv[1], "compat"))
		return compat_execs(n);
	if (!strcmp(argv[1], "sleepers"))
		return sleepers(n);
	for (int i = 0; i < n; i++) {
		pid = strcmp(argv[1], "vfork") ? fork() : vfork();
		if (pid < 0)
			fail("fork");
		if (!pid) {
			if (!strcmp(argv[1], "vfork"))
				_exit(0);
			child(argv, i);
		}
		if (!strcmp(argv[1], "stop")) {
			waitpid(pid, &status, WUNTRACED);
			kill(pid, SIGKILL);
		}
		if (waitpid(pid, &status, 0) != pid)
			fail("waitpid");
		if (WIFEXITED(status) && WEXITSTATUS(status) > 90)
			return WEXITSTATUS(status);
		if (!strcmp(argv[1], "dump") && !WCOREDUMP(status))
			return 92;
	}
	printf("children_ns %lld own_ns %lld\n", cpu_ns(RUSAGE_CHILDREN), cpu_ns(RUSAGE_SELF));
	return 0;
}

/* Starts `count` processes at `rate` a second that each live `life_us`, and prints how many it started. Each starts at a
 * random moment of its slot of 1/rate, so that nothing that looks at an even pace falls into step with it.
 *
 *   lives COUNT RATE LIFE_US rename NAME   each fork renames itself
 *   lives COUNT RATE LIFE_US exec PATH     each fork executes PATH, another copy of this program
 *
 * Children are reaped by the kernel at once. Bounded: at most 200,000 processes and 300 seconds. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL

static void live(long us)
{
	struct timespec left = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
	_exit(0);
}

static struct timespec later(struct timespec at, long long ns)
{
	at.tv_sec += (at.tv_nsec + ns) / NS;
	at.tv_nsec = (at.tv_nsec + ns) % NS;
	return at;
}

int main(int argc, char **argv)
{
	struct timespec slot, due;
	long count, rate, life_us, started = 0;

	if (argc == 3 && !strcmp(argv[1], "live"))
		live(atol(argv[2]));
	if (argc != 6)
		return 2;
	count = atol(argv[1]);
	rate = atol(argv[2]);
	life_us = atol(argv[3]);
	if (count < 0 || count > 200000 || rate < 1 || life_us < 0 || life_us > 60000000)
		return 2;
	signal(SIGCHLD, SIG_IGN);
	alarm(300);
	srandom(1);
	clock_gettime(CLOCK_MONOTONIC, &slot);
	for (long i = 0; i < count; i++) {
		pid_t pid;

		due = later(slot, random() % (NS / rate));
		slot = later(slot, NS / rate);
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
			;
		pid = fork();

		if (!pid && !strcmp(argv[4], "exec")) {
			execl(argv[5], argv[5], "live", argv[3], (char *)NULL);
			_exit(127);
		}
		if (!pid) {
			prctl(PR_SET_NAME, argv[5]);
			live(life_us);
		}
		started += pid > 0;
	}
	printf("%ld\n", started);
	return 0;
}

/* A clock that runs FAST_CLOCK_RATE times as fast, for one process and by LD_PRELOAD.
 *
 * What a program learns of the time is scaled (clock_gettime), and so is all that waits for it: epoll_wait, poll, the sleeps, and
 * the futexes of Rust's condition variables and channels. The kernel's own timers are not (TCP's, say), nor is what work takes.
 * FAST_CLOCK_BASE, "monotonic:realtime" in nanoseconds, is when the clocks were right: processes that share it agree on the time.
 *
 * FAST_CLOCK_HOLD names a thread: as the first one is given that name the process stops itself (SIGSTOP), for a tracer to attach. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static int64_t rate = 1;
static int64_t monotonic_base, realtime_base;
static const char *hold;
static atomic_flag held = ATOMIC_FLAG_INIT;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_clock_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*real_setname)(pthread_t, const char *);
static long (*real_syscall)(long, ...);

static int64_t nanos(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }
static struct timespec spec(int64_t n) {
	return (struct timespec){.tv_sec = n / SECOND, .tv_nsec = n % SECOND};
}

__attribute__((constructor)) static void start(void) {
	if (real_syscall) return;
	real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	real_clock_nanosleep = dlsym(RTLD_NEXT, "clock_nanosleep");
	real_ppoll = dlsym(RTLD_NEXT, "ppoll");
	real_setname = dlsym(RTLD_NEXT, "pthread_setname_np");
	struct timespec monotonic, realtime;
	real_clock_gettime(CLOCK_MONOTONIC, &monotonic);
	real_clock_gettime(CLOCK_REALTIME, &realtime);
	monotonic_base = nanos(&monotonic);
	realtime_base = nanos(&realtime);
	const char *base = getenv("FAST_CLOCK_BASE"), *wanted = getenv("FAST_CLOCK_RATE");
	if (wanted && atoll(wanted) > 0) rate = atoll(wanted);
	long long m, r;
	if (base && sscanf(base, "%lld:%lld", &m, &r) == 2) monotonic_base = m, realtime_base = r;
	hold = getenv("FAST_CLOCK_HOLD");
	real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

/* Of those clocks that tell how much time has passed; -1 for others, which are left alone. */
static int64_t base_of(clockid_t clock) {
	switch (clock) {
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_BOOTTIME:
		return monotonic_base;
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		return realtime_base;
	default:
		return -1;
	}
}

/* Rounded up, so that nothing that waits spins. */
static int64_t shorter(int64_t n) { return n <= 0 ? 0 : (n + rate - 1) / rate; }

int clock_gettime(clockid_t clock, struct timespec *now) {
	start();
	int result = real_clock_gettime(clock, now);
	int64_t base = base_of(clock);
	if (result == 0 && base >= 0) *now = spec(base + (nanos(now) - base) * rate);
	return result;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
	start();
	int64_t base = base_of(clock);
	if (base < 0) return real_clock_nanosleep(clock, flags, wanted, left);
	struct timespec real = spec(flags & TIMER_ABSTIME ? base + shorter(nanos(wanted) - base) : shorter(nanos(wanted)));
	int result = real_clock_nanosleep(clock, flags, &real, left);
	if (result == EINTR && left && !(flags & TIMER_ABSTIME)) *left = spec(nanos(left) * rate);
	return result;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
	int result = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
	if (result) errno = result;
	return result ? -1 : 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int millis) {
	start();
	struct timespec limit = spec(shorter(millis * 1000000LL));
	return (int)real_syscall(SYS_epoll_pwait2, epoll, events, most, millis < 0 ? NULL : &limit, NULL, 0);
}

int poll(struct pollfd *fds, nfds_t count, int millis) {
	start();
	struct timespec limit = spec(shorter(millis * 1000000LL));
	return real_ppoll(fds, count, millis < 0 ? NULL : &limit, NULL);
}

/* Rust's standard library waits by futex, until an absolute moment. */
long syscall(long number, ...) {
	start();
	va_list rest;
	va_start(rest, number);
	long a[6];
	for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
	va_end(rest);
	struct timespec moment;
	if (number == SYS_futex && a[3] && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
		int64_t base = a[1] & FUTEX_CLOCK_REALTIME ? realtime_base : monotonic_base;
		moment = spec(base + shorter(nanos((struct timespec *)a[3]) - base));
		a[3] = (long)&moment;
	} else if (number == SYS_futex && a[3] && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT) {
		moment = spec(shorter(nanos((struct timespec *)a[3])));
		a[3] = (long)&moment;
	}
	return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_setname_np(pthread_t thread, const char *name) {
	start();
	int result = real_setname(thread, name);
	if (hold && strcmp(name, hold) == 0 && !atomic_flag_test_and_set(&held)) raise(SIGSTOP);
	return result;
}

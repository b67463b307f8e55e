/* A team of OpenMP threads, or one thread where the compiler has no OpenMP. */
#ifndef FASTRNA_THREADS_H
#define FASTRNA_THREADS_H

#include <stdint.h>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
static int team_size(void) { return omp_get_num_threads(); }
static int team_limit(void) { return omp_get_max_threads(); }
#else
static int team_size(void) { return 1; }
static int team_limit(void) { return 1; }
#endif

/* Seconds, from an arbitrary origin. */
static double seconds_now(void) {
    struct timespec t;
#if defined(CLOCK_MONOTONIC)
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds this thread has had a processor, from an arbitrary origin; where that is not told, all. */
static double seconds_running(void) {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#else
    return seconds_now();
#endif
}

/* Where one thread of a team says how many times it has arrived, and what tasks it has left: lines of
 * its own, since a line that two threads write passes between their cores twice as often. All zero to
 * begin with. */
typedef struct {
    unsigned arrivals;
    int turn;           /* which of `left` is of the phase that begins or is under way */
    uint64_t left[2];   /* tasks: the low half is the number of the next, the high half one past the
                         * last; two in turn, as others may still read those of the phase before */
    char rest[104];
} place;

/* What one thread may write while others read it, who need not see it at once. */
#if defined(__GNUC__)
static unsigned long long told(const unsigned long long *word) {
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
static void tell(unsigned long long *word, unsigned long long value) {
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
#else
static unsigned long long told(const unsigned long long *word) { return *word; }
static void tell(unsigned long long *word, unsigned long long value) { *word = value; }
#endif

/* This thread's tasks of the phase that begins with the next meeting: 0 to n. */
static void offer(place *own, int64_t n) {
    own->turn ^= 1;
    own->left[own->turn] = (uint64_t)n << 32;
}

#if defined(_OPENMP) && defined(__GNUC__) && !defined(_WIN32)
#include <sched.h>
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() ((void)0)
#endif
enum { QUICK_SPINS = 256, SPINS = 2000 };
static void arrive(place *own) {
    __atomic_store_n(&own->arrivals, own->arrivals + 1, __ATOMIC_RELEASE);
}
/* Until the whole team has arrived as often as this thread: spin for a while, then yield. OpenMP's
 * own barrier goes on spinning, so that with other busy processes each can cost a time slice.
 * Returns the seconds spent yielding: on an idle machine 0. */
static double await_team(const place *team, int size, int rank) {
    unsigned arrivals = team[rank].arrivals;
    double since = 0;
    for (int other = 0; other < size; other++) {
        int spins = 0;
        while ((int)(__atomic_load_n(&team[other].arrivals, __ATOMIC_ACQUIRE) - arrivals) < 0) {
            spins++;
            if (spins < QUICK_SPINS) continue;
            if (spins < SPINS) {
                RELAX();
                continue;
            }
            if (since == 0) since = seconds_now();
            sched_yield();
        }
    }
    return since == 0 ? 0 : seconds_now() - since;
}
/* A task of one thread of the team for another: the first that is left of the thread's own, the last
 * of any other's; -1 where there is none. Relaxed: the meetings before and after a phase order what
 * its tasks read and write. */
static int64_t claim(place *team, int owner, int rank) {
    uint64_t *left = &team[owner].left[team[rank].turn];
    uint64_t seen = __atomic_load_n(left, __ATOMIC_RELAXED);
    for (;;) {
        uint64_t next = (uint32_t)seen, end = seen >> 32;
        if (next >= end) return -1;
        if (__atomic_compare_exchange_n(left, &seen, owner == rank ? seen + 1 : seen - (1ULL << 32),
                                        1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return (int64_t)(owner == rank ? next : end - 1);
    }
}
#else
/* Without atomic operations everyone does what is its own. */
static int64_t claim(place *team, int owner, int rank) {
    uint64_t *left = &team[owner].left[team[rank].turn];
    uint64_t next = (uint32_t)*left;
    if (owner != rank || next >= *left >> 32) return -1;
    *left += 1;
    return (int64_t)next;
}
#if defined(_OPENMP)
static void arrive(place *own) { (void)own; }
static double await_team(const place *team, int size, int rank) {
    (void)team, (void)size, (void)rank;
#pragma omp barrier
    return 0;
}
#else
static void arrive(place *own) { (void)own; }
static double await_team(const place *team, int size, int rank) {
    (void)team, (void)size, (void)rank;
    return 0;
}
#endif
#endif

#endif

/* A team of OpenMP threads, or one thread where the compiler has no OpenMP. */
#ifndef FASTRNA_THREADS_H
#define FASTRNA_THREADS_H

#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
static int team_size(void) { return omp_get_num_threads(); }
static int team_limit(void) { return omp_get_max_threads(); }
#else
static int team_size(void) { return 1; }
static int team_limit(void) { return 1; }
#endif

/* Where the threads of a team meet; all zero to begin with. */
typedef struct {
    int arrived, round;
} meeting;

#if defined(_OPENMP) && defined(__GNUC__) && !defined(_WIN32)
#include <sched.h>
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() ((void)0)
#endif
enum { SPINS = 2000 };
/* Wait until the whole team is here: spin for a while, then yield. OpenMP's own barrier goes on
 * spinning, so that with other busy processes each meeting can cost a time slice. */
static void meet(meeting *m, int team) {
    int round = __atomic_load_n(&m->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&m->arrived, 1, __ATOMIC_ACQ_REL) == team) {
        __atomic_store_n(&m->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&m->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&m->round, __ATOMIC_ACQUIRE) == round; spins++) {
        if (spins < SPINS) RELAX();
        else sched_yield();
    }
}
#elif defined(_OPENMP)
static void meet(meeting *m, int team) {
    (void)m, (void)team;
#pragma omp barrier
}
#else
static void meet(meeting *m, int team) { (void)m, (void)team; }
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

#endif

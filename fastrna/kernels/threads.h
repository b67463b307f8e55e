/* A team of OpenMP threads, or one thread where the compiler has no OpenMP. */
#ifndef FASTRNA_THREADS_H
#define FASTRNA_THREADS_H

#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
static int team_size(void) { return omp_get_num_threads(); }
static int team_limit(void) { return omp_get_max_threads(); }
#define team_barrier() _Pragma("omp barrier")
#else
static int team_size(void) { return 1; }
static int team_limit(void) { return 1; }
#define team_barrier() ((void)0)
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

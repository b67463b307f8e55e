/* What the processor offers and the operating system saves across a context switch. */
#ifndef FASTRNA_CPU_H
#define FASTRNA_CPU_H

#if defined(__GNUC__) && defined(__x86_64__)
/* The compiler's run-time library asks cpuid, and xgetbv for the operating system's part. */
static int runs_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int runs_avx512(void) {
    __builtin_cpu_init();
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#elif defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
/* ymm state is bits 1-2 of xcr0, zmm and mask state bits 5-7. */
static int saves(unsigned long long state) {
    int r[4];
    __cpuid(r, 1);
    return (r[2] >> 27 & 1) && (_xgetbv(0) & state) == state;
}
static int leaf_7_has(int mask) {
    int r[4];
    __cpuidex(r, 7, 0);
    return (r[1] & mask) == mask;
}
static int runs_avx2(void) {
    int r[4];
    __cpuid(r, 1);
    return saves(0x06) && (r[2] >> 12 & 1) && leaf_7_has(1 << 5);
}
static int runs_avx512(void) {
    return runs_avx2() && saves(0xE6) && leaf_7_has(1 << 16 | 1 << 17 | 1 << 30 | (int)(1u << 31));
}
#else
static int runs_avx2(void) { return 0; }
static int runs_avx512(void) { return 0; }
#endif

#endif

/* What the processor offers and the operating system saves across a context switch: by cpuid and
 * xgetbv, as a compiler's own __builtin_cpu_supports needs a run-time library that not all have (with
 * Zig's it is always false). */
#ifndef FASTRNA_CPU_H
#define FASTRNA_CPU_H

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
static void cpuid(int leaf, unsigned r[4]) { __cpuidex((int *)r, leaf, 0); }
static unsigned long long saved_state(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(int leaf, unsigned r[4]) { __cpuid_count(leaf, 0, r[0], r[1], r[2], r[3]); }
static unsigned long long saved_state(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}
#endif
enum { EAX, EBX, ECX, EDX };
/* Whether all of these bits of one register are set in what a leaf tells. */
static int has(int leaf, int which, unsigned bits) {
    unsigned r[4];
    cpuid(0, r);
    if (r[EAX] < (unsigned)leaf) return 0;
    cpuid(leaf, r);
    return (r[which] & bits) == bits;
}
/* ymm state is bits 1-2, zmm and mask state bits 5-7; xgetbv exists where OSXSAVE is set. */
static int saves(unsigned long long state) {
    return has(1, ECX, 1u << 27) && (saved_state() & state) == state;
}
static int runs_avx2(void) {
    return saves(0x06) && has(1, ECX, 1u << 12 /* FMA */) && has(7, EBX, 1u << 5);
}
#if defined(FASTRNA_EMULATE)  /* for tests: see tests/emulation */
static int runs_avx512(void) { return runs_avx2(); }
static int runs_amx(void) { return runs_avx2(); }
#else
static int runs_avx512(void) {  /* F, DQ, BW, VL */
    return runs_avx2() && saves(0xE6) && has(7, EBX, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31);
}
/* Tiles of bfloat16. Their state is 8 kB a thread, which Linux saves for processes that asked. */
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
static int may_use_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* permission */, 18) == 0; }
#else
static int may_use_tiles(void) { return 0; }
#endif
static int runs_amx(void) {
    return runs_avx512() && saves(3ull << 17) && has(7, EDX, 1u << 22 | 1u << 24) && may_use_tiles();
}
#endif
#else
static int runs_avx2(void) { return 0; }
static int runs_avx512(void) { return 0; }
static int runs_amx(void) { return 0; }
#endif

#endif

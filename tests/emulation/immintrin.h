/* AVX-512 and the matrix unit in plain C, for tests of these variants where no processor has them.
 *
 * FASTRNA_EMULATE=1 has setup.py compile the variants "avx512" and "amx" with this header before the
 * compiler's own and AVX2's instructions: `simd.h` then has vectors of 64 bytes, which the compiler
 * makes of halves, and finds here what it asks of AVX-512 by name. What is tested is the kernels'
 * logic with 16 and 8 lanes, tiles, masks and cells; not the instructions, nor the speed. */
#ifndef FASTRNA_EMULATION_H
#define FASTRNA_EMULATION_H

#include_next <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
/* Not inlined: lane by lane they would take the compiler minutes. */
#define EMULATED static __attribute__((noinline, unused))

/* One body for each function and both types: `name`_ps and `name`_pd. */
#define FOR_BOTH(BODY) \
    BODY(ps, float, 16, emulated_ps, __m128) \
    BODY(pd, double, 8, emulated_pd, __m128d)
typedef float emulated_ps __attribute__((vector_size(64)));
typedef double emulated_pd __attribute__((vector_size(64)));

#define BODY(suffix, number, lanes, vector, block) \
    EMULATED unsigned emulated_greater_##suffix(vector x, vector y) { \
        unsigned mask = 0; \
        for (int i = 0; i < lanes; i++) mask |= (unsigned)(x[i] > y[i]) << i; \
        return mask; \
    } \
    EMULATED vector emulated_blend_##suffix(unsigned mask, vector x, vector y) { \
        for (int i = 0; i < lanes; i++) if (mask >> i & 1) x[i] = y[i]; \
        return x; \
    } \
    EMULATED vector emulated_max_##suffix(vector x, vector y) { \
        return emulated_blend_##suffix(emulated_greater_##suffix(x, y), y, x); \
    } \
    EMULATED vector emulated_min_##suffix(vector x, vector y) { \
        return emulated_blend_##suffix(emulated_greater_##suffix(y, x), y, x); \
    } \
    EMULATED void emulated_stream_##suffix(number *p, vector x) { \
        if ((uintptr_t)p % sizeof x) __builtin_trap(); /* as the processor would */ \
        memcpy(p, &x, sizeof x); \
    } \
    EMULATED void emulated_mask_storeu_##suffix(number *p, int mask, vector x) { \
        for (int i = 0; i < lanes; i++) if (mask >> i & 1) p[i] = x[i]; \
    } \
    EMULATED vector emulated_maskz_loadu_##suffix(int mask, const number *p) { \
        vector x = {0}; \
        for (int i = 0; i < lanes; i++) if (mask >> i & 1) x[i] = p[i]; \
        return x; \
    } \
    EMULATED vector emulated_insert_##suffix(vector x, block b, int place) { \
        memcpy((char *)&x + place * sizeof b, &b, sizeof b); \
        return x; \
    } \
    EMULATED vector emulated_whole_##suffix(block b) { \
        return emulated_insert_##suffix((vector){0}, b, 0); \
    } \
    EMULATED vector emulated_scalef_##suffix(vector x, vector n) { \
        for (int i = 0; i < lanes; i++) { /* in double, so that a float is rounded once */ \
            double power = fmin(fmax(n[i], -5000), 5000); \
            x[i] = n[i] != n[i] ? n[i] : (number)ldexp((double)x[i], (int)floor(power)); \
        } \
        return x; \
    }
FOR_BOTH(BODY)
#undef BODY

#define _mm512_cmp_ps_mask(x, y, greater) emulated_greater_ps(x, y)
#define _mm512_cmp_pd_mask(x, y, greater) emulated_greater_pd(x, y)
#define _mm512_mask_blend_ps emulated_blend_ps
#define _mm512_mask_blend_pd emulated_blend_pd
#define _mm512_max_ps emulated_max_ps
#define _mm512_max_pd emulated_max_pd
#define _mm512_min_ps emulated_min_ps
#define _mm512_min_pd emulated_min_pd
#define _mm512_stream_ps emulated_stream_ps
#define _mm512_stream_pd emulated_stream_pd
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_mask_storeu_pd emulated_mask_storeu_pd
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_maskz_loadu_pd emulated_maskz_loadu_pd
#define _mm512_insertf32x4 emulated_insert_ps
#define _mm512_insertf64x2 emulated_insert_pd
#define _mm512_castps128_ps512 emulated_whole_ps
#define _mm512_castpd128_pd512 emulated_whole_pd
#define _mm512_scalef_ps emulated_scalef_ps
#define _mm512_scalef_pd emulated_scalef_pd

#if defined(FASTRNA_EMULATE_TILES)
/* Eight tiles of 16 rows of 64 bytes: 16 float32, or 32 numbers of 16 bits, two in the place of one. */
#define __AMX_BF16__ 1
static __thread float emulated_tiles[8][16][16];

EMULATED void emulated_load(int tile, const void *p, long stride) {
    for (int i = 0; i < 16; i++) memcpy(emulated_tiles[tile][i], (const char *)p + i * stride, 64);
}
EMULATED void emulated_store(int tile, void *p, long stride) {
    for (int i = 0; i < 16; i++) memcpy((char *)p + i * stride, emulated_tiles[tile][i], 64);
}
/* The number of 16 bits in the lower or the upper half of a float32's place. */
static inline float emulated_half(float pair, int upper) {
    uint32_t bits;
    float x;
    memcpy(&bits, &pair, sizeof bits);
    bits = upper ? bits & 0xFFFF0000u : bits << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}
/* C += A B. Even and odd steps of the depth have sums of their own, which are added to C together. */
EMULATED void emulated_multiply(int c, int a, int b) {
    for (int i = 0; i < 16; i++) {
        float even[16] = {0}, odd[16] = {0};
        for (int k = 0; k < 16; k++) {
            float pair = emulated_tiles[a][i][k];
            for (int j = 0; j < 16; j++) {
                float other = emulated_tiles[b][k][j];
                even[j] = fmaf(emulated_half(pair, 0), emulated_half(other, 0), even[j]);
                odd[j] = fmaf(emulated_half(pair, 1), emulated_half(other, 1), odd[j]);
            }
        }
        for (int j = 0; j < 16; j++) emulated_tiles[c][i][j] += even[j] + odd[j];
    }
}
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(sizes) ((void)(sizes), memset(emulated_tiles, 0, sizeof emulated_tiles))
#define _tile_release() memset(emulated_tiles, 0, sizeof emulated_tiles)
#define _tile_zero(tile) memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile])
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_dpbf16ps emulated_multiply
#endif

#endif

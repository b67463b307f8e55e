/* The C that kernels are written with: one vector type per (real type, instruction set).
 *
 * FASTRNA_BITS (32 or 64) picks the real type; the compiler's own macros pick the instruction set.
 * GCC and Clang lower arithmetic on a `vector_size` type to vector instructions, so the kernels are
 * written once, in Cython, as plain arithmetic on `vec`. Any other compiler gets LANES == 1, where a
 * vector is a number: slower, still right.
 *
 * Rejected: intrinsics in the kernels (one copy per instruction set), auto-vectorised scalar loops
 * (3 to 112 GFLOP/s for the same tile, by compiler and target).
 */
#ifndef FASTRNA_SIMD_H
#define FASTRNA_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if (defined(__AVX2__) || defined(__AVX512F__)) && defined(__GNUC__)
#include <immintrin.h>
#elif defined(__SSE2__) && defined(__GNUC__)
#include <emmintrin.h>
#endif

/* Every `cdef inline` of the kernels must vanish into its caller: a tile keeps its accumulators in
 * registers only when its two sizes are compile-time constants there. */
#undef CYTHON_INLINE
#if defined(__GNUC__)
#define CYTHON_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define CYTHON_INLINE __forceinline
#else
#define CYTHON_INLINE inline
#endif
#define SIMD static CYTHON_INLINE

#if FASTRNA_BITS == 32
typedef float number;
typedef uint32_t bits;
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127, HALF_DIGITS = 12 };
#define SIGN_BIT 0x80000000u
#define MANTISSA_MASK 0x007FFFFFu
#define ONE 0x3F800000u
#define INTEGER 8388608.0f   /* 2^23: the bits of INTEGER + n end in n, for 0 <= n < 2^23 */
#define INTEGER_BITS 0x4B000000u
#define ROUNDER 12582912.0f  /* 1.5 * 2^23: adding it rounds to the nearest integer */
#else
typedef double number;
typedef uint64_t bits;
enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023, HALF_DIGITS = 27 };
#define SIGN_BIT 0x8000000000000000u
#define MANTISSA_MASK 0x000FFFFFFFFFFFFFu
#define ONE 0x3FF0000000000000u
#define INTEGER 4503599627370496.0
#define INTEGER_BITS 0x4330000000000000u
#define ROUNDER 6755399441055744.0
#endif

#define RAISED 64  /* added to an exponent, so that its power of two is normal */
#define LOWERED ((number)5.42101086242752217e-20)  /* 2^-RAISED */

/* The vector's bytes, and the tile: MR rows of NV vectors. MR * NV accumulators, NV loads and one
 * broadcast have to fit the registers: 32 with AVX-512 and NEON, 16 with AVX2 and SSE2. Where one
 * vector would be left over, a tile has WIDEST instead, and fewer rows: a vector alone has too few
 * accumulators to keep the multiply-add units busy (100 columns with AVX2: 1.02 to 1.05). Where there
 * are FEW vectors or less in all, it has 8 rows: two units of four cycles each need as many sums
 * (with AVX2 steps of 784-8-8 1.09, the gradient of 8-8-1 1.07). */
#if !defined(__GNUC__)
#define VECTOR_BYTES (FASTRNA_BITS / 8)
enum { MR = 4, NV = 2, WIDEST = 2, FEW = 1 };
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
enum { MR = 6, NV = 4, WIDEST = 4, FEW = 2 };
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#if defined(__clang__) /* moves sums to memory where all registers are taken: 0.83 to 0.88 */
enum { MR = 6, NV = 2, WIDEST = 2, FEW = 1 };
#else
enum { MR = 6, NV = 2, WIDEST = 3, FEW = 1 };
#endif
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
enum { MR = 6, NV = 4, WIDEST = 4, FEW = 2 };
#else
#define VECTOR_BYTES 16
enum { MR = 4, NV = 2, WIDEST = 2, FEW = 1 };
#endif
#define LANES (VECTOR_BYTES * 8 / FASTRNA_BITS)
enum { CACHE_LINE = 64 };

#if defined(__GNUC__)
typedef number vec __attribute__((vector_size(VECTOR_BYTES)));
typedef bits vec_bits __attribute__((vector_size(VECTOR_BYTES)));
SIMD vec splat(number x) { return x - (vec){0}; }
SIMD vec_bits bits_of(vec v) { return (vec_bits)v; }
SIMD vec vec_of(vec_bits b) { return (vec)b; }
/* INTRINSIC(max) is _mm512_max_ps and its like, where there are such. */
#if defined(__AVX512F__)
#define INTRINSIC_(name, type) _mm512_##name##_##type
#elif defined(__AVX2__)
#define INTRINSIC_(name, type) _mm256_##name##_##type
#elif defined(__SSE2__)
#define INTRINSIC_(name, type) _mm_##name##_##type
#endif
#if defined(INTRINSIC_) && FASTRNA_BITS == 32
#define INTRINSIC(name) INTRINSIC_(name, ps)
#elif defined(INTRINSIC_)
#define INTRINSIC(name) INTRINSIC_(name, pd)
#endif
/* x > y ? a : b, lane by lane; a NaN in x or y gives b. Intrinsics where they exist: GCC makes three
 * instructions of the masks. */
#if defined(__AVX512F__)
SIMD vec where_greater(vec x, vec y, vec a, vec b) {
#if FASTRNA_BITS == 32
    return (vec)_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), b, a);
#else
    return (vec)_mm512_mask_blend_pd(_mm512_cmp_pd_mask(x, y, _CMP_GT_OQ), b, a);
#endif
}
#elif defined(__AVX2__)
SIMD vec where_greater(vec x, vec y, vec a, vec b) {
    return (vec)INTRINSIC(blendv)(b, a, INTRINSIC(cmp)(x, y, _CMP_GT_OQ));
}
#else
SIMD vec where_greater(vec x, vec y, vec a, vec b) {
    vec_bits chosen = (vec_bits)(x > y);
    return (vec)(((vec_bits)a & chosen) | ((vec_bits)b & ~chosen));
}
#endif
#else
typedef number vec;
typedef bits vec_bits;
SIMD vec splat(number x) { return x; }
SIMD vec_bits bits_of(vec v) { vec_bits b; memcpy(&b, &v, sizeof b); return b; }
SIMD vec vec_of(vec_bits b) { vec v; memcpy(&v, &b, sizeof v); return v; }
SIMD vec where_greater(vec x, vec y, vec a, vec b) { return x > y ? a : b; }
#endif

/* Unaligned. A type of that alignment and not memcpy, which GCC moves as integers: accumulators that
 * begin as a load or end as a store would be copied through the stack. */
#if defined(__GNUC__)
typedef number vec_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(FASTRNA_BITS / 8),
                                           may_alias));
SIMD vec load(const number *p) { return *(const vec_anywhere *)p; }
SIMD void store(number *p, vec v) { *(vec_anywhere *)p = v; }
#else
SIMD vec load(const number *p) { return *p; }
SIMD void store(number *p, vec v) { *p = v; }
#endif
/* A store to memory, past the caches, of a whole vector, aligned: what comes after `settle` comes after
 * it for other threads too. And a wait until all stores are done. */
#if defined(INTRINSIC)
enum { STORES_PAST_CACHES = 1 };
SIMD void store_past_caches(number *p, vec v) { INTRINSIC(stream)(p, v); }
SIMD void settle(void) { _mm_sfence(); }
SIMD void wait_for_stores(void) { _mm_mfence(); }
#else
enum { STORES_PAST_CACHES = 0 };  /* where they are only stores, nobody gains by them */
SIMD void store_past_caches(number *p, vec v) { store(p, v); }
SIMD void settle(void) {}
#if defined(__GNUC__)
SIMD void wait_for_stores(void) { __sync_synchronize(); }
#else
SIMD void wait_for_stores(void) {}
#endif
#endif

/* The first n lanes, or all if n is larger; n > 0. */
#if defined(__GNUC__) && defined(__AVX512F__)
#define FIRST(n) ((n) >= LANES ? -1 : (1 << (n)) - 1)
SIMD void store_first(number *p, vec v, Py_ssize_t n) { INTRINSIC(mask_storeu)(p, FIRST(n), v); }
SIMD vec load_first(const number *p, Py_ssize_t n) {
    return (vec)INTRINSIC(maskz_loadu)(FIRST(n), p);
}
#else
SIMD void store_first(number *p, vec v, Py_ssize_t n) {
    number lanes[LANES];
    if (n >= LANES) {
        store(p, v);
        return;
    }
    store(lanes, v);
    for (Py_ssize_t i = 0; i < n; i++) p[i] = lanes[i];
}
SIMD vec load_first(const number *p, Py_ssize_t n) {
    number lanes[LANES] = {0};
    if (n >= LANES) return load(p);
    for (Py_ssize_t i = 0; i < n; i++) lanes[i] = p[i];
    return load(lanes);
}
#endif

/* A vector of blocks of 16 bytes, each from a row of its own, of which a vector of 64 bytes takes four
 * and one of 32 the first two: half of a transposition, by loads alone. */
enum { BLOCK_LANES = VECTOR_BYTES < 16 ? 1 : 16 * 8 / FASTRNA_BITS };
#if defined(INTRINSIC) && FASTRNA_BITS == 32
#define LOAD_BLOCK(p) _mm_loadu_ps(p)
#define INSERT_BLOCK _mm512_insertf32x4
#define WHOLE(block) _mm512_castps128_ps512(block)
#define HALF(block) _mm256_castps128_ps256(block)
#elif defined(INTRINSIC)
#define LOAD_BLOCK(p) _mm_loadu_pd(p)
#define INSERT_BLOCK _mm512_insertf64x2
#define WHOLE(block) _mm512_castpd128_pd512(block)
#define HALF(block) _mm256_castpd128_pd256(block)
#endif
SIMD vec load_blocks(const number *a, const number *b, const number *c, const number *d) {
#if defined(__GNUC__) && defined(__AVX512F__)
    return (vec)INSERT_BLOCK(
        INSERT_BLOCK(INSERT_BLOCK(WHOLE(LOAD_BLOCK(a)), LOAD_BLOCK(b), 1), LOAD_BLOCK(c), 2),
        LOAD_BLOCK(d), 3);
#elif defined(__GNUC__) && defined(__AVX2__)
    (void)c, (void)d;
    return (vec)INTRINSIC(insertf128)(HALF(LOAD_BLOCK(a)), LOAD_BLOCK(b), 1);
#else
    (void)b, (void)c, (void)d;
    return load(a);
#endif
}

/* The larger and the smaller of two; y if either is NaN. */
#if defined(INTRINSIC)
SIMD vec larger(vec x, vec y) { return (vec)INTRINSIC(max)(x, y); }
SIMD vec smaller(vec x, vec y) { return (vec)INTRINSIC(min)(x, y); }
#else
SIMD vec larger(vec x, vec y) { return where_greater(x, y, x, y); }
SIMD vec smaller(vec x, vec y) { return where_greater(y, x, x, y); }
#endif
SIMD vec absolute(vec x) { return vec_of(bits_of(x) & ~SIGN_BIT); }
SIMD vec square_root(vec x) {
    number lanes[LANES];
    store(lanes, x);
    for (int i = 0; i < LANES; i++) lanes[i] = (number)sqrt(lanes[i]);
    return load(lanes);
}
/* x without the lower half of its digits: the square of what is left is exact. */
SIMD vec upper_half(vec x) { return vec_of(bits_of(x) >> HALF_DIGITS << HALF_DIGITS); }
/* The nearest integer n, for |x| < 2^(MANTISSA_BITS - 1), and 2^(n + raised) where that is a normal
 * number: n + raised + bias moved to the exponent's place. */
SIMD vec nearest(vec x, number raised, vec *power) {
    vec biased = x + (ROUNDER + EXPONENT_BIAS + raised);
    *power = vec_of(bits_of(biased) << MANTISSA_BITS);
    return biased - (ROUNDER + EXPONENT_BIAS + raised);
}
/* x 2^n for an integral n, rounded once; elsewhere in two powers, as one might not be normal. */
SIMD vec times_power_of_two(vec x, vec n) {
#if defined(__GNUC__) && defined(__AVX512F__)
    return (vec)INTRINSIC(scalef)(x, n);
#else
    vec first, second;
    vec half = nearest(n * (number)0.5, 0, &first);
    nearest(n - half, 0, &second);
    return x * first * second;
#endif
}
/* x 2^n where 2^(n + RAISED) is at hand, a normal number for every n <= 0 that does not underflow;
 * rounded once. */
SIMD vec times_negative_power(vec x, vec n, vec raised) {
#if defined(__GNUC__) && defined(__AVX512F__)
    return times_power_of_two(x, n);
#else
    return x * raised * LOWERED;
#endif
}
/* x = mantissa(x) * 2^exponent(x) with 1 <= mantissa < 2, for a positive normal x. */
SIMD vec exponent(vec x) {
    return vec_of((bits_of(x) >> MANTISSA_BITS) | INTEGER_BITS) - (INTEGER + EXPONENT_BIAS);
}
SIMD vec mantissa(vec x) { return vec_of((bits_of(x) & MANTISSA_MASK) | ONE); }

/* 32 bits a lane, of either type: first, first + 1, ...; and a where they reach a threshold, 0 below. */
#if defined(__GNUC__)
typedef uint32_t vec_hash __attribute__((vector_size(LANES * 4)));
typedef int32_t vec_hash_sign __attribute__((vector_size(LANES * 4)));
#if FASTRNA_BITS == 32
typedef int32_t vec_sign __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef int64_t vec_sign __attribute__((vector_size(VECTOR_BYTES)));
#endif
SIMD vec_hash counted_from(uint32_t first) {
    vec_hash x;
    for (int i = 0; i < LANES; i++) x[i] = (uint32_t)i;
    return x + first;
}
SIMD vec where_reached(vec_hash x, uint32_t threshold, vec a) {
    vec_hash_sign reached = (vec_hash_sign)(x >= threshold);
    return vec_of(bits_of(a) & (vec_bits)__builtin_convertvector(reached, vec_sign));
}
#else
typedef uint32_t vec_hash;
SIMD vec_hash counted_from(uint32_t first) { return first; }
SIMD vec where_reached(vec_hash x, uint32_t threshold, vec a) { return x >= threshold ? a : 0; }
#endif

/* A square of LANES vectors is transposed, or each of its vectors added up, in rounds of n = LANES / 2,
 * ..., 2, 1, which weave vectors that are n apart. Of 16 bytes and more, blocks of n lanes are taken
 * whole: the even blocks of a and b in turn, and the odd ones. Below, within each 16 bytes, the lanes
 * of the lower halves of a and b in turn, and of the upper: so each is one instruction, where AVX2
 * needs three to bring lanes across its 16 bytes. */
#if !defined(__GNUC__)
SIMD vec weave_low(int n, vec a, vec b) { (void)n, (void)b; return a; }
SIMD vec weave_high(int n, vec a, vec b) { (void)n, (void)b; return a; }
SIMD number sum_of(vec v) { return v; }
SIMD number largest_of(vec v) { return v; }
#else
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vec_bits){__VA_ARGS__})
#endif
/* EXCHANGES(STEP) applies STEP to each way of exchanging lanes: halves, quarters, ... neighbours. */
#if VECTOR_BYTES * 8 == 16 * FASTRNA_BITS
#define HALVES_LOW 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HALVES_HIGH 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define QUARTERS_LOW 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define QUARTERS_HIGH 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LANES_LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define LANES_HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define EXCHANGES(STEP) \
    STEP(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7) \
    STEP(4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11) \
    STEP(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13) \
    STEP(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#endif
#if VECTOR_BYTES * 8 == 8 * FASTRNA_BITS
#define HALVES_LOW 0, 1, 2, 3, 8, 9, 10, 11
#define HALVES_HIGH 4, 5, 6, 7, 12, 13, 14, 15
#define QUARTERS_LOW 0, 1, 8, 9, 4, 5, 12, 13
#define QUARTERS_HIGH 2, 3, 10, 11, 6, 7, 14, 15
#if FASTRNA_BITS == 32
#define LANES_LOW 0, 8, 1, 9, 4, 12, 5, 13
#define LANES_HIGH 2, 10, 3, 11, 6, 14, 7, 15
#else
#define LANES_LOW 0, 8, 2, 10, 4, 12, 6, 14
#define LANES_HIGH 1, 9, 3, 11, 5, 13, 7, 15
#endif
#define EXCHANGES(STEP) \
    STEP(4, 5, 6, 7, 0, 1, 2, 3) \
    STEP(2, 3, 0, 1, 6, 7, 4, 5) \
    STEP(1, 0, 3, 2, 5, 4, 7, 6)
#endif
#if VECTOR_BYTES * 8 == 4 * FASTRNA_BITS
#define HALVES_LOW 0, 1, 4, 5
#define HALVES_HIGH 2, 3, 6, 7
#if FASTRNA_BITS == 32
#define LANES_LOW 0, 4, 1, 5
#define LANES_HIGH 2, 6, 3, 7
#else
#define LANES_LOW 0, 4, 2, 6
#define LANES_HIGH 1, 5, 3, 7
#endif
#define EXCHANGES(STEP) \
    STEP(2, 3, 0, 1) \
    STEP(1, 0, 3, 2)
#endif
#if VECTOR_BYTES * 8 == 2 * FASTRNA_BITS
#define HALVES_LOW 0, 2
#define HALVES_HIGH 1, 3
#define LANES_LOW 0, 2
#define LANES_HIGH 1, 3
#define EXCHANGES(STEP) \
    STEP(1, 0)
#endif
#if !defined(QUARTERS_LOW)
#define QUARTERS_LOW LANES_LOW
#define QUARTERS_HIGH LANES_HIGH
#endif
#define WOVEN(n, a, b, which) \
    ((n) * FASTRNA_BITS < 128 ? SHUFFLE(a, b, LANES_##which) \
     : (n) == LANES / 2 ? SHUFFLE(a, b, HALVES_##which) : SHUFFLE(a, b, QUARTERS_##which))
SIMD vec weave_low(int n, vec a, vec b) { return WOVEN(n, a, b, LOW); }
SIMD vec weave_high(int n, vec a, vec b) { return WOVEN(n, a, b, HIGH); }

/* log2(LANES) steps, always in the same order. */
#define ADD_EXCHANGED(...) v = v + SHUFFLE(v, v, __VA_ARGS__);
#define LARGER_OF_EXCHANGED(...) \
    exchanged = SHUFFLE(v, v, __VA_ARGS__); \
    v = where_greater(v, exchanged, v, exchanged);
SIMD number sum_of(vec v) { EXCHANGES(ADD_EXCHANGED) return v[0]; }
SIMD number largest_of(vec v) { vec exchanged; EXCHANGES(LARGER_OF_EXCHANGED) return v[0]; }
#endif

/* Whether subnormal numbers count as zero on the calling thread; what the mode was before. Where an
 * example no longer moves a unit, momentum shrinks its velocity below the normal numbers within some
 * 800 steps, and each operation on those takes over a hundred cycles. */
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
SIMD unsigned long long flush_subnormals(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);  /* flush to zero, denormals are zero */
    return before;
}
SIMD void restore_subnormals(unsigned long long before) { _mm_setcsr((unsigned)before); }
#elif defined(__aarch64__) && defined(__GNUC__)
SIMD unsigned long long flush_subnormals(void) {
    unsigned long long before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1ULL << 24)));
    return before;
}
SIMD void restore_subnormals(unsigned long long before) {
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}
#else
SIMD unsigned long long flush_subnormals(void) { return 0; }
SIMD void restore_subnormals(unsigned long long before) { (void)before; }
#endif

#if defined(__GNUC__)
SIMD void prefetch(const void *p) { __builtin_prefetch(p); }
SIMD void prefetch_far(const void *p) { __builtin_prefetch(p, 0, 2); }  /* to L2 */
SIMD void prefetch_to_write(const void *p) { __builtin_prefetch(p, 1); }
#else
SIMD void prefetch(const void *p) { (void)p; }
SIMD void prefetch_far(const void *p) { (void)p; }
SIMD void prefetch_to_write(const void *p) { (void)p; }
#endif

#endif

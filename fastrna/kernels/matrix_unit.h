/* The matrix unit of some x86-64 processors (AMX), for float32: its instructions by what they do. Where
 * the compiler is not told to use it, they do nothing and are never reached. */
#ifndef FASTRNA_MATRIX_UNIT_H
#define FASTRNA_MATRIX_UNIT_H

/* A tile has 16 rows of 32 numbers of 16 bits: two in the place of a float32. A cell is three tiles. */
enum { TILE = 256, CELL = 3 * TILE };

#if defined(__AMX_BF16__) && FASTRNA_BITS == 32
enum { HAS_MATRIX_UNIT = 1 };

/* A thread has tiles between these two only: before and after, another library may use them. */
SIMD void begin_matrix_unit(void) {
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } sizes = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&sizes);
}
SIMD void end_matrix_unit(void) { _tile_release(); }

/* The thirds of x and y, lane by lane, into a row of each tile of a cell: the nearest number of eight
 * bits, the nearest of eight to what is left, and the rest, which is one of eight. */
SIMD void split_pair(vec x, vec y, number *cell) {
    for (int third = 0; third < 2; third++) {
        vec_bits x_bits = (bits_of(x) + 0x8000u) & 0xFFFF0000u;
        vec_bits y_bits = (bits_of(y) + 0x8000u) & 0xFFFF0000u;
        store(cell + third * TILE, vec_of(x_bits >> 16 | y_bits));
        x = x - vec_of(x_bits);
        y = y - vec_of(y_bits);
    }
    store(cell + 2 * TILE, vec_of(bits_of(x) >> 16 | (bits_of(y) & 0xFFFF0000u)));
}

/* GCC's loads of tiles do not say that they read memory: what is written before is to be there. */
#define WRITTEN() __asm__ volatile("" : : : "memory")

/* Four sums, two tiles by two, in registers 0 to 3. */
#define SUM_AT(c, row, i, j) ((c) + ((i) * (row) + (j)) * 16)
SIMD void clear_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
SIMD void load_sums(const number *c, Py_ssize_t row) {
    WRITTEN();
    _tile_loadd(0, SUM_AT(c, row, 0, 0), row * 4);
    _tile_loadd(1, SUM_AT(c, row, 0, 1), row * 4);
    _tile_loadd(2, SUM_AT(c, row, 1, 0), row * 4);
    _tile_loadd(3, SUM_AT(c, row, 1, 1), row * 4);
}
SIMD void store_sums(number *c, Py_ssize_t row, int columns) {
    _tile_stored(0, SUM_AT(c, row, 0, 0), row * 4);
    _tile_stored(2, SUM_AT(c, row, 1, 0), row * 4);
    if (columns == 1) return;
    _tile_stored(1, SUM_AT(c, row, 0, 1), row * 4);
    _tile_stored(3, SUM_AT(c, row, 1, 1), row * 4);
}

/* sums += A B of one third of two cells of A below each other, and one of two cells of B beside each
 * other, which were loaded before. */
SIMD void load_above(const number *a, Py_ssize_t apart, int third) {
    WRITTEN();
    _tile_loadd(4, a + third * TILE, 64);
    _tile_loadd(5, a + apart + third * TILE, 64);
}
SIMD void load_beside(const number *b, Py_ssize_t apart, int third) {
    WRITTEN();
    _tile_loadd(6, b + third * TILE, 64);
    _tile_loadd(7, b + apart + third * TILE, 64);
}
SIMD void multiply_thirds(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}
#else
enum { HAS_MATRIX_UNIT = 0 };
SIMD void begin_matrix_unit(void) {}
SIMD void end_matrix_unit(void) {}
SIMD void split_pair(vec x, vec y, number *cell) { (void)x, (void)y, (void)cell; }
SIMD void clear_sums(void) {}
SIMD void load_sums(const number *c, Py_ssize_t row) { (void)c, (void)row; }
SIMD void store_sums(number *c, Py_ssize_t row, int columns) { (void)c, (void)row, (void)columns; }
SIMD void load_above(const number *a, Py_ssize_t apart, int third) { (void)a, (void)apart, (void)third; }
SIMD void load_beside(const number *b, Py_ssize_t apart, int third) { (void)b, (void)apart, (void)third; }
SIMD void multiply_thirds(void) {}
#endif

#endif

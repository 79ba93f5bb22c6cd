// Products of bf16 matrices in tiles (AMX), 32 × 32 results at a time. Results are used while the next ones are
// multiplied. Sums are fp32. One thread per call, which has loaded `Shapes`.

#pragma once

#include <algorithm>
#include <optional>

#include "numbers.h"
#include "room.h"
#include "tiles.h"

constexpr int64_t WIDE = 32;             // rows and columns of results that are multiplied together
constexpr int64_t SQUARE = WIDE * WIDE;  // two tiles

inline void put(bf16* to, __m512 first, __m512 second) {  // 32 fp32 → bf16, to the nearest
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

inline __m512 widened(const bf16* from) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
}

// exp(x), within 3e-6 of it; 0 far below zero.
inline __m512 quick_exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-1e4f), x);  // in this order what is no number stays none
    const __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    const __m512 whole = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 r = _mm512_sub_ps(y, whole);
    __m512 p = _mm512_set1_ps(1.3333558e-3f);  // of 2^r, r within a half of zero
    for (const float next : {9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(next));
    return _mm512_scalef_ps(p, whole);
}

// A packed A operand: (rows, columns), both multiples of 32, in blocks of 32 × 32; blocks of the same rows are
// adjacent.
struct Squares {
    bf16* at;
    int64_t columns;

    static int64_t size(int64_t rows, int64_t columns) { return up(rows, WIDE) * columns * int64_t(sizeof(bf16)); }

    bf16* row(int64_t row, int64_t column) const {  // 32 entries
        return at + row / WIDE * WIDE * columns + column / WIDE * SQUARE + row % WIDE * WIDE;
    }

    Squares from(int64_t first_row) const { return {at + first_row * columns, columns}; }

    // Fills `rows` rows, 32 entries at a time, by filled(row, column, to); the other rows of the last block are zero.
    template <class Fill>
    void fill(int64_t rows, Fill&& filled) const {
        for (int64_t r = 0; r < up(rows, WIDE); r++)
            for (int64_t c = 0; c < columns; c += WIDE)
                if (r < rows) filled(r, c, row(r, c));
                else _mm512_store_si512(row(r, c), _mm512_setzero_si512());
    }
};

// A packed B operand: (depth, columns), both multiples of 32, in panels of 32 columns: [columns / 32][depth / 32][2]
// tiles. A row of a tile holds two rows of the operand, interleaved.
struct Panels {
    bf16* at;
    int64_t depth, columns;

    static int64_t size(int64_t depth, int64_t columns) { return depth * columns * int64_t(sizeof(bf16)); }

    bf16* tile(int64_t row, int64_t column) const { return at + column * depth + row * WIDE; }  // the first of two

    Panels from(int64_t column, int64_t count) const { return {at + column * depth, depth, count}; }

    // From weights (columns, depth), transposed; their rows beyond `count` are zero.
    static Panels turned(const bf16* weights, int64_t count, int64_t depth, void* at) {
        const Panels panels{(bf16*)at, depth, up(count, WIDE)};
        for (int64_t column = 0; column < panels.columns; column += SIDE)
            for (int64_t row = 0; row < depth; row += DEEP) {
                __m512i pairs[SIDE];
                for (int64_t i = 0; i < SIDE; i++)
                    pairs[i] = column + i < count ? _mm512_loadu_si512(weights + (column + i) * depth + row)
                                                  : _mm512_setzero_si512();
                transpose(pairs);
                bf16* to = panels.tile(row, column / WIDE * WIDE) + column % WIDE / SIDE * TILE;
                for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(to + i * DEEP, pairs[i]);
            }
        return panels;
    }

    // From row-major weights (depth, columns); rows from `count` on are zero.
    static Panels straight(const bf16* weights, int64_t count, int64_t columns, void* at) {
        alignas(64) static const bf16 zeros[WIDE] = {};
        const Panels panels{(bf16*)at, up(count, DEEP), columns};
        const auto part = [&](int64_t row, int64_t column) {
            return row < count ? weights + row * columns + column : zeros;
        };
        for (int64_t row = 0; row < panels.depth; row += 2)
            for (int64_t column = 0; column < columns; column += WIDE)
                pair(part(row, column), part(row + 1, column),
                     panels.tile(row / DEEP * DEEP, column) + row % DEEP / 2 * DEEP);
        return panels;
    }

    // Two rows of 32 → a row of each of two tiles, interleaved.
    static void pair(const bf16* first, const bf16* second, bf16* to) {
        const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                             37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
        _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
        _mm512_store_si512(to + TILE, _mm512_permutex2var_epi16(a, high, b));
    }
};

// Two tiles of a times two of b, `steps` times those that follow each other, added to tiles 0 to 3; between(step) after
// each.
template <class Between>
inline void multiply(const bf16* a, const bf16* b, int64_t steps, Between&& between) {
    for (int64_t k = 0; k < steps; k++, a += SQUARE, b += SQUARE) {
        _tile_loadd(4, a, 64); _tile_loadd(6, b, 64);
        _tile_loadd(5, a + TILE, 64); _tile_loadd(7, b + TILE, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        between(k);
    }
}

inline void zero_sums() { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }

// a's first `rows` rows times b, 32 columns at a time. at(row, column) is called for each 32 × 32 results. It gives a
// function that gets the number of one of their rows, its first 16 results and the next 16.
template <class At>
void product(const Squares& a, int64_t rows, const Panels& b, At&& at) {
    alignas(64) static thread_local float squares[2][SQUARE];
    const int64_t steps = b.depth / DEEP, at_once = (WIDE + steps - 1) / steps;
    float *fresh = squares[0], *found = squares[1];
    std::optional<decltype(at(0, 0))> done;  // with a row of what is found
    int64_t left = 0, next = 0;
    const auto some = [&](int64_t count) {
        for (const int64_t end = std::min(next + count, left); next < end; next++)
            (*done)(next, _mm512_load_ps(found + next * WIDE), _mm512_load_ps(found + next * WIDE + LANES));
    };
    for (int64_t column = 0; column < b.columns; column += WIDE)
        for (int64_t row = 0; row < rows; row += WIDE) {
            zero_sums();
            multiply(a.row(row, 0), b.tile(0, column), steps, [&](int64_t) { some(at_once); });
            some(WIDE);
            _tile_stored(0, fresh, 128); _tile_stored(1, fresh + SIDE, 128);
            _tile_stored(2, fresh + SQUARE / 2, 128); _tile_stored(3, fresh + SQUARE / 2 + SIDE, 128);
            std::swap(fresh, found);
            done.emplace(at(row, column));
            left = std::min(WIDE, rows - row), next = 0;
        }
    some(WIDE);
}

// Products across rows, aᵀ b, in tiles (AMX): the gradients of weights, added up over any number of pieces of the rows.
//
// Tile instructions need both operands in tiles, two rows interleaved; each is packed once, as it is read.

#pragma once

#include "products.h"

// aᵀ as the packed A operand: [columns / 32][rows / 32][2] tiles, whose rows are columns of a.
struct Across {
    bf16* at;
    int64_t rows, columns;

    static int64_t size(int64_t rows, int64_t columns) { return Squares::size(rows, columns); }

    // From a packed operand whose rows beyond `rows` are zero.
    static Across of(const Squares& a, int64_t rows, void* room) {
        const Across turned{(bf16*)room, rows, a.columns};
        for (int64_t row = 0; row < rows; row += WIDE)
            for (int64_t column = 0; column < a.columns; column += WIDE) {
                const bf16* from = a.row(row, column);
                bf16* to = turned.tile(row, column);
                for (int64_t i = 0; i < SIDE; i++)
                    Panels::pair(from + 2 * i * WIDE, from + (2 * i + 1) * WIDE, to + i * DEEP);
                turn(to), turn(to + TILE);
            }
        return turned;
    }

    int64_t steps() const { return up(rows, WIDE) / WIDE; }

    bf16* tile(int64_t row, int64_t column) const { return at + (column / WIDE * steps() + row / WIDE) * SQUARE; }

   private:
    static void turn(bf16* tile) {
        __m512i rows[SIDE];
        for (int64_t i = 0; i < SIDE; i++) rows[i] = _mm512_load_si512(tile + i * DEEP);
        transpose(rows);
        for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(tile + i * DEEP, rows[i]);
    }
};

// Sums (p, q): [q / 32][p / 32][2][2] blocks of 16 × 16.
struct Sums {
    float* at;
    int64_t p, q;

    static int64_t size(int64_t p, int64_t q) { return p * q * int64_t(sizeof(float)); }

    Sums from(int64_t column, int64_t columns) const { return {at + column * p, p, columns}; }

    // aᵀ b of b (rows, q), whose rows beyond a's are zero, added, or for a start put. False when there is no memory.
    bool add(const Across& a, const Squares& b, bool start) const {
        static thread_local Room room;
        const int64_t steps = a.steps(), panel = steps * SQUARE, some = (WIDE * SIDE + p - 1) / p;
        bf16* panels = (bf16*)room.of(2 * panel * sizeof(bf16));
        if (!panels) return false;
        // The next panel is packed into tiles while this one is multiplied, some pairs of a block's rows at each step.
        const auto bring = [&](int64_t column, int64_t k, int64_t pair, bf16* to) {
            const bf16* from = b.row(k * WIDE, column) + 2 * pair * WIDE;
            to += k * SQUARE + pair * DEEP;
            for (const int64_t end = std::min(pair + some, SIDE); pair < end; pair++, from += 2 * WIDE, to += DEEP)
                Panels::pair(from, from + WIDE, to);
        };
        for (int64_t k = 0; k < steps; k++)
            for (int64_t pair = 0; pair < SIDE; pair += some) bring(0, k, pair, panels);
        float* sum = at;
        for (int64_t j = 0; j < q; j += WIDE) {
            bf16 *right = panels + j / WIDE % 2 * panel, *after = panels + (j / WIDE + 1) % 2 * panel;
            for (int64_t i = 0; i < p; i += WIDE, sum += SQUARE) {
                const int64_t pair = j + WIDE < q ? i / WIDE * some : SIDE;
                if (start) zero_sums();
                else load_sums(sum);
                multiply(a.tile(0, i), right, steps, [&](int64_t k) {
                    if (pair < SIDE) bring(j + WIDE, k, pair, after);
                });
                store_sums(sum);
            }
        }
        return true;
    }

    // a b of the first `rows` rows of a, added, or for a start put: a's rows are p, b's columns q.
    void add_product(const Squares& a, int64_t rows, const Panels& b, bool start) const {
        for (int64_t j = 0; j < q; j += WIDE)
            for (int64_t i = 0; i < rows; i += WIDE) {
                float* sum = at + (j * p + i * WIDE);
                if (start) zero_sums();
                else load_sums(sum);
                multiply(a.row(i, 0), b.tile(0, j), b.depth / DEEP, [](int64_t) {});
                store_sums(sum);
            }
    }

    // → bf16 (p, q), rows of `stride`, or if `turned` the transpose (q, p); of either the first `rows`.
    void narrow(bool turned, int64_t rows, bf16* to, int64_t stride) const {
        const float* sum = at;
        for (int64_t j = 0; j < q; j += WIDE)
            for (int64_t i = 0; i < p; i += WIDE, sum += SQUARE)
                for (int64_t half = 0; half < 2; half++) {
                    const int64_t row = (turned ? j : i) + half * SIDE, column = turned ? i : j;
                    const float *first = sum + half * (turned ? 256 : 512), *second = first + (turned ? 512 : 256);
                    put_rows(first, second, turned, rows - row, to + row * stride + column, stride);
                }
    }

   private:
    static void load_sums(const float* at) {
        _tile_loadd(0, at, 64);
        _tile_loadd(1, at + 256, 64);
        _tile_loadd(2, at + 512, 64);
        _tile_loadd(3, at + 768, 64);
    }

    static void store_sums(float* at) {
        _tile_stored(0, at, 64);
        _tile_stored(1, at + 256, 64);
        _tile_stored(2, at + 512, 64);
        _tile_stored(3, at + 768, 64);
    }

    // Two adjacent blocks of 16 × 16 sums → the first `count` of 16 rows of 32 bf16.
    static void put_rows(const float* first, const float* second, bool turned, int64_t count, bf16* to,
                         int64_t stride) {
        __m512i a[SIDE], b[SIDE];
        for (int64_t i = 0; i < SIDE; i++) {
            a[i] = _mm512_load_si512(first + i * SIDE), b[i] = _mm512_load_si512(second + i * SIDE);
        }
        if (turned) transpose(a), transpose(b);
        for (int64_t i = 0; i < std::min(count, SIDE); i++) put(to + i * stride, (__m512)a[i], (__m512)b[i]);
    }
};

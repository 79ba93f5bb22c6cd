// Attention of one head over one example in tiles (AMX), forward and backward. Softmax and sums are fp32.
//
// Scores are stored transposed: one row per key, one column per query. One instruction then handles sixteen queries,
// and sums over keys need no horizontal sums.

#pragma once

#include "parts.h"

// Rows of all heads of all examples: [head][row][width]; tiles may be loaded from up to 16 rows beyond the last.
struct Heads {
    bf16* at;
    int64_t rows, width;

    static constexpr int64_t BEYOND = SIDE;

    static int64_t size(int64_t heads, int64_t rows, int64_t width) {
        return heads * (rows + BEYOND) * width * int64_t(sizeof(bf16));
    }

    bf16* row(int64_t head, int64_t row) const { return at + (head * (rows + BEYOND) + row) * width; }
};

// Packed B operands made of the rows of a head: row-major, pairs of rows interleaved, or transposed. Rows beyond
// `count` are zero.
struct Right {
    // Tiles [count / 32][width / 16].
    static void straight(const bf16* x, int64_t count, int64_t width, bf16* to) {
        alignas(64) static const bf16 zeros[WIDE] = {};
        for (int64_t row = 0; row < up(count, DEEP); row += 2)
            for (int64_t column = 0; column < width; column += WIDE) {
                const bf16 *first = row < count ? x + row * width + column : zeros,
                           *second = row + 1 < count ? x + (row + 1) * width + column : zeros;
                Panels::pair(first, second,
                             to + (row / DEEP * (width / SIDE) + column / SIDE) * TILE + row % DEEP / 2 * DEEP);
            }
    }

    // Tiles [width / 32][count / 16].
    static void turned(const bf16* x, int64_t count, int64_t width, bf16* to) {
        const int64_t across = up(count, SIDE) / SIDE;
        for (int64_t column = 0; column < width; column += DEEP)
            for (int64_t block = 0; block < across; block++) {
                __m512i pairs[SIDE];
                for (int64_t i = 0; i < SIDE; i++) {
                    const int64_t row = block * SIDE + i;
                    pairs[i] = row < count ? _mm512_loadu_si512(x + row * width + column) : _mm512_setzero_si512();
                }
                transpose(pairs);
                bf16* tile = to + (column / DEEP * across + block) * TILE;
                for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(tile + i * DEEP, pairs[i]);
            }
    }
};

// c (rows, columns) = a (rows, depth), rows of `stride`, times tiles b [depth / 32][columns / 16]; rows and columns are
// multiples of 16.
inline void small_product(const bf16* a, int64_t stride, const bf16* b, float* c, int64_t rows, int64_t columns,
                          int64_t depth) {
    const int64_t across = columns / SIDE, bytes = stride * int64_t(sizeof(bf16)),
                  to = columns * int64_t(sizeof(float));
    for (int64_t row = 0; row < rows; row += SIDE)
        for (int64_t tile = 0; tile < across; tile += 4) {
            const int64_t wide = std::min<int64_t>(4, across - tile);
            const bf16 *left = a + row * stride, *right = b + tile * TILE;
            float* out = c + row * columns + tile * SIDE;
            zero_sums();
            for (int64_t k = 0; k < depth; k += DEEP, right += across * TILE) {
                _tile_loadd(4, left + k, bytes);
                _tile_loadd(5, right, 64); _tile_dpbf16ps(0, 4, 5);
                if (wide > 1) { _tile_loadd(6, right + TILE, 64); _tile_dpbf16ps(1, 4, 6); }
                if (wide > 2) { _tile_loadd(7, right + 2 * TILE, 64); _tile_dpbf16ps(2, 4, 7); }
                if (wide > 3) { _tile_loadd(5, right + 3 * TILE, 64); _tile_dpbf16ps(3, 4, 5); }
            }
            _tile_stored(0, out, to);
            if (wide > 1) _tile_stored(1, out + SIDE, to);
            if (wide > 2) _tile_stored(2, out + 2 * SIDE, to);
            if (wide > 3) _tile_stored(3, out + 3 * SIDE, to);
        }
}

// x (rows, columns) fp32 → its transpose in bf16, rows of `stride`; both are multiples of 16.
inline void narrow_turned(const float* x, int64_t rows, int64_t columns, bf16* to, int64_t stride) {
    for (int64_t row = 0; row < rows; row += SIDE)
        for (int64_t column = 0; column < columns; column += SIDE) {
            __m512i square[SIDE];
            for (int64_t i = 0; i < SIDE; i++) square[i] = _mm512_loadu_si512(x + (row + i) * columns + column);
            transpose(square);
            for (int64_t i = 0; i < SIDE; i++)
                _mm256_storeu_si256((__m256i*)(to + (column + i) * stride + row),
                                    (__m256i)_mm512_cvtneps_pbh((__m512)square[i]));
        }
}

// One head's queries, keys and values, all with the same width.
struct Head {
    const bf16 *query, *key, *value;
    int64_t queries, keys, width;
    const float* bias;  // (keys, rows of `bias_row`), or none: added to the scores
    int64_t bias_row;

    int64_t across() const { return up(queries, SIDE); }  // queries with those that make up sixteens
    int64_t weights() const { return keys * across(); }
};

// Work on one head after another, in the same memory.
struct HeadWork {
    int64_t width;
    bf16 *a, *b, *c, *d;  // packed B operands
    float *scores, *others, *found;
    bf16 *left, *other_left, *turned;

    HeadWork(Parts& parts, int64_t queries, int64_t keys, int64_t width) : width(width) {
        const int64_t q = up(queries, DEEP), k = up(keys, DEEP), most = std::max(q, k);
        for (bf16** right : {&a, &b, &c, &d}) *right = parts.take<bf16>(most * width * 2);
        for (float** square : {&scores, &others}) *square = parts.take<float>(k * q * 4);
        for (bf16** square : {&left, &other_left, &turned}) *square = parts.take<bf16>(k * q * 2);
        found = parts.take<float>(most * width * 4);
    }

    static int64_t room(int64_t queries, int64_t keys, int64_t width) {
        const int64_t q = up(queries, DEEP), k = up(keys, DEEP);
        return (4 * 2 + 4) * std::max(q, k) * width + (2 * 4 + 3 * 2) * k * q + 10 * 64;
    }

    // What the queries read, (queries, width) fp32 in rows; `kept` becomes the weights, transposed, before dropout.
    const float* read(const Head& h, const Dropped& d, int64_t& drawn, float* kept) {
        const int64_t across = h.across(), keys = up(h.keys, SIDE), deep = up(h.keys, DEEP);
        Right::turned(h.query, h.queries, width, a);
        Right::straight(h.value, h.keys, width, b);
        small_product(h.key, width, a, scores, keys, across, width);
        for (int64_t column = 0; column < across; column += LANES) weigh(h, column, across, kept);
        std::fill(scores + h.keys * across, scores + deep * across, 0.0f);
        for (int64_t at = 0; at < h.weights(); at += WIDE) drop(scores, kept, at, h.weights(), d, drawn);
        narrow_turned(scores, deep, across, left, deep);
        small_product(left, deep, b, found, across, width, deep);
        return found;
    }

    // Of the gradient by what was read, (queries, width), those by query, key and value: each is given, in fp32 rows,
    // to what is called.
    template <class ByQuery, class ByKey, class ByValue>
    void backward(const Head& h, const bf16* grad, const Dropped& dropped, int64_t& drawn, const float* weights,
                  float* dbias, ByQuery&& by_query, ByKey&& by_key, ByValue&& by_value) {
        const int64_t across = h.across(), keys = up(h.keys, SIDE), deep = up(h.keys, DEEP), wide = up(h.queries, DEEP);
        Right::turned(grad, h.queries, width, a);
        Right::straight(grad, h.queries, width, b);
        Right::straight(h.query, h.queries, width, c);
        Right::straight(h.key, h.keys, width, d);
        small_product(h.value, width, a, scores, keys, across, width);  // gradients by the dropped weights
        for (int64_t at = 0; at < h.weights(); at += WIDE) {  // others: the dropped weights
            const __mmask32 stay = dropped.stay(drawn++);
            for (int half = 0; half < 2 && at + half * LANES < h.weights(); half++) {
                const int64_t place = at + half * LANES;
                _mm512_storeu_ps(others + place, stays(stay, half, _mm512_loadu_ps(weights + place), dropped));
                _mm512_storeu_ps(scores + place, stays(stay, half, _mm512_loadu_ps(scores + place), dropped));
            }
        }
        for (int64_t column = 0; column < across; column += LANES) {
            const __mmask16 real = h.queries - column >= LANES ? 0xffff : (1 << (h.queries - column)) - 1;
            __m512 along = _mm512_setzero_ps();
            for (int64_t j = 0; j < h.keys; j++) {
                const int64_t place = j * across + column;
                along = _mm512_fmadd_ps(_mm512_loadu_ps(scores + place), _mm512_loadu_ps(weights + place), along);
            }
            for (int64_t j = 0; j < h.keys; j++) {
                const int64_t place = j * across + column;
                const __m512 by = _mm512_maskz_mul_ps(real, _mm512_loadu_ps(weights + place),
                                                      _mm512_sub_ps(_mm512_loadu_ps(scores + place), along));
                _mm512_storeu_ps(scores + place, by);
                if (dbias) _mm512_storeu_ps(dbias + j * h.bias_row + column,
                                            _mm512_add_ps(by, _mm512_loadu_ps(dbias + j * h.bias_row + column)));
                narrow_to(other_left + j * wide + column, by);
                narrow_to(left + j * wide + column, _mm512_maskz_mov_ps(real, _mm512_loadu_ps(others + place)));
            }
        }
        if (wide > across)
            for (int64_t j = 0; j < h.keys; j++) {
                narrow_to(other_left + j * wide + across, _mm512_setzero_ps());
                narrow_to(left + j * wide + across, _mm512_setzero_ps());
            }
        std::fill(scores + h.keys * across, scores + deep * across, 0.0f);
        narrow_turned(scores, deep, across, turned, deep);
        small_product(turned, deep, d, found, across, width, deep);
        by_query(found);
        small_product(other_left, wide, c, found, keys, width, wide);
        by_key(found);
        small_product(left, wide, b, found, keys, width, wide);
        by_value(found);
    }

   private:
    static void narrow_to(bf16* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }

    // The scores of sixteen queries, columns of the keys' rows → weights, into `kept`.
    void weigh(const Head& h, int64_t column, int64_t across, float* kept) {
        Lanes most = Lanes{} - INFINITY, total = {};
        for (int64_t j = 0; j < h.keys; j++) {
            Lanes score = load(scores + j * across + column);
            if (h.bias) score += load(h.bias + j * h.bias_row + column);
            store(scores + j * across + column, score);
            most = higher(most, score);
        }
        for (int64_t j = 0; j < h.keys; j++) {
            const Lanes e = (Lanes)quick_exponential((__m512)(load(scores + j * across + column) - most));
            store(kept + j * across + column, e);
            total += e;
        }
        const Lanes part = 1 / total;
        for (int64_t j = 0; j < h.keys; j++) {
            const Lanes weight = load(kept + j * across + column) * part;
            store(kept + j * across + column, weight);
        }
    }

    // 32 weights from `at` on, as they are after dropout.
    static void drop(float* to, const float* weights, int64_t at, int64_t count, const Dropped& d, int64_t& drawn) {
        const __mmask32 stay = d.stay(drawn++);
        for (int half = 0; half < 2 && at + half * LANES < count; half++)
            _mm512_storeu_ps(to + at + half * LANES,
                             stays(stay, half, _mm512_loadu_ps(weights + at + half * LANES), d));
    }
};

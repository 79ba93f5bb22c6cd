// What parts of a Transformer's block are made of: a norm, products with weights, dropout and the residual, in pieces
// of rows that stay in the second cache between them. Products are in tiles (AMX), sums fp32. One thread per call.

#pragma once

#include "sums.h"

constexpr int64_t PIECE = 256;   // rows that go through a part together
constexpr int64_t PIECES = 512;  // rows whose part of the weights' gradients is added at a time
constexpr int64_t GROUP = 512;   // columns of results that are held before they are stored

// Which of 32 entries stay: 16 bits each from three rounds of AES of a counter (after ARS, Salmon et al. 2011).
struct Dropped {
    __m512i key, threshold;
    __m512 kept;
    bool any;

    Dropped(uint64_t seed, uint32_t dropped, float scale)
        : key(_mm512_set4_epi32(0x243f6a88, 0x85a308d3, int(seed >> 32), int(seed))),
          threshold(_mm512_set1_epi16(short(dropped))),
          kept(_mm512_set1_ps(scale)),
          any(dropped > 0) {}

    __mmask32 stay(int64_t chunk) const {
        if (!any) return ~__mmask32(0);
        const __m512i places = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
        __m512i x = _mm512_xor_si512(_mm512_add_epi32(_mm512_set1_epi32(int(chunk * 4)), places), key);
        for (int round = 0; round < 3; round++) x = _mm512_aesenc_epi128(x, key);
        return _mm512_cmpge_epu16_mask(x, threshold);
    }
};

inline __m512 stays(__mmask32 stay, int half, __m512 x, const Dropped& d) {
    return _mm512_maskz_mul_ps(__mmask16(stay >> 16 * half), x, d.kept);
}

// Memory of one call, in parts.
struct Parts {
    char* at;

    explicit Parts(int64_t bytes) {
        static thread_local Room room;
        at = (char*)room.of(bytes);
    }

    template <class Number = char>
    Number* take(int64_t bytes) {
        Number* part = (Number*)at;
        at += up(bytes, 64);
        return part;
    }
};

// x / rms(x) · weight, or x itself where there is no weight.
struct Norm {
    const bf16* weight;
    int64_t width;
    float eps;

    float scale(const bf16* x) const {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < width; i += LANES) {
            const __m512 v = widened(x + i);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        return 1 / std::sqrt(_mm512_reduce_add_ps(squares) / float(width) + eps);
    }

    // Rows of x (rows, width) → a packed A operand.
    void apply(const bf16* x, int64_t rows, const Squares& to) const {
        __m512 by = _mm512_set1_ps(1);
        to.fill(rows, [&](int64_t row, int64_t column, bf16* at) {
            const bf16* from = x + row * width;
            if (!weight) return _mm512_store_si512(at, _mm512_loadu_si512(from + column));
            if (column == 0) by = _mm512_set1_ps(scale(from));
            put(at, normal(from + column, column, by), normal(from + column + LANES, column + LANES, by));
        });
    }

    // From gradients by the normed rows those by x, added to `residual` where there is one, and, added up, by the
    // weight.
    void backward(const float* grad, const bf16* x, const bf16* residual, int64_t rows, bf16* dx,
                  float* dweight) const {
        for (int64_t r = 0; r < rows; r++, grad += width, x += width, dx += width) {
            const __m512 by = _mm512_set1_ps(weight ? scale(x) : 1);
            __m512 along = _mm512_setzero_ps();
            for (int64_t i = 0; i < width && weight; i += LANES) {
                const __m512 g = _mm512_loadu_ps(grad + i), n = _mm512_mul_ps(widened(x + i), by);
                _mm512_storeu_ps(dweight + i, _mm512_fmadd_ps(g, n, _mm512_loadu_ps(dweight + i)));
                along = _mm512_fmadd_ps(_mm512_mul_ps(g, widened(weight + i)), n, along);
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(along) / float(width));
            const auto of = [&](int64_t i) {
                __m512 g = _mm512_loadu_ps(grad + i);
                if (weight) {
                    const __m512 n = _mm512_mul_ps(widened(x + i), by);
                    g = _mm512_mul_ps(by, _mm512_fnmadd_ps(n, mean, _mm512_mul_ps(g, widened(weight + i))));
                }
                return residual ? _mm512_add_ps(g, widened(residual + r * width + i)) : g;
            };
            for (int64_t i = 0; i < width; i += WIDE) put(dx + i, of(i), of(i + LANES));
        }
    }

   private:
    __m512 normal(const bf16* x, int64_t column, __m512 by) const {
        return _mm512_mul_ps(_mm512_mul_ps(widened(x), by), widened(weight + column));
    }
};

// Rows of x (rows, width) where they stay, scaled → a packed A operand; `first` is their first row's number.
inline void drop(const bf16* x, int64_t rows, int64_t first, const Dropped& d, const Squares& to) {
    to.fill(rows, [&](int64_t row, int64_t column, bf16* at) {
        const bf16* from = x + row * to.columns + column;
        const __mmask32 stay = d.stay(((first + row) * to.columns + column) / WIDE);
        put(at, stays(stay, 0, widened(from), d), stays(stay, 1, widened(from + LANES), d));
    });
}

// What is added to each row, zeros where there is nothing; and gradients by it, added up.
struct Bias {
    const bf16* given;

    struct Part {
        __m512 first, second;
    };

    Part at(int64_t column) const {
        if (!given) return {_mm512_setzero_ps(), _mm512_setzero_ps()};
        return {widened(given + column), widened(given + column + LANES)};
    }

    static void backward(const Squares& grads, int64_t rows, float* dbias) {
        for (int64_t row = 0; row < rows && dbias; row++)
            for (int64_t i = 0; i < grads.columns; i += LANES) {
                const __m512 g = widened(grads.row(row, i / WIDE * WIDE) + i % WIDE);
                _mm512_storeu_ps(dbias + i, _mm512_add_ps(_mm512_loadu_ps(dbias + i), g));
            }
    }
};

// Results of a piece of rows before they are stored, whole rows at a time: stored as they come, 64 bytes per row, each
// would wait for a page and a cache line.
struct Found {
    float* at;

    static int64_t size(int64_t columns, int64_t rows = PIECE) { return rows * columns * int64_t(sizeof(float)); }

    // a b, rows of b's columns.
    void product(const Squares& a, int64_t rows, const Panels& b) const {
        ::product(a, rows, b, [&](int64_t row, int64_t column) {
            return [to = at + row * b.columns + column, width = b.columns](int64_t i, __m512 u, __m512 v) {
                _mm512_storeu_ps(to + i * width, u), _mm512_storeu_ps(to + i * width + LANES, v);
            };
        });
    }
};

// to = a b + bias, rows of b's columns.
inline void put_product(const Squares& a, int64_t rows, const Panels& b, const Bias& bias, const Found& found,
                        bf16* to) {
    for (int64_t column = 0; column < b.columns; column += GROUP) {
        const Panels some = b.from(column, std::min(GROUP, b.columns - column));
        found.product(a, rows, some);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < some.columns; i += WIDE) {
                const float* from = found.at + row * some.columns + i;
                const Bias::Part part = bias.at(column + i);
                put(to + row * b.columns + column + i, _mm512_add_ps(_mm512_loadu_ps(from), part.first),
                    _mm512_add_ps(_mm512_loadu_ps(from + LANES), part.second));
            }
    }
}

// to = x + dropout(a b + bias), rows of b's columns; `first` is the first row's number.
inline void add_product(const Squares& a, int64_t rows, const Panels& b, const Bias& bias, const Found& found,
                        const bf16* x, int64_t first, const Dropped& d, bf16* to) {
    found.product(a, rows, b);
    for (int64_t place = 0; place < rows * b.columns; place += WIDE) {
        const Bias::Part part = bias.at(place % b.columns);
        const __mmask32 stay = d.stay(first * b.columns / WIDE + place / WIDE);
        const __m512 u = stays(stay, 0, _mm512_add_ps(_mm512_loadu_ps(found.at + place), part.first), d),
                     v = stays(stay, 1, _mm512_add_ps(_mm512_loadu_ps(found.at + place + LANES), part.second), d);
        put(to + place, _mm512_add_ps(u, widened(x + place)), _mm512_add_ps(v, widened(x + place + LANES)));
    }
}

// piece(first row, rows) of all rows, `step` at a time.
template <class Piece>
void in_pieces(int64_t rows, int64_t step, Piece&& piece) {
    for (int64_t row = 0; row < rows; row += step) piece(row, std::min(step, rows - row));
}

// Products of activations and weights in signed bytes, sums in 32 bits, results in fp32.
//
// A row of activations is bytes times a scale of its own; so is a row of weights, an output. Weights are stored with
// 128 added, since the instructions multiply unsigned by signed; 128 × the sum of the row is taken off again.
#pragma once

#include <vector>

#include "lanes.h"

constexpr int64_t PANEL = 64;  // outputs computed together: 4 × LANES
constexpr int64_t WIDTH = 64;  // inputs are padded to a multiple

struct Linear {
    const uint8_t* weights;  // [panel][inputs / 4][PANEL][4]
    const float* scales;     // per output, padded to whole panels
    int64_t outputs, inputs;
};

inline int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Each lane of `sum` + the products of its four bytes: unsigned ones of w, signed ones of x, at most LARGEST.
inline Whole add_products(Whole sum, Whole w, Whole x);

#if defined(AVX512) && defined(__AVX512VNNI__)
constexpr float LARGEST = 127;
constexpr int64_t ROWS = 6, COLUMNS = 64;  // computed together: 24 of 32 registers are their sums
inline Whole add_products(Whole sum, Whole w, Whole x) {
    return (Whole)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}
#elif defined(AVX512)
constexpr float LARGEST = 63;  // two products of 63 and 255 are added in 16 bits
constexpr int64_t ROWS = 5, COLUMNS = 64;
inline Whole add_products(Whole sum, Whole w, Whole x) {
    return sum + (Whole)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)w, (__m512i)x), _mm512_set1_epi16(1));
}
#elif defined(__AVXVNNI__) && defined(__AVX2__)
constexpr float LARGEST = 127;
constexpr int64_t ROWS = 5, COLUMNS = 16;  // 10 of 16 registers
inline Whole add_products(Whole sum, Whole w, Whole x) {
    return (Whole)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
}
#elif defined(__AVX2__)
constexpr float LARGEST = 63;
constexpr int64_t ROWS = 5, COLUMNS = 16;
inline Whole add_products(Whole sum, Whole w, Whole x) {
    return sum + (Whole)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w, (__m256i)x), _mm256_set1_epi16(1));
}
#else
constexpr float LARGEST = 127;
constexpr int64_t ROWS = 4, COLUMNS = 16;
inline Whole add_products(Whole sum, Whole w, Whole x) {
    for (int shift = 0; shift < 32; shift += 8) sum += ((w >> shift) & 255) * ((x << (24 - shift)) >> 24);
    return sum;
}
#endif

struct Bytes {  // rows of activations
    std::vector<int8_t> values;
    std::vector<float> scales;
    std::vector<int32_t> sums;  // of a row, × 128
    int64_t rows = 0, width = 0;

    void resize(int64_t count, int64_t inputs) {
        rows = count, width = up(inputs, WIDTH);
        if ((int64_t)values.size() < rows * width) values.resize(rows * width);
        if ((int64_t)scales.size() < rows) scales.resize(rows), sums.resize(rows);
    }

    void set(int64_t row, const float* x, int64_t n) {
        Floats high = all(0);
        for (int64_t i = 0; i < n; i += LANES) high = most(high, absolute(load(x + i, n - i)));
        const float largest = any_nan(high) ? NAN : highest(high), inverse = largest > 0 ? LARGEST / largest : 0;
        int8_t* out = values.data() + row * width;
        sums[row] = 128 * rounded(x, n, inverse, out);
        std::memset(out + n, 0, width - n);
        scales[row] = largest / LARGEST;
    }

    // x · inverse, rounded to the nearest, ties to even → bytes; their sum is returned.
    static int32_t rounded(const float* x, int64_t n, float inverse, int8_t* out) {
        int32_t sum = 0;
        int64_t i = 0;
#if defined(AVX512)
        __m512i sums = _mm512_setzero_si512();
        for (; i < n; i += LANES) {
            const __m512i q = _mm512_cvtps_epi32((load(x + i, n - i) * all(inverse)).v[0]);
            sums = _mm512_add_epi32(sums, q);
            _mm_mask_storeu_epi8(out + i, n - i >= LANES ? 0xffff : (1u << (n - i)) - 1, _mm512_cvtepi32_epi8(q));
        }
        sum = _mm512_reduce_add_epi32(sums);
#endif
        for (; i < n; i++) sum += out[i] = (int8_t)(int32_t)std::nearbyintf(x[i] * inverse);
        return sum;
    }
};

// Rows row … row + M of x times COLUMNS outputs of one panel, from `from` on; `then(row, column, count, v)` takes
// `count` outputs from `column` on.
template <int M, class Then>
inline void tile(const Bytes& x, int64_t row, const Linear& w, int64_t panel, int64_t from, const Then& then) {
    constexpr int REGISTERS = COLUMNS / WIDE, PARTS = COLUMNS / LANES;
    const int8_t* a = x.values.data() + row * x.width;
    const uint8_t* b = w.weights + panel * x.width * PANEL + 4 * from;
    const int64_t width = x.width;
    Whole sums[M][REGISTERS];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[i][j] = Whole{};
    for (int64_t k = 0; k < width; k += 4, b += 4 * PANEL) {
        Whole weights[REGISTERS];
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) weights[j] = ((const Unaligned*)b)[j];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            int32_t four;
            std::memcpy(&four, a + i * width + k, 4);
            const Whole inputs = four - Whole{};
#pragma GCC unroll 4
            for (int j = 0; j < REGISTERS; j++) sums[i][j] = add_products(sums[i][j], weights[j], inputs);
        }
    }
    const float* scales = w.scales + panel * PANEL + from;
    const int64_t column = panel * PANEL + from, left = std::min(w.outputs - column, COLUMNS);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        const Floats scale = all(x.scales[row + i]);
        Floats v[PARTS];
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; j++) {
            Floats whole;
            EACH whole.v[p] = __builtin_convertvector(sums[i][PIECES * j + p] - x.sums[row + i], Register);
            v[j] = whole * (scale * load(scales + LANES * j));
        }
        then(row + i, column, left, v);
    }
}

template <class Then>
void product(const Bytes& x, const Linear& w, const Then& then) {
    for (int64_t column = 0; column < w.outputs; column += COLUMNS) {
        const int64_t panel = column / PANEL, from = column % PANEL;
        int64_t row = 0;
        for (; row + ROWS <= x.rows; row += ROWS) tile<ROWS>(x, row, w, panel, from, then);
        switch (x.rows - row) {
            case 5: tile<5>(x, row, w, panel, from, then); break;
            case 4: tile<4>(x, row, w, panel, from, then); break;
            case 3: tile<3>(x, row, w, panel, from, then); break;
            case 2: tile<2>(x, row, w, panel, from, then); break;
            case 1: tile<1>(x, row, w, panel, from, then); break;
        }
    }
}

// out (rows, outputs) = x · weights
inline void linear(const Bytes& x, const Linear& w, float* out) {
    product(x, w, [=](int64_t row, int64_t column, int64_t count, const auto& v) {
        float* to = out + row * w.outputs + column;
#pragma GCC unroll 4
        for (int64_t j = 0; LANES * j < COLUMNS; j++)
            if (LANES * j < count) store(to + LANES * j, v[j], count - LANES * j);
    });
}

// out (rows, outputs) += x · weights
inline void add_linear(const Bytes& x, const Linear& w, float* out) {
    product(x, w, [=](int64_t row, int64_t column, int64_t count, const auto& v) {
        float* to = out + row * w.outputs + column;
#pragma GCC unroll 4
        for (int64_t j = 0; LANES * j < COLUMNS; j++)
            if (const int64_t left = count - LANES * j; left > 0) {
                store(to + LANES * j, load(to + LANES * j, left) + v[j], left);
            }
    });
}

// Weights (outputs, inputs) → bytes in panels, and one scale per output; padding is zero.
inline void pack(const float* weights, int64_t outputs, int64_t inputs, uint8_t* bytes, float* scales) {
    const int64_t width = up(inputs, WIDTH);
    std::memset(bytes, 128, up(outputs, PANEL) * width);
    for (int64_t o = 0; o < outputs; o++) {
        float largest = 0;
        for (int64_t i = 0; i < inputs; i++) largest = std::max(largest, std::fabs(weights[o * inputs + i]));
        scales[o] = largest / 127.0f;
        uint8_t* panel = bytes + o / PANEL * PANEL * width + o % PANEL * 4;
        for (int64_t i = 0; i < inputs; i++) {
            const float q = largest > 0 ? weights[o * inputs + i] * (127.0f / largest) : 0.0f;
            panel[i / 4 * 4 * PANEL + i % 4] = (uint8_t)(128 + (int)std::nearbyint(q));
        }
    }
}

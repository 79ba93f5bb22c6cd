// Products of activations and weights in signed bytes (AVX-512 VNNI), sums in 32 bits, results in fp32.
//
// A row of activations is bytes times a scale of its own; so is a row of weights, an output. Weights are stored with
// 128 added, since the instruction multiplies unsigned by signed; 128 × the sum of the row is taken off again.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

constexpr int64_t PANEL = 64;  // outputs computed together: 4 registers of 16
constexpr int64_t WIDTH = 64;  // inputs are padded to a multiple
constexpr int64_t ROWS = 6;    // rows computed together: 24 of 32 registers are their sums

struct Linear {
    const uint8_t* weights;  // [panel][inputs / 4][PANEL][4]
    const float* scales;     // per output, padded to whole panels
    int64_t outputs, inputs;
};

inline int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
inline __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

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
        __m512 most = _mm512_setzero_ps();
        for (int64_t i = 0; i < n; i += 16)
            most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_maskz_loadu_ps(first(n - i), x + i)));
        // clang's maximum over lanes knows no NaN.
        const float largest = _mm512_cmp_ps_mask(most, most, _CMP_UNORD_Q) ? NAN : _mm512_reduce_max_ps(most);
        const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        int8_t* out = values.data() + row * width;
        __m512i sum = _mm512_setzero_si512();
        for (int64_t i = 0; i < width; i += 16) {
            const __m512 v = i < n ? _mm512_maskz_loadu_ps(first(n - i), x + i) : _mm512_setzero_ps();
            const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
            sum = _mm512_add_epi32(sum, q);
            _mm_storeu_si128((__m128i*)(out + i), _mm512_cvtepi32_epi8(q));
        }
        scales[row] = largest / 127.0f;
        sums[row] = 128 * _mm512_reduce_add_epi32(sum);
    }
};

// Rows row … row + M of x times one panel; `then(row, column, count, v)` takes `count` outputs from `column` on.
template <int M, class Then>
inline void tile(const Bytes& x, int64_t row, const Linear& w, int64_t panel, const Then& then) {
    const int8_t* a = x.values.data() + row * x.width;
    const uint8_t* b = w.weights + panel * x.width * PANEL;
    const int64_t width = x.width;
    __m512i sums[M][4];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[i][j] = _mm512_setzero_si512();
    for (int64_t k = 0; k < width; k += 4, b += 4 * PANEL) {
        const __m512i w0 = _mm512_loadu_si512(b), w1 = _mm512_loadu_si512(b + 64);
        const __m512i w2 = _mm512_loadu_si512(b + 128), w3 = _mm512_loadu_si512(b + 192);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            int32_t four;
            std::memcpy(&four, a + i * width + k, 4);
            const __m512i x4 = _mm512_set1_epi32(four);
            sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], w0, x4);
            sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], w1, x4);
            sums[i][2] = _mm512_dpbusd_epi32(sums[i][2], w2, x4);
            sums[i][3] = _mm512_dpbusd_epi32(sums[i][3], w3, x4);
        }
    }
    const float* scales = w.scales + panel * PANEL;
    const int64_t left = std::min(w.outputs - panel * PANEL, PANEL);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        const __m512 scale = _mm512_set1_ps(x.scales[row + i]);
        const __m512i shift = _mm512_set1_epi32(x.sums[row + i]);
        __m512 v[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            v[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i][j], shift)),
                                 _mm512_mul_ps(scale, _mm512_loadu_ps(scales + 16 * j)));
        then(row + i, panel * PANEL, left, v);
    }
}

template <class Then>
void product(const Bytes& x, const Linear& w, const Then& then) {
    for (int64_t panel = 0; panel < up(w.outputs, PANEL) / PANEL; panel++) {
        int64_t row = 0;
        for (; row + ROWS <= x.rows; row += ROWS) tile<ROWS>(x, row, w, panel, then);
        switch (x.rows - row) {
            case 5: tile<5>(x, row, w, panel, then); break;
            case 4: tile<4>(x, row, w, panel, then); break;
            case 3: tile<3>(x, row, w, panel, then); break;
            case 2: tile<2>(x, row, w, panel, then); break;
            case 1: tile<1>(x, row, w, panel, then); break;
        }
    }
}

// Which of 16 columns from 16 · j on there are.
inline __mmask16 part(int64_t count, int j) {
    return count >= 16 * j + 16 ? 0xffff : count > 16 * j ? first(count - 16 * j) : 0;
}

// out (rows, outputs) = x · weights
inline void linear(const Bytes& x, const Linear& w, float* out) {
    product(x, w, [=](int64_t row, int64_t column, int64_t count, const __m512(&v)[4]) {
        float* to = out + row * w.outputs + column;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) _mm512_mask_storeu_ps(to + 16 * j, part(count, j), v[j]);
    });
}

// out (rows, outputs) += x · weights
inline void add_linear(const Bytes& x, const Linear& w, float* out) {
    product(x, w, [=](int64_t row, int64_t column, int64_t count, const __m512(&v)[4]) {
        float* to = out + row * w.outputs + column;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            _mm512_mask_storeu_ps(to + 16 * j, part(count, j),
                                  _mm512_add_ps(_mm512_maskz_loadu_ps(part(count, j), to + 16 * j), v[j]));
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

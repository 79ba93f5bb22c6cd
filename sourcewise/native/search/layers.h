// What lies between the products, in fp32: attention, T5's norm, the feed-forward's activation.
#pragma once

#include "products.h"

// e^x within 2e-7 of itself: 2^⌊y⌋ times a polynomial for 2^(y − ⌊y⌋), fitted for the least relative error.
inline __m512 exponential(__m512 x) {
    const __m512 y = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504f));
    const __m512 f = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF);
    __m512 p = _mm512_set1_ps(1.877576608e-3f);
    for (float c : {8.989340252e-3f, 5.582631792e-2f, 2.401536171e-1f, 6.931530732e-1f, 9.999999251e-1f})
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, y);
}

inline float dot(const float* a, const float* b, int64_t n) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16)
        sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(first(n - i), a + i), _mm512_maskz_loadu_ps(first(n - i), b + i),
                              sum);
    return _mm512_reduce_add_ps(sum);
}

// The sums of four registers.
inline __m128 four_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 high = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 all = _mm512_add_ps(low, high);  // four groups of four partial sums
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Keys and values that stay are kept in bf16: reading them is most of what attention costs.
using bf16 = uint16_t;

inline __m512 load(__mmask16 there, const float* x) { return _mm512_maskz_loadu_ps(there, x); }

inline __m512 load(__mmask16 there, const bf16* x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, x)), 16));
}

inline void store(const float* x, int64_t n, bf16* out) {  // rounded to the nearest, ties to even
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(first(n - i), x + i));
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(v, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        _mm256_mask_storeu_epi16(out + i, first(n - i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    }
}

template <class T>
struct Slots {  // keys and values of one head: those of slot t lie `stride` entries after those of slot t − 1
    const T *keys, *values;
    int64_t stride, count;
    const int32_t* places;  // which slots; null: the first `count`

    int64_t at(int64_t t) const { return (places ? places[t] : t) * stride; }
};

// Products of a query (d_kv) with the keys, four positions at a time; `scores` has memory for a multiple of 16.
template <class T>
inline void score(const float* query, const Slots<T>& slots, int64_t d_kv, const float* bias, float* scores) {
    for (int64_t t = 0; t < slots.count; t += 4) {
        const int64_t last = slots.count - 1;
        const T* keys[4];
        for (int64_t j = 0; j < 4; j++) keys[j] = slots.keys + slots.at(std::min(t + j, last));
        __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int64_t i = 0; i < d_kv; i += 16) {
            const __mmask16 there = first(d_kv - i);
            const __m512 q = _mm512_maskz_loadu_ps(there, query + i);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) sums[j] = _mm512_fmadd_ps(q, load(there, keys[j] + i), sums[j]);
        }
        __m128 found = four_sums(sums[0], sums[1], sums[2], sums[3]);
        if (bias) found = _mm_add_ps(found, _mm_maskz_loadu_ps((__mmask8)first(slots.count - t) & 15, bias + t));
        _mm_storeu_ps(scores + t, found);
    }
}

// Scores (count) → softmax, in place but for the division: 1 / Σ is returned.
inline __m512 exponentials(float* scores, int64_t count) {
    __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int64_t t = 0; t < count; t += 16)
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(most, first(count - t), scores + t));
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int64_t t = 0; t < count; t += 16) {
        const __mmask16 there = first(count - t);
        const __m512 e = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(there, scores + t), top));
        total = _mm512_mask_add_ps(total, there, total, e);
        _mm512_mask_storeu_ps(scores + t, there, e);
    }
    return _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
}

// Softmax attention of one query (d_kv); `bias` (count) may be null.
template <class T>
inline void attend(const float* query, const Slots<T>& slots, int64_t d_kv, const float* bias, float* scores,
                   float* out) {
    score(query, slots, d_kv, bias, scores);
    const __m512 share = exponentials(scores, slots.count);
    for (int64_t i = 0; i < d_kv; i += 64) {  // 64 columns at a time: four sums that do not wait for each other
        __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        __mmask16 there[4];
        for (int64_t j = 0; j < 4; j++) there[j] = i + 16 * j < d_kv ? first(d_kv - i - 16 * j) : 0;
        for (int64_t t = 0; t < slots.count; t++) {
            const __m512 weight = _mm512_set1_ps(scores[t]);
            const T* values = slots.values + slots.at(t) + i;
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) sums[j] = _mm512_fmadd_ps(weight, load(there[j], values + 16 * j), sums[j]);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) _mm512_mask_storeu_ps(out + i + 16 * j, there[j], _mm512_mul_ps(sums[j], share));
    }
}

// One row of x / rms(x) · weight.
inline void normalise_row(const float* x, int64_t n, const float* weight, float eps, float* out) {
    const __m512 rstd = _mm512_set1_ps(1.0f / std::sqrt(dot(x, x, n) / n + eps));
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 there = first(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, x + i), rstd);
        _mm512_mask_storeu_ps(out + i, there, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(there, weight + i)));
    }
}

inline void normalise(const float* x, int64_t rows, int64_t n, const float* weight, float eps, Bytes& to) {
    std::vector<float> row(up(n, 16));
    to.resize(rows, n);
    for (int64_t r = 0; r < rows; r++) {
        normalise_row(x + r * n, n, weight, eps, row.data());
        to.set(r, row.data(), n);
    }
}

inline void quantise(const float* x, int64_t rows, int64_t n, int64_t stride, Bytes& to) {
    to.resize(rows, n);
    for (int64_t r = 0; r < rows; r++) to.set(r, x + r * stride, n);
}

enum Activation { RELU, GATED_GELU, GATED_SILU };

// In place: a row of the inner layer → its first d_ff entries; gates come first, then what they gate.
inline void activate(float* hidden, int64_t d_ff, int64_t kind) {
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < d_ff; i += 16) {
        const __mmask16 there = first(d_ff - i);
        const __m512 gate = _mm512_maskz_loadu_ps(there, hidden + i);
        if (kind == RELU) {
            _mm512_mask_storeu_ps(hidden + i, there, _mm512_max_ps(gate, zero));
            continue;
        }
        __m512 z = gate;
        if (kind == GATED_GELU) {  // gelu by tanh(u) is gate · sigmoid(2u)
            const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(gate, gate), gate);
            z = _mm512_mul_ps(_mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), gate), _mm512_set1_ps(1.5957691216f));
        }
        const __m512 e = exponential(_mm512_sub_ps(zero, _mm512_abs_ps(z)));
        const __mmask16 negative = _mm512_cmp_ps_mask(z, zero, _CMP_LT_OQ);
        const __m512 sigmoid = _mm512_div_ps(_mm512_mask_mov_ps(one, negative, e), _mm512_add_ps(one, e));
        const __m512 value = _mm512_maskz_loadu_ps(there, hidden + d_ff + i);
        _mm512_mask_storeu_ps(hidden + i, there, _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid), value));
    }
}

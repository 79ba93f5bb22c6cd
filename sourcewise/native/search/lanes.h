// Sixteen floats at a time, in whatever vector registers the processor has: one of 512 bits, two of 256 or four of 128.
//
// The operators are the compiler's; only what it has no operator for is written for each kind of processor.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define AVX512 1
#endif

#if defined(AVX512)
constexpr int WIDE = 16;  // floats of a register
#elif defined(__AVX__)
constexpr int WIDE = 8;
#else
constexpr int WIDE = 4;
#endif
constexpr int LANES = 16, PIECES = LANES / WIDE;

typedef float Register __attribute__((vector_size(4 * WIDE)));
typedef int32_t Whole __attribute__((vector_size(4 * WIDE)));  // what comparing two registers gives: 0 or −1

typedef int32_t Unaligned __attribute__((vector_size(4 * WIDE), aligned(1), may_alias));  // as they lie in memory

struct Floats {
    Register v[PIECES];
};

#define EACH _Pragma("GCC unroll 4") for (int p = 0; p < PIECES; p++)

inline Floats all(float x) {
    Floats out;
    EACH out.v[p] = x - Register{};
    return out;
}

#define OPERATOR(name, expression)                     \
    inline Floats name(const Floats& a, const Floats& b) { \
        Floats out;                                    \
        EACH out.v[p] = expression;                    \
        return out;                                    \
    }
OPERATOR(operator+, a.v[p] + b.v[p])
OPERATOR(operator-, a.v[p] - b.v[p])
OPERATOR(operator*, a.v[p] * b.v[p])
OPERATOR(operator/, a.v[p] / b.v[p])
OPERATOR(most, a.v[p] > b.v[p] ? a.v[p] : b.v[p])  // of a NaN and a number: b
#undef OPERATOR

// a · b + c
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    Floats out;
    EACH out.v[p] = a.v[p] * b.v[p] + c.v[p];
    return out;
}

inline Floats absolute(const Floats& x) {
    Floats out;
    EACH out.v[p] = (Register)((Whole)x.v[p] & 0x7fffffff);
    return out;
}

// Where x is below 0: a, else b.
inline Floats where_negative(const Floats& x, const Floats& a, const Floats& b) {
    Floats out;
    EACH out.v[p] = x.v[p] < 0 ? a.v[p] : b.v[p];
    return out;
}

inline Floats load(const float* x) {
    Floats out;
    std::memcpy(&out, x, sizeof out);
    return out;
}

inline void store(float* to, const Floats& x) { std::memcpy(to, &x, sizeof x); }

// The first n of 16; the others are `rest`, and are not read.
inline Floats load(const float* x, int64_t n, float rest = 0) {
    if (n >= LANES) return load(x);
#if defined(AVX512)
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(rest), (__mmask16)((1u << n) - 1), x)};
#else
    float all[LANES];
    for (int i = 0; i < LANES; i++) all[i] = i < n ? x[i] : rest;
    return load(all);
#endif
}

// The first n of 16; the others are not written.
inline void store(float* to, const Floats& x, int64_t n) {
    if (n >= LANES) return store(to, x);
#if defined(AVX512)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)x.v[0]);
#else
    std::memcpy(to, &x, n * sizeof(float));
#endif
}

// The first n lanes; the others become −∞.
inline Floats some(const Floats& x, int64_t n) {
    float all[LANES];
    store(all, x);
    for (int64_t i = std::max<int64_t>(n, 0); i < LANES; i++) all[i] = -INFINITY;
    return load(all);
}

// All lanes but one, which becomes −∞.
inline Floats without(const Floats& x, int64_t lane) {
    float all[LANES];
    store(all, x);
    all[lane] = -INFINITY;
    return load(all);
}

// ── across lanes ─────────────────────────────────────────────────────────────────────────────────────────────────────

inline float total(const Floats& x) {
#if defined(AVX512)
    return _mm512_reduce_add_ps((__m512)x.v[0]);
#else
    Register sum = x.v[0];
    for (int p = 1; p < PIECES; p++) sum += x.v[p];
    float out = 0;
    for (int i = 0; i < WIDE; i++) out += sum[i];
    return out;
#endif
}

inline float highest(const Floats& x) {
    Register high = x.v[0];
    for (int p = 1; p < PIECES; p++) high = high > x.v[p] ? high : x.v[p];
#if defined(AVX512)
    return _mm512_reduce_max_ps((__m512)high);
#else
    float out = high[0];
    for (int i = 1; i < WIDE; i++) out = std::max(out, high[i]);
    return out;
#endif
}

// Which lanes are above b, a bit each.
inline uint32_t above(const Floats& x, float b) {
#if defined(AVX512)
    return _mm512_cmp_ps_mask((__m512)x.v[0], _mm512_set1_ps(b), _CMP_GT_OQ);
#elif defined(__AVX__)
    const __m256 bound = _mm256_set1_ps(b);
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x.v[0], bound, _CMP_GT_OQ)) |
           _mm256_movemask_ps(_mm256_cmp_ps((__m256)x.v[1], bound, _CMP_GT_OQ)) << 8;
#else
    uint32_t out = 0;
    for (int i = 0; i < LANES; i++) out |= (uint32_t)(x.v[i / WIDE][i % WIDE] > b) << i;
    return out;
#endif
}

inline bool any_nan(const Floats& x) {
    Whole odd = x.v[0] != x.v[0];
    for (int p = 1; p < PIECES; p++) odd |= x.v[p] != x.v[p];
    int32_t out = 0;
    for (int i = 0; i < WIDE; i++) out |= odd[i];
    return out != 0;
}

// The totals of four.
inline void four_totals(const Floats& a, const Floats& b, const Floats& c, const Floats& d, float* out) {
#if defined(AVX512)
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v[0], b.v[0]), _mm512_unpackhi_ps(a.v[0], b.v[0]));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v[0], d.v[0]), _mm512_unpackhi_ps(c.v[0], d.v[0]));
    const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 high = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 all = _mm512_add_ps(low, high);  // four groups of four partial sums
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#elif defined(__AVX__)
    const __m256 ab = _mm256_hadd_ps(a.v[0] + a.v[1], b.v[0] + b.v[1]);
    const __m256 cd = _mm256_hadd_ps(c.v[0] + c.v[1], d.v[0] + d.v[1]);
    const __m256 all = _mm256_hadd_ps(ab, cd);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#else
    out[0] = total(a), out[1] = total(b), out[2] = total(c), out[3] = total(d);
#endif
}

// e^x for x ≤ 0, within 2e-7 of itself: 2^⌊y⌋ times a polynomial for 2^(y − ⌊y⌋), fitted for the least relative error.
inline Floats exponential(const Floats& x) {
    const Floats y = most(x, all(-87.0f)) * all(1.44269504f);
    Floats out;
    EACH {
#if defined(AVX512)
        const Register f = _mm512_reduce_ps(y.v[p], _MM_FROUND_TO_NEG_INF);
#else
        Whole whole = __builtin_convertvector(y.v[p], Whole);  // towards 0
        whole += __builtin_convertvector(whole, Register) > y.v[p];
        const Register f = y.v[p] - __builtin_convertvector(whole, Register);
#endif
        Register q = 1.877576608e-3f - Register{};
        for (float c : {8.989340252e-3f, 5.582631792e-2f, 2.401536171e-1f, 6.931530732e-1f, 9.999999251e-1f}) q = q * f + c;
#if defined(AVX512)
        out.v[p] = _mm512_scalef_ps(q, y.v[p]);
#else
        out.v[p] = q * (Register)((whole + 127) << 23);
#endif
    }
    return out;
}

// ── brain floats: the upper half of a float ──────────────────────────────────────────────────────────────────────────

using bf16 = uint16_t;

inline Floats load(const bf16* x) {
    Floats out;
#if defined(AVX512)
    out.v[0] = (Register)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16);
#elif defined(__AVX2__)
    EACH out.v[p] = (Register)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x + p)), 16);
#else
    typedef uint16_t Halves __attribute__((vector_size(2 * WIDE)));
    typedef uint32_t Words __attribute__((vector_size(4 * WIDE)));
    EACH {
        Halves halves;
        std::memcpy(&halves, x + WIDE * p, sizeof halves);
        out.v[p] = (Register)(__builtin_convertvector(halves, Words) << 16);
    }
#endif
    return out;
}

inline Floats load(const bf16* x, int64_t n) {
    if (n >= LANES) return load(x);
    bf16 all[LANES] = {};
    std::memcpy(all, x, n * sizeof(bf16));
    return load(all);
}

inline void store(const float* x, int64_t n, bf16* out) {  // rounded to the nearest, ties to even
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        out[i] = (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

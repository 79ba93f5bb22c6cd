// bf16, exp and random bits, sixteen numbers at a time.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

using bf16 = uint16_t;

constexpr int64_t LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline int64_t up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }  // to a multiple

template <class Vector, class Number>
inline Vector load(const Number* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline Lanes load(const float* from) { return load<Lanes>(from); }

inline void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof x); }

inline Lanes wide(const bf16* from) { return (Lanes)(__builtin_convertvector(load<Halves>(from), Words) << 16); }

// To the nearest, halves to even. A NaN stays one: what makes one is found by the trainer in the loss.
inline void narrow(bf16* to, Lanes x) {
#ifdef __AVX512BF16__
    const auto halves = _mm512_cvtneps_pbh((__m512)x);
#else
    const Words bits = (Words)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Halves halves = __builtin_convertvector((Words)(x != x ? rounded * 0 + 0x7fc0 : rounded), Halves);
#endif
    std::memcpy(to, &halves, sizeof halves);
}

// Of the first n of 16; the others are `fill`.
inline Lanes wide(const bf16* from, int64_t n, bf16 fill = 0) {
    if (n >= LANES) return wide(from);
    bf16 some[LANES];
    std::fill(some, some + LANES, fill);
    std::copy(from, from + std::max<int64_t>(n, 0), some);
    return wide(some);
}

inline void narrow(bf16* to, Lanes x, int64_t n) {
    if (n >= LANES) return narrow(to, x);
    bf16 some[LANES];
    narrow(some, x);
    std::copy(some, some + std::max<int64_t>(n, 0), to);
}

inline Lanes higher(Lanes a, Lanes b) { return a < b ? b : a; }  // b where it is NaN is passed over, a is not

// exp(x) for x <= 0: 2^n times a polynomial of the rest, within 2e-7 of it.
inline Lanes exponential(Lanes x) {
    const Lanes y = higher(x, Lanes{} - 87.0f) * 1.44269504f;
    const Lanes whole = (y + 12582912.0f) - 12582912.0f;  // to the nearest: 1.5 * 2^23 leaves no room for a fraction
    const Lanes r = (y - whole) * 0.69314718f;
    Lanes p = 0.041666667f + r * (0.0083333333f + r * 0.0013888889f);
    p = 1 + r * (1 + r * (0.5f + r * (0.16666667f + r * p)));
    typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
    const Lanes scale = (Lanes)((__builtin_convertvector(whole, Integers) + 127) << 23);
    return x < -87.0f ? Lanes{} : p * scale;
}

typedef float Four __attribute__((vector_size(16)));

inline float sum(Lanes x) {
    Four four[4];
    std::memcpy(four, &x, sizeof x);
    const Four s = (four[0] + four[1]) + (four[2] + four[3]);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

inline float highest(Lanes x) {
    Four four[4];
    std::memcpy(four, &x, sizeof x);
    const Four a = four[0] > four[1] ? four[0] : four[1], b = four[2] > four[3] ? four[2] : four[3],
               h = a > b ? a : b;
    return std::max(std::max(h[0], h[1]), std::max(h[2], h[3]));
}

// Even bits for 16 counters from `at` on (lowbias32 of Chris Wellons), the seed on both sides of the mixing.
inline Words draw(uint32_t at, uint64_t seed) {
    Words x = (Words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + at) ^ uint32_t(seed);
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) + uint32_t(seed >> 32);
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

struct Dropout {
    uint64_t seed;
    uint32_t dropped;  // of 65,536 draws
    float kept;        // what stays is multiplied by it

    Lanes factor(Words bits) const { return bits < dropped ? Lanes{} : Lanes{} + kept; }

    // 0 or `kept` for entries at, at + 1, …: 16 bits of a draw each, the halves of 16 draws for 32 entries.
    void factors(uint32_t at, Lanes& first, Lanes& second) const {
        const Words bits = draw(at, seed);
        first = factor(bits & 0xffff), second = factor(bits >> 16);
    }
};

// What lies between the products, in fp32: attention, T5's norm, the feed-forward's activation.
#pragma once

#include "products.h"

inline float dot(const float* a, const float* b, int64_t n) {
    Floats sum = all(0);
    for (int64_t i = 0; i < n; i += LANES) sum = fma(load(a + i, n - i), load(b + i, n - i), sum);
    return total(sum);
}

// Keys and values that stay are kept in bf16: reading them is most of what attention costs.
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
        Floats sums[4] = {all(0), all(0), all(0), all(0)};
        for (int64_t i = 0; i < d_kv; i += LANES) {
            const Floats q = load(query + i, d_kv - i);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) sums[j] = fma(q, load(keys[j] + i, d_kv - i), sums[j]);
        }
        four_totals(sums[0], sums[1], sums[2], sums[3], scores + t);
    }
    if (bias)
        for (int64_t t = 0; t < slots.count; t += LANES)
            store(scores + t, load(scores + t) + load(bias + t, slots.count - t));
}

// Scores (count) → softmax, in place but for the division: 1 / Σ is returned.
inline Floats exponentials(float* scores, int64_t count) {
    for (int64_t t = count; t < up(count, LANES); t++) scores[t] = -INFINITY;
    Floats high = all(-INFINITY), sum = all(0);
    for (int64_t t = 0; t < count; t += LANES) high = most(high, load(scores + t));
    const Floats top = all(highest(high));
    for (int64_t t = 0; t < count; t += LANES) {
        const Floats e = exponential(load(scores + t) - top);
        sum = sum + e;
        store(scores + t, e);
    }
    return all(1.0f / total(sum));
}

// Softmax attention of one query (d_kv); `bias` (count) may be null.
template <class T>
inline void attend(const float* query, const Slots<T>& slots, int64_t d_kv, const float* bias, float* scores,
                   float* out) {
    score(query, slots, d_kv, bias, scores);
    const Floats share = exponentials(scores, slots.count);
    for (int64_t i = 0; i < d_kv; i += 4 * LANES) {  // 64 columns at a time: four sums that do not wait for each other
        Floats sums[4] = {all(0), all(0), all(0), all(0)};
        for (int64_t t = 0; t < slots.count; t++) {
            const Floats weight = all(scores[t]);
            const T* values = slots.values + slots.at(t) + i;
#pragma GCC unroll 4
            for (int64_t j = 0; j < 4; j++)
                if (LANES * j < d_kv - i) sums[j] = fma(weight, load(values + LANES * j, d_kv - i - LANES * j), sums[j]);
        }
#pragma GCC unroll 4
        for (int64_t j = 0; j < 4; j++)
            if (const int64_t left = d_kv - i - LANES * j; left > 0) store(out + i + LANES * j, sums[j] * share, left);
    }
}

// One row of x / rms(x) · weight.
inline void normalise_row(const float* x, int64_t n, const float* weight, float eps, float* out) {
    const Floats rstd = all(1.0f / std::sqrt(dot(x, x, n) / n + eps));
    for (int64_t i = 0; i < n; i += LANES) store(out + i, load(x + i, n - i) * rstd * load(weight + i, n - i), n - i);
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
    const Floats zero = all(0), one = all(1);
    for (int64_t i = 0; i < d_ff; i += LANES) {
        const Floats gate = load(hidden + i, d_ff - i);
        if (kind == RELU) {
            store(hidden + i, most(gate, zero), d_ff - i);
            continue;
        }
        Floats z = gate;
        if (kind == GATED_GELU)  // gelu by tanh(u) is gate · sigmoid(2u)
            z = fma(gate * gate * gate, all(0.044715f), gate) * all(1.5957691216f);
        const Floats e = exponential(zero - absolute(z));
        const Floats sigmoid = where_negative(z, e, one) / (one + e);
        store(hidden + i, gate * sigmoid * load(hidden + d_ff + i, d_ff - i), d_ff - i);
    }
}

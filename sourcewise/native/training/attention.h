// What attention does between its products, and how heads lie in memory; the products are in attention.cpp and
// attention_tiles.cpp.

#pragma once

#include "numbers.h"

struct Strides {  // from one example, head or position to the next
    int64_t batch, head, time;

    int64_t operator()(int64_t b, int64_t h) const { return b * batch + h * head; }
};

struct Shape {
    int64_t batch, heads, queries, keys, width;
    Strides query, key, value, out, bias, dquery, dkey, dvalue;  // of bias 0 where it is the same for all
    Dropout dropout;

    int64_t columns() const { return up(keys, LANES); }
};

// x (rows, columns) fp32 → bf16 rows of `stride`.
inline void narrow_rows(const float* x, int64_t rows, int64_t columns, bf16* to, int64_t stride) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < columns; i += LANES) narrow(to + t * stride + i, load(x + t * columns + i));
}

// Of `columns` scores, a multiple of 16, the first `count` become weights that sum to 1, the others 0.
inline void softmax(float* scores, const float* bias, int64_t count, int64_t columns) {
    if (bias)
        for (int64_t j = 0; j < count; j++) scores[j] += bias[j];
    for (int64_t j = count; j < columns; j++) scores[j] = -INFINITY;
    Lanes most = load(scores), totals = {};
    for (int64_t i = LANES; i < columns; i += LANES) most = higher(most, load(scores + i));
    const float top = highest(most);
    for (int64_t i = 0; i < columns; i += LANES) {
        const Lanes e = exponential(load(scores + i) - top);
        store(scores + i, e);
        totals += e;
    }
    const float part = 1 / sum(totals);
    for (int64_t i = 0; i < columns; i += LANES) store(scores + i, load(scores + i) * part);
}

// The scores of a head's queries, rows of `columns` → weights, copied to where they are wanted, then dropped.
inline void weigh(const Shape& s, int64_t batch, int64_t head, const float* bias, float* scores, float*& wanted,
                  uint32_t& at) {
    const int64_t columns = s.columns();
    const float* of_head = bias ? bias + batch * s.bias.batch + head * s.bias.head : nullptr;
    for (int64_t i = 0; i < s.queries; i++, scores += columns, at += uint32_t(columns)) {
        softmax(scores, of_head ? of_head + i * s.bias.time : nullptr, s.keys, columns);
        if (wanted) std::copy(scores, scores + columns, wanted), wanted += columns;
        if (s.dropout.dropped)
            for (int64_t j = 0; j < columns; j += LANES)
                store(scores + j, load(scores + j) * s.dropout.factor(draw(at + uint32_t(j), s.dropout.seed) >> 16));
    }
}

// Gradients by the dropped weights of a head's queries → by the scores, in their place, and, added up, by the bias;
// `dropped`: the weights as they were multiplied with values.
inline void weigh_backward(const Shape& s, int64_t batch, int64_t head, const float*& weights, float* gradients,
                           float* dropped, float* dbias, uint32_t& at) {
    const int64_t columns = s.columns();
    float* of_head = dbias ? dbias + batch * s.bias.batch + head * s.bias.head : nullptr;
    for (int64_t i = 0; i < s.queries; i++) {
        Lanes along = {};
        for (int64_t j = 0; j < columns; j += LANES) {
            const Lanes weight = load(weights + j);
            const Lanes factor = s.dropout.factor(draw(at + uint32_t(j), s.dropout.seed) >> 16);
            store(dropped + j, weight * factor);
            store(gradients + j, load(gradients + j) * factor);
            along += load(gradients + j) * weight;
        }
        const float mean = sum(along);
        for (int64_t j = 0; j < columns; j += LANES)
            store(gradients + j, load(weights + j) * (load(gradients + j) - mean));
        if (of_head)
            for (int64_t j = 0; j < s.keys; j++) of_head[i * s.bias.time + j] += gradients[j];
        weights += columns, gradients += columns, dropped += columns, at += uint32_t(columns);
    }
}

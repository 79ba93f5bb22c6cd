// What torch does in many passes over bf16 tensors on a CPU, in one: loss, norm and dropout of a training step.
// Plain loops that a compiler turns into vector code; sums are fp32. Arrays are contiguous. One thread a call.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using bf16 = uint16_t;

static inline float wide(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// To the nearest, halves to even. A NaN stays one: what makes one is found by the trainer in the loss.
static inline bf16 narrow(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return bf16(value != value ? 0x7fc0 : rounded);
}

// exp(x) for x <= 0: 2^n times a polynomial of the rest, within 2e-7 of it.
static inline float exponential(float x) {
    float y = std::max(x, -87.0f) * 1.44269504f;
    float whole = std::nearbyint(y);
    float r = (y - whole) * 0.69314718f;
    float p = 0.041666667f + r * (0.0083333333f + r * 0.0013888889f);
    p = 1 + r * (1 + r * (0.5f + r * (0.16666667f + r * p)));
    int32_t bits = (int32_t(whole) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return x < -87.0f ? 0.0f : p * scale;
}

// 32 even bits of a counter (lowbias32 of Chris Wellons), the seed on both sides of the mixing.
static inline uint32_t draw(uint32_t at, uint64_t seed) {
    uint32_t x = at ^ uint32_t(seed);
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) + uint32_t(seed >> 32);
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

extern "C" {

// Logits (rows, size) become their gradient but for the even share of the smoothing; nats (rows,).
// A row whose label is below 0 has neither.
void sourcewise_cross_entropy(bf16* logits, const int64_t* labels, int64_t rows, int64_t size, float smoothing,
                              float* nats) {
    std::vector<float> kept(size);
    for (int64_t r = 0; r < rows; r++) {
        bf16* row = logits + r * size;
        int64_t label = labels[r];
        if (label < 0) {
            std::fill(row, row + size, bf16(0));
            nats[r] = 0;
            continue;
        }
        float highest = -INFINITY, total = 0, sum = 0;
#pragma omp simd reduction(max : highest)
        for (int64_t i = 0; i < size; i++) highest = std::max(highest, wide(row[i]));
#pragma omp simd reduction(+ : total, sum)
        for (int64_t i = 0; i < size; i++) {
            float value = wide(row[i]), e = exponential(value - highest);
            kept[i] = e;
            total += e;
            sum += value;
        }
        float of_label = wide(row[label]), own = kept[label], others = 0;
        kept[label] = 0;
        float part = 1 / total;
#pragma omp simd reduction(+ : others)
        for (int64_t i = 0; i < size; i++) {
            others += kept[i];
            row[i] = narrow(kept[i] * part);
        }
        others *= part;
        row[label] = narrow(smoothing - others);
        // Of a likely label 1 - p says more than p.
        float log_p = own * part > 0.5f ? std::log1p(-others) : of_label - highest - std::log(total);
        nats[r] = -(1 - smoothing) * log_p;
        if (smoothing > 0) nats[r] -= smoothing * (sum / size - of_label + log_p);
    }
}

// out = x / rms(x) * weight, (rows, width); 1 / rms (rows,).
void sourcewise_rms_norm(const bf16* x, const bf16* weight, int64_t rows, int64_t width, float eps, bf16* out,
                         float* rstd) {
    for (int64_t r = 0; r < rows; r++, x += width, out += width) {
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; i++) squares += wide(x[i]) * wide(x[i]);
        float scale = rstd[r] = 1 / std::sqrt(squares / width + eps);
        for (int64_t i = 0; i < width; i++) out[i] = narrow(wide(x[i]) * scale * wide(weight[i]));
    }
}

// Gradients by x (rows, width) and, added up, by the weight (width,).
void sourcewise_rms_norm_backward(const bf16* grad, const bf16* x, const bf16* weight, const float* rstd, int64_t rows,
                                  int64_t width, bf16* dx, float* dweight) {
    for (int64_t r = 0; r < rows; r++, grad += width, x += width, dx += width) {
        float scale = rstd[r], along = 0;
#pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < width; i++) {
            float normal = wide(x[i]) * scale, g = wide(grad[i]);
            dweight[i] += g * normal;
            along += g * wide(weight[i]) * normal;
        }
        along /= width;
        for (int64_t i = 0; i < width; i++)
            dx[i] = narrow(scale * (wide(grad[i]) * wide(weight[i]) - wide(x[i]) * scale * along));
    }
}

// out = base + (x where it stays) * scale, base may be absent. An element stays where its draw is not below `dropped`.
void sourcewise_dropout(const bf16* base, const bf16* x, int64_t count, uint64_t seed, uint32_t dropped, float scale,
                        bf16* out) {
    if (base == nullptr)
        for (int64_t i = 0; i < count; i++)
            out[i] = draw(uint32_t(i), seed) < dropped ? bf16(0) : narrow(wide(x[i]) * scale);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = narrow(wide(base[i]) + (draw(uint32_t(i), seed) < dropped ? 0.0f : wide(x[i]) * scale));
}

// out = relu(x) where it stays, * scale.
void sourcewise_relu_dropout(const bf16* x, int64_t count, uint64_t seed, uint32_t dropped, float scale, bf16* out) {
    for (int64_t i = 0; i < count; i++) {
        float value = wide(x[i]) * scale;
        bool stays = draw(uint32_t(i), seed) >= dropped && value > 0;
        out[i] = stays ? narrow(value) : bf16(0);
    }
}

// dx = grad * scale where relu_dropout gave more than zero.
void sourcewise_relu_dropout_backward(const bf16* grad, const bf16* out, int64_t count, float scale, bf16* dx) {
    for (int64_t i = 0; i < count; i++) {
        bf16 value = narrow(wide(grad[i]) * scale);
        dx[i] = int16_t(out[i]) > 0 ? value : bf16(0);
    }
}

}  // extern "C"

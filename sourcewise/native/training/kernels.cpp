// What torch does in many passes over bf16 tensors on a CPU, in one: loss, norm, dropout of a training step, and
// gradients added up. Sums are fp32. Arrays are contiguous. One thread per call.

#include <vector>

#include "numbers.h"

constexpr bf16 LOWEST = 0xff80;  // -inf

// The softmax of a row of logits, but for a factor: what is returned.
static float softmax(const bf16* row, int64_t size, float* kept) {
    Lanes most = Lanes{} - INFINITY, totals = {};
    for (int64_t i = 0; i < size; i += LANES) most = higher(most, wide(row + i, size - i, LOWEST));
    const float top = highest(most);
    for (int64_t i = 0; i < size; i += LANES) {
        const Lanes e = exponential(wide(row + i, size - i, LOWEST) - top);
        store(kept + i, e);
        totals += e;
    }
    return 1 / sum(totals);
}

extern "C" {

// Logits (rows, size) become their gradient but for the even share of the smoothing; nats (rows,).
// A row whose label is below 0 has neither.
void sourcewise_cross_entropy(bf16* logits, const int64_t* labels, int64_t rows, int64_t size, float smoothing,
                              float* nats) {
    std::vector<float> kept(size + LANES);
    for (int64_t r = 0; r < rows; r++) {
        bf16* row = logits + r * size;
        const int64_t label = labels[r];
        if (label < 0) {
            std::fill(row, row + size, bf16(0));
            nats[r] = 0;
            continue;
        }
        Lanes most = Lanes{} - INFINITY, totals = {}, sums = {}, rest = {};
        for (int64_t i = 0; i < size; i += LANES) most = higher(most, wide(row + i, size - i, LOWEST));
        const float top = highest(most);
        for (int64_t i = 0; i < size; i += LANES) {
            const Lanes e = exponential(wide(row + i, size - i, LOWEST) - top);
            store(&kept[i], e);
            totals += e;
            sums += wide(row + i, size - i);
        }
        const float of_label = wide(row + label, 1)[0], own = kept[label], total = sum(totals), part = 1 / total;
        kept[label] = 0;
        for (int64_t i = 0; i < size; i += LANES) {
            const Lanes e = load(&kept[i]);
            rest += e;
            narrow(row + i, e * part, size - i);
        }
        const float others = sum(rest) * part;
        narrow(row + label, Lanes{} + (smoothing - others), 1);
        // Of a likely label 1 - p says more than p.
        const float log_p = own * part > 0.5f ? std::log1p(-others) : of_label - top - std::log(total);
        nats[r] = -(1 - smoothing) * log_p;
        if (smoothing > 0) nats[r] -= smoothing * (sum(sums) / size - of_label + log_p);
    }
}

// Logits p and q (rows, size) of two passes become the gradients of nats (rows,): (KL(p | q) + KL(q | p)) / 2.
void sourcewise_divergence(bf16* first, bf16* second, int64_t rows, int64_t size, float* nats) {
    std::vector<float> kept_p(size + LANES), kept_q(size + LANES);
    for (int64_t r = 0; r < rows; r++, first += size, second += size) {
        const float part_p = softmax(first, size, kept_p.data()), part_q = softmax(second, size, kept_q.data());
        Lanes forth = {}, back = {};  // expectations of g, the difference of the logits; ln p - ln q = g - shift
        for (int64_t i = 0; i < size; i += LANES) {
            const Lanes p = load(&kept_p[i]) * part_p, q = load(&kept_q[i]) * part_q;
            const Lanes g = wide(first + i, size - i) - wide(second + i, size - i);
            store(&kept_p[i], p), store(&kept_q[i], q);
            forth += p * g, back += q * g;
        }
        const float of_p = sum(forth), of_q = sum(back);  // KL(p | q) = of_p - shift, KL(q | p) = shift - of_q
        nats[r] = 0.5f * (of_p - of_q);
        for (int64_t i = 0; i < size; i += LANES) {
            const Lanes p = load(&kept_p[i]), q = load(&kept_q[i]), between = p - q;
            const Lanes g = wide(first + i, size - i) - wide(second + i, size - i);
            narrow(first + i, (p * (g - of_p) + between) * 0.5f, size - i);
            narrow(second + i, (q * (of_q - g) - between) * 0.5f, size - i);
        }
    }
}

// out = x / rms(x) * weight, (rows, width); 1 / rms (rows,).
void sourcewise_rms_norm(const bf16* x, const bf16* weight, int64_t rows, int64_t width, float eps, bf16* out,
                         float* rstd) {
    for (int64_t r = 0; r < rows; r++, x += width, out += width) {
        Lanes squares = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const Lanes value = wide(x + i, width - i);
            squares += value * value;
        }
        const float scale = rstd[r] = 1 / std::sqrt(sum(squares) / width + eps);
        for (int64_t i = 0; i < width; i += LANES)
            narrow(out + i, wide(x + i, width - i) * scale * wide(weight + i, width - i), width - i);
    }
}

// Gradients by x (rows, width) and, added up, by the weight (width and up to a multiple of 16).
void sourcewise_rms_norm_backward(const bf16* grad, const bf16* x, const bf16* weight, const float* rstd, int64_t rows,
                                  int64_t width, bf16* dx, float* dweight) {
    for (int64_t r = 0; r < rows; r++, grad += width, x += width, dx += width) {
        const float scale = rstd[r];
        Lanes products = {};
        for (int64_t i = 0; i < width; i += LANES) {
            const Lanes g = wide(grad + i, width - i), normal = wide(x + i, width - i) * scale;
            store(dweight + i, load(dweight + i) + g * normal);
            products += g * wide(weight + i, width - i) * normal;
        }
        const float along = sum(products) / width;
        for (int64_t i = 0; i < width; i += LANES) {
            const Lanes g = wide(grad + i, width - i), normal = wide(x + i, width - i) * scale;
            narrow(dx + i, scale * (g * wide(weight + i, width - i) - normal * along), width - i);
        }
    }
}

// out = base + (x where it stays) * scale; base may be absent.
void sourcewise_dropout(const bf16* base, const bf16* x, int64_t count, uint64_t seed, uint32_t dropped, float kept,
                        bf16* out) {
    const Dropout draws{seed, dropped, kept};
    for (int64_t i = 0; i < count; i += 2 * LANES) {
        Lanes f[2];
        draws.factors(uint32_t(i / 2), f[0], f[1]);
        for (int64_t half = 0, j = i; half < 2; half++, j += LANES) {
            // What is dropped is not multiplied: an infinity would leave a NaN.
            Lanes value = f[half] > 0 ? wide(x + j, count - j) * f[half] : Lanes{};
            if (base) value += wide(base + j, count - j);
            narrow(out + j, value, count - j);
        }
    }
}

// out = relu(x) where it stays, * scale.
void sourcewise_relu_dropout(const bf16* x, int64_t count, uint64_t seed, uint32_t dropped, float kept, bf16* out) {
    const Dropout draws{seed, dropped, kept};
    for (int64_t i = 0; i < count; i += 2 * LANES) {
        Lanes f[2];
        draws.factors(uint32_t(i / 2), f[0], f[1]);
        for (int64_t half = 0, j = i; half < 2; half++, j += LANES) {
            const Lanes value = wide(x + j, count - j);
            narrow(out + j, f[half] > 0 && !(value <= 0) ? value * f[half] : Lanes{}, count - j);
        }
    }
}

// dx = grad * scale where relu_dropout gave more than zero.
void sourcewise_relu_dropout_backward(const bf16* grad, const bf16* out, int64_t count, float kept, bf16* dx) {
    for (int64_t i = 0; i < count; i += LANES) {
        const Lanes value = wide(grad + i, count - i) * kept;
        narrow(dx + i, wide(out + i, count - i) > 0 ? value : Lanes{}, count - i);
    }
}

// to (count,) = the sum of `parts` arrays, times `scale`.
void sourcewise_add_up(const bf16* const* from, int64_t parts, int64_t count, float scale, float* to) {
    for (int64_t i = 0; i < count; i += LANES) {
        Lanes total = {};
        for (int64_t part = 0; part < parts; part++) total += wide(from[part] + i, count - i);
        total *= scale;
        std::memcpy(to + i, &total, sizeof(float) * std::min(LANES, count - i));
    }
}

}  // extern "C"

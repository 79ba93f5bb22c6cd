// Cross-entropy of a projection to the vocabulary, and its gradients, in tiles (AMX): logits of a piece of the rows are
// kept in bf16, nothing of a piece is passed over but once forward and once back. Sums are fp32. One thread per call.

#include "sums.h"

namespace {

constexpr int64_t PIECE = 1024;  // rows that go through together: each reads and writes the gradient of all weights
constexpr int64_t GROUP = 256;   // entries of the vocabulary whose weights stay in the second cache
constexpr float AHEAD = 20;      // how far above what is subtracted a logit may be

struct Row {
    float top = -1e30f;  // what is subtracted from logits: near the highest so far
    float of_label = 0;  // its logit
    float others = 0;    // the sum of exp(logit - top) of all but the label
    float part = 0;      // 1 / the sum of all
};

struct Rows {
    const int64_t* labels;
    int64_t size;  // of the vocabulary
    Row* rows;
    Lanes *sums, *totals;  // sixteen per row, of `others` and of logits

    static Lanes entries(const bf16* at, int64_t column, int64_t size) {  // -inf beyond the vocabulary
        const Lanes x = (Lanes)widened(at);
        const Words places = Words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + uint32_t(column);
        return places < uint32_t(size) ? x : Lanes{} - INFINITY;
    }

    // 32 logits of a row from `column` on: what the softmax needs to know of them.
    void look(int64_t r, int64_t column, const bf16* at) const {
        Row& row = rows[r];
        Lanes a = (Lanes)widened(at), b = (Lanes)widened(at + LANES);
        totals[r] += a + b;
        if (column + WIDE > size) {
            a = entries(at, column, size), b = entries(at + LANES, column + LANES, size);
            totals[r] += (a > -INFINITY ? Lanes{} : Lanes{} - (Lanes)widened(at)) +
                         (b > -INFINITY ? Lanes{} : Lanes{} - (Lanes)widened(at + LANES));
        }
        const __m512 limit = _mm512_set1_ps(row.top + AHEAD);
        if (_mm512_cmp_ps_mask((__m512)a, limit, _CMP_GT_OQ) | _mm512_cmp_ps_mask((__m512)b, limit, _CMP_GT_OQ)) {
            const float top = highest(higher(a, b));
            sums[r] *= std::exp(row.top - top);
            row.top = top;
        }
        const int64_t own = labels[r] - column;
        if (own >= 0 && own < WIDE) {
            (own < LANES ? a : b)[own % LANES] = -INFINITY;
            row.of_label = widened(at + own / LANES * LANES)[own % LANES];
        }
        sums[r] += (Lanes)quick_exponential((__m512)(a - row.top)) + (Lanes)quick_exponential((__m512)(b - row.top));
    }

    // After all logits: nats of a row; 0 where its label is below 0.
    float finish(int64_t r, float smoothing) const {
        Row& row = rows[r];
        if (labels[r] < 0) return 0;
        row.others = sum(sums[r]);
        const float own = std::exp(row.of_label - row.top), total = row.others + own;
        row.part = 1 / total;
        // Of a likely label 1 - p says more than p.
        const float log_p =
            own * row.part > 0.5f ? std::log1p(-row.others * row.part) : row.of_label - row.top - std::log(total);
        float nats = -(1 - smoothing) * log_p;
        if (smoothing > 0) nats -= smoothing * (sum(totals[r]) / size - row.of_label + log_p);
        return nats;
    }

    // 32 logits → their gradient but for the even share of the smoothing.
    void turn(int64_t r, int64_t column, float smoothing, const bf16* at, bf16* to) const {
        const Row& row = rows[r];
        if (labels[r] < 0) return _mm512_store_si512(to, _mm512_setzero_si512());
        Lanes a = (Lanes)widened(at), b = (Lanes)widened(at + LANES);
        if (column + WIDE > size) a = entries(at, column, size), b = entries(at + LANES, column + LANES, size);
        a = (Lanes)quick_exponential((__m512)(a - row.top)) * row.part,
        b = (Lanes)quick_exponential((__m512)(b - row.top)) * row.part;
        const int64_t own = labels[r] - column;
        if (own >= 0 && own < WIDE) (own < LANES ? a : b)[own % LANES] = smoothing - row.others * row.part;
        put(to, (__m512)a, (__m512)b);
    }
};

// Rows of x (rows, width) → a packed A operand.
void gather(const bf16* x, int64_t rows, const Squares& to) {
    to.fill(rows, [&](int64_t row, int64_t column, bf16* at) {
        _mm512_store_si512(at, _mm512_loadu_si512(x + row * to.columns + column));
    });
}

}  // namespace

// Nats (rows,) of labels (rows,) under softmax(states weightᵀ) of states (rows, width), weight (size, width); with
// gradients by both, of their sum, but for the even share of the smoothing. A row whose label is below 0 has none of
// all that. Without `dstates` nats alone are found. 0 when done, 1 when there is no memory.
extern "C" int sourcewise_linear_cross_entropy(const bf16* states, const bf16* weight, const int64_t* labels,
                                               int64_t rows, int64_t width, int64_t size, float smoothing, float* nats,
                                               bf16* dstates, bf16* dweight) {
    const int64_t piece = std::min(PIECE, up(rows, WIDE)), columns = up(size, WIDE);
    static thread_local Room room, of_weights;
    const int64_t bytes = Panels::size(width, GROUP) + Squares::size(piece, columns) + Squares::size(piece, GROUP) +
                          2 * Squares::size(piece, width) + Sums::size(piece, width) +
                          piece * (sizeof(Row) + 2 * sizeof(Lanes));
    char* at = (char*)room.of(bytes);
    const Sums sums{(float*)(dstates ? of_weights.of(Sums::size(width, columns)) : nullptr), width, columns};
    if (!at || (dstates && !sums.at)) return 1;
    const auto take = [&](int64_t size) { return at += size, at - size; };
    void* of_group = take(Panels::size(width, GROUP));
    const Squares logits{(bf16*)take(Squares::size(piece, columns)), columns},
        gradients{(bf16*)take(Squares::size(piece, GROUP)), GROUP}, x{(bf16*)take(Squares::size(piece, width)), width};
    void* turned = take(Squares::size(piece, width));
    const Sums of_states{(float*)take(Sums::size(piece, width)), piece, width};
    Lanes *of_row = (Lanes*)take(piece * sizeof(Lanes)), *totals = (Lanes*)take(piece * sizeof(Lanes));
    Row* row = (Row*)at;
    const Tiles tiles;
    for (int64_t first = 0; first < rows; first += piece) {
        const int64_t some = std::min(piece, rows - first);
        std::fill(row, row + some, Row{});
        std::fill(of_row, of_row + some, Lanes{});
        std::fill(totals, totals + some, Lanes{});
        const Rows all{labels + first, size, row, of_row, totals};
        gather(states + first * width, some, x);
        for (int64_t group = 0; group < columns; group += GROUP) {
            const Panels right = Panels::turned(weight + group * width, std::min(GROUP, size - group), width, of_group);
            product(x, some, right, [&](int64_t r, int64_t column) {
                return [=, &all](int64_t i, __m512 u, __m512 v) {
                    bf16* to = logits.row(r, group + column) + i * WIDE;
                    put(to, u, v);
                    all.look(r + i, group + column, to);
                };
            });
        }
        for (int64_t r = 0; r < some; r++) nats[first + r] = all.finish(r, smoothing);
        if (!dstates) continue;
        const Across left = Across::of(x, some, turned);
        for (int64_t group = 0; group < columns; group += GROUP) {
            const int64_t wide = std::min(GROUP, columns - group);
            const Squares g{gradients.at, wide};
            g.fill(some, [&](int64_t r, int64_t column, bf16* to) {
                all.turn(r, group + column, smoothing, logits.row(r, group + column), to);
            });
            const Panels right =
                Panels::straight(weight + group * width, std::min(wide, size - group), width, of_group);
            of_states.add_product(g, some, right, group == 0);
            if (!sums.from(group, wide).add(left, g, first == 0)) return 1;
        }
        of_states.narrow(false, some, dstates + first * width, width);
    }
    if (dstates) sums.narrow(true, size, dweight, width);
    return 0;
}

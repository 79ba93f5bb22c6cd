// Attention of a training step, forward and backward: one pass a head, read from and written to where heads lie.
//
// A caption's attention is many products of some ten rows: torch spends more on splitting heads, on calling and on
// passes over the weights than on multiplying. Here a head's queries, keys and values are widened to fp32 once, and all
// is done while they are in the first cache. Sums, softmax and weights are fp32. One thread a call.

#include <vector>

#include "numbers.h"

namespace {

inline int64_t up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// R rows and V vectors of c = a b, with a's rows and columns at these distances.
template <int R, int V>
inline void tile(const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, int64_t depth, float* c,
                 int64_t c_row) {
    Lanes sums[R][V] = {};
    for (int64_t k = 0; k < depth; k++, a += a_column, b += b_row)
        for (int v = 0; v < V; v++) {
            const Lanes right = load(b + v * LANES);
            for (int r = 0; r < R; r++) sums[r][v] += a[r * a_row] * right;
        }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(c + r * c_row + v * LANES, sums[r][v]);
}

// c (rows, columns) = a (rows, depth) b (depth, columns); rows are multiples of 4, columns of 16.
void multiply(const float* a, int64_t a_row, int64_t a_column, const float* b, float* c, int64_t rows, int64_t columns,
              int64_t depth) {
    int64_t column = 0;
    for (; column + 2 * LANES <= columns; column += 2 * LANES)
        for (int64_t row = 0; row < rows; row += 4)
            tile<4, 2>(a + row * a_row, a_row, a_column, b + column, columns, depth, c + row * columns + column, columns);
    if (column == columns) return;
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8)
        tile<8, 1>(a + row * a_row, a_row, a_column, b + column, columns, depth, c + row * columns + column, columns);
    if (row < rows)
        tile<4, 1>(a + row * a_row, a_row, a_column, b + column, columns, depth, c + row * columns + column, columns);
}

template <int HALF>
inline void exchange(Lanes rows[LANES]) {  // of each pair of rows HALF apart, the blocks of HALF off the diagonal
    for (int i = 0; i < LANES; i++)
        if (!(i & HALF)) {
            const Lanes a = rows[i], b = rows[i + HALF];
#ifdef __clang__  // which makes shuffles of the loop; gcc does not
            for (int j = 0; j < LANES; j++) {
                rows[i][j] = j & HALF ? b[j ^ HALF] : a[j];
                rows[i + HALF][j] = j & HALF ? b[j] : a[j ^ HALF];
            }
#else
            typedef int32_t Places __attribute__((vector_size(LANES * sizeof(int32_t))));
            Places first, second;
            for (int j = 0; j < LANES; j++) {
                first[j] = j & HALF ? LANES + (j ^ HALF) : j;
                second[j] = j & HALF ? LANES + j : j ^ HALF;
            }
            rows[i] = __builtin_shuffle(a, b, first);
            rows[i + HALF] = __builtin_shuffle(a, b, second);
#endif
        }
}

// x (rows, columns), both multiples of 16 → its transpose.
void transpose(const float* x, int64_t rows, int64_t columns, float* to) {
    for (int64_t row = 0; row < rows; row += LANES)
        for (int64_t column = 0; column < columns; column += LANES) {
            Lanes square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = load(x + (row + i) * columns + column);
            exchange<8>(square);
            exchange<4>(square);
            exchange<2>(square);
            exchange<1>(square);
            for (int i = 0; i < LANES; i++) store(to + (column + i) * rows + row, square[i]);
        }
}

struct Strides {  // from one example, head or position to the next
    int64_t batch, head, time;
};

// Positions × width of one head → fp32; `rows` in all, the others zero.
void widen(const bf16* from, int64_t stride, int64_t count, int64_t rows, int64_t width, float* to) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < width; i += LANES) store(to + t * width + i, wide(from + t * stride + i));
    std::fill(to + count * width, to + rows * width, 0.0f);
}

void narrow_rows(const float* from, int64_t count, int64_t width, bf16* to, int64_t stride) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < width; i += LANES) narrow(to + t * stride + i, load(from + t * width + i));
}

// Of `columns` scores, a multiple of 16, the first `count` become weights that sum to 1, the others 0.
void softmax(float* scores, const float* bias, int64_t count, int64_t columns) {
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

}  // namespace

extern "C" {

struct Shape {
    int64_t batch, heads, queries, keys, width;
    Strides query, key, value, out, bias, dquery, dkey, dvalue;  // of bias 0 where it is the same for all
    Dropout dropout;
};

// out = dropout(softmax(q kᵀ + bias)) v; weights (batch, heads, queries, keys and
// zeros up to a multiple of 16), before dropout, where they are wanted.
void sourcewise_attention(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* bias, bf16* out,
                          float* weights) {
    const int64_t rows = up(s->queries, 4), columns = up(s->keys, LANES), width = s->width;
    static thread_local std::vector<float> room;
    room.resize(rows * width * 2 + columns * width * 3 + rows * columns);
    float *query = room.data(), *read = query + rows * width, *key = read + rows * width, *turned = key + columns * width,
          *value = turned + columns * width, *scores = value + columns * width;
    uint32_t at = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            widen(q + b * s->query.batch + h * s->query.head, s->query.time, s->queries, rows, width, query);
            widen(k + b * s->key.batch + h * s->key.head, s->key.time, s->keys, columns, width, key);
            widen(v + b * s->value.batch + h * s->value.head, s->value.time, s->keys, columns, width, value);
            transpose(key, columns, width, turned);
            multiply(query, width, 1, turned, scores, rows, columns, width);
            for (int64_t i = 0; i < s->queries; i++) {
                float* row = scores + i * columns;
                softmax(row, bias ? bias + b * s->bias.batch + h * s->bias.head + i * s->bias.time : nullptr, s->keys,
                        columns);
                if (weights) std::copy(row, row + columns, weights), weights += columns;
                if (s->dropout.dropped)
                    for (int64_t j = 0; j < columns; j += LANES)
                        store(row + j, load(row + j) * s->dropout.factor(draw(at + uint32_t(j), s->dropout.seed) >> 16));
                at += uint32_t(columns);
            }
            multiply(scores, columns, 1, value, read, rows, width, s->keys);
            narrow_rows(read, s->queries, width, out + b * s->out.batch + h * s->out.head, s->out.time);
        }
}

// Gradients by q, k, v, at their strides, and, where it is given, added up, by bias; `grad` lies as `out` did.
void sourcewise_attention_backward(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* weights,
                                   const bf16* grad, bf16* dq, bf16* dk, bf16* dv, float* dbias) {
    const int64_t rows = up(s->queries, 4), columns = up(s->keys, LANES), width = s->width;
    static thread_local std::vector<float> room;
    room.resize(rows * width * 3 + columns * width * 4 + rows * columns * 2);
    float *query = room.data(), *reads = query + rows * width, *key = reads + rows * width, *value = key + columns * width,
          *turned = value + columns * width, *dscores = turned + columns * width, *dropped = dscores + rows * columns,
          *found = dropped + rows * columns;
    std::fill(dropped, dropped + rows * columns, 0.0f);
    uint32_t at = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            const int64_t of_query = b * s->query.batch + h * s->query.head, of_key = b * s->key.batch + h * s->key.head,
                          of_value = b * s->value.batch + h * s->value.head;
            widen(q + of_query, s->query.time, s->queries, rows, width, query);
            widen(k + of_key, s->key.time, s->keys, columns, width, key);
            widen(v + of_value, s->value.time, s->keys, columns, width, value);
            widen(grad + b * s->out.batch + h * s->out.head, s->out.time, s->queries, rows, width, reads);
            transpose(value, columns, width, turned);
            multiply(reads, width, 1, turned, dscores, rows, columns, width);
            for (int64_t i = 0; i < s->queries; i++, weights += columns, at += uint32_t(columns)) {
                float *row = dscores + i * columns, *kept = dropped + i * columns;
                Lanes along = {};
                for (int64_t j = 0; j < columns; j += LANES) {
                    const Lanes weight = load(weights + j);
                    const Lanes factor = s->dropout.factor(draw(at + uint32_t(j), s->dropout.seed) >> 16);
                    store(kept + j, weight * factor);
                    store(row + j, load(row + j) * factor);
                    along += load(row + j) * weight;
                }
                const float mean = sum(along);
                for (int64_t j = 0; j < columns; j += LANES) store(row + j, load(weights + j) * (load(row + j) - mean));
                if (dbias) {
                    float* to = dbias + b * s->bias.batch + h * s->bias.head + i * s->bias.time;
                    for (int64_t j = 0; j < s->keys; j++) to[j] += row[j];
                }
            }
            multiply(dscores, columns, 1, key, found, rows, width, s->keys);
            narrow_rows(found, s->queries, width, dq + b * s->dquery.batch + h * s->dquery.head, s->dquery.time);
            multiply(dscores, 1, columns, query, found, columns, width, s->queries);
            narrow_rows(found, s->keys, width, dk + b * s->dkey.batch + h * s->dkey.head, s->dkey.time);
            multiply(dropped, 1, columns, reads, found, columns, width, s->queries);
            narrow_rows(found, s->keys, width, dv + b * s->dvalue.batch + h * s->dvalue.head, s->dvalue.time);
        }
}

}  // extern "C"

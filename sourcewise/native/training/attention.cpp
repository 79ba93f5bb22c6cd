// Attention of a training step, forward and backward: one pass per head, read from and written to where heads lie.
//
// A caption's attention is many products of some ten rows: torch spends more on splitting heads, on calling and on
// passes over the weights than on multiplying. Here a head's queries, keys and values are widened to fp32 once, and all
// is done while they are in the first cache. Sums, softmax and weights are fp32. One thread per call.

#include "attention.h"
#include "room.h"

namespace {

// R rows and V vectors of c = a b, with a's rows and columns at these distances.
template <int R, int V>
inline void tile(const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, int64_t depth,
                 float* c, int64_t c_row) {
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
            tile<4, 2>(a + row * a_row, a_row, a_column, b + column, columns, depth, c + row * columns + column,
                       columns);
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

// Positions × width of one head → fp32; `rows` in all, the others zero.
void widen(const bf16* from, int64_t stride, int64_t count, int64_t rows, int64_t width, float* to) {
    for (int64_t t = 0; t < count; t++)
        for (int64_t i = 0; i < width; i += LANES) store(to + t * width + i, wide(from + t * stride + i));
    std::fill(to + count * width, to + rows * width, 0.0f);
}

}  // namespace

extern "C" {

// out = dropout(softmax(q kᵀ + bias)) v; weights (batch, heads, queries, keys and zeros up to a multiple of 16), before
// dropout, where they are wanted. 0 when done, 1 when there is no memory.
int sourcewise_attention(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* bias, bf16* out,
                          float* weights) {
    const int64_t rows = up(s->queries, 4), columns = s->columns(), width = s->width;
    static thread_local Room room;
    float* all = (float*)room.of((rows * width * 2 + columns * width * 3 + rows * columns) * sizeof(float));
    if (!all) return 1;
    float *query = all, *read = query + rows * width, *key = read + rows * width, *turned = key + columns * width,
          *value = turned + columns * width, *scores = value + columns * width;
    uint32_t at = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            widen(q + s->query(b, h), s->query.time, s->queries, rows, width, query);
            widen(k + s->key(b, h), s->key.time, s->keys, columns, width, key);
            widen(v + s->value(b, h), s->value.time, s->keys, columns, width, value);
            transpose(key, columns, width, turned);
            multiply(query, width, 1, turned, scores, rows, columns, width);
            weigh(*s, b, h, bias, scores, weights, at);
            multiply(scores, columns, 1, value, read, rows, width, s->keys);
            narrow_rows(read, s->queries, width, out + s->out(b, h), s->out.time);
        }
    return 0;
}

// Gradients by q, k, v, at their strides, and, where it is given, added up, by bias; `grad` lies as `out` did.
int sourcewise_attention_backward(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* weights,
                                   const bf16* grad, bf16* dq, bf16* dk, bf16* dv, float* dbias) {
    const int64_t rows = up(s->queries, 4), columns = s->columns(), width = s->width;
    static thread_local Room room;
    float* all = (float*)room.of((rows * width * 3 + columns * width * 4 + rows * columns * 2) * sizeof(float));
    if (!all) return 1;
    float *query = all, *reads = query + rows * width, *key = reads + rows * width, *value = key + columns * width,
          *turned = value + columns * width, *dscores = turned + columns * width, *dropped = dscores + rows * columns,
          *found = dropped + rows * columns;
    std::fill(dropped, dropped + rows * columns, 0.0f);
    uint32_t at = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            widen(q + s->query(b, h), s->query.time, s->queries, rows, width, query);
            widen(k + s->key(b, h), s->key.time, s->keys, columns, width, key);
            widen(v + s->value(b, h), s->value.time, s->keys, columns, width, value);
            widen(grad + s->out(b, h), s->out.time, s->queries, rows, width, reads);
            transpose(value, columns, width, turned);
            multiply(reads, width, 1, turned, dscores, rows, columns, width);
            weigh_backward(*s, b, h, weights, dscores, dropped, dbias, at);
            multiply(dscores, columns, 1, key, found, rows, width, s->keys);
            narrow_rows(found, s->queries, width, dq + s->dquery(b, h), s->dquery.time);
            multiply(dscores, 1, columns, query, found, columns, width, s->queries);
            narrow_rows(found, s->keys, width, dk + s->dkey(b, h), s->dkey.time);
            multiply(dropped, 1, columns, reads, found, columns, width, s->queries);
            narrow_rows(found, s->keys, width, dv + s->dvalue(b, h), s->dvalue.time);
        }
    return 0;
}

}  // extern "C"

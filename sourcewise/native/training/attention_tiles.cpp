// As attention.cpp, its products in tiles (AMX): bf16 operands, fp32 sums. The A operand is row-major; B is packed in
// tiles, each row of which holds two rows, interleaved.

#include "attention.h"
#include "room.h"
#include "tiles.h"

namespace {

constexpr int64_t ACROSS = 4;  // sums held at a time

// Rows at a stride → beside each other; `rows` in all, the others stay as they are.
void gather(const bf16* from, int64_t stride, int64_t count, int64_t width, bf16* to) {
    for (int64_t t = 0; t < count; t++) std::copy(from + t * stride, from + t * stride + width, to + t * width);
}

// x (count, width) as the packed B operand: tiles [count / 32][width / 16], rows beyond count are zero.
void beside(const bf16* x, int64_t stride, int64_t count, int64_t width, bf16* to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16)), zero = _mm512_setzero_si512();
    for (int64_t block = 0; block < count; block += DEEP)
        for (int64_t column = 0; column < width; column += 2 * SIDE) {
            bf16* first = to + (block / DEEP * (width / SIDE) + column / SIDE) * TILE;
            for (int64_t pair = 0; pair < SIDE; pair++) {
                const int64_t row = block + 2 * pair;
                const __m512i a = row < count ? _mm512_loadu_si512(x + row * stride + column) : zero;
                const __m512i b = row + 1 < count ? _mm512_loadu_si512(x + (row + 1) * stride + column) : zero;
                _mm512_store_si512(first + pair * DEEP, _mm512_permutex2var_epi16(a, low, b));
                _mm512_store_si512(first + TILE + pair * DEEP, _mm512_permutex2var_epi16(a, high, b));
            }
        }
}

// xᵀ of x (count, width) as the packed B operand: tiles [width / 32][count / 16], columns beyond count are zero.
void beside_turned(const bf16* x, int64_t stride, int64_t count, int64_t width, bf16* to) {
    const int64_t across = up(count, SIDE) / SIDE;
    for (int64_t column = 0; column < width; column += DEEP)
        for (int64_t block = 0; block < across; block++) {
            __m512i pairs[SIDE];
            for (int64_t i = 0; i < SIDE; i++) {
                const int64_t row = block * SIDE + i;
                pairs[i] = row < count ? _mm512_loadu_si512(x + row * stride + column) : _mm512_setzero_si512();
            }
            transpose(pairs);
            bf16* tile = to + (column / DEEP * across + block) * TILE;
            for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(tile + i * DEEP, pairs[i]);
        }
}

// xᵀ of x (rows, columns), both multiples of 16, in bf16 rows of `stride`.
void narrow_turned(const float* x, int64_t rows, int64_t columns, bf16* to, int64_t stride) {
    for (int64_t row = 0; row < rows; row += SIDE)
        for (int64_t column = 0; column < columns; column += SIDE) {
            __m512i square[SIDE];
            for (int64_t i = 0; i < SIDE; i++) square[i] = _mm512_loadu_si512(x + (row + i) * columns + column);
            transpose(square);
            for (int64_t i = 0; i < SIDE; i++) narrow(to + (column + i) * stride + row, (Lanes)square[i]);
        }
}

// 16 rows of c, N tiles of them, = a (16, depth) times tiles of b, `across` of which lie beside each other.
template <int N>
inline void strip(const bf16* a, int64_t stride, const bf16* b, int64_t across, int64_t depth, float* c,
                  int64_t columns) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (N > 2) _tile_zero(2);
    if (N > 3) _tile_zero(3);
    for (int64_t k = 0; k < depth; k += DEEP, b += across * TILE) {
        _tile_loadd(4, a + k, stride * sizeof(bf16));
        _tile_loadd(5, b, 64);
        _tile_dpbf16ps(0, 4, 5);
        if (N > 1) { _tile_loadd(6, b + TILE, 64); _tile_dpbf16ps(1, 4, 6); }
        if (N > 2) { _tile_loadd(7, b + 2 * TILE, 64); _tile_dpbf16ps(2, 4, 7); }
        if (N > 3) { _tile_loadd(5, b + 3 * TILE, 64); _tile_dpbf16ps(3, 4, 5); }
    }
    _tile_stored(0, c, columns * sizeof(float));
    if (N > 1) _tile_stored(1, c + SIDE, columns * sizeof(float));
    if (N > 2) _tile_stored(2, c + 2 * SIDE, columns * sizeof(float));
    if (N > 3) _tile_stored(3, c + 3 * SIDE, columns * sizeof(float));
}

// c (rows, columns) = a (rows, depth), in rows of `stride`, times b; rows and columns are multiples of 16, depth of 32.
void multiply(const bf16* a, int64_t stride, const bf16* b, float* c, int64_t rows, int64_t columns, int64_t depth) {
    const int64_t across = columns / SIDE;
    for (int64_t row = 0; row < rows; row += SIDE)
        for (int64_t tile = 0; tile < across; tile += ACROSS) {
            const bf16 *left = a + row * stride, *right = b + tile * TILE;
            float* to = c + row * columns + tile * SIDE;
            switch (std::min(ACROSS, across - tile)) {
                case 1: strip<1>(left, stride, right, across, depth, to, columns); break;
                case 2: strip<2>(left, stride, right, across, depth, to, columns); break;
                case 3: strip<3>(left, stride, right, across, depth, to, columns); break;
                default: strip<4>(left, stride, right, across, depth, to, columns);
            }
        }
}

// Parts of one block of memory, each on a cache line of its own, zero at first where rows or columns are padded.
struct Parts {
    char* at;

    template <class Number>
    Number* take(int64_t count) {
        Number* part = (Number*)at;
        at += up(count * sizeof(Number), 64);
        std::memset(part, 0, count * sizeof(Number));
        return part;
    }
};

}  // namespace

extern "C" {

int sourcewise_attention(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* bias, bf16* out,
                         float* weights) {
    const int64_t rows = up(s->queries, SIDE), columns = s->columns(), deep = up(s->keys, DEEP), width = s->width;
    static thread_local Room room;
    Parts parts{(char*)room.of((rows * (width * 3 + columns * 2 + deep) + (columns + deep) * width) * 2 + 6 * 64)};
    if (!parts.at) return 1;
    bf16 *query = parts.take<bf16>(rows * width), *weighed = parts.take<bf16>(rows * deep),
         *key = parts.take<bf16>(columns * width), *value = parts.take<bf16>(deep * width);
    float *scores = parts.take<float>(rows * columns), *read = parts.take<float>(rows * width);
    uint32_t at = 0;
    const Tiles tiles;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            gather(q + s->query(b, h), s->query.time, s->queries, width, query);
            beside_turned(k + s->key(b, h), s->key.time, s->keys, width, key);
            beside(v + s->value(b, h), s->value.time, s->keys, width, value);
            multiply(query, width, key, scores, rows, columns, width);
            weigh(*s, b, h, bias, scores, weights, at);
            narrow_rows(scores, s->queries, columns, weighed, deep);
            multiply(weighed, deep, value, read, rows, width, deep);
            narrow_rows(read, s->queries, width, out + s->out(b, h), s->out.time);
        }
    return 0;
}

int sourcewise_attention_backward(const Shape* s, const bf16* q, const bf16* k, const bf16* v, const float* weights,
                                  const bf16* grad, bf16* dq, bf16* dk, bf16* dv, float* dbias) {
    const int64_t rows = up(s->queries, SIDE), columns = s->columns(), width = s->width;
    const int64_t deep_rows = up(s->queries, DEEP), deep = up(s->keys, DEEP), most = std::max(rows, columns);
    static thread_local Room room;
    const int64_t halves = rows * (width + deep) + (deep + columns + 2 * deep_rows) * width + 2 * columns * deep_rows;
    Parts parts{(char*)room.of(halves * 2 + (2 * rows * columns + most * width) * 4 + 11 * 64)};
    if (!parts.at) return 1;
    bf16 *reads = parts.take<bf16>(rows * width), *scored = parts.take<bf16>(rows * deep),
         *key = parts.take<bf16>(deep * width), *value = parts.take<bf16>(columns * width),
         *query = parts.take<bf16>(deep_rows * width), *right = parts.take<bf16>(deep_rows * width),
         *scored_turned = parts.take<bf16>(columns * deep_rows),
         *weighed_turned = parts.take<bf16>(columns * deep_rows);
    float *dscores = parts.take<float>(rows * columns), *dropped = parts.take<float>(rows * columns),
          *found = parts.take<float>(most * width);
    uint32_t at = 0;
    const Tiles tiles;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            gather(grad + s->out(b, h), s->out.time, s->queries, width, reads);
            beside(grad + s->out(b, h), s->out.time, s->queries, width, right);
            beside(q + s->query(b, h), s->query.time, s->queries, width, query);
            beside(k + s->key(b, h), s->key.time, s->keys, width, key);
            beside_turned(v + s->value(b, h), s->value.time, s->keys, width, value);
            multiply(reads, width, value, dscores, rows, columns, width);
            weigh_backward(*s, b, h, weights, dscores, dropped, dbias, at);
            narrow_rows(dscores, s->queries, columns, scored, deep);
            narrow_turned(dscores, rows, columns, scored_turned, deep_rows);
            narrow_turned(dropped, rows, columns, weighed_turned, deep_rows);
            multiply(scored, deep, key, found, rows, width, deep);
            narrow_rows(found, s->queries, width, dq + s->dquery(b, h), s->dquery.time);
            multiply(scored_turned, deep_rows, query, found, columns, width, deep_rows);
            narrow_rows(found, s->keys, width, dk + s->dkey(b, h), s->dkey.time);
            multiply(weighed_turned, deep_rows, right, found, columns, width, deep_rows);
            narrow_rows(found, s->keys, width, dv + s->dvalue(b, h), s->dvalue.time);
        }
    return 0;
}

}  // extern "C"

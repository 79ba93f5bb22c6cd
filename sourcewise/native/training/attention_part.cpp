// Attention beside its residual in a bf16 training step, whole: norm, queries, keys and values, softmax, what is read,
// product, dropout and the sum, in pieces of whole examples that stay in the second cache between them. Examples of any
// length lie one after another, without padding. Products are in tiles (AMX), sums fp32. One thread per call.
//
// All widths are multiples of 32. Functions return 0 when done, 1 when there is no memory.

#include "heads.h"

namespace {

struct Part {  // attention_part.py reads its fields here
    int64_t pieces, rows, source_rows, width, heads, d_kv, longest, longest_source, bias_row;
    const int64_t *bounds, *starts, *source_starts;  // examples of the pieces; rows of the examples
    const bf16 *x, *scale, *in, *out;  // in: to queries, or to queries, keys and values; out: from what is read
    const float* bias;                               // (heads, longest_source, bias_row), or none
    bf16 *projected, *keys_values;                   // heads: of all that `in` gives; of a memory, or none: its own
    float* weights;
    bf16* read;  // packed A operand, pieces up to a multiple of 32 rows
    uint64_t seeds[2];  // of weights, of the whole
    uint32_t dropped[2];
    float kept[2], eps;

    int64_t inner() const { return heads * d_kv; }
    int64_t outputs() const { return (keys_values ? 1 : 3) * inner(); }
    int64_t first(int64_t piece) const { return starts[bounds[piece]]; }
    int64_t rows_of(int64_t piece) const { return first(piece + 1) - first(piece); }

    int64_t most_rows() const {
        int64_t most = 0;
        for (int64_t piece = 0; piece < pieces; piece++) most = std::max(most, rows_of(piece));
        return up(most, WIDE);
    }

    Heads projected_heads() const { return {projected, rows, d_kv}; }

    Head head(int64_t example, int64_t h) const {
        const int64_t* sources = keys_values ? source_starts : starts;
        const int64_t row = starts[example], source = sources[example];
        const Heads own = projected_heads(), read_from{keys_values, source_rows, d_kv};
        const bf16* key = keys_values ? read_from.row(h, source) : own.row(heads + h, row);
        const bf16* value = keys_values ? read_from.row(heads + h, source) : own.row(2 * heads + h, row);
        return {own.row(h, row), key, value, starts[example + 1] - row, sources[example + 1] - source, d_kv,
                bias ? bias + h * longest_source * bias_row : nullptr, bias_row};
    }
};

// Rows of a head's width from fp32 → bf16 at rows(i), which gives where a row's 32 entries from `column` on are.
template <class Rows>
void put_rows(const float* from, int64_t count, int64_t width, Rows&& rows) {
    for (int64_t i = 0; i < count; i++, from += width)
        for (int64_t column = 0; column < width; column += WIDE)
            put(rows(i, column), _mm512_loadu_ps(from + column), _mm512_loadu_ps(from + column + LANES));
}

void zero_rows(const Squares& squares, int64_t rows) {
    for (int64_t row = rows; row < up(rows, WIDE); row++)
        for (int64_t column = 0; column < squares.columns; column += WIDE)
            _mm512_store_si512(squares.row(row, column), _mm512_setzero_si512());
}

// Products that go to heads: results of `first` + a row, columns of one head after another.
void put_heads(const Squares& a, int64_t rows, const Panels& b, const Heads& to, int64_t first) {
    product(a, rows, b, [&](int64_t row, int64_t column) {
        return [at = to.row(column / to.width, first + row) + column % to.width, width = to.width](
                   int64_t i, __m512 u, __m512 v) { put(at + i * width, u, v); };
    });
}

}  // namespace

extern "C" {

int sourcewise_attention_part(const Part* p, bf16* out) {
    const int64_t width = p->width, inner = p->inner(), most = p->most_rows();
    Parts parts(Panels::size(width, p->outputs()) + Panels::size(inner, width) + Squares::size(most, width) +
                Found::size(width, most) + HeadWork::room(p->longest, p->longest_source, p->d_kv) + 5 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels in = Panels::turned(p->in, p->outputs(), width, parts.take(Panels::size(width, p->outputs()))),
                 back = Panels::turned(p->out, width, inner, parts.take(Panels::size(inner, width)));
    const Squares normed{parts.take<bf16>(Squares::size(most, width)), width};
    const Found found{parts.take<float>(Found::size(width, most))};
    HeadWork work(parts, p->longest, p->longest_source, p->d_kv);
    const Norm norm{p->scale, width, p->eps};
    const Dropped of_weights(p->seeds[0], p->dropped[0], p->kept[0]), whole(p->seeds[1], p->dropped[1], p->kept[1]);
    float* weights = p->weights;
    Squares read{p->read, inner};
    int64_t drawn = 0;
    for (int64_t piece = 0; piece < p->pieces; piece++) {
        const int64_t first = p->first(piece), rows = p->rows_of(piece);
        norm.apply(p->x + first * width, rows, normed);
        put_heads(normed, rows, in, p->projected_heads(), first);
        for (int64_t example = p->bounds[piece]; example < p->bounds[piece + 1]; example++)
            for (int64_t h = 0; h < p->heads; h++) {
                const Head head = p->head(example, h);
                const float* from = work.read(head, of_weights, drawn, weights);
                const int64_t row = p->starts[example] - first, column = h * p->d_kv;
                put_rows(from, head.queries, p->d_kv,
                         [&](int64_t i, int64_t c) { return read.row(row + i, column + c); });
                weights += head.weights();
            }
        zero_rows(read, rows);
        add_product(read, rows, back, {}, found, p->x + first * width, first, whole, out + first * width);
        read = read.from(up(rows, WIDE));
    }
    return 0;
}

// Gradients by x, in, out, and, added up, by scale and bias; of a memory's keys and values in heads.
int sourcewise_attention_part_backward(const Part* p, const bf16* grad, bf16* dx, float* dscale, bf16* din, bf16* dout,
                                       float* dbias, bf16* dkeys_values) {
    const int64_t width = p->width, inner = p->inner(), outputs = p->outputs(), most = p->most_rows();
    Parts parts(Panels::size(width, outputs) + Panels::size(inner, width) + 2 * Squares::size(most, width) +
                Squares::size(most, outputs) + Heads::size(p->heads, most, p->d_kv) + Found::size(width, most) +
                Across::size(most, width) + Sums::size(width, outputs) + Sums::size(width, inner) +
                HeadWork::room(p->longest, p->longest_source, p->d_kv) + 10 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels in = Panels::straight(p->in, outputs, width, parts.take(Panels::size(outputs, width))),
                 back = Panels::straight(p->out, width, inner, parts.take(Panels::size(width, inner)));
    const Squares normed{parts.take<bf16>(Squares::size(most, width)), width},
        grads{parts.take<bf16>(Squares::size(most, width)), width},
        dprojected{parts.take<bf16>(Squares::size(most, outputs)), outputs};
    const Heads dread{parts.take<bf16>(Heads::size(p->heads, most, p->d_kv)), most, p->d_kv},
        dmemory{dkeys_values, p->source_rows, p->d_kv};
    const Found found{parts.take<float>(Found::size(width, most))};
    void* turned = parts.take(Across::size(most, width));
    const Sums of_in{parts.take<float>(Sums::size(width, outputs)), width, outputs},
        of_out{parts.take<float>(Sums::size(width, inner)), width, inner};
    HeadWork work(parts, p->longest, p->longest_source, p->d_kv);
    const Norm norm{p->scale, width, p->eps};
    const Dropped of_weights(p->seeds[0], p->dropped[0], p->kept[0]), whole(p->seeds[1], p->dropped[1], p->kept[1]);
    const float* weights = p->weights;
    Squares read{p->read, inner};
    int64_t drawn = 0;
    for (int64_t piece = 0; piece < p->pieces; piece++) {
        const int64_t first = p->first(piece), rows = p->rows_of(piece);
        norm.apply(p->x + first * width, rows, normed);
        drop(grad + first * width, rows, first, whole, grads);
        put_heads(grads, rows, back, dread, 0);
        for (int64_t example = p->bounds[piece]; example < p->bounds[piece + 1]; example++)
            for (int64_t h = 0; h < p->heads; h++) {
                const Head head = p->head(example, h);
                const int64_t row = p->starts[example] - first, source = p->source_starts[example];
                const auto own = [&](int64_t part, int64_t i, int64_t c) {
                    return dprojected.row(row + i, (part * p->heads + h) * p->d_kv + c);
                };
                const auto other = [&](int64_t part, int64_t i, int64_t c) {
                    return dkeys_values ? dmemory.row((part - 1) * p->heads + h, source + i) + c : own(part, i, c);
                };
                const auto by = [&](int64_t part, int64_t count) {
                    return [=](const float* from) {
                        put_rows(from, count, p->d_kv,
                                 [&](int64_t i, int64_t c) { return part ? other(part, i, c) : own(0, i, c); });
                    };
                };
                float* of_bias = dbias ? dbias + h * p->longest_source * p->bias_row : nullptr;
                work.backward(head, dread.row(h, row), of_weights, drawn, weights, of_bias, by(0, head.queries),
                              by(1, head.keys), by(2, head.keys));
                weights += head.weights();
            }
        zero_rows(dprojected, rows);
        found.product(dprojected, rows, in);
        norm.backward(found.at, p->x + first * width, grad + first * width, rows, dx + first * width, dscale);
        if (!of_out.add(Across::of(grads, rows, turned), read, piece == 0)) return 1;
        if (!of_in.add(Across::of(normed, rows, turned), dprojected, piece == 0)) return 1;
        read = read.from(up(rows, WIDE));
    }
    of_in.narrow(true, outputs, din, width);
    of_out.narrow(false, width, dout, inner);
    return 0;
}

// keys_values, heads, = states (rows, width) weightᵀ of weight (outputs, width).
int sourcewise_to_heads(const bf16* states, const bf16* weight, int64_t rows, int64_t width, int64_t outputs,
                        int64_t d_kv, bf16* keys_values) {
    Parts parts(Panels::size(width, outputs) + Squares::size(PIECE, width) + 2 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::turned(weight, outputs, width, parts.take(Panels::size(width, outputs)));
    const Squares left{parts.take<bf16>(Squares::size(PIECE, width)), width};
    const Norm none{nullptr, width, 0};
    in_pieces(rows, PIECE, [&](int64_t row, int64_t some) {
        none.apply(states + row * width, some, left);
        put_heads(left, some, right, {keys_values, rows, d_kv}, row);
    });
    return 0;
}

// Gradients by states, added to what is there, and by weight.
int sourcewise_to_heads_backward(const bf16* grad, const bf16* states, const bf16* weight, int64_t rows, int64_t width,
                                 int64_t outputs, int64_t d_kv, bf16* dstates, bf16* dweight) {
    Parts parts(Panels::size(outputs, width) + Squares::size(PIECES, width) + Squares::size(PIECES, outputs) +
                Found::size(width, PIECES) + Across::size(PIECES, width) + Sums::size(width, outputs) + 6 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::straight(weight, outputs, width, parts.take(Panels::size(outputs, width)));
    const Squares left{parts.take<bf16>(Squares::size(PIECES, width)), width},
        grads{parts.take<bf16>(Squares::size(PIECES, outputs)), outputs};
    const Found found{parts.take<float>(Found::size(width, PIECES))};
    void* turned = parts.take(Across::size(PIECES, width));
    const Sums sums{parts.take<float>(Sums::size(width, outputs)), width, outputs};
    const Norm none{nullptr, width, 0};
    const Heads heads{(bf16*)grad, rows, d_kv};
    bool enough = true;
    in_pieces(rows, PIECES, [&](int64_t row, int64_t some) {
        none.apply(states + row * width, some, left);
        grads.fill(some, [&](int64_t r, int64_t column, bf16* at) {
            _mm512_store_si512(at, _mm512_loadu_si512(heads.row(column / d_kv, row + r) + column % d_kv));
        });
        found.product(grads, some, right);
        none.backward(found.at, states + row * width, dstates + row * width, some, dstates + row * width, nullptr);
        enough &= sums.add(Across::of(left, some, turned), grads, row == 0);
    });
    sums.narrow(true, outputs, dweight, width);
    return !enough;
}

}  // extern "C"

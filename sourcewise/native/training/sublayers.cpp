// Parts of a Transformer's block in a bf16 training step, whole: a norm, products with weights, relu, dropout and the
// residual, in pieces of rows that stay in the second cache between them. Products are in tiles (AMX), sums fp32. One
// thread per call.
//
// All widths are multiples of 32. Functions return 0 when done, 1 when there is no memory.

#include "parts.h"

extern "C" {

// out (rows, outputs) = norm(x) weightᵀ + bias of x (rows, width), weight (outputs, width); without `scale` there is no
// norm, and there may be no bias.
int sourcewise_normed(const bf16* x, const bf16* scale, const bf16* weight, const bf16* bias, int64_t rows,
                      int64_t width, int64_t outputs, float eps, bf16* out) {
    Parts parts(Panels::size(width, outputs) + Squares::size(PIECE, width) + Found::size(GROUP) + 3 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::turned(weight, outputs, width, parts.take(Panels::size(width, outputs)));
    const Found found{parts.take<float>(Found::size(GROUP))};
    const Squares normed{parts.take<bf16>(Squares::size(PIECE, width)), width};
    const Norm norm{scale, width, eps};
    in_pieces(rows, PIECE, [&](int64_t row, int64_t some) {
        norm.apply(x + row * width, some, normed);
        put_product(normed, some, right, {bias}, found, out + row * outputs);
    });
    return 0;
}

// Gradients by x, added to `residual` where there is one, by weight, and, added up, by scale and bias, where there are.
int sourcewise_normed_backward(const bf16* grad, const bf16* x, const bf16* scale, const bf16* weight,
                               const bf16* residual, int64_t rows, int64_t width, int64_t outputs, float eps, bf16* dx,
                               float* dscale, bf16* dweight, float* dbias) {
    const int64_t room = Panels::size(outputs, width) + Squares::size(PIECES, width) + Squares::size(PIECES, outputs) +
                         Found::size(width) + Sums::size(width, outputs) + Across::size(PIECES, width) + 6 * 64;
    Parts parts(room);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::straight(weight, outputs, width, parts.take(Panels::size(outputs, width)));
    const Squares normed{parts.take<bf16>(Squares::size(PIECES, width)), width},
        grads{parts.take<bf16>(Squares::size(PIECES, outputs)), outputs};
    const Found found{parts.take<float>(Found::size(width))};
    const Sums sums{parts.take<float>(Sums::size(width, outputs)), width, outputs};
    void* turned = parts.take(Across::size(PIECES, width));
    const Norm norm{scale, width, eps}, none{nullptr, outputs, 0};
    bool enough = true;
    in_pieces(rows, PIECES, [&](int64_t start, int64_t most) {
        in_pieces(most, PIECE, [&](int64_t row, int64_t some) {
            const int64_t at = (start + row) * width;
            norm.apply(x + at, some, normed.from(row));
            none.apply(grad + (start + row) * outputs, some, grads.from(row));
            Bias::backward(grads.from(row), some, dbias);
            found.product(grads.from(row), some, right);
            norm.backward(found.at, x + at, residual ? residual + at : nullptr, some, dx + at, dscale);
        });
        enough &= sums.add(Across::of(normed, most, turned), grads, start == 0);
    });
    sums.narrow(true, outputs, dweight, width);
    return !enough;
}

// out (rows, outputs) = x + dropout(a weightᵀ + bias) of a (rows, width), weight (outputs, width); there may be no
// bias.
int sourcewise_added(const bf16* x, const bf16* a, const bf16* weight, const bf16* bias, int64_t rows, int64_t width,
                     int64_t outputs, uint64_t seed, uint32_t dropped, float kept, bf16* out) {
    Parts parts(Panels::size(width, outputs) + Squares::size(PIECE, width) + Found::size(outputs) + 3 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::turned(weight, outputs, width, parts.take(Panels::size(width, outputs)));
    const Squares left{parts.take<bf16>(Squares::size(PIECE, width)), width};
    const Found found{parts.take<float>(Found::size(outputs))};
    const Norm none{nullptr, width, 0};
    const Dropped d(seed, dropped, kept);
    in_pieces(rows, PIECE, [&](int64_t row, int64_t some) {
        none.apply(a + row * width, some, left);
        add_product(left, some, right, {bias}, found, x + row * outputs, row, d, out + row * outputs);
    });
    return 0;
}

// Gradients by a, weight, and, added up, by bias, where there is one; that by x is `grad` itself.
int sourcewise_added_backward(const bf16* grad, const bf16* a, const bf16* weight, int64_t rows, int64_t width,
                              int64_t outputs, uint64_t seed, uint32_t dropped, float kept, bf16* da, bf16* dweight,
                              float* dbias) {
    Parts parts(Panels::size(outputs, width) + Squares::size(PIECES, outputs) + Sums::size(outputs, width) +
                Found::size(GROUP) + Across::size(PIECES, outputs) + Squares::size(PIECES, width) + 6 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels right = Panels::straight(weight, outputs, width, parts.take(Panels::size(outputs, width)));
    const Squares grads{parts.take<bf16>(Squares::size(PIECES, outputs)), outputs},
        left{parts.take<bf16>(Squares::size(PIECES, width)), width};
    const Norm none{nullptr, width, 0};
    const Sums sums{parts.take<float>(Sums::size(outputs, width)), outputs, width};
    void* turned = parts.take(Across::size(PIECES, outputs));
    const Found found{parts.take<float>(Found::size(GROUP))};
    const Dropped d(seed, dropped, kept);
    bool enough = true;
    in_pieces(rows, PIECES, [&](int64_t row, int64_t some) {
        drop(grad + row * outputs, some, row, d, grads);
        Bias::backward(grads, some, dbias);
        in_pieces(some, PIECE, [&](int64_t piece, int64_t few) {
            put_product(grads.from(piece), few, right, {}, found, da + (row + piece) * width);
        });
        none.apply(a + row * width, some, left);
        enough &= sums.add(Across::of(grads, some, turned), left, row == 0);
    });
    sums.narrow(false, outputs, dweight, width);
    return !enough;
}

// out = x + dropout(dropout(relu(norm(x) wiᵀ)) woᵀ) of x (rows, width), wi (inner, width), wo (width, inner); `hidden`,
// what wo reads, is a packed A operand with memory for a multiple of 32 rows. Seeds, what is dropped and kept: within,
// and of the whole.
int sourcewise_feedforward(const bf16* x, const bf16* scale, const bf16* wi, const bf16* wo, int64_t rows,
                           int64_t width, int64_t inner, float eps, const uint64_t* seeds, const uint32_t* dropped,
                           const float* kept, bf16* hidden, bf16* out) {
    Parts parts(2 * Panels::size(width, inner) + Squares::size(PIECE, width) + Found::size(width) + 4 * 64);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels in = Panels::turned(wi, inner, width, parts.take(Panels::size(width, inner))),
                 back = Panels::turned(wo, width, inner, parts.take(Panels::size(width, inner)));
    const Squares normed{parts.take<bf16>(Squares::size(PIECE, width)), width}, all{hidden, inner};
    const Found found{parts.take<float>(Found::size(width))};
    const Norm norm{scale, width, eps};
    const Dropped within(seeds[0], dropped[0], kept[0]), whole(seeds[1], dropped[1], kept[1]);
    in_pieces(rows, PIECE, [&](int64_t first, int64_t some) {
        norm.apply(x + first * width, some, normed);
        const Squares h = all.from(first);
        product(normed, up(some, WIDE), in, [&](int64_t row, int64_t column) {
            bf16* to = h.row(row, column);
            const int64_t chunk = ((first + row) * inner + column) / WIDE;
            return [=, &within](int64_t i, __m512 u, __m512 v) {
                const __mmask32 stay = within.stay(chunk + i * (inner / WIDE));
                const __m512 zero = _mm512_setzero_ps();  // what is not above it goes, but for what is no number
                const __mmask16 up_u = _mm512_cmp_ps_mask(u, zero, _CMP_NLE_UQ),
                                up_v = _mm512_cmp_ps_mask(v, zero, _CMP_NLE_UQ);
                put(to + i * WIDE, _mm512_maskz_mul_ps(up_u & __mmask16(stay), u, within.kept),
                    _mm512_maskz_mul_ps(up_v & __mmask16(stay >> 16), v, within.kept));
            };
        });
        add_product(h, some, back, {}, found, x + first * width, first, whole, out + first * width);
    });
    return 0;
}

// Gradients by x, wi, wo, and, added up, by scale.
int sourcewise_feedforward_backward(const bf16* grad, const bf16* x, const bf16* scale, const bf16* wi, const bf16* wo,
                                    const bf16* hidden, int64_t rows, int64_t width, int64_t inner, float eps,
                                    const uint64_t* seeds, const uint32_t* dropped, const float* kept, bf16* dx,
                                    float* dscale, bf16* dwi, bf16* dwo) {
    const int64_t room = 2 * Panels::size(width, inner) + 2 * Squares::size(PIECES, width) +
                         Squares::size(PIECES, inner) + Found::size(width) + 2 * Sums::size(width, inner) +
                         Across::size(PIECES, width) + 9 * 64;
    Parts parts(room);
    if (!parts.at) return 1;
    const Tiles tiles;
    const Panels in = Panels::straight(wo, width, inner, parts.take(Panels::size(width, inner))),
                 back = Panels::straight(wi, inner, width, parts.take(Panels::size(width, inner)));
    const Squares normed{parts.take<bf16>(Squares::size(PIECES, width)), width},
        grads{parts.take<bf16>(Squares::size(PIECES, width)), width},
        inside{parts.take<bf16>(Squares::size(PIECES, inner)), inner}, all{(bf16*)hidden, inner};
    const Found found{parts.take<float>(Found::size(width))};
    const Sums of_wi{parts.take<float>(Sums::size(width, inner)), width, inner},
        of_wo{parts.take<float>(Sums::size(width, inner)), width, inner};
    void* turned = parts.take(Across::size(PIECES, width));
    const Norm norm{scale, width, eps};
    const Dropped within(seeds[0], dropped[0], kept[0]), whole(seeds[1], dropped[1], kept[1]);
    bool enough = true;
    in_pieces(rows, PIECES, [&](int64_t start, int64_t most) {
        in_pieces(most, PIECE, [&](int64_t row, int64_t some) {
            const int64_t first = start + row, at = first * width;
            norm.apply(x + at, some, normed.from(row));
            drop(grad + at, some, first, whole, grads.from(row));
            const Squares h = all.from(first), dh = inside.from(row);
            product(grads.from(row), up(some, WIDE), in, [&](int64_t r, int64_t column) {
                const bf16* given = h.row(r, column);
                bf16* to = dh.row(r, column);
                return [=, &within](int64_t i, __m512 u, __m512 v) {
                    const __mmask32 passes =
                        _mm512_cmpgt_epi16_mask(_mm512_load_si512(given + i * WIDE), _mm512_setzero_si512());
                    put(to + i * WIDE, stays(passes, 0, u, within), stays(passes, 1, v, within));
                };
            });
            found.product(dh, some, back);
            norm.backward(found.at, x + at, grad + at, some, dx + at, dscale);
        });
        enough &= of_wo.add(Across::of(grads, most, turned), all.from(start), start == 0);
        enough &= of_wi.add(Across::of(normed, most, turned), inside, start == 0);
    });
    of_wi.narrow(true, inner, dwi, width);
    of_wo.narrow(false, width, dwo, inner);
    return !enough;
}

}  // extern "C"

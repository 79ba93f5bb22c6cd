// out = aᵀ b of bf16 matrices whose rows are the tokens of a batch: the gradient of a layer's weights.
//
// Tile instructions (AMX) want both operands in tiles, two rows of the batch beside each other; torch turns the whole of
// a first and reads it again for every panel of b. Here each operand is brought into tiles once, as it is read.
// Sums are fp32. One thread a call.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "room.h"
#include "tiles.h"

using bf16 = uint16_t;

namespace {

constexpr int64_t CHUNK = 256;  // rows of the batch brought into tiles at a time: b's stay in the first cache
constexpr int64_t PANEL = 512;  // columns of b whose sums are held at a time: they stay in the second

inline int64_t blocks_of(int64_t rows) { return (rows + DEEP - 1) / DEEP; }

// x (rows, width) → tiles [width / 16][blocks]: a tile's row is two rows of x, entry by entry; `turned`: its column is.
// Columns come in the order in which a vector's halves interleave; `store` puts them right.
template <bool turned>
void into_tiles(const bf16* x, int64_t stride, int64_t rows, int64_t width, bf16* to) {
    const int64_t blocks = blocks_of(rows);
    const __m512i zero = _mm512_setzero_si512();
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t column = 0; column < width; column += 2 * SIDE) {
            __m512i low[16], high[16];
            for (int64_t pair = 0; pair < 16; pair++) {
                const int64_t row = block * DEEP + 2 * pair;
                const bf16* from = x + row * stride + column;
                const __m512i a = row < rows ? _mm512_loadu_si512(from) : zero;
                const __m512i b = row + 1 < rows ? _mm512_loadu_si512(from + stride) : zero;
                low[pair] = _mm512_unpacklo_epi16(a, b), high[pair] = _mm512_unpackhi_epi16(a, b);
            }
            if (turned) transpose(low), transpose(high);
            bf16* first = to + (column / SIDE * blocks + block) * TILE;
            for (int64_t pair = 0; pair < 16; pair++) {
                _mm512_store_si512(first + pair * 2 * SIDE, low[pair]);
                _mm512_store_si512(first + blocks * TILE + pair * 2 * SIDE, high[pair]);
            }
        }
}

// Sums [columns of b / 16][columns of a / 16][16][16] += tiles of a times tiles of b, four sums at a time.
void multiply(const bf16* a, const bf16* b, int64_t blocks, int64_t across, int64_t down, bool fresh, float* sums) {
    const int64_t step = blocks * TILE, square = SIDE * SIDE;
    for (int64_t j = 0; j < across; j += 2)
        for (int64_t i = 0; i < down; i += 2) {
            float *left = sums + (j * down + i) * square, *right = left + down * square;
            if (fresh) {
                _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            } else {
                _tile_loadd(0, left, 64); _tile_loadd(1, right, 64);
                _tile_loadd(2, left + square, 64); _tile_loadd(3, right + square, 64);
            }
            const bf16 *a0 = a + i * step, *b0 = b + j * step;
            for (int64_t k = 0; k < step; k += TILE) {
                _tile_loadd(4, a0 + k, 64); _tile_loadd(6, b0 + k, 64);
                _tile_loadd(5, a0 + step + k, 64); _tile_loadd(7, b0 + step + k, 64);
                _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, left, 64); _tile_stored(1, right, 64);
            _tile_stored(2, left + square, 64); _tile_stored(3, right + square, 64);
        }
}

inline void narrow(bf16* to, __m512i low, __m512i high) {  // 32 fp32 → bf16, halves of the lanes in their places
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), both));
}

// Four squares of sums → 32 × 32 entries of out; `flip`: transposed.
void store(const float* left, const float* right, bool flip, bf16* out, int64_t stride) {
    const int64_t square = SIDE * SIDE;
    for (int half = 0; half < 2; half++) {
        const float* first = flip ? (half ? right : left) : left + half * square;
        const float* second = flip ? first + square : right + half * square;
        __m512i low[16], high[16];
        for (int row = 0; row < 16; row++) {
            low[row] = _mm512_load_si512(first + row * SIDE);
            high[row] = _mm512_load_si512(second + row * SIDE);
        }
        if (flip) transpose(low), transpose(high);
        for (int row = 0; row < 16; row++) narrow(out + (half * 4 + row / 4 * 8 + row % 4) * stride, low[row], high[row]);
    }
}

}  // namespace

// Asks Linux for the tiles (ARCH_REQ_XCOMP_PERM of XTILEDATA), once a process: 1 where it has them.
extern "C" int sourcewise_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// out (p, q) of a (rows, p) and b (rows, q), or with `flip` its transpose (q, p). p and q are multiples of 32; the
// smaller should be p, whose tiles are all kept. 0 when done, 1 when there is no memory.
extern "C" int sourcewise_across(const bf16* a, int64_t a_stride, const bf16* b, int64_t b_stride, int64_t rows, int64_t p,
                                 int64_t q, int flip, bf16* out) {
    static thread_local Room room_a, room_b, room_sums;
    const int64_t widest = std::min(q, PANEL), down = p / SIDE;
    bf16* tiles_a = (bf16*)room_a.of(blocks_of(rows) * DEEP * p * sizeof(bf16));
    bf16* tiles_b = (bf16*)room_b.of(CHUNK * widest * sizeof(bf16));
    float* sums = (float*)room_sums.of(p * widest * sizeof(float));
    if (!tiles_a || !tiles_b || !sums) return 1;
    for (int64_t row = 0; row < rows; row += CHUNK)
        into_tiles<true>(a + row * a_stride, a_stride, std::min(CHUNK, rows - row), p, tiles_a + row * p);
    const Shapes shapes;
    _tile_loadconfig(&shapes);
    for (int64_t column = 0; column < q; column += PANEL) {
        const int64_t width = std::min(PANEL, q - column);
        for (int64_t row = 0; row < rows; row += CHUNK) {
            const int64_t some = std::min(CHUNK, rows - row);
            into_tiles<false>(b + row * b_stride + column, b_stride, some, width, tiles_b);
            multiply(tiles_a + row * p, tiles_b, blocks_of(some), width / SIDE, down, row == 0, sums);
        }
        for (int64_t j = 0; j < width / SIDE; j += 2)
            for (int64_t i = 0; i < down; i += 2) {
                const float* left = sums + (j * down + i) * SIDE * SIDE;
                bf16* to = flip ? out + (column + j * SIDE) * p + i * SIDE : out + i * SIDE * q + column + j * SIDE;
                store(left, left + down * SIDE * SIDE, flip, to, flip ? p : q);
            }
    }
    _tile_release();
    return 0;
}

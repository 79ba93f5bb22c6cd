// A T5: sources through the encoder all at once without padding, hypotheses through the decoder one token at a time.
#pragma once

#include "layers.h"

struct FeedForward {
    const float* norm;
    Linear wi, wo;
};

struct EncoderLayer {
    const float* norm;
    Linear qkv, out;
    FeedForward feedforward;
};

struct DecoderLayer {
    const float* norm;
    Linear qkv, out;
    const float* cross_norm;
    Linear query, keys_values, cross_out;
    FeedForward feedforward;
};

struct Network {
    const EncoderLayer* encoder;
    const DecoderLayer* decoder;
    const float *encoder_norm, *decoder_norm;
    Linear head;
    const float* embedding;          // (vocabulary, d_model)
    const float* places;             // (steps, d_model) added to the decoder's input; null: nothing
    const float* encoder_distances;  // (heads, 2 · longest − 1) bias by key position − query position + longest − 1
    const float* decoder_distances;  // (heads, steps) bias by steps − 1 − (query position − key position)
    int64_t encoder_layers, decoder_layers, d_model, heads, d_kv, d_ff, activation, longest, steps;
    float eps;

    int64_t inner() const { return heads * d_kv; }
};

struct Hypothesis {
    std::vector<int32_t> tokens, places;  // `places`: the slots of its tokens in the source's cache
    float score = 0;                      // Σ ln p
};

struct Source {
    int64_t name = 0, slots = 0, used = 0;     // encoder slots, tokens in the cache
    std::vector<std::vector<bf16>> memory;     // a decoder layer: (slots, keys and values of all heads)
    std::vector<std::vector<bf16>> cache;      // a decoder layer: (used, keys and values of all heads)
    std::vector<Hypothesis> running, done;
};

struct Room {  // buffers that every step uses again
    Bytes bytes;
    std::vector<float> x, projected, read, scores;

    void fit(int64_t slots) {
        if ((int64_t)scores.size() < up(slots, 16)) scores.resize(up(slots, 16));
    }
};

inline void grow(std::vector<float>& room, int64_t size) {
    if ((int64_t)room.size() < size) room.resize(size);
}

inline void feed_forward(const Network& n, const FeedForward& f, int64_t rows, float* x, Room& room) {
    normalise(x, rows, n.d_model, f.norm, n.eps, room.bytes);
    grow(room.projected, rows * f.wi.outputs);
    linear(room.bytes, f.wi, room.projected.data());
    for (int64_t r = 0; r < rows; r++) activate(room.projected.data() + r * f.wi.outputs, n.d_ff, n.activation);
    quantise(room.projected.data(), rows, n.d_ff, f.wi.outputs, room.bytes);
    add_linear(room.bytes, f.wo, x);
}

// room.read (rows, inner) → added to x through the output projection.
inline void merge(const Network& n, const Linear& out, int64_t rows, float* x, Room& room) {
    quantise(room.read.data(), rows, n.inner(), n.inner(), room.bytes);
    add_linear(room.bytes, out, x);
}

// Vectors of sources one after the other; source i has those from starts[i] to starts[i + 1]. In place.
inline void encode(const Network& n, const int64_t* starts, int64_t sources, float* x, Room& room) {
    const int64_t rows = starts[sources] - starts[0], inner = n.inner();
    grow(room.read, rows * inner);
    for (int64_t l = 0; l < n.encoder_layers; l++) {
        const EncoderLayer& layer = n.encoder[l];
        normalise(x, rows, n.d_model, layer.norm, n.eps, room.bytes);
        grow(room.projected, rows * 3 * inner);
        linear(room.bytes, layer.qkv, room.projected.data());
        for (int64_t i = 0; i < sources; i++) {
            const int64_t start = starts[i] - starts[0], count = starts[i + 1] - starts[i];
            room.fit(count);
            const float* qkv = room.projected.data() + start * 3 * inner;
            for (int64_t h = 0; h < n.heads; h++) {
                const float* bias = n.encoder_distances + h * (2 * n.longest - 1) + n.longest - 1;
                const Slots<float> slots{qkv + inner + h * n.d_kv, qkv + 2 * inner + h * n.d_kv, 3 * inner, count,
                                         nullptr};
                for (int64_t q = 0; q < count; q++)
                    attend(qkv + q * 3 * inner + h * n.d_kv, slots, n.d_kv, bias - q, room.scores.data(),
                           room.read.data() + (start + q) * inner + h * n.d_kv);
            }
        }
        merge(n, layer.out, rows, x, room);
        feed_forward(n, layer.feedforward, rows, x, room);
    }
    for (int64_t r = 0; r < rows; r++)
        normalise_row(x + r * n.d_model, n.d_model, n.encoder_norm, n.eps, x + r * n.d_model);
}

// Encoder output x of one source → its cross keys and values in every decoder layer.
inline void remember(const Network& n, const float* x, Source& source, Room& room) {
    quantise(x, source.slots, n.d_model, n.d_model, room.bytes);
    source.memory.resize(n.decoder_layers);
    source.cache.resize(n.decoder_layers);
    for (int64_t l = 0; l < n.decoder_layers; l++) {
        const int64_t size = source.slots * 2 * n.inner();
        grow(room.projected, size);
        linear(room.bytes, n.decoder[l].keys_values, room.projected.data());
        source.memory[l].resize(size);
        store(room.projected.data(), size, source.memory[l].data());
    }
}

// Each row is a hypothesis that goes on, in the order of the sources.
struct Row {
    Source* source;
    Hypothesis* hypothesis;
};

inline void self_attention(const Network& n, int64_t l, const std::vector<Row>& rows, float* x, Room& room) {
    const int64_t inner = n.inner(), count = rows.size();
    const DecoderLayer& layer = n.decoder[l];
    normalise(x, count, n.d_model, layer.norm, n.eps, room.bytes);
    grow(room.projected, count * 3 * inner);
    linear(room.bytes, layer.qkv, room.projected.data());
    for (int64_t r = 0; r < count; r++) {
        const float* qkv = room.projected.data() + r * 3 * inner;
        const Hypothesis& hypothesis = *rows[r].hypothesis;
        std::vector<bf16>& cache = rows[r].source->cache[l];
        cache.resize(cache.size() + 2 * inner);
        store(qkv + inner, 2 * inner, cache.data() + cache.size() - 2 * inner);
        const int64_t length = hypothesis.places.size();
        room.fit(length);
        for (int64_t h = 0; h < n.heads; h++) {
            const Slots<bf16> slots{cache.data() + h * n.d_kv, cache.data() + inner + h * n.d_kv, 2 * inner, length,
                                    hypothesis.places.data()};
            attend(qkv + h * n.d_kv, slots, n.d_kv, n.decoder_distances + (h + 1) * n.steps - length,
                   room.scores.data(), room.read.data() + r * inner + h * n.d_kv);
        }
    }
    merge(n, layer.out, count, x, room);
}

inline void cross_attention(const Network& n, int64_t l, const std::vector<Row>& rows, float* x, Room& room) {
    const int64_t inner = n.inner(), count = rows.size();
    const DecoderLayer& layer = n.decoder[l];
    normalise(x, count, n.d_model, layer.cross_norm, n.eps, room.bytes);
    grow(room.projected, count * inner);
    linear(room.bytes, layer.query, room.projected.data());
    for (int64_t r = 0; r < count; r++) {
        const Source& source = *rows[r].source;
        const bf16* memory = source.memory[l].data();
        room.fit(source.slots);
        for (int64_t h = 0; h < n.heads; h++) {
            const Slots<bf16> slots{memory + h * n.d_kv, memory + inner + h * n.d_kv, 2 * inner, source.slots, nullptr};
            const int64_t at = r * inner + h * n.d_kv;
            attend(room.projected.data() + at, slots, n.d_kv, nullptr, room.scores.data(), room.read.data() + at);
        }
    }
    merge(n, layer.cross_out, count, x, room);
}

// The last token of every row, given its ancestors' → room.bytes, the states before the head.
inline void decode(const Network& n, const std::vector<Row>& rows, int32_t start_id, Room& room) {
    const int64_t count = rows.size();
    grow(room.x, count * n.d_model);
    grow(room.read, count * n.inner());
    for (int64_t r = 0; r < count; r++) {
        Hypothesis& hypothesis = *rows[r].hypothesis;
        const int32_t token = hypothesis.tokens.empty() ? start_id : hypothesis.tokens.back();
        float* x = room.x.data() + r * n.d_model;
        std::memcpy(x, n.embedding + token * n.d_model, n.d_model * sizeof(float));
        if (n.places)
            for (int64_t i = 0; i < n.d_model; i++) x[i] += n.places[hypothesis.tokens.size() * n.d_model + i];
        hypothesis.places.push_back(rows[r].source->used++);
    }
    for (int64_t l = 0; l < n.decoder_layers; l++) {
        self_attention(n, l, rows, room.x.data(), room);
        cross_attention(n, l, rows, room.x.data(), room);
        feed_forward(n, n.decoder[l].feedforward, count, room.x.data(), room);
    }
    normalise(room.x.data(), count, n.d_model, n.decoder_norm, n.eps, room.bytes);
}

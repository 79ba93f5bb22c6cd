// What Python calls (generation/engine/search.py): pack weights, search a set of sources.

#include "search.h"

#include <exception>

extern "C" {

// How finely activations are rounded: what the largest of a row becomes.
float sourcewise_largest() { return LARGEST; }

void sourcewise_pack(const float* weights, int64_t outputs, int64_t inputs, uint8_t* bytes, float* scales) {
    pack(weights, outputs, inputs, bytes, scales);
}

// The best hypothesis of each source: tokens (count, steps) with the end of text, how many, and their score.
// `done` counts sources as they finish; the search stops early when `stop` is set. Not 0: memory ran out.
int32_t sourcewise_search(const Network* network, const float* vectors, const int64_t* starts, int64_t count,
                          const Options* options, int32_t* tokens, int64_t* lengths, float* scores,
                          std::atomic<int64_t>* done, const std::atomic<int64_t>* stop) try {
    search(*network, vectors, starts, count, *options, stop, [&](const Source& source) {
        const Hypothesis& best = source.done[0];
        std::copy(best.tokens.begin(), best.tokens.end(), tokens + source.name * options->steps);
        lengths[source.name] = best.tokens.size();
        scores[source.name] = best.score;
        done->fetch_add(1, std::memory_order_relaxed);
    });
    return 0;
} catch (const std::exception&) {
    return 1;
}

}  // extern "C"

// Greedy and beam search, hypothesis for hypothesis as generation/sampling.py and generation/beam.py do it.
//
// Sources enter as others leave, so that the rows of every product stay many.
#pragma once

#include <atomic>

#include "network.h"

struct Options {
    int64_t beams, steps, least;  // `least`: the end of text is barred before so many tokens
    float length_penalty;
    int32_t start_id, end_id;
    int64_t encoded;  // the vectors are the encoder's output already
};

constexpr int64_t MOST_ROWS = 192;     // hypotheses in one step of the decoder
constexpr int64_t ENTERING = 16;       // sources that enter together, if there are so many
constexpr int64_t ENTERING_SLOTS = 4096;

// The most likely tokens of one row and ln Σ exp of all, while its logits pass by.
struct Likeliest {
    std::vector<std::pair<float, int32_t>> best;  // best first
    Floats sum;
    float top, least;  // of `best`: what is not above it is not looked at

    void start(int64_t count) {
        best.assign(count, {-INFINITY, -1});
        sum = all(0);
        top = least = -INFINITY;
    }

    // A barred token is never among the best; it counts in the sum where `counted`.
    template <class Logits>
    void see(int64_t column, int64_t count, const Logits& logits, int32_t barred, bool counted) {
        constexpr int PARTS = COLUMNS / LANES;
        Floats v[PARTS], high = all(-INFINITY);
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; j++) v[j] = logits[j];
        if (count < COLUMNS)
            for (int j = 0; j < PARTS; j++) v[j] = some(v[j], count - LANES * j);
        if (!counted && barred >= column && barred < column + COLUMNS) {
            const int64_t at = barred - column;
            v[at / LANES] = without(v[at / LANES], at % LANES);
        }
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; j++) high = most(high, v[j]);
        if (above(high, least)) {
            const float best = highest(high);
            if (best > top) {
                if (top > -INFINITY) sum = sum * exponential(all(top - best));
                top = best;
            }
            for (int j = 0; j < PARTS; j++) insert(column + LANES * j, v[j], barred);
        }
        const Floats against = all(top);
#pragma GCC unroll 4
        for (int j = 0; j < PARTS; j++)
            if (LANES * j < count) sum = sum + exponential(v[j] - against);
    }

    void insert(int64_t column, const Floats& v, int32_t barred) {
        uint32_t better = above(v, least);
        if (!better) return;
        float values[LANES];
        store(values, v);
        for (; better; better &= better - 1) {
            const int i = __builtin_ctz(better);
            if (values[i] > least && column + i != barred) insert(values[i], (int32_t)(column + i));
        }
    }

    void insert(float value, int32_t token) {
        size_t at = best.size() - 1;
        for (; at > 0 && best[at - 1].first < value; at--) best[at] = best[at - 1];
        best[at] = {value, token};
        least = best.back().first;
    }

    float normaliser() const { return top + std::log(total(sum)); }
};

struct Candidate {
    float total;  // Σ ln p
    const Hypothesis* before;
    int32_t token;
};

inline Hypothesis extended(const Candidate& c, float score) {
    Hypothesis out = *c.before;
    out.tokens.push_back(c.token);
    out.score = score;
    return out;
}

// Keep the best `beams` finished ones, best first.
inline void finish(Source& source, Hypothesis&& hypothesis, int64_t beams) {
    auto at = source.done.begin();
    while (at != source.done.end() && at->score >= hypothesis.score) ++at;
    source.done.insert(at, std::move(hypothesis));
    if ((int64_t)source.done.size() > beams) source.done.pop_back();
}

// One greedy token; false when the source is done.
inline bool advance_greedily(Source& source, const Likeliest& found, const Options& o) {
    Hypothesis& h = source.running[0];
    const auto [value, token] = found.best[0];
    h.score += token >= 0 ? value - found.normaliser() : NAN;  // nothing but NaN: whoever asked is told
    h.tokens.push_back(token >= 0 ? token : o.end_id);
    if (h.tokens.back() != o.end_id && (int64_t)h.tokens.size() < o.steps) return true;
    source.done.push_back(std::move(h));
    return false;
}

// One token of every beam; false when no beam can do better than what is finished.
inline bool advance_beams(Source& source, const Likeliest* found, const Options& o) {
    std::vector<Candidate> all;
    for (size_t h = 0; h < source.running.size(); h++) {
        const float normaliser = found[h].normaliser();
        for (auto [value, token] : found[h].best)
            if (token >= 0) all.push_back({source.running[h].score + value - normaliser, &source.running[h], token});
    }
    std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.total > b.total; });
    all.resize(std::min<size_t>(all.size(), 2 * o.beams));
    const int64_t length = source.running[0].tokens.size() + 1;
    const float scale = std::pow((float)length, o.length_penalty);
    std::vector<Hypothesis> next;
    for (int64_t i = 0; i < (int64_t)all.size(); i++) {
        const bool ended = all[i].token == o.end_id || length == o.steps;
        // Only the best `beams` candidates may finish; the others are spare ones to go on with.
        if (ended && i < o.beams) finish(source, extended(all[i], all[i].total / scale), o.beams);
        if (!ended && (int64_t)next.size() < o.beams) next.push_back(extended(all[i], all[i].total));
    }
    if (next.empty() && source.done.empty()) {  // nothing but NaN: whoever asked is told
        source.done.push_back(source.running[0]);
        source.done[0].score = NAN;
    }
    source.running = std::move(next);
    if (source.running.empty()) return false;
    return (int64_t)source.done.size() < o.beams || source.running[0].score / scale > source.done.back().score;
}

// All sources given, until each has its best hypothesis in `done[0]`; `finished` is told of each, `stop` is looked at.
template <class Finished>
void search(const Network& n, const float* vectors, const int64_t* starts, int64_t count, const Options& o,
            const std::atomic<int64_t>* stop, const Finished& finished) {
    std::vector<Source> open;
    std::vector<Likeliest> likeliest;
    Room room;
    const int64_t most = std::max<int64_t>(1, MOST_ROWS / o.beams);
    int64_t next = 0;
    while ((next < count || !open.empty()) && !stop->load(std::memory_order_relaxed)) {
        while (next < count && (open.empty() || most - (int64_t)open.size() >= std::min(ENTERING, count - next))) {
            int64_t end = next + 1;
            while (end < count && end - next < most - (int64_t)open.size() &&
                   starts[end + 1] - starts[next] <= ENTERING_SLOTS)
                end++;
            std::vector<float> x(vectors + starts[next] * n.d_model, vectors + starts[end] * n.d_model);
            if (!o.encoded) encode(n, starts + next, end - next, x.data(), room);
            for (const int64_t from = starts[next]; next < end; next++) {
                Source source;
                source.name = next, source.slots = starts[next + 1] - starts[next];
                source.running.resize(1);
                remember(n, x.data() + (starts[next] - from) * n.d_model, source, room);
                open.push_back(std::move(source));
            }
        }
        std::vector<Row> rows;
        for (Source& source : open)
            for (Hypothesis& hypothesis : source.running) rows.push_back({&source, &hypothesis});
        decode(n, rows, o.start_id, room);
        likeliest.resize(std::max(likeliest.size(), rows.size()));
        for (size_t r = 0; r < rows.size(); r++)
            likeliest[r].start(o.beams > 1 ? std::min(2 * o.beams, n.head.outputs) : 1);
        product(room.bytes, n.head, [&](int64_t row, int64_t column, int64_t count, const auto& v) {
            const bool early = (int64_t)rows[row].hypothesis->tokens.size() < o.least;
            likeliest[row].see(column, count, v, early ? o.end_id : -1, o.beams > 1);
        });
        size_t row = 0, kept = 0;
        for (size_t i = 0; i < open.size(); i++) {
            const Likeliest* found = &likeliest[row];
            row += open[i].running.size();
            const bool going_on =
                o.beams == 1 ? advance_greedily(open[i], *found, o) : advance_beams(open[i], found, o);
            if (!going_on) finished(open[i]);
            else if (kept++ != i) open[kept - 1] = std::move(open[i]);
        }
        open.resize(kept);
    }
}

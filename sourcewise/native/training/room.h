// Memory that compiled code works in.

#pragma once

#include <cstdlib>

struct Room {  // grows, and is used again by the next call of its thread
    void* at = nullptr;
    size_t size = 0;

    void* of(size_t bytes) {
        if (bytes > size) {
            std::free(at);
            size = (bytes + 4095) / 4096 * 4096;
            at = std::aligned_alloc(64, size);
            if (!at) size = 0;
        }
        return at;
    }
    ~Room() { std::free(at); }
};

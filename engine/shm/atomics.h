/* Ordered loads and stores on words that two processes share, and a prefetch. The only C of the hot path. */
#ifndef OTUS_ATOMICS_H
#define OTUS_ATOMICS_H

typedef unsigned long long otus_word;

static inline otus_word otus_load(const otus_word *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline otus_word otus_peek(const otus_word *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void otus_store(otus_word *word, otus_word value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline otus_word otus_add(otus_word *word, otus_word value) { return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL); }
static inline int otus_swap(otus_word *word, otus_word old, otus_word value) {
    return __atomic_compare_exchange_n(word, &old, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline void otus_fence(void) { __atomic_thread_fence(__ATOMIC_ACQ_REL); }
static inline void otus_prefetch(const void *place) { __builtin_prefetch(place); }
static inline unsigned int otus_load32(const unsigned int *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void otus_store32(unsigned int *word, unsigned int value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

#endif

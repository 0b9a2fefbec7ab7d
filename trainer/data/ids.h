/* ids.h - a row of token ids that grows. */
#ifndef TRAIN_IDS_H
#define TRAIN_IDS_H

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/* Zero-initialise; free with ids_free. */
struct ids {
    int32_t *at;
    size_t count, room;
};

static inline kr_status ids_add(struct ids *l, const int32_t *id, size_t count)
{
    TRY(mem_grow(&l->at, &l->room, l->count + count, sizeof *l->at, "tokens"));
    if (count) memcpy(l->at + l->count, id, count * sizeof *id);
    l->count += count;
    return KR_OK;
}

static inline void ids_free(struct ids *l)
{
    mem_free(l->at);
    *l = (struct ids){ 0 };
}

#endif

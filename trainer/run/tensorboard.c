/* tensorboard.c - the little of protobuf that scalars need. */
#include "trainer/run/tensorboard.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct tensorboard {
    FILE *file;
    char path[FS_PATH];
    bool warned;
};

/* Bytes under construction; `full` sticks. */
struct bytes {
    uint8_t *at;
    size_t len, room;
    bool full;
};

/* CRC-32C (Castagnoli), reflected, bit by bit: a few hundred bytes per step. */
static uint32_t crc32c(const uint8_t *at, size_t len)
{
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < len; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

static uint32_t masked_crc(const uint8_t *at, size_t len)
{
    uint32_t crc = crc32c(at, len);

    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put(struct bytes *b, const void *from, size_t len)
{
    if (b->full || len > b->room - b->len) {
        b->full = true;
        return;
    }
    memcpy(b->at + b->len, from, len);
    b->len += len;
}

static void put_varint(struct bytes *b, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));

        put(b, &byte, 1);
        v >>= 7;
    } while (v);
}

/* wire: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes */
static void put_key(struct bytes *b, unsigned field, unsigned wire)
{
    put_varint(b, field << 3 | wire);
}

static void put_bytes(struct bytes *b, unsigned field, const void *from, size_t len)
{
    put_key(b, field, 2);
    put_varint(b, len);
    put(b, from, len);
}

/* Summary.Value: 1 tag, 2 float simple_value */
static void put_scalar(struct bytes *summary, const struct tensorboard_scalar *s)
{
    uint8_t room[256];
    struct bytes value = { room, 0, sizeof room, false };
    float narrow = (float)s->value;

    put_bytes(&value, 1, s->tag, strlen(s->tag));
    put_key(&value, 2, 5);
    put(&value, &narrow, sizeof narrow);
    summary->full |= value.full;
    put_bytes(summary, 1, room, value.len);
}

/* Event: 1 double wall_time, 2 int64 step, 3 string file_version, 5 Summary */
static void put_event(struct bytes *b, double wall, int64_t step,
                      const struct tensorboard_scalar *scalars, int count)
{
    uint8_t room[2048];
    struct bytes summary = { room, 0, sizeof room, false };

    put_key(b, 1, 1);
    put(b, &wall, sizeof wall);
    if (!scalars) {
        put_bytes(b, 3, "brain.Event:2", 13);
        return;
    }
    if (step) {
        put_key(b, 2, 0);
        put_varint(b, (uint64_t)step);
    }
    for (int i = 0; i < count; i++)
        put_scalar(&summary, &scalars[i]);
    b->full |= summary.full;
    put_bytes(b, 5, room, summary.len);
}

size_t tensorboard_record(uint8_t *out, size_t room, double wall, int64_t step,
                          const struct tensorboard_scalar *scalars, int count)
{
    enum { HEAD = 12, TAIL = 4 };
    struct bytes event = { out + HEAD, 0, room < HEAD + TAIL ? 0 : room - HEAD - TAIL,
                           room < HEAD + TAIL };
    uint64_t len;
    uint32_t crc;

    put_event(&event, wall, step, scalars, count);
    if (event.full) return 0;
    len = event.len;
    memcpy(out, &len, sizeof len);
    crc = masked_crc(out, sizeof len);
    memcpy(out + sizeof len, &crc, sizeof crc);
    crc = masked_crc(out + HEAD, event.len);
    memcpy(out + HEAD + event.len, &crc, sizeof crc);
    return HEAD + event.len + TAIL;
}

static void add(struct tensorboard *t, double wall, int64_t step,
                const struct tensorboard_scalar *scalars, int count)
{
    uint8_t record[4096];
    size_t len = tensorboard_record(record, sizeof record, wall, step, scalars, count);

    if (len && fwrite(record, 1, len, t->file) == len && fflush(t->file) == 0) return;
    if (!t->warned) LOG_WARNING("%s: cannot write; training goes on", t->path);
    t->warned = true;
}

kr_status tensorboard_open(struct tensorboard **out, const char *folder)
{
    struct tensorboard *t = NULL;
    char host[64] = "host";

    (void)gethostname(host, sizeof host - 1);
    TRY(fs_mkdirs(folder));
    TRY(mem_alloc(&t, 1, sizeof *t, "TensorBoard writer"));
    if (fs_path(t->path, "%s/events.out.tfevents.%010.0f.%s.%d", folder, clock_wall(),
                host, (int)getpid()) != KR_OK ||
        !(t->file = fopen(t->path, "ab"))) {
        LOG_WARNING("%s: cannot open; no TensorBoard events", t->path);
        mem_free(t);
        return KR_ERR_IO;
    }
    add(t, clock_wall(), 0, NULL, 0);
    *out = t;
    return KR_OK;
}

void tensorboard_close(struct tensorboard *t)
{
    if (!t) return;
    fclose(t->file);
    mem_free(t);
}

void tensorboard_add(struct tensorboard *t, double wall, int64_t step,
                     const struct tensorboard_scalar *scalars, int count)
{
    if (t) add(t, wall, step, scalars, count);
}
